"""A tree of DICOM files and NIfTI volumes: read, and divided into studies."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from data_prep.names import folder_id, numbered
from data_prep.problems import Reason, Rejection
from data_prep.read.acquisitions import are_parts_of_one
from data_prep.read.entry import StudyEntry, identifier, read_headers
from data_prep.read.grouping import Group, studies_among
from data_prep.read.listing import (
    Others,
    hidden_folder,
    image_files,
    is_number,
    is_shadow,
    natural_order,
    unreadable_folder,
)
from data_prep.read.nifti_sidecar import is_nifti
from data_prep.read.nifti_studies import VolumeStudy, is_raw, note_of_nobody_else, volume_studies
from data_prep.read.parts import Found
from data_prep.read.series_table import SeriesTable
from data_prep.read.slice_header import SliceHeader

# Series of one study; a study with more is no examination of a spine.
_MOST_COMPARED = 64
# So many folders or identifiers of one image each are no series each.
_AN_IMAGE_EACH = 8
_Key = TypeVar("_Key", bound=Hashable)
_MAX_BYTES = 64 * 1024 * 1024
# Directory Record Type IMAGE and Referenced File ID, which follows it (PS3.3 section F.5); DICOMDIRs are in
# Explicit VR Little Endian, so the two are found without parsing what is around them.
_IMAGE = re.compile(rb"\x04\x00\x30\x14CS\x06\x00IMAGE \x04\x00\x00\x15CS(..)", re.DOTALL)
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class Tree:
    """What is read of a tree of files, before it is divided into studies."""

    def __init__(self, top: Path) -> None:
        self.unreadable: list[Path] = []
        self.hidden: list[Path] = []
        self._top = top
        self._found: list[Found] = []
        self._rejected: list[tuple[Path, Rejection]] = []
        self._others = Others()
        self._volumes: list[Path] = []
        self._empty: list[Path] = []
        self._read: set[Path] = set()
        self._known = 0
        self._not_raw: list[Path] = []

    def read(self, files: Iterable[Path], inside: Path | None = None) -> None:
        """Read the headers of all images; ``inside`` is a folder that is a study even if it has none."""
        files = [file for file in files if self._is_new(file) and not is_shadow(file)]
        self._not_raw += [file for file in files if not is_raw(file, self._top)]
        files = [file for file in files if is_raw(file, self._top)]
        self._volumes += [file for file in files if is_nifti(file)]
        before = self.count
        for file in image_files(files, self._others):
            rejections: list[Rejection] = []
            headers = read_headers([file], rejections, others=self._others)
            self._rejected += [(file.parent, rejection) for rejection in rejections]
            self._found += [Found(header, self._place(file.parent)) for header in headers]
        for file in filter(is_dicomdir, files):
            if (missing := missing_images(file, files)) is not None:
                self._rejected.append((file.parent, missing))
        nothing = before == self.count
        if inside is not None and inside != self._top and nothing:
            self._empty.append(inside)

    def _is_new(self, file: Path) -> bool:
        """Whether no path that was read before holds it, too."""
        is_new = file not in self._read
        self._read.add(file)
        self._known += not is_new
        return is_new

    @property
    def count(self) -> int:
        """How much was found so far, once more or for the first time."""
        images = len(self._found) + len(self._volumes)
        return self._known + images + len(self._rejected) + len(self._others.found)

    def _place(self, folder: Path) -> tuple[str, ...]:
        if folder.is_relative_to(self._top):
            return folder.relative_to(self._top).parts
        return folder.parts[1:]  # where a link has led

    def entries(self, table: SeriesTable, kept_ids: frozenset[str] = frozenset()) -> tuple[StudyEntry, ...]:
        """The studies, and one for each folder of which nothing can be read; ``kept_ids`` are taken."""
        read = [*(item.header.path for item in self._found), *self._volumes]
        note_of_nobody_else(self._not_raw, read, self._others)
        rejected = [*self._rejected, *self._others.rejections]
        rejected += [(folder, unreadable_folder(folder)) for folder in self.unreadable]
        rejected += [(folder.parent, hidden_folder(folder)) for folder in self.hidden]
        groups = self._renamed(studies_among(self._found, self._top.name), kept_ids)
        below: dict[Path, set[str]] = defaultdict(set)
        for group in groups:
            places = {item.place for item in group.found} or {()}
            for place in places:
                folder = self._top.joinpath(*place)
                for around in (folder, *folder.parents):
                    below[around].add(group.study_id)
        volumes = volume_studies(self._volumes, top=self._top)
        for volume in volumes:
            for around in {up for place in volume.folders for up in (place, *place.parents)}:
                below[around].add(volume.study_id)
        by_study: dict[str, list[Rejection]] = defaultdict(list)
        for group in groups:
            by_study[group.study_id] += group.rejections
        for folder, rejection in rejected:
            study_id = _study_of_folder(folder, below) if below else folder_id(self._top.name) or "study"
            by_study[study_id].append(replace(rejection, study_id=study_id))
        by_group = {group.study_id: group for group in groups}
        of_volumes = []
        for volume in volumes:
            beside = () if volume.study_id in by_group else by_study.pop(volume.study_id, ())
            of_volumes.append(entry_of_volumes(volume, by_group, table, beside))
        ids = {*by_group, *by_study, *(folder_id(path.name) for path in self._empty)}
        of_dicom = [
            StudyEntry(
                study_id,
                headers=_by_series(by_group[study_id].found) if study_id in by_group else {},
                rejections=tuple(by_study.get(study_id, ())),
                flags=by_group[study_id].flags if study_id in by_group else (),
                kinds=table.get(study_id, {}),
            )
            for study_id in ids
        ]
        return tuple(sorted((*of_dicom, *of_volumes), key=lambda entry: natural_order(entry.study_id)))

    def _renamed(self, groups: tuple[Group, ...], kept_ids: frozenset[str]) -> tuple[Group, ...]:
        """A numeric folder beside RSNA studies names its study, if it holds one and no other folder does."""
        tops = [{item.place[0] for item in group.found if item.place} for group in groups]
        names = [group.study_id for group in groups]
        of_folder: set[str] = set()
        for place, own in enumerate(tops):
            (name,) = own if len(own) == 1 else ("",)
            alone = sum(name in other for other in tops) == 1
            if is_number(name) and alone and bool(kept_ids) and name not in kept_ids:
                names[place] = name
                of_folder.add(name)
        # Another's identifier may be that folder's name: it gets a number, as others of one identifier do.
        for place, name in enumerate(names):
            if name in of_folder and tops[place] != {name}:
                names[place] = numbered(name, names)
        return tuple(map(_called, groups, names))


def _called(group: Group, study_id: str) -> Group:
    rejections = tuple(replace(item, study_id=study_id) for item in group.rejections)
    return replace(group, study_id=study_id, rejections=rejections)


def _by_series(found: Iterable[Found]) -> dict[str, tuple[SliceHeader, ...]]:
    """By identifier, else by folder; parts of one stack, as concatenations are, together.

    Identifiers do not count that many images have one each of, nor folders: then the folder around them does.
    """
    series: dict[str, list[SliceHeader]] = defaultdict(list)
    found = list(found)
    identifiers = [_series_identifier(item.header) for item in found]
    once = _seen_once(identifiers)
    identifiers = ["" if name in once else name for name in identifiers]
    folders = _seen_once(
        [item.place for item, name in zip(found, identifiers, strict=True) if not name and item.place]
    )
    named = set()
    for item, name in zip(found, identifiers, strict=True):
        folder = item.place[:-1] if not name and item.place in folders else item.place
        series_id = name or (folder_id(folder[-1]) if folder else "") or "series"
        series[series_id].append(item.header)
        if name:
            named.add(series_id)
    for of_one_name in ([s for s in series if s in named], [s for s in series if s not in named]):
        for one, other in combinations(of_one_name[:_MOST_COMPARED], 2):
            if one in series and other in series and are_parts_of_one(series[one], series[other]):
                series[one] += series.pop(other)
    return {series_id: tuple(headers) for series_id, headers in series.items()}


def _seen_once(values: Sequence[_Key]) -> set[_Key]:
    """Those of identifiers or folders that hold one image, if so many of them do that they tell nothing."""
    counts = Counter(value for value in values if value)
    once = {value for value, count in counts.items() if count == 1}
    return once if len(once) >= max(_AN_IMAGE_EACH, sum(counts.values()) / 2) else set()


def entry_of_volumes(
    volume: VolumeStudy,
    taken: Container[str],
    table: SeriesTable,
    others: Sequence[Rejection] = (),
) -> StudyEntry:
    """The study of some volumes; ``others`` are rejected files beside them."""
    study_id = f"{volume.study_id}-nifti" if volume.study_id in taken else volume.study_id
    rejections = (*others, *(replace(item, study_id=study_id) for item in volume.rejections))
    kinds = table.get(study_id, {})
    return StudyEntry(study_id, headers=volume.headers, rejections=rejections, kinds=kinds)


def _study_of_folder(folder: Path, studies_below: Mapping[Path, set[str]]) -> str:
    """The study that a folder of rejected files belongs to.

    It is the one study of the nearest folder around it that holds any. Beside several studies, a folder that
    holds none of them is taken for a study of its own, so that one whose every file is bad is not lost.
    """
    inner = folder
    while folder not in studies_below and folder != folder.parent:
        inner, folder = folder, folder.parent
    if folder not in studies_below:  # a link has led out of the tree
        return min((study for known in studies_below.values() for study in known), key=natural_order)
    known = studies_below[folder]
    if len(known) == 1 or inner == folder:
        return min(known, key=natural_order)
    return folder_id(inner.name)


def _series_identifier(header: SliceHeader) -> str:
    """SeriesInstanceUID. The RSNA files write ``{study}.{series}`` there; the table knows the second part."""
    uid = header.series_uid
    if is_number(header.study_uid):
        uid = uid.removeprefix(f"{header.study_uid}.")
    return identifier(uid)


def is_dicomdir(path: Path) -> bool:
    """Whether a file is called so."""
    return path.name.lower() == "dicomdir"


def missing_images(path: Path, files: Iterable[Path]) -> Rejection | None:
    """What is to be said of a DICOMDIR that names images which are not there; None if nothing.

    Nothing is said of one that none of the files belongs to.

    Args:
        files: of the tree that it lies in.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        named = set(_named(path.read_bytes()))
    except OSError:
        return None
    here = {
        tuple(part.casefold() for part in file.relative_to(path.parent).parts)
        for file in files
        if file.is_relative_to(path.parent)
    }
    missing = named - here
    if not missing or missing == named:
        return None
    message = f"it names {len(named)} images, and {len(missing)} of them are not here"
    return Rejection.of(path, Reason.LISTED_FILES, message)


def _named(content: bytes) -> Iterable[tuple[str, ...]]:
    for found in _IMAGE.finditer(content):
        size = int.from_bytes(found[1], "little")
        text = content[found.end() : found.end() + size].decode("latin-1").strip("\0 ")
        parts = text.split("\\")
        if all(map(_PART.fullmatch, parts)):
            yield tuple(part.casefold() for part in parts)
