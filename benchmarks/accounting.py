"""What became of every image of a tree: used in a study, named where it was not, or lost without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.names import input_label
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.division import divided
from data_prep.read.entry import StudyEntry, read_headers
from data_prep.read.find import find_studies
from data_prep.read.identity import of_one_patient
from data_prep.read.slice_header import SliceHeader

# They say once more what others say of each file or series.
_SAID_BEFORE = (Reason.NO_SERIES, Reason.NO_SLICES, Reason.STUDY_DIVIDED, Reason.NO_IMAGES)


@dataclass(frozen=True)
class Outcome:
    """What became of the images of a tree.

    Attributes:
        mixed: studies with images of several patients.
        lost: images in no study that nothing names.
        untrue: images that are used and said not to be, or counted in a refusal that did not hold them.
        used, named: images in studies; not used, and named or counted in a rejection.
        studies: found with images.
        divided: patients whose images are in several studies.
        reasons: code → how often it was given.
    """

    mixed: int
    lost: int
    untrue: int
    used: int
    named: int
    studies: int
    divided: int
    reasons: Mapping[str, int] = field(default_factory=dict)


def judged(folder: Path, patient_of: Mapping[str, int]) -> Outcome:
    """Find and load the studies of a folder and account for each image.

    Args:
        folder: its ``in`` is searched.
        patient_of: path of each image in ``folder`` → whose it is. Names of files must differ.
    """
    try:
        entries = find_studies(folder / "in")
    except DicomRejected as rejected:
        return _balanced(patient_of, [], [(None, item) for item in rejected.rejections])
    studies: list[set[str]] = []
    said: list[tuple[StudyEntry | None, Rejection]] = []
    for entry in entries:
        try:
            study = entry.load()
        except DicomRejected as rejected:
            said += [(entry, item) for item in (*rejected.rejections, rejected.rejection)]
            continue
        said += [(entry, item) for item in study.rejections]
        studies.append(
            {
                item.path.relative_to(folder).as_posix()
                for series in study.series
                for item in series.slices
                if item.path is not None
            }
        )
    return _balanced(patient_of, studies, said)


def _balanced(
    patient_of: Mapping[str, int],
    studies: Sequence[set[str]],
    said: Sequence[tuple[StudyEntry | None, Rejection]],
) -> Outcome:
    used = set().union(*studies)
    patients = [{patient_of[path] for path in paths} for paths in studies]
    of_patient = Counter(patient for found in patients for patient in found)
    by_name = {input_label(path.rsplit("/", 1)[-1]): path for path in patient_of}
    if len(by_name) < len(patient_of):
        raise ValueError("two images have one name: which is meant cannot be told")
    named: set[str] = set()
    counted = 0
    for entry, rejection in said:
        if rejection.file:
            named.add(by_name[rejection.file])
        elif rejection.series_id and entry is not None and rejection.reason not in _SAID_BEFORE:
            paths = _paths_by_series(entry).get(rejection.series_id, set())
            named |= {by_name[input_label(path.name)] for path in paths} - used
        elif rejection.reason is Reason.NOT_TOLD_APART:
            counted += next(int(word) for word in rejection.message.split() if word.isdigit())
    left = len(patient_of) - len(used | named)
    return Outcome(
        mixed=sum(len(found) > 1 for found in patients),
        lost=max(0, left - counted),
        untrue=len(named & used) + max(0, counted - left),
        used=len(used),
        named=len(named - used) + min(counted, left),
        studies=len(studies),
        divided=sum(count > 1 for count in of_patient.values()),
        reasons=dict(sorted(Counter(item.reason.value for _, item in said).items())),
    )


def _paths_by_series(entry: StudyEntry) -> dict[str, set[Path]]:
    """The files of each series as ``StudyEntry.load`` divides them."""
    headers: Mapping[str, Sequence[SliceHeader]] = entry.headers
    if entry.folder is not None:
        headers = {
            child.name: read_headers(sorted(child.iterdir()), [])
            for child in sorted(entry.folder.iterdir())
            if child.is_dir()
        }
    kept, _ = of_one_patient(entry.study_id, headers)
    found: dict[str, set[Path]] = {}
    for series_id, group in kept.items():
        parts, unclear = divided(series_id, group)
        found |= {part_id: {header.path for header in part} for part_id, part in parts.items()}
        rest = {header.path for header in group}.difference(*found.values())
        found |= {item.series_id: rest for item in unclear}
    return found
