"""Rules that leave out annotated points which cannot be where they say; each can be switched off."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from data_prep.rsna.table_quirks import canal_curve_faults, is_placeholder, side_faults
from data_prep.vocabulary import Condition, ConditionGroup, Side


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
