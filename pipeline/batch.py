"""A folder of studies, graded one after the other into files; a killed run goes on where it was.

Each finished study is one file ``studies/{study_id}.json`` with the hash of its inputs, models and
configuration. ``submission.csv`` and ``predictions.json`` are put together from these files, so that a run
that was interrupted ends with the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep.files import atomic_write, safe_id
from data_prep.studies import StudyEntry
from data_prep.study_types import Reason, Rejection, Study
from pipeline.predict import Pipeline
from pipeline.prediction import StudyPrediction, probabilities_in
from pipeline.report_index import write_index
from pipeline.submission import build_submission, validate_submission, write_submission

if TYPE_CHECKING:
    from pipeline.dicom_results.write import DicomResults

PREDICTIONS_FORMAT = "lumbar-predictions/1"

DrawStudy = Callable[[Study | None, StudyPrediction, Path], None]
REPORT_PLACE = "reports/{study}/report.html"
PICTURE_PLACE = "pictures/{study}.png"
# Called with studies done (a half for half of one), and what is being done to which study.
OnStage = Callable[[float, str], None]
# How much of a study's time is over when a stage begins; roughly, for a bar that moves.
_STAGE_SHARES = {"reading": 0.0, "detection": 0.05, "grading": 0.5, "drawing": 0.75}


@dataclass(frozen=True)
class BatchReport:
    """What a run left behind.

    Attributes:
        submission, predictions: the files written.
        pictures: folder of pictures, or None.
        index: page of all reports, or None.
        reports: report of each study, in order.
        n_studies: studies found or listed.
        n_resumed: of these, finished by an earlier run and taken over.
        n_rejected: of these, nothing could be graded (level prior).
        rejections: every file, series and study that was not used.
        counts: targets by how they were graded: seen, predicted, prior.
    """

    submission: Path
    predictions: Path
    pictures: Path | None
    n_studies: int
    n_resumed: int
    n_rejected: int
    rejections: tuple[Rejection, ...]
    index: Path | None = None
    reports: tuple[Path, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: counts, what was rejected, and where the files are."""
        return {
            "studies": self.n_studies,
            "resumed": self.n_resumed,
            "rejected": self.n_rejected,
            "rejections": [{"reason": item.reason, "place": item.place} for item in self.rejections],
            "submission": str(self.submission),
            "predictions": str(self.predictions),
            "pictures": None if self.pictures is None else str(self.pictures),
            "index": None if self.index is None else str(self.index),
            "targets": dict(self.counts),
        }


def run_batch(
    pipeline: Pipeline,
    entries: Sequence[StudyEntry],
    out: Path,
    *,
    draw: DrawStudy | None = None,
    report: DrawStudy | None = None,
    progress: Callable[[str], None] | None = None,
    dicom: DicomResults | None = None,
    on_stage: OnStage | None = None,
    rejections: Sequence[Rejection] = (),
) -> BatchReport:
    """Grade studies and write ``submission.csv``, ``predictions.json``, ``studies/``, pictures and reports.

    Args:
        pipeline: detector and graders.
        entries: what ``find_studies`` found.
        out: folder to write into; studies that it already holds from the same inputs, models and
            configuration are not done again.
        draw: draws the picture of a study, or None for no pictures.
        report: writes the report of a study, or None for no reports.
        progress: called with each study id when it is done.
        dicom: which DICOM objects each study gets, if any.
        on_stage: told where the run is, also within a study.
        rejections: of the input as a whole, such as members of an archive that belong to no study.
    """
    outputs = [
        _Output(place, write, flag)
        for place, write, flag in (
            (PICTURE_PLACE, draw, "picture_failed"),
            (REPORT_PLACE, report, "report_failed"),
        )
        if write is not None
    ]
    records = []
    n_resumed = 0
    for done, entry in enumerate(entries):
        tell = _teller(on_stage, done, entry.study_id)
        record, resumed = _finished_study(pipeline, entry, out, outputs, tell, dicom)
        records.append(record)
        n_resumed += resumed
        if progress is not None:
            progress(entry.study_id)
        if on_stage is not None:
            on_stage(done + 1.0, entry.study_id)
    submission = build_submission(
        {
            record["study_id"]: {target: np.array(p) for target, p in probabilities_in(record).items()}
            for record in records
        },
        any_severe_pull=getattr(pipeline.grader, "any_severe_pull", 0.0),
    )
    validate_submission(submission, [entry.study_id for entry in entries])
    write_submission(submission, out / "submission.csv")
    _write_json(
        {
            "format": PREDICTIONS_FORMAT,
            "provenance": pipeline.provenance.to_dict(),
            "rejections": [asdict(rejection) for rejection in rejections],
            "studies": records,
        },
        out / "predictions.json",
    )
    reports = [_place(REPORT_PLACE, record["study_id"]) for record in records] if report is not None else []
    if report is not None:
        written = {
            record["study_id"]: place
            for record, place in zip(records, reports, strict=True)
            if (out / place).is_file()
        }
        write_index(records, written, out / "index.html")
    return BatchReport(
        submission=out / "submission.csv",
        predictions=out / "predictions.json",
        pictures=out / "pictures" if draw is not None else None,
        n_studies=len(records),
        n_resumed=n_resumed,
        n_rejected=sum(record["rejected"] for record in records),
        rejections=(
            *rejections,
            *(
                Rejection(**{**row, "reason": Reason(row["reason"])})
                for record in records
                for row in record["rejections"]
            ),
        ),
        index=out / "index.html" if report is not None else None,
        reports=tuple(out / place for place in reports if (out / place).is_file()),
        counts=Counter(row["source"] for record in records for row in record["targets"]),
    )


