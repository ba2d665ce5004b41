"""Which NIfTI volumes belong to one patient: by BIDS names, else by folder and the beginning of the name."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.names import folder_id, numbered, safe_id
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.listing import DICOM, Others, format_of
from data_prep.read.nifti import read_volume
from data_prep.read.nifti_sidecar import is_nifti, read_sidecar, stem_of
from data_prep.read.slice_header import SliceHeader
from data_prep.read.weighting import shown_label

# Folders of a BIDS data set that hold no raw images of it (BIDS, 'Source vs. raw vs. derived data').
_NOT_RAW = frozenset({"derivatives", "sourcedata", "code", "stimuli", "phenotype"})
_BIDS_ROOT = "dataset_description.json"
_LABEL = re.compile(r"sub-[A-Za-z0-9]+")
_SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)(?:_(ses-[A-Za-z0-9]+))?_(.+)")
# With one of these words the description of a series begins; what is before it names the patient.
_SERIES_WORD = re.compile(
    r"t1\w*|t2\w*|pd\w*|stir|tirm|tse|fse|se|space|cube|vista|flair|dixon|sag\w*|ax\w*|tra\w*|cor\w*|lumbar"
    r"|lspine|spine|lws|mri?|acq|run",
    re.IGNORECASE,
)
# Of these one at least is in the name of a folder that is a series'.
_KIND_WORD = re.compile(r"t1\w*|t2\w*|pd\w*|stir|tirm|flair|dixon|sag\w*|ax\w*|tra\w*|cor\w*", re.IGNORECASE)
# A folder with more volumes than this is a data set, whose patients may have one each.
_SERIES_OF_AN_EXAMINATION = 12
_PIECES = (
    "files that begin differently, or lie in folders of their own, show a part of an examination each: "
    "they may belong together"
)
_CODE = re.compile(r"[A-Za-z]{0,8}[-_]?\d{1,12}")


@dataclass(frozen=True, eq=False)
class VolumeStudy:
    """The volumes of one patient and session.

    Attributes:
        study_id: ``sub-01_ses-02`` of BIDS names; else the folder's name, or what names in it
            begin with.
        headers: slices by series id.
        folders: where its files lie.
        rejections: volumes that cannot be read.
    """

    study_id: str
    headers: dict[str, tuple[SliceHeader, ...]] = field(default_factory=dict)
    folders: frozenset[Path] = frozenset()
    rejections: tuple[Rejection, ...] = ()


def is_raw(path: Path, top: Path) -> bool:
    """Whether a file is no derivative or source file of a BIDS data set around it, at ``top`` or below."""
    inner = path.parent
    while inner != top and inner != inner.parent:
        if inner.name in _NOT_RAW and (inner.parent / _BIDS_ROOT).is_file():
            return False
        inner = inner.parent
    return True


def note_of_nobody_else(not_raw: Iterable[Path], read: Iterable[Path], others: Others) -> None:
    """Name images that are not raw (``is_raw``), of a subject who has no others, or of none that is named."""
    subjects = {_subject_of(path) for path in read}
    for path in not_raw:
        subject = _subject_of(path)
        if subject in subjects if subject else is_nifti(path):
            continue
        if is_nifti(path) or (format_of(path) == DICOM and not path.name.startswith(".")):
            others.note(
                path, "image outside the raw data (BIDS), of a patient who has none there", Reason.MISPLACED
            )


def _subject_of(path: Path) -> str:
    labels = (_LABEL.match(part) for part in path.parts)
    return next((label.group() for label in labels if label), "")


def volume_studies(paths: Iterable[Path], *, top: Path | None = None) -> tuple[VolumeStudy, ...]:
    """Read the headers of the volumes among ``paths``, in order, and group them by patient.

    Args:
        top: of the tree that they lie in; a folder below that is called like a series belongs to the one
            around it. None: they were named one by one.
    """
    paths = list(filter(is_nifti, paths))
    groups: dict[tuple[Path, str], list[tuple[Path, str]]] = defaultdict(list)
    folders: dict[Path, list[Path]] = defaultdict(list)
    homes = _homes({path.parent for path in paths}, top)
    for path in paths:
        named = _SUBJECT.fullmatch(stem_of(path))
        if named:
            subject, session, rest = named.groups()
            study_id = f"{subject}_{session}" if session else subject
            groups[_root_of(path, subject), study_id].append((path, rest))
        else:
            folders[homes[path.parent]].append(path)
    for folder, files in folders.items():
        for study_id, members in _divided(folder, files).items():
            groups[folder, study_id].extend(members)
    names = _unique(list(groups))
    return _with_pieces_said(
        _study(names[place], members, homes)
        for place, members in sorted(groups.items(), key=lambda item: names[item[0]])
    )


def _homes(folders: Collection[Path], top: Path | None) -> dict[Path, Path]:
    """The folder that each folder's volumes count as of: that around it, where it is called like a series.

    Not where two beside each other are called alike but for numbers: they may be two patients'.
    """
    wanted: dict[Path, list[Path]] = defaultdict(list)
    for folder in folders:
        if top is not None and folder != top and folder.is_relative_to(top) and _is_series(folder.name):
            wanted[folder.parent].append(folder)
    homes = {folder: folder for folder in folders}
    for around, series in wanted.items():
        if len({folder.name.casefold() for folder in series}) == len(series):
            homes |= dict.fromkeys(series, around)
    return homes


def _is_series(name: str) -> bool:
    """Whether a folder is called after what a series shows, and after nothing else."""
    words = re.findall(r"[^\W_]+", name)
    return any(map(_KIND_WORD.fullmatch, words)) and all(map(_SERIES_WORD.fullmatch, words))


def _with_pieces_said(studies: Iterable[VolumeStudy]) -> tuple[VolumeStudy, ...]:
    """Say so where volumes of one folder, or of folders beside each other, show one thing each.

    By their names they are patients; by what they show they may be the series of one.
    """
    studies = list(studies)
    beside: dict[Path, set[int]] = defaultdict(set)
    for number, study in enumerate(studies):
        if len(study.headers) == 1 and not _LABEL.match(study.study_id):
            for folder in study.folders:
                beside[folder].add(number)
                beside[folder.parent].add(number)
    said: set[int] = set()
    for numbers in beside.values():
        shown = {shown_label(*studies[number].headers.values())[:2] for number in numbers}
        if 1 < len(numbers) <= _SERIES_OF_AN_EXAMINATION and len(shown) > 1:
            said |= numbers
    return tuple(
        replace(
            study, rejections=(*study.rejections, Rejection(Reason.STUDY_DIVIDED, _PIECES, study.study_id))
        )
        if number in said
        else study
        for number, study in enumerate(studies)
    )


def _root_of(path: Path, subject: str) -> Path:
    """The folder around ``sub-…``: two data sets may have a patient 01 each."""
    return next((folder.parent for folder in path.parents if folder.name == subject), path.parent)


def _divided(folder: Path, files: Sequence[Path]) -> dict[str, list[tuple[Path, str]]]:
    """The files of a folder by what their names begin with; "" if they all begin so.

    A folder is a patient's, unless the names in it begin differently: never two patients in one.
    """
    by_start: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for path in files:
        start, rest = _parts(stem_of(path))
        by_start[start].append((path, rest))
    if len(by_start) == 1 or all(_is_series_number(start, files) for start, files in by_start.items()):
        return {"": [member for members in by_start.values() for member in members]}
    return {_patient_label(start) if start else "": members for start, members in by_start.items()}


def _is_series_number(start: str, files: Sequence[tuple[Path, str]]) -> bool:
    """Whether a name begins with the number of its series, as the sidecar says, and not of a patient."""
    if not (start.isascii() and start.isdigit()):
        return False
    said = ((read_sidecar(path) or {}).get("SeriesNumber") for path, _ in files)
    return all(number == int(start) for number in said)


def _parts(stem: str) -> tuple[str, str]:
    """What a name begins with, and the description of the series from its first known word on."""
    words = re.finditer(r"[^\W_]+", stem)
    first = next((match.start() for match in words if _SERIES_WORD.fullmatch(match.group())), None)
    return (stem, "") if first is None else (stem[:first].strip("_-. "), stem[first:])


def _patient_label(start: str) -> str:
    """The beginning of a name if it is a code, else a hash of it: it may be a person's name."""
    if _CODE.fullmatch(start):
        return start
    return f"study-{hashlib.sha256(start.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _unique(places: Sequence[tuple[Path, str]]) -> dict[tuple[Path, str], str]:
    """A study id for every folder and label: the label or the folder's name, with folders above it."""
    names = {place: _name(*place, folders=0 if place[1] else 1) for place in places}
    for folders in range(1, 32):
        counts = Counter(names.values())
        if max(counts.values(), default=0) < 2:
            break
        for place, name in names.items():
            if counts[name] > 1:
                names[place] = _name(*place, folders=folders + (not place[1]))
    return names


