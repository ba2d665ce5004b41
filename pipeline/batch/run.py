"""A folder of studies, graded one after the other into files; a killed run goes on where it was.

Each finished study is one file ``studies/{study_id}.json`` with the hash of its inputs, models and
configuration. ``submission.csv`` and ``predictions.json`` are put together from these files, so that a run
that was interrupted ends with the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.base.files import file_state, write_whole
from data_prep.problems import Reason, Rejection
from data_prep.read.entry import StudyEntry
from data_prep.read.own import is_record
from data_prep.vocabulary import Flag, GradeSource
from pipeline.batch.engines import Engine, InThisProcess
from pipeline.batch.output import (
    COMPACT,
    INDEX_FILE,
    PREDICTIONS_FILE,
    PREDICTIONS_FORMAT,
    REFUSED_FILE,
    SUBMISSION_FILE,
    TARGETS_FILE,
    OutputTaken,
    all_rejections,
    read_stored,
    record_path,
    write_tables,
)
from pipeline.batch.study_work import (
    PICTURE_PLACE,
    REPORT_PLACE,
    DrawStudy,
    FinishedStudy,
    StudyOutput,
    StudyWork,
    input_files,
    place_of,
)
from pipeline.grade import Pipeline
from pipeline.model_facts import ModelFacts
from pipeline.prediction import StudyPrediction
from pipeline.results.report.pages import remove_index, write_index

if TYPE_CHECKING:
    from pipeline.results.dicom.write import DicomResults

_PERHAPS_ONCE = frozenset({Reason.WORKER_DIED, Reason.FAILED, Reason.UNREADABLE})

# Called with studies done (a half for half of one), and what is being done to which study.
OnStage = Callable[[float, str], None]
# How much of a study's time is over when a stage begins; roughly, for a bar that moves.
_STAGE_SHARES = {"reading": 0.0, "detection": 0.05, "grading": 0.5, "drawing": 0.75}


@dataclass(frozen=True)
class BatchReport:
    """What a run left behind.

    Attributes:
        submission, targets, refused, predictions: the files written.
        pictures: folder of pictures, or None.
        index: page of all reports, or None.
        reports: report of each study, in order.
        n_studies: studies found or listed.
        n_resumed: of these, finished by an earlier run and taken over.
        n_rejected: of these, nothing could be graded (level prior).
        rejections: every file, series and study that was not used.
        counts: targets by how they were graded: seen, predicted, expected, prior.
        flags: studies by each of their flags.
        n_graded: studies of which a target was graded; the others are rejected, or show nothing to grade.
    """

    submission: Path
    targets: Path
    refused: Path
    predictions: Path
    pictures: Path | None
    n_studies: int
    n_resumed: int
    n_rejected: int
    rejections: tuple[Rejection, ...]
    index: Path | None
    reports: tuple[Path, ...]
    counts: Mapping[str, int]
    flags: Mapping[str, int]
    n_graded: int

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: counts, what was rejected, and where the files are."""
        return {
            "studies": self.n_studies,
            "resumed": self.n_resumed,
            "rejected": self.n_rejected,
            "graded": self.n_graded,
            "rejections": [{"reason": item.reason, "place": item.place} for item in self.rejections],
            "submission": str(self.submission),
            "predictions": str(self.predictions),
            "tables": {"targets": str(self.targets), "refused": str(self.refused)},
            "pictures": None if self.pictures is None else str(self.pictures),
            "index": None if self.index is None else str(self.index),
            "targets": dict(self.counts),
            "flags": dict(self.flags),
        }


def run_batch(
    models: Pipeline | ModelFacts,
    entries: Sequence[StudyEntry],
    out: Path,
    *,
    draw: DrawStudy | None = None,
    report: DrawStudy | None = None,
    dicom: DicomResults | None = None,
    on_stage: OnStage = lambda *_: None,
    rejections: Sequence[Rejection] = (),
    engine: Engine | None = None,
) -> BatchReport:
    """Grade studies and write tables, ``predictions.json``, ``studies/``, pictures and reports.

    Args:
        models: detector and graders; what is known of them is enough if an engine has its own.
        out: folder to write into; studies that it already holds from the same inputs, models and
            configuration are not done again.
        draw: draws the picture of a study, or None for no pictures.
        report: writes the report of a study, or None for no reports.
        dicom: which DICOM objects each study gets, if any.
        on_stage: told where the run is, also within a study.
        rejections: of the input as a whole, such as members of an archive that belong to no study.
        engine: where studies are done; in this process if left out. Whatever does them, the files are the
            same and are written here: a study's record last, which marks it as done.

    Raises:
        EngineFailed: the engine has no workers; what was finished stays.
        OutputTaken: a record or result would overwrite a file of somebody else; nothing is done.
        TypeError: there is no engine, nor a pipeline.
    """
    facts = models if isinstance(models, ModelFacts) else models.facts
    if engine is None:
        if isinstance(models, ModelFacts):
            raise TypeError("without an engine the pipeline itself is needed")
        engine = InThisProcess(models, out)
    outputs = []
    if draw is not None:
        outputs.append(StudyOutput(PICTURE_PLACE, draw, Flag.PICTURE_FAILED))
    if report is not None:
        outputs.append(StudyOutput(REPORT_PLACE, report, Flag.REPORT_FAILED))
    work = StudyWork(tuple(outputs), dicom)
    _check_places(entries, out, work)
    records, n_resumed = _finish_all(facts, entries, out, work, engine, on_stage)
    write_tables(facts, records, out, rejections)
    reports: dict[str, str] = {}
    if report is not None:
        places = {record["study_id"]: place_of(REPORT_PLACE, record["study_id"]) for record in records}
        reports = {study_id: place for study_id, place in places.items() if (out / place).is_file()}
        write_index(
            records,
            reports,
            out / INDEX_FILE,
            learned_from=facts.provenance.learned_from,
            rejections=rejections,
        )
    else:
        remove_index(out / INDEX_FILE)
    return BatchReport(
        submission=out / SUBMISSION_FILE,
        targets=out / TARGETS_FILE,
        refused=out / REFUSED_FILE,
        predictions=out / PREDICTIONS_FILE,
        pictures=out / "pictures" if draw is not None else None,
        n_studies=len(records),
        n_resumed=n_resumed,
        n_rejected=sum(record["rejected"] for record in records),
        rejections=all_rejections(records, rejections),
        index=out / INDEX_FILE if report is not None else None,
        reports=tuple(out / place for place in reports.values()),
        counts=Counter(row["source"] for record in records for row in record["targets"]),
        flags=Counter(flag for record in records for flag in sorted(set(record["flags"]))),
        n_graded=sum(
            any(GradeSource(row["source"]).is_graded for row in record["targets"]) for record in records
        ),
    )


