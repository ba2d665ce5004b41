"""One study, from what was found to its files: the same wherever a worker does it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.base.files import is_disk_error, remove_abandoned, temporary_folder
from data_prep.names import safe_id
from data_prep.problems import Rejection
from data_prep.read.entry import StudyEntry
from data_prep.read.listing import files_below
from data_prep.read.nifti_sidecar import is_nifti, sidecar_of
from data_prep.read.own import is_own, is_result
from data_prep.study import Study
from pipeline.grade import Pipeline
from pipeline.model_facts import ModelFacts
from pipeline.prediction import StudyPrediction
from pipeline.results.bids import derivatives_of
from pipeline.results.dicom import ResultObject

if TYPE_CHECKING:
    from pipeline.results.dicom.write import DicomResults

DrawStudy = Callable[[Study | None, StudyPrediction, Path], None]
REPORT_PLACE = "reports/{study}/report.html"
PICTURE_PLACE = "pictures/{study}.png"
_WORKERS = "lumbar-worker-"
# Derivatives have names that nobody else gives.
_OURS_BY_NAME = (".tsv", ".json")


def place_of(place: str, study_id: str) -> str:
    """Where a study's file lies below the output folder."""
    return place.format(study=safe_id(study_id))


@dataclass(frozen=True)
class StudyOutput:
    """A file that every study gets beside its record, and the flag if it could not be made."""

    place: str
    write: DrawStudy
    failed_flag: str


@dataclass(frozen=True)
class FinishedStudy:
    """What a worker hands back.

    Attributes:
        record: ``StudyPrediction.to_dict`` and what was refused afterwards.
        files: place below the output folder → content, of files that are not there yet.
    """

    record: dict[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyWork:
    """What is done with every study; travels to workers in other processes.

    Attributes:
        outputs: files beside the record.
        dicom: which DICOM objects a study gets, if any.
    """

    outputs: tuple[StudyOutput, ...] = ()
    dicom: DicomResults | None = None

    def do(
        self,
        pipeline: Pipeline,
        entry: StudyEntry,
        folder: Path,
        tell: Callable[[str], None] = lambda _: None,
    ) -> dict[str, Any]:
        """Grade a study and write its files into a folder; its record, which is the caller's to write."""
        prediction, study = pipeline.predict_entry(entry, on_stage=tell)
        tell("drawing")
        return self._write(study, prediction, folder)

    def do_in_memory(self, pipeline: Pipeline, entry: StudyEntry) -> FinishedStudy:
        """The same for a worker that does not write into the output folder."""
        with temporary_folder(_WORKERS) as folder:
            record = self.do(pipeline, entry, folder)
            return FinishedStudy(record, _contents(folder))

    def give_up(self, facts: ModelFacts, study_id: str, why: Rejection, folder: Path) -> dict[str, Any]:
        """The record and the files of a study that could not be graded: the level prior and the reason."""
        return self._write(None, facts.rejected(study_id, why), folder)

    def is_made(self, record: Mapping[str, Any], out: Path) -> bool:
        """Whether an earlier run made every file of a record; one that failed is tried again."""
        study_id = record["study_id"]
        there = all((out / place_of(output.place, study_id)).is_file() for output in self.outputs)
        return there and (
            self.dicom is None or self.dicom.are_there(StudyPrediction.from_record(record), out)
        )

    def remove_earlier(self, study_id: str, out: Path, *, made_again: bool) -> None:
        """Remove what an earlier run left of a study, in the places of what is made now or of what is not.

        Folders give a study its name where its headers do not: it may have been another patient's.
        """
        for path in _results_of(study_id, out):
            if self._makes(path, study_id, out) is made_again and _is_ours(path):
                path.unlink(missing_ok=True)

    def of_others(self, study_id: str, out: Path) -> list[Path]:
        """Files of somebody else in the places of what is made of a study, which would overwrite them."""
        return [
            path
            for path in _results_of(study_id, out)
            if self._makes(path, study_id, out) and path.exists() and not _is_ours(path)
        ]

    def _makes(self, path: Path, study_id: str, out: Path) -> bool:
        """Whether a file lies in the place of what is made of a study."""
        place = path.relative_to(out)
        folders = self.dicom.folders if self.dicom is not None else frozenset()
        places = {place_of(output.place, study_id) for output in self.outputs}
        return place.as_posix() in places or place.parts[0] in folders

    def _write(self, study: Study | None, prediction: StudyPrediction, folder: Path) -> dict[str, Any]:
        for output in self.outputs:
            prediction = _made(output, study, prediction, folder)
        record = prediction.to_dict()
        drawn = any(output.place == PICTURE_PLACE for output in self.outputs)
        picture = folder / place_of(PICTURE_PLACE, prediction.study_id) if drawn else None
        if self.dicom is not None and (refusal := self.dicom.write(study, prediction, folder, picture)):
            record["rejections"].append(asdict(refusal))
        return record


def _is_ours(path: Path) -> bool:
    return path.suffix in _OURS_BY_NAME or is_result(path)


def _results_of(study_id: str, out: Path) -> list[Path]:
    """Files beside the record that any run may have made of a study; they need not be there."""
    name = safe_id(study_id)
    objects = [out / kind.folder / f"{name}.dcm" for kind in ResultObject]
    states = sorted((out / "gsps" / name).glob("*.dcm"))
    drawn = [out / place_of(place, study_id) for place in (PICTURE_PLACE, REPORT_PLACE)]
    return [*objects, *states, *derivatives_of(study_id, out / "bids"), *drawn]


def _made(
    output: StudyOutput, study: Study | None, prediction: StudyPrediction, out: Path
) -> StudyPrediction:
    try:
        output.write(study, prediction, out / place_of(output.place, prediction.study_id))
    except Exception as error:  # grades are worth more than their picture
        if is_disk_error(error):
            raise
        return replace(prediction, flags=(*prediction.flags, output.failed_flag))
    return prediction


def input_files(entry: StudyEntry) -> Iterator[tuple[Path, Path]]:
    """Every file of a study, in order, each after the folder that its place is told from."""
    if entry.folder is not None:
        files = sorted(files_below(entry.folder, []), key=lambda path: path.parts)
        yield from ((entry.folder, path) for path in files if not is_own(path))
    paths = {header.path for group in entry.headers.values() for header in group}
    beside = {sidecar for path in paths if is_nifti(path) and (sidecar := sidecar_of(path)).is_file()}
    for path in sorted(paths | beside):
        yield path.parent.parent, path


def files_seen(entry: StudyEntry) -> str:
    """SHA-256 of the places and sizes of a study's files, as they are seen from here."""
    seen = [(str(path.relative_to(top)), file_size(path)) for top, path in input_files(entry)]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def file_size(path: Path) -> int:
    """Bytes of a file; -1 if it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def clean_up_after_workers() -> None:
    """Remove what killed workers of this machine left behind: pictures and reports show the images."""
    remove_abandoned(_WORKERS)


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