def _name(folder: Path, label: str, *, folders: int) -> str:
    parts = [folder_id(part) for part in folder.parts if part != folder.anchor]
    return safe_id("-".join([*parts[len(parts) - min(folders, len(parts)) :], *filter(None, [label])]))


def _study(study_id: str, members: Sequence[tuple[Path, str]], homes: Mapping[Path, Path]) -> VolumeStudy:
    headers: dict[str, tuple[SliceHeader, ...]] = {}
    rejections: list[Rejection] = []
    for path, rest in members:
        folder_name = "" if homes[path.parent] == path.parent else path.parent.name
        series_id = _series_id(f"{folder_name}_{rest}" if folder_name else rest, path, headers)
        try:
            headers[series_id], unused = read_volume(path, series_id=series_id, folder_name=folder_name)
        except DicomRejected as rejected:
            unused = (rejected.rejection,)
        rejections += [replace(item, study_id=study_id, series_id=series_id) for item in unused]
        if series_id in headers and _named_otherwise(path):
            message = "its name and its folder name two patients: the name was believed"
            rejections.append(Rejection.of(path, Reason.IDENTIFIERS, message, study_id=study_id))
    return VolumeStudy(study_id, headers, frozenset(path.parent for path, _ in members), tuple(rejections))


def _named_otherwise(path: Path) -> bool:
    """Whether a file with a BIDS name lies in the folder of another subject."""
    named = _SUBJECT.fullmatch(stem_of(path))
    folder = next((part.name for part in path.parents if _LABEL.fullmatch(part.name)), "")
    return bool(named and folder and named.group(1) != folder)


def _is_told(word: str) -> bool:
    """Whether a word of a name says something of the series, or is a number: no part of a person's name."""
    return bool(_SERIES_WORD.fullmatch(word)) or (word.isdigit() and len(word) <= 4)


def _series_id(rest: str, path: Path, taken: dict[str, tuple[SliceHeader, ...]]) -> str:
    """The description in a BIDS name; of other names the known words and numbers alone."""
    if _SUBJECT.fullmatch(stem_of(path)):
        wanted = safe_id(rest)
    else:
        known = [word for word in re.findall(r"[^\W_]+", rest) if _is_told(word)]
        wanted = safe_id("_".join(known)) if known else "volume"
    return numbered(wanted, taken) if wanted in taken else wanted
