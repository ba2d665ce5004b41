"""``targets.csv`` and ``refused.csv``: the record of a run as tables, for R, pandas and spreadsheets.

What every column means stands in docs/formats.md. An empty cell is what is not known; several codes in a
cell are parted by a space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from data_prep.base.csv_files import write_table
from data_prep.problems import Rejection
from data_prep.vocabulary import SEVERITIES, Condition, GradeSource, Level, Side, Target

# Of the level, in all its rows; of one side, in the rows of that side.
_MEASURED: Final = {
    "canal_depth": "canal_depth_mm",
    "sac_area": "sac_area_mm2",
    "csf_share": "csf_share_percent",
    "disc_height": "disc_height_mm",
    "disc_height_index": "disc_height_index",
    "slip": "slip_mm",
    "lordosis": "lordosis_deg",
    "foramen_height": "foramen_height_mm",
    "foramen_width": "foramen_width_mm",
    "foramen_difference": "foramen_difference_mm",
}
TARGET_COLUMNS: Final = (
    "row_id", "study_id", "condition", "side", "level",
    "grade", "probability", *(severity.column for severity in SEVERITIES),
    "source", "reasons", "contradicted_by",
    "x_mm", "y_mm", "z_mm", "uncertainty_mm", "confidence",
    "series_id", "series_kind", "instance_number", "column_px", "row_px",
    *(column for name in _MEASURED.values() for column in (name, f"{name}_sd")),
    "study_rejected", "numbering_confidence", "study_flags", "study_refusals", "learned_from",
)  # fmt: skip
REFUSED_COLUMNS: Final = ("study_id", "series_id", "file", "standing", "reason", "message", "what_to_do")


def write_targets(records: Sequence[Mapping[str, Any]], path: Path, *, learned_from: str) -> None:
    """Write a row for each target of each study.

    Args:
        records: the studies of a ``predictions.json``.
        learned_from: what the graders learned from, and the licence of their weights.
    """
    rows = (row | {"learned_from": learned_from} for record in records for row in _target_rows(record))
    write_table(path, TARGET_COLUMNS, rows)


def write_refused(rejections: Iterable[Rejection], path: Path) -> None:
    """Write a row for each file, series and study that was not used, or is incomplete or doubtful."""
    write_table(
        path,
        REFUSED_COLUMNS,
        (
            {
                "study_id": item.study_id,
                "series_id": item.series_id,
                "file": item.file,
                "standing": item.standing,
                "reason": item.reason.value,
                "message": item.message,
                "what_to_do": item.reason.advice,
            }
            for item in rejections
        ),
    )


def _target_rows(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    study = {
        "study_id": record["study_id"],
        "study_rejected": "true" if record["rejected"] else "false",
        "numbering_confidence": record["numbering_confidence"],
        "study_flags": " ".join(record["flags"]),
        "study_refusals": " ".join(dict.fromkeys(row["reason"] for row in record["rejections"])),
    }
    kinds = {row["series_id"]: row["seen_as"] for row in record["series"]}
    for found in record["targets"]:
        condition, level = Condition(found["condition"]), Level(found["level"])
        graded = GradeSource(found["source"]).is_graded
        yield {
            **study,
            "row_id": Target(condition, level).row_id(record["study_id"]),
            "condition": condition.value,
            "side": "" if condition.side is None else condition.side.value,
            "level": level.value,
            "grade": found["severity"] if graded else "",
            "probability": max(found["probabilities"].values()) if graded else "",
            **found["probabilities"],
            "source": found["source"],
            "reasons": " ".join(found["flags"]),
            "contradicted_by": " ".join(
                row["quantity"]
                for row in record["contradictions"]
                if (row["condition"], row["level"]) == (condition.value, level.value)
            ),
            **_place(found["point"], kinds),
            **_measurements(record["measurements"], condition.side, level),
        }


def _place(point: Mapping[str, Any] | None, kinds: Mapping[str, str]) -> dict[str, Any]:
    if point is None:
        return {}
    columns = dict(zip(("x_mm", "y_mm", "z_mm"), point["xyz_mm"], strict=True))
    columns |= {
        name: point[name] for name in ("uncertainty_mm", "confidence", "series_id", "instance_number")
    }
    if point["xy_px"] is not None:
        columns["column_px"], columns["row_px"] = point["xy_px"]
    return columns | {"series_kind": kinds.get(point["series_id"], "")}


def _measurements(rows: Iterable[Mapping[str, Any]], side: Side | None, level: Level) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for row in rows:
        name = _MEASURED.get(row["quantity"])
        if name is not None and row["level"] in (level.value, None) and row["side"] in (side, None):
            columns[name], columns[f"{name}_sd"] = row["value"], row["uncertainty"]
    return columns
