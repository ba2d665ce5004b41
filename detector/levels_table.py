"""``levels.csv``: points in the form of ``train_label_coordinates.csv``, with confidence and source."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data_prep.base.files import write_whole
from data_prep.levels import SpineLevels

LEVELS_COLUMNS = (
    "study_id",
    "series_id",
    "instance_number",
    "condition",
    "level",
    "x",
    "y",
    "confidence",
    "uncertainty_mm",
    "source",
)


def levels_table(predictions: list[SpineLevels]) -> pd.DataFrame:
    """One row per point that lies on a slice; x, y are (column, row) pixels of that slice."""
    rows = [
        (
            levels.study_id,
            point.sight.series_id,
            point.sight.instance_number,
            point.condition.label,
            point.level.label,
            round(point.sight.xy_px[0], 3),
            round(point.sight.xy_px[1], 3),
            round(point.confidence, 4),
            round(point.uncertainty_mm, 2),
            point.source.value,
        )
        for levels in predictions
        for point in levels.points
        if point.sight is not None
    ]
    return pd.DataFrame(rows, columns=list(LEVELS_COLUMNS))


def write_levels(predictions: list[SpineLevels], path: Path) -> None:
    """Write ``levels.csv``."""
    write_whole(path, levels_table(predictions).to_csv(index=False))