def _check_places(entries: Sequence[StudyEntry], out: Path, work: StudyWork) -> None:
    """Raise OutputTaken where a record or a result of a study would overwrite a file of somebody else."""
    for entry in entries:
        record = record_path(out, entry.study_id)
        records = [record] if record.exists() and not is_record(record) else []
        for path in (*records, *work.of_others(entry.study_id, out)):
            raise OutputTaken(out, path.relative_to(out).as_posix())


def _finish_all(
    facts: ModelFacts,
    entries: Sequence[StudyEntry],
    out: Path,
    work: StudyWork,
    engine: Engine,
    on_stage: OnStage,
) -> tuple[list[dict[str, Any]], int]:
    """The records of all studies, in their order, and how many of them were there already."""
    found: dict[str, dict[str, Any]] = {}
    markers: dict[str, str] = {}

    def keep(study_id: str, record: dict[str, Any]) -> None:
        found[study_id] = record
        on_stage(float(len(found)), study_id)

    def tell(study_id: str, stage: str) -> None:
        on_stage(len(found) + _STAGE_SHARES[stage], f"{study_id}: {stage}")

    def unfinished() -> Iterator[StudyEntry]:
        """The studies that no earlier run finished, looked at when somebody is free to do one."""
        for entry in entries:
            marker = _marker(facts, entry, work.dicom)
            record = _record_of(record_path(out, entry.study_id), marker)
            if record is not None and work.is_made(record, out):
                keep(entry.study_id, record)
                continue
            markers[entry.study_id] = marker
            work.remove_earlier(entry.study_id, out, made_again=True)
            yield entry

    with closing(engine.finish(work, unfinished(), tell)) as finished:
        for entry, done in finished:
            if isinstance(done, Rejection):
                done = FinishedStudy(work.give_up(facts, entry.study_id, done, out))
            for place, content in done.files.items():
                write_whole(out / place, content)
            path = record_path(out, entry.study_id)
            if read_stored(path).get("study") != done.record:
                work.remove_earlier(entry.study_id, out, made_again=False)
            # The record comes last: a study without it is not done.
            stored = {"marker": markers[entry.study_id], "study": done.record}
            write_whole(path, COMPACT.encode(stored) + "\n")
            keep(entry.study_id, done.record)
    return [found[entry.study_id] for entry in entries], len(entries) - len(markers)


def _marker(facts: ModelFacts, entry: StudyEntry, dicom: DicomResults | None) -> str:
    """SHA-256 of the study's file list (place, ``file_state``), series kinds, models and software.

    Which DICOM objects were asked for is part of it, because the record says which were refused.
    """
    content: dict[str, Any] = {
        "files": [(str(path.relative_to(top)), *file_state(path)) for top, path in input_files(entry)],
        "kinds": {series: str(kind) for series, kind in entry.kinds.items()},
        "only_series": sorted(entry.only_series),
        "rejections": [str(rejection) for rejection in entry.rejections],
        "flags": list(entry.flags),
        "provenance": facts.provenance.to_dict(),
        "format": PREDICTIONS_FORMAT,
    }
    if dicom is not None:
        content["dicom"] = dicom.marker
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _record_of(path: Path, marker: str) -> dict[str, Any] | None:
    """The record of an earlier run if its marker is this one, else None.

    A study whose worker died, that failed within the program, or a file of which could not be read, is not
    taken over: memory, a disk or a network may have been the reason.
    """
    stored = read_stored(path)
    if stored.get("marker") != marker:
        return None
    try:
        record: dict[str, Any] = stored["study"]
        StudyPrediction.from_record(record)
        if any(row["reason"] in _PERHAPS_ONCE for row in record["rejections"]):
            return None
        return record
    except (ValueError, KeyError, TypeError):
        return None
