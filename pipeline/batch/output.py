"""The files of an output folder: their names, whose they are, and those that are of all studies together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.base.files import write_whole
from data_prep.names import input_label, safe_id
from data_prep.problems import LumbarError, Rejection
from data_prep.read.entry import StudyEntry
from data_prep.read.own import is_record, is_result
from pipeline.model_facts import ModelFacts
from pipeline.prediction import probabilities_in
from pipeline.results.submission import submission_rows, validate_rows, write_rows
from pipeline.results.tables import REFUSED_COLUMNS, TARGET_COLUMNS, write_refused, write_targets

PREDICTIONS_FORMAT = "lumbar-predictions/2"
_ANY_FORMAT = PREDICTIONS_FORMAT.rpartition("/")[0]
INDEX_FILE = "index.html"
SUBMISSION_FILE, PREDICTIONS_FILE = "submission.csv", "predictions.json"
TARGETS_FILE, REFUSED_FILE = "targets.csv", "refused.csv"
_LOOKED_AT_BYTES = 4096

COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
# The file, its studies, a study, its targets: each of these has a line.
_LINES_DOWN_TO = 4


def record_path(out: Path, study_id: str) -> Path:
    return out / "studies" / f"{safe_id(study_id)}.json"


def read_stored(path: Path) -> dict[str, Any]:
    """What an earlier run wrote of a study; nothing if it cannot be read."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


class OutputTaken(LumbarError):
    """A folder to write into holds a file of somebody else, under a name that would be overwritten."""

    advice = "choose another folder, or move the file away"

    def __init__(self, out: Path, place: str) -> None:
        super().__init__(f"{input_label(out.name)!r} holds a {place} that this program did not write")


def check_output(out: Path) -> None:
    """Look that no table or page of somebody else's would be overwritten.

    A table of probabilities does not say who wrote it: where an earlier run has left a record or
    ``predictions.json``, the other files are its own, too.

    Raises:
        OutputTaken: one would be.
    """
    if any(map(is_record, (out / "studies").glob("*.json"))) or _begins_with(
        out / PREDICTIONS_FILE, _ANY_FORMAT
    ):
        return
    own = {
        PREDICTIONS_FILE: False,
        SUBMISSION_FILE: False,
        TARGETS_FILE: _begins_with(out / TARGETS_FILE, ",".join(TARGET_COLUMNS)),
        REFUSED_FILE: _begins_with(out / REFUSED_FILE, ",".join(REFUSED_COLUMNS)),
        INDEX_FILE: is_result(out / INDEX_FILE),
    }
    for name, is_own in own.items():
        if not is_own and (out / name).exists():
            raise OutputTaken(out, name)


def _begins_with(path: Path, text: str) -> bool:
    """Whether a text is among the first bytes of a file."""
    try:
        with path.open("rb") as file:
            return text.encode() in file.read(_LOOKED_AT_BYTES)
    except OSError:
        return False


def others_in(out: Path, entries: Sequence[StudyEntry]) -> int:
    """How many studies of earlier runs, that are none of these, have results in a folder."""
    mine = {record_path(out, entry.study_id).name for entry in entries}
    return sum(is_record(path) and path.name not in mine for path in (out / "studies").glob("*.json"))


def write_tables(
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
    write_refused(all_rejections(records, rejections), out / REFUSED_FILE)
    content = {
        "format": PREDICTIONS_FORMAT,
        "provenance": facts.provenance.to_dict(),
        "rejections": [asdict(rejection) for rejection in rejections],
        "studies": records,
    }
    write_whole(out / PREDICTIONS_FILE, _readable(content, _LINES_DOWN_TO) + "\n")


def all_rejections(
    records: Sequence[dict[str, Any]], rejections: Sequence[Rejection]
) -> tuple[Rejection, ...]:
    """Those of the input as a whole, then those of its studies."""
    return (*rejections, *(Rejection.from_record(row) for record in records for row in record["rejections"]))


def _readable(value: Any, depth: int, indent: str = "\n") -> str:
    """JSON with a line for each member of the outer ``depth`` arrays and objects.

    A target is then a line. With a line for every number, which json can do by itself, it takes five times as
    long, and nobody sees a study at once.
    """
    if not depth or not value or not isinstance(value, dict | list):
        return COMPACT.encode(value)
    inner = indent + " "
    if isinstance(value, dict):
        members = [
            f"{COMPACT.encode(key)}: {_readable(item, depth - 1, inner)}" for key, item in value.items()
        ]
        return "{" + inner + f",{inner}".join(members) + indent + "}"
    return "[" + inner + f",{inner}".join(_readable(item, depth - 1, inner) for item in value) + indent + "]"
