"""Which images of a tree are one study's: identifiers, dates, folders and geometry, none of them alone.

- StudyInstanceUID joins, unless patient or date disagree, or two folders look like an examination each.
- Without it a folder is a study; series folders that complement each other are one.
- Images whose StudyInstanceUID differs per series or per file are one study where they share the patient and
  the folder and complement each other; where they do not, or nobody says whose they are, that is said.
- What contradicts itself is left out by name: a patient is never mixed, and never lost without a word.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import combinations

import numpy as np

from data_prep.names import folder_id, numbered, safe_id
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.acquisitions import Acquisition, acquisitions_of, conflict, conflicts
from data_prep.read.dicom_file import read_pixels
from data_prep.read.identity import clusters, disagree, identity_of, real_patient_id
from data_prep.read.parts import (
    MANY,
    Found,
    Part,
    fit,
    fragments_joined,
    grouped,
    say,
    say_of_pieces,
    studies_completed,
)
from data_prep.read.slice_header import SliceHeader
from data_prep.vocabulary import Flag

_STRAY_SHARE = 1 / 3
_HOME_SHARE = 0.9
_TWICE = "its images show much of it twice, as of two examinations: put each into a folder of its own"
_NOT_TOLD_APART = "images of what may be two patients or examinations, and nothing tells them apart"


@dataclass(frozen=True, eq=False)
class Group:
    """One study of a tree; without images, one that is named because nothing of it can be used."""

    study_id: str
    found: tuple[Found, ...]
    rejections: tuple[Rejection, ...] = ()
    flags: tuple[str, ...] = ()


def studies_among(found: Sequence[Found], top_name: str) -> tuple[Group, ...]:
    """Divide the images of a tree into studies, the one that comes first in the tree first.

    Args:
        found: in the order of the tree.
        top_name: of the folder that was given, for a study that lies directly in it.
    """
    found, contradictory = _without_contradictions(found)
    parts = [
        part for group in grouped(found, lambda f: f.header.study_uid).values() for part in _apart(group)
    ]
    contradictory += _without_strays(parts)
    parts = studies_completed(fragments_joined([part for part in parts if part.found]))
    parts = [apart for part in parts for apart in _told_apart(part)]
    order = {id(item): place for place, item in enumerate(found)}
    parts.sort(key=lambda part: min(order[id(item)] for item in part.found))
    say_of_pieces([part for part in parts if not part.is_refused])
    _name_contradictions(parts, contradictory)
    return _named(parts, top_name)


def _without_contradictions(found: Sequence[Found]) -> tuple[list[Found], list[Found]]:
    """Images left, and those whose PatientID and StudyInstanceUID mostly belong to two others."""
    counts = Counter((real_patient_id(f.header), f.header.study_uid) for f in found)
    main: dict[tuple[int, str], tuple[int, str]] = {}
    for (patient, uid), count in counts.items():
        if patient and uid:
            for key, other in (((0, patient), uid), ((1, uid), patient)):
                main[key] = max(main.get(key, (0, "")), (count, other))
    kept: list[Found] = []
    left_out: list[Found] = []
    for item in found:
        patient, uid = real_patient_id(item.header), item.header.study_uid
        strange = patient and uid and main[0, patient][1] != uid and main[1, uid][1] != patient
        (left_out if strange else kept).append(item)
    return kept, left_out


def _apart(found: list[Found]) -> list[Part]:
    """Images with one StudyInstanceUID, or with none, as far as patient, date and folders allow."""
    if not found[0].header.study_uid:
        return _climbed(found, 0)
    number = clusters([identity_of(f.header) for f in found])
    groups = grouped(found, lambda f: number[identity_of(f.header)]).values()
    parts = [part for group in groups for part in _branches_apart(group)]
    message = ""
    if len(groups) > 1 and not any(disagree(a.patient, b.patient) for a in parts for b in parts):
        message = "its images have one StudyInstanceUID and several dates: each date is graded by itself"
    elif len(groups) > 1 and _share_a_series(parts):
        message = "images of one series name several patients: those of each are graded by themselves"
    if message:
        for part in parts:
            part.rejections.append(Rejection(Reason.STUDY_DIVIDED, message))
    return parts


def _share_a_series(parts: list[Part]) -> bool:
    uids = [{header.series_uid for header in part.headers} - {""} for part in parts]
    return len(set().union(*uids)) < sum(map(len, uids))


def _branches_apart(found: list[Found]) -> list[Part]:
    """Folders that look like an examination each are one each, whatever identifier they share."""
    depth = 0
    while len({item.place[: depth + 1] for item in found}) == 1 and len(found[0].place) > depth:
        depth += 1
    branches = [Part(branch) for branch in grouped(found, lambda f: f.place[depth : depth + 1]).values()]
    groups: list[list[Part]] = []
    for branch in sorted(branches, key=lambda part: -len(part.found)):
        acquired = acquisitions_of(branch.headers)
        wholes = [
            group
            for group in groups
            if len({item.label for item in acquired}) > 1
            and any(_look_like_two(acquisitions_of(other.headers), acquired) for other in group)
        ]
        fitting = [group for group in groups if group not in wholes]
        if fitting:
            fitting[0].append(branch)
        else:
            groups.append([branch])
    if len(groups) == 1:
        return [Part(found)]
    return [part for group in groups for part in _branches_apart([f for one in group for f in one.found])]


def _look_like_two(a: list[Acquisition], b: list[Acquisition]) -> bool:
    """Whether two folders show the same with two contrasts or planes at least."""
    return len(conflicts([a, b])) > 1


def _climbed(found: list[Found], depth: int) -> list[Part]:
    """Images without StudyInstanceUID, folder by folder from the innermost one."""
    inner = grouped(found, lambda f: f.place[depth : depth + 1])
    own = inner.pop((), [])
    number = clusters([identity_of(f.header) for f in own])
    parts = [Part(group) for group in grouped(own, lambda f: number[identity_of(f.header)]).values()]
    for children in inner.values():
        parts += _climbed(children, depth + 1)
    return _complementing(parts)


def _complementing(parts: list[Part]) -> list[Part]:
    """Folders of one patient as one study, where they are series folders and complement each other."""
    if len(parts) < 2:
        return parts
    number = clusters([part.identity for part in parts])
    result = []
    for group in grouped(parts, lambda part: number[part.identity]).values():
        names = {(part.identity.patient_id or part.identity.name_digest) for part in group}
        linked = len(names) == 1 and "" not in names
        single = all(len(part.labels) == 1 for part in group)
        if len(group) > 1 and (linked or single) and fit([part.headers for part in group]):
            result.append(
                Part([item for part in group for item in part.found], is_joined_by_folder=not linked)
            )
        else:
            result += group
    return result


def _without_strays(parts: list[Part]) -> list[Found]:
    """Take out images that belong to the series, or lie in the folder, of another study than they name."""
    homes: dict[Hashable, Counter[int]] = defaultdict(Counter)
    for number, part in enumerate(parts):
        for item in part.found:
            if item.header.series_uid:
                homes["series", item.header.series_uid][number] += 1
            homes["folder", item.place][number] += 1
    strays: list[Found] = []
    for number, part in enumerate(parts):
        by_leaf = Counter(item.place for item in part.found)
        kept: list[Found] = []
        for item in part.found:
            series = homes["series", item.header.series_uid]
            mine, most = series[number], max(series.values(), default=0)
            is_stray = len(series) == 2 and mine < _STRAY_SHARE * most
            folder = homes["folder", item.place]
            owner, count = folder.most_common(1)[0]
            if owner != number and folder[number] < _STRAY_SHARE * count:
                at_home = count >= _HOME_SHARE * len(parts[owner].found)
                elsewhere = by_leaf[item.place] < _STRAY_SHARE * len(part.found)
                is_stray = is_stray or (at_home and elsewhere)
            (strays if is_stray else kept).append(item)
        part.found = kept
    return strays


def _told_apart(part: Part) -> list[Part]:
    """The part, or the patients it can be divided into, or the part refused."""
    if part.is_refused:
        return [part]
    doubt = _doubt(part.headers)
    if doubt is Doubt.TWO_PATIENTS and _take_out_copies(part):
        doubt = _doubt(part.headers)
    if doubt is Doubt.NONE:
        return [part]
    keys: tuple[Callable[[Found], Hashable], ...] = (lambda f: f.header.frame_uid, lambda f: f.place)
    for key in keys:
        divided = [Part(group) for group in grouped(part.found, key).values()]
        whole = all(len(one.labels) > 1 and _doubt(one.headers) is Doubt.NONE for one in divided)
        if 1 < len(divided) <= 4 and whole:
            divided[0].rejections = part.rejections
            if doubt is Doubt.TWO_EXAMINATIONS:
                for one in divided:
                    say(one, _TWICE)
            return divided
    if doubt is Doubt.TWO_EXAMINATIONS:
        say(part, _TWICE)
    else:
        part.is_refused = True
    return [part]


def _take_out_copies(part: Part) -> bool:
    """Take out what was exported twice, the copies with identifiers of their own; whether it was.

    An image is a copy if it shows at its place, pixel for pixel, what an earlier one of its series shows:
    two patients never do. Nearly all of a part must have one.
    """

    def place(item: Found) -> Hashable:
        header = item.header
        own = header.series_uid, header.description, header.echo_time_ms
        return own, header.place, header.plane.shape

    copies: set[Found] = set()
    for group in grouped(part.found, place).values():
        for number, item in enumerate(group[1:], start=1):
            if any(_show_the_same(item, other) for other in group[:number] if other not in copies):
                copies.add(item)
    if len(copies) < _HOME_SHARE * (len(part.found) - len(copies)):
        return False
    message = "it shows what an earlier file shows, under another identifier"
    for item in part.found:
        if item in copies:
            part.rejections.append(Rejection.of(item.header.path, Reason.DUPLICATE, message))
    part.found = [item for item in part.found if item not in copies]
    return True


def _show_the_same(a: Found, b: Found) -> bool:
    try:
        pixels = read_pixels(a.header)
        return bool(pixels.min() < pixels.max()) and np.array_equal(pixels, read_pixels(b.header))
    except DicomRejected:
        return False


class Doubt(Enum):
    """What images look like that show everything, or much of it, twice."""

    NONE = 0
    TWO_EXAMINATIONS = 1
    TWO_PATIENTS = 2


def _doubt(headers: list[SliceHeader]) -> Doubt:
    """Whether the images look like those of two patients, or of two examinations of one, in one."""
    found = acquisitions_of(headers)
    if len(found) > 2 * MANY:
        found = acquisitions_of(headers, by_series=False)
    labels = {item.label for item in found}
    doubled = {item.label for item in found if item.is_doubled}
    other_grid: set[tuple[str, ...]] = set()
    same_grid: set[tuple[str, ...]] = set()
    for a, b in combinations(found, 2):
        if conflict(a, b):
            (same_grid if a.grid == b.grid else other_grid).add(a.label)
    twice = doubled | other_grid
    if len(doubled) > 1 or (len(labels) > 1 and twice == labels):
        return Doubt.TWO_PATIENTS
    if len(twice) < 2 and (len(labels) < 2 or twice | same_grid != labels):
        return Doubt.NONE
    trusted = all(any(identity_of(header)[:2]) for header in headers)
    return Doubt.TWO_EXAMINATIONS if trusted else Doubt.TWO_PATIENTS


def _name_contradictions(parts: list[Part], contradictory: list[Found]) -> None:
    """Name each image that was left out with the study of its folder, else with the first one."""
    message = "patient, study, series and folder do not all say whose image it is"
    for item in contradictory:
        near = [part for part in parts if item.place in part.leaves]
        uid = item.header.study_uid
        of_uid = [part for part in parts if any(header.study_uid == uid for header in part.headers)]
        if not parts:
            parts.append(Part([item], is_refused=True))
            continue
        part = (near or of_uid or parts)[0]
        part.rejections.append(Rejection.of(item.header.path, Reason.IDENTIFIERS, message))


def _named(parts: list[Part], top_name: str) -> tuple[Group, ...]:
    all_uids = [Counter(header.study_uid for header in part.headers if header.study_uid) for part in parts]
    names = [_name_of(part, uids, top_name) for part, uids in zip(parts, all_uids, strict=True)]
    # Results are files of that name, and many disks take upper and lower case for one.
    taken = {name.casefold() for name in names}
    seen: set[str] = set()
    groups = []
    for part, uids, study_id in zip(parts, all_uids, names, strict=True):
        if study_id.casefold() in seen:
            study_id += numbered(study_id.casefold(), taken)[len(study_id.casefold()) :]
            taken.add(study_id.casefold())
        seen.add(study_id.casefold())
        joined = part.is_joined_by_folder or (not uids and len(part.labels) > 1)
        flags = (Flag.IDENTIFIERS_MISSING,) if joined and not any(part.identity[:2]) else ()
        rejections = [replace(item, study_id=study_id) for item in part.rejections]
        if part.is_refused:
            message = f"{len(part.found)} {_NOT_TOLD_APART}"
            rejections.append(Rejection(Reason.NOT_TOLD_APART, message, study_id))
        found = () if part.is_refused else tuple(part.found)
        groups.append(Group(study_id, found, tuple(rejections), flags))
    return tuple(groups)


def _name_of(part: Part, uids: Counter[str], top_name: str) -> str:
    """The StudyInstanceUID of most images, else the folder."""
    own = min(uids, key=lambda uid: (-uids[uid], uid)) if uids else ""
    return safe_id(own.strip()) if own.strip() else _folder_of(part, top_name)


def _folder_of(part: Part, top_name: str) -> str:
    """The innermost folder that holds all of a part, as an identifier."""
    first = min(part.leaves)
    last = max(part.leaves)
    depth = 0
    while depth < min(len(first), len(last)) and first[depth] == last[depth]:
        depth += 1
    names = [name for name in (top_name, *first[:depth]) if name]
    return folder_id(names[-1]) if names else "study"
