"""A folder of studies, graded one after the other into files; a killed run goes on where it was.

Each finished study is one file ``studies/{study_id}.json`` with the hash of its inputs, models and
configuration. ``submission.csv`` and ``predictions.json`` are put together from these files, so that a run
that was interrupted ends with the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep.files import atomic_write, safe_id
from data_prep.studies import StudyEntry
from data_prep.study_types import Reason, Rejection, Study
from pipeline.predict import Pipeline
from pipeline.prediction import StudyPrediction, probabilities_in
from pipeline.submission import build_submission, validate_submission, write_submission

if TYPE_CHECKING:
    from pipeline.dicom_results.write import DicomResults

PREDICTIONS_FORMAT = "lumbar-predictions/1"

DrawStudy = Callable[[Study | None, StudyPrediction, Path], None]


@dataclass(frozen=True)
class BatchReport:
    """What a run left behind.

    Attributes:
        submission, predictions: the files written.
        pictures: folder of pictures, or None.
        n_studies: studies found or listed.
        n_resumed: of these, finished by an earlier run and taken over.
        n_rejected: of these, nothing could be graded (level prior).
        rejections: every file, series and study that was not used.
    """

    submission: Path
    predictions: Path
    pictures: Path | None
    n_studies: int
    n_resumed: int
    n_rejected: int
    rejections: tuple[Rejection, ...]

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
        }


def run_batch(
    pipeline: Pipeline,
    entries: Sequence[StudyEntry],
    out: Path,
    *,
    draw: DrawStudy | None = None,
    progress: Callable[[str], None] | None = None,
    dicom: DicomResults | None = None,
) -> BatchReport:
    """Grade studies and write ``submission.csv``, ``predictions.json``, ``studies/`` and ``pictures/``.

    Args:
        pipeline: detector and graders.
        entries: what ``find_studies`` found.
        out: folder to write into; studies that it already holds from the same inputs, models and
            configuration are not done again.
        draw: draws the picture of a study, or None for no pictures.
        progress: called with each study id when it is done.
        dicom: which DICOM objects each study gets, if any.
    """
    records = []
    n_resumed = 0
    for entry in entries:
        record, resumed = _finished_study(pipeline, entry, out, draw, dicom)
        records.append(record)
        n_resumed += resumed
        if progress is not None:
            progress(entry.study_id)
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
        {"format": PREDICTIONS_FORMAT, "provenance": pipeline.provenance.to_dict(), "studies": records},
        out / "predictions.json",
    )
    return BatchReport(
        submission=out / "submission.csv",
        predictions=out / "predictions.json",
        pictures=out / "pictures" if draw is not None else None,
        n_studies=len(records),
        n_resumed=n_resumed,
        n_rejected=sum(record["rejected"] for record in records),
        rejections=tuple(
            # From an earlier run's file, a reason is text.
            Rejection(**{**row, "reason": Reason(row["reason"])})
            for record in records
            for row in record["rejections"]
        ),
    )


def _finished_study(
    pipeline: Pipeline, entry: StudyEntry, out: Path, draw: DrawStudy | None, dicom: DicomResults | None
) -> tuple[dict[str, Any], bool]:
    """The record of a study, and whether it was there already."""
    name = safe_id(entry.study_id)
    path, picture = out / "studies" / f"{name}.json", out / "pictures" / f"{name}.png"
    marker = _marker(pipeline, entry, dicom)
    record = _record_of(path, marker)
    drawn = draw is None or picture.is_file()
    if record is not None and drawn and (dicom is None or dicom.are_there(record, out)):
        return record, True
    prediction, study = pipeline.predict_entry(entry)
    if draw is not None:
        prediction = _drawn(draw, study, prediction, picture)
    record = prediction.to_dict()
    if dicom is not None and (refusal := dicom.write(study, prediction, out, picture if draw else None)):
        record["rejections"].append(asdict(refusal))
    # The record comes last: a study without it is not done.
    _write_json({"marker": marker, "study": record}, path)
    return record, False


def _drawn(
    draw: DrawStudy, study: Study | None, prediction: StudyPrediction, picture: Path
) -> StudyPrediction:
    try:
        draw(study, prediction, picture)
    except Exception:  # grades are worth more than their picture
        return replace(prediction, flags=(*prediction.flags, "picture_failed"))
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
