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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep.base.files import file_state, write_whole
from data_prep.names import input_label, safe_id
from data_prep.problems import LumbarError, Reason, Rejection
from data_prep.read.entry import StudyEntry
from data_prep.read.own import is_record
from data_prep.vocabulary import Flag, GradeSource
from pipeline.batch.engines import Engine, InThisProcess
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
from pipeline.prediction import StudyPrediction, probabilities_in
from pipeline.results.report.index import is_index, remove_index, write_index
from pipeline.results.submission import submission_rows, validate_rows, write_rows
from pipeline.results.tables import REFUSED_COLUMNS, TARGET_COLUMNS, write_refused, write_targets

if TYPE_CHECKING:
    from pipeline.results.dicom.write import DicomResults

PREDICTIONS_FORMAT = "lumbar-predictions/1"
INDEX_FILE = "index.html"
SUBMISSION_FILE, PREDICTIONS_FILE = "submission.csv", "predictions.json"
TARGETS_FILE, REFUSED_FILE = "targets.csv", "refused.csv"
_LOOKED_AT_BYTES = 4096
_PERHAPS_ONCE = frozenset({Reason.WORKER_DIED, Reason.FAILED, Reason.UNREADABLE})

_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
# The file, its studies, a study, its targets: each of these has a line.
_LINES_DOWN_TO = 4

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
        counts: targets by how they were graded: seen, predicted, prior.
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
    index: Path | None = None
    reports: tuple[Path, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    n_graded: int = 0

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
    records, n_resumed = _finish_all(facts, entries, out, work, engine, on_stage)
    _write_tables(facts, records, out, rejections)
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
        rejections=_all_rejections(records, rejections),
        index=out / INDEX_FILE if report is not None else None,
        reports=tuple(out / place for place in reports.values()),
        counts=Counter(row["source"] for record in records for row in record["targets"]),
        flags=Counter(flag for record in records for flag in sorted(set(record["flags"]))),
        n_graded=sum(
            any(row["source"] != GradeSource.PRIOR for row in record["targets"]) for record in records
        ),
    )


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
            record = _record_of(_record_path(out, entry.study_id), marker)
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
            path = _record_path(out, entry.study_id)
            if _stored(path).get("study") != done.record:
                work.remove_earlier(entry.study_id, out, made_again=False)
            # The record comes last: a study without it is not done.
            stored = {"marker": markers[entry.study_id], "study": done.record}
            write_whole(path, _COMPACT.encode(stored) + "\n")
            keep(entry.study_id, done.record)
    return [found[entry.study_id] for entry in entries], len(entries) - len(markers)


def _write_tables(
    facts: ModelFacts, records: Sequence[dict[str, Any]], out: Path, rejections: Sequence[Rejection]
) -> None:
    """``submission.csv``, ``targets.csv``, ``refused.csv`` and ``predictions.json``."""
    row_ids, q = submission_rows(
        {
            record["study_id"]: {target: np.array(p) for target, p in probabilities_in(record).items()}
            for record in records
        },
        any_severe_pull=facts.any_severe_pull,
    )
    validate_rows(row_ids, q, [record["study_id"] for record in records])
    write_rows(row_ids, q, out / SUBMISSION_FILE)
    write_targets(records, out / TARGETS_FILE, learned_from=facts.provenance.learned_from)
    write_refused(_all_rejections(records, rejections), out / REFUSED_FILE)
    content = {
        "format": PREDICTIONS_FORMAT,
        "provenance": facts.provenance.to_dict(),
        "rejections": [asdict(rejection) for rejection in rejections],
        "studies": records,
    }
    write_whole(out / PREDICTIONS_FILE, _readable(content, _LINES_DOWN_TO) + "\n")


def _all_rejections(
    records: Sequence[dict[str, Any]], rejections: Sequence[Rejection]
) -> tuple[Rejection, ...]:
    """Those of the input as a whole, then those of its studies."""
    return (*rejections, *(Rejection.from_record(row) for record in records for row in record["rejections"]))


def _record_path(out: Path, study_id: str) -> Path:
    return out / "studies" / f"{safe_id(study_id)}.json"


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
    stored = _stored(path)
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


def _stored(path: Path) -> dict[str, Any]:
    """What an earlier run wrote of a study; nothing if it cannot be read."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


class OutputTaken(LumbarError):
    """A folder to write into holds a file of somebody else, under a name that would be overwritten."""

    advice = "choose another folder, or move the file away"


def check_output(out: Path) -> None:
    """Look that no table or page of somebody else's would be overwritten.

    A table of probabilities does not say who wrote it: where an earlier run has left a record or
    ``predictions.json``, the other files are its own, too.

    Raises:
        OutputTaken: one would be.
    """
    if any(map(is_record, (out / "studies").glob("*.json"))) or _begins_with(
        out / PREDICTIONS_FILE, PREDICTIONS_FORMAT
    ):
        return
    own = {
        PREDICTIONS_FILE: False,
        SUBMISSION_FILE: False,
        TARGETS_FILE: _begins_with(out / TARGETS_FILE, ",".join(TARGET_COLUMNS)),
        REFUSED_FILE: _begins_with(out / REFUSED_FILE, ",".join(REFUSED_COLUMNS)),
        INDEX_FILE: is_index(out / INDEX_FILE),
    }
    for name, is_own in own.items():
        if not is_own and (out / name).exists():
            raise OutputTaken(f"{input_label(out.name)!r} holds a {name} that this program did not write")


def _begins_with(path: Path, text: str) -> bool:
    """Whether a text is among the first bytes of a file."""
    try:
        with path.open("rb") as file:
            return text.encode() in file.read(_LOOKED_AT_BYTES)
    except OSError:
        return False


def others_in(out: Path, entries: Sequence[StudyEntry]) -> int:
    """How many studies of earlier runs, that are none of these, have results in a folder."""
    mine = {_record_path(out, entry.study_id).name for entry in entries}
    return sum(is_record(path) and path.name not in mine for path in (out / "studies").glob("*.json"))


def _readable(value: Any, depth: int, indent: str = "\n") -> str:
    """JSON with a line for each member of the outer ``depth`` arrays and objects.

    A target is then a line. With a line for every number, which json can do by itself, it takes five times as
    long, and nobody sees a study at once.
    """
    if not depth or not value or not isinstance(value, dict | list):
        return _COMPACT.encode(value)
    inner = indent + " "
    if isinstance(value, dict):
        members = [
            f"{_COMPACT.encode(key)}: {_readable(item, depth - 1, inner)}" for key, item in value.items()
        ]
        return "{" + inner + f",{inner}".join(members) + indent + "}"
    return "[" + inner + f",{inner}".join(_readable(item, depth - 1, inner) for item in value) + indent + "]"
