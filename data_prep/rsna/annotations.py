"""Annotated points of the coordinate table: which cannot be where they say, and the slices they lie on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from data_prep.geometry import FloatArray
from data_prep.levels import LevelPoint, PointSource, Sight
from data_prep.rsna.table_quirks import (
    Problem,
    are_a_level_apart,
    canal_curve_faults,
    is_placeholder,
    problem,
    side_faults,
)
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import LEVELS, Condition, ConditionGroup, Level, Side, Target

# Recesses lie 11 mm apart and more; points of one slanting slice less than this.
_CLEARLY_MM = 5.0


def annotated_points(
    study: Study, coordinates: pd.DataFrame, *, keep_placeholders: bool = False
) -> tuple[tuple[LevelPoint, ...], tuple[str, ...]]:
    """The annotated points of a study in patient space.

    Args:
        coordinates: ``study_id, series_id, instance_number, condition, level, x, y`` as in
            ``train_label_coordinates.csv`` or ``RsnaTables.coordinates``: ids as text or whole numbers, x and
            y zero-based pixels (column, row).
        keep_placeholders: take points in the image corner for true ones; only to see what they do.

    Returns:
        Points (``ANNOTATED``, at most one per target, in the order of the table) with ``xyz_mm`` on the plane
        of their slice; and for every row that gave none, ``code: row id (series, instance)`` with the codes
        ``placeholder_point``, ``series_not_loaded``, ``instance_not_found``, ``outside_image``,
        ``duplicate_point``, and ``sides_exchanged`` for both of a pair whose left one lies clearly to the
        patient's right of the other.
    """
    mine = _rows_of(study.study_id, coordinates)
    series = {item.series_id: item for item in study.series}
    points: dict[Target, LevelPoint] = {}
    problems: list[str] = []
    rows: Any = mine.to_dict("records")
    for row, placeholder in zip(rows, is_placeholder(mine), strict=True):
        target = Target(Condition.parse(row["condition"]), Level.parse(row["level"]))
        series_id, instance = str(row["series_id"]), int(row["instance_number"])
        xy_px = (float(row["x"]), float(row["y"]))
        located = _locate(series.get(series_id), instance, xy_px)
        if placeholder and not keep_placeholders:
            code = "placeholder_point"
        elif isinstance(located, str):
            code = located
        elif target in points:
            code = "duplicate_point"
        else:
            points[target] = LevelPoint(
                target.condition,
                target.level,
                located,
                PointSource.ANNOTATED,
                sight=Sight(series_id, instance, xy_px),
            )
            continue
        problems.append(f"{code}: {target.row_id(study.study_id)} ({series_id}, {instance})")
    for target in _exchanged(points):
        sight = points.pop(target).sight
        assert sight is not None
        place = f"{target.row_id(study.study_id)} ({sight.series_id}, {sight.instance_number})"
        problems.append(f"sides_exchanged: {place}")
    return tuple(points.values()), tuple(problems)


def points_left_out(problems: Iterable[str]) -> list[Problem]:
    """What ``annotated_points`` says of the rows of several studies that gave no point, by its codes."""
    places: dict[str, list[str]] = {}
    for text in problems:
        code, _, place = text.partition(": ")
        places.setdefault(code, []).append(place)
    return [problem(code, "annotated point that is left out", found) for code, found in places.items()]


def _exchanged(points: Mapping[Target, LevelPoint]) -> list[Target]:
    """Both of every pair whose left one lies clearly to the right of the other; none of 5,454 real recesses.

    Of 9,814 real pairs of foramina 39 have both points on one slice: nothing says which of these is wrong.
    """
    found = []
    for group in (ConditionGroup.FORAMINAL, ConditionGroup.SUBARTICULAR):
        for level in LEVELS:
            left, right = pair = [
                Target(Condition.of(group, side), level) for side in (Side.LEFT, Side.RIGHT)
            ]
            if left not in points or right not in points:
                continue
            if points[left].xyz_mm[0] < points[right].xyz_mm[0] - _CLEARLY_MM:
                found += pair
    return found


def contradict_themselves(points: Iterable[LevelPoint]) -> bool:
    """Whether the left and right foramina of a study are numbered a level apart: one side must be wrong."""
    heights = {(point.condition, point.level): float(point.xyz_mm[2]) for point in points}
    sides = [Condition.of(ConditionGroup.FORAMINAL, side) for side in Side]
    one, other = np.array([[heights.get((side, level), np.nan) for level in LEVELS] for side in sides])
    return are_a_level_apart(one, other)


def _rows_of(study_id: str, coordinates: pd.DataFrame) -> pd.DataFrame:
    ids = coordinates["study_id"]
    if pd.api.types.is_integer_dtype(ids):
        return coordinates[ids == (int(study_id) if study_id.isdecimal() else -1)]
    return coordinates[ids == study_id]


def _locate(series: Series | None, instance: int, xy_px: tuple[float, float]) -> FloatArray | str:
    """The place (3,) in mm, or the code of what is missing."""
    if series is None:
        return "series_not_loaded"
    try:
        item: Slice = series.by_instance(instance)
    except KeyError:
        return "instance_not_found"
    if not item.plane.contains_px(xy_px):
        return "outside_image"
    return item.plane.to_mm(xy_px)


@dataclass(frozen=True)
class PointRules:
    """Which annotated points are not learnt from. Labels stay: only the place is in doubt.

    Attributes:
        placeholders: points in the image corner, near (5, 5): 13 canal rows of the RSNA table.
        wrong_series: points on a series of another kind than the condition is read on: 5 canal rows, study
            3637444890.
        level_order: the canal points of a series whose levels do not go down the image: two series.
        displaced: the canal points of a series with one far from the curve of the other four: four series.
        sides_disagree: the foramen or recess points of a series whose left and right ones are numbered a
            level apart: 51 and 7 series, 579 rows.
    """

    placeholders: bool = True
    wrong_series: bool = True
    level_order: bool = True
    displaced: bool = True
    sides_disagree: bool = True


def clean_points(
    coordinates: pd.DataFrame, series: pd.DataFrame | None, rules: PointRules
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The points that the rules leave, and how many rows each rule took (a row counts for the first one).

    Args:
        coordinates, series: of ``RsnaTables``; without a series table ``wrong_series`` cannot be told.
    """
    taken: dict[str, int] = {}
    kept = coordinates

    def drop(rule: str, bad: pd.Series) -> None:
        nonlocal kept
        taken[rule] = int(bad.sum())
        kept = kept[~bad]

    def on(series: list[tuple[str, str]], conditions: list[str]) -> pd.Series:
        """Which of the rows that are left are of some conditions and on some series."""
        places = pd.Series(list(zip(kept["study_id"], kept["series_id"], strict=True)), index=kept.index)
        return kept["condition"].isin(conditions) & places.isin(series)

    if rules.placeholders:
        drop("placeholders", is_placeholder(kept))
    if rules.wrong_series and series is not None:
        kinds = series.drop_duplicates(["study_id", "series_id"]).set_index(["study_id", "series_id"])
        index = pd.MultiIndex.from_frame(kept[["study_id", "series_id"]])
        listed = kinds["series_description"].reindex(index).to_numpy()
        usual = kept["condition"].map({item.value: item.series_kind.value for item in Condition}).to_numpy()
        drop("wrong_series", pd.Series(pd.notna(listed) & (listed != usual), index=kept.index))
    if rules.level_order or rules.displaced:
        inverted, displaced = canal_curve_faults(kept[~is_placeholder(kept)])
        canal = [Condition.SPINAL_CANAL_STENOSIS.value]
        if rules.level_order:
            drop("level_order", on(inverted, canal))
        if rules.displaced:
            drop("displaced", on(displaced, canal))
    if rules.sides_disagree:
        bad = pd.Series(False, index=kept.index)
        for group in (ConditionGroup.FORAMINAL, ConditionGroup.SUBARTICULAR):
            both = [Condition.of(group, side).value for side in Side]
            bad |= on(side_faults(kept[~is_placeholder(kept)], group), both)
        drop("sides_disagree", bad)
    return kept.reset_index(drop=True), taken