@dataclass(frozen=True)
class _Output:
    """A file that every study gets beside its record, and the flag if it could not be made."""

    place: str
    write: DrawStudy
    failed_flag: str


def _place(place: str, study_id: str) -> str:
    return place.format(study=safe_id(study_id))


def _teller(on_stage: OnStage | None, done: int, study_id: str) -> Callable[[str], None]:
    def tell(stage: str) -> None:
        if on_stage is not None:
            on_stage(done + _STAGE_SHARES[stage], f"{study_id}: {stage}")

    return tell


def _finished_study(
    pipeline: Pipeline,
    entry: StudyEntry,
    out: Path,
    outputs: Sequence[_Output],
    tell: Callable[[str], None],
    dicom: DicomResults | None,
) -> tuple[dict[str, Any], bool]:
    """The record of a study, and whether it was there already."""
    path = out / "studies" / f"{safe_id(entry.study_id)}.json"
    marker = _marker(pipeline, entry, dicom)
    record = _record_of(path, marker)
    made = record is not None and all(_is_made(output, record, out) for output in outputs)
    if record is not None and made and (dicom is None or dicom.are_there(record, out)):
        return record, True
    prediction, study = pipeline.predict_entry(entry, on_stage=tell)
    tell("drawing")
    for output in outputs:
        prediction = _made(output, study, prediction, out)
    record = prediction.to_dict()
    drawn = any(output.place == PICTURE_PLACE for output in outputs)
    picture = out / _place(PICTURE_PLACE, entry.study_id) if drawn else None
    if dicom is not None and (refusal := dicom.write(study, prediction, out, picture)):
        record["rejections"].append(asdict(refusal))
    # The record comes last: a study without it is not done.
    _write_json({"marker": marker, "study": record}, path)
    return record, False


def _is_made(output: _Output, record: Mapping[str, Any], out: Path) -> bool:
    """Whether an earlier run made it; one that failed is tried again."""
    return (out / _place(output.place, record["study_id"])).is_file()


def _made(output: _Output, study: Study | None, prediction: StudyPrediction, out: Path) -> StudyPrediction:
    try:
        output.write(study, prediction, out / _place(output.place, prediction.study_id))
    except Exception:  # grades are worth more than their picture
        return replace(prediction, flags=(*prediction.flags, output.failed_flag))
    return prediction


def _marker(pipeline: Pipeline, entry: StudyEntry, dicom: DicomResults | None) -> str:
    """SHA-256 of the study's file list (place, size, time of change), series kinds, models and software.

    Which DICOM objects were asked for is part of it, because the record says which were refused.
    """
    content: dict[str, Any] = {
        "files": [(str(path.relative_to(top)), *_size_and_time(path)) for top, path in _input_files(entry)],
        "kinds": {series: str(kind) for series, kind in entry.kinds.items()},
        "only_series": entry.only_series,
        "rejections": [str(rejection) for rejection in entry.rejections],
        "provenance": pipeline.provenance.to_dict(),
        "format": PREDICTIONS_FORMAT,
    }
    if dicom is not None:
        content["dicom"] = asdict(dicom)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _input_files(entry: StudyEntry) -> Iterator[tuple[Path, Path]]:
    if entry.folder is not None:
        for folder, subfolders, names in os.walk(entry.folder):
            subfolders.sort()
            yield from ((entry.folder, Path(folder) / name) for name in sorted(names))
    paths = sorted(header.path for group in entry.headers.values() for header in group)
    for path in paths:
        yield path.parent.parent, path


def _size_and_time(path: Path) -> tuple[int, int]:
    """Bytes and nanoseconds; -1 for what is not there, such as the target of a dead link."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _record_of(path: Path, marker: str) -> dict[str, Any] | None:
    """The record of an earlier run if its marker is this one, else None."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["marker"] != marker:
            return None
        record: dict[str, Any] = stored["study"]
        probabilities_in(record)
        return record
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_json(content: dict[str, Any], path: Path) -> None:
    with atomic_write(path) as stream:
        json.dump(content, stream, indent=1, ensure_ascii=False, allow_nan=False)
        stream.write("\n")
