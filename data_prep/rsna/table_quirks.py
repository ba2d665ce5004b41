"""What is odd in the RSNA tables although they can be used; all of it occurs in the real ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_prep.geometry import FloatArray
from data_prep.problems import LumbarError
from data_prep.vocabulary import LEVELS, TARGETS, Condition, ConditionGroup, SeriesKind, Side

_EXAMPLES = 5
# Real placeholder points lie within 6 px of the corner; no true point is nearer than 40 px.
PLACEHOLDER_MAX_PX = 10.0
# Off the curve of the other four, in mean level gaps, L1/L2 … L5/S1: one and a half times what 99.5 % of the
# real series keep to (.77 .30 .26 .32 .84).
_DISPLACED_GAPS = (1.2, 0.45, 0.45, 0.45, 1.2)
# In 1,912 of 1,963 real series the left and right foramina of a level lie within 0.4 level gaps of each
# other, in 51 more than 0.8 apart; none lies between. Of 1,773 with recesses 7 lie more than 0.8 apart.
_SIDES_APART_GAPS = 0.7
_LEAST_LEVELS, _LEAST_SERIES = 3, 3
AXES_EXCHANGED = "axes_exchanged"
# Between levels, for recesses: on fewer, neighbouring slices are a level apart.
_LEAST_SLICES = 3.0
_POINT_KEY = ["study_id", "series_id", "instance_number", "condition", "level"]


@dataclass(frozen=True)
class Problem:
    """A kind of problem.

    Attributes:
        code: for programs.
        message: for people.
        count: how often it occurs.
        examples: where, at most 5.
        fatal: the data cannot be used; otherwise a quirk that the program survives.
    """

    code: str
    message: str
    count: int
    examples: tuple[str, ...]
    fatal: bool

    @property
    def said(self) -> str:
        """Code, number and examples."""
        shown = f" ({', '.join(self.examples)}{', …' if self.count > len(self.examples) else ''})"
        return f"[{self.code}] {self.count} x {self.message}{shown if self.examples else ''}"

    def __str__(self) -> str:
        return f"{'error' if self.fatal else 'quirk'} {self.said}"


class TablesInvalid(LumbarError, ValueError):
    """Tables that cannot be used; ``problems`` holds all that was found, fatal or not."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(item) for item in problems if item.fatal))
        self.problems = problems

    def __reduce__(self) -> tuple[type[TablesInvalid], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


def problem(code: str, message: str, places: Iterable[object], *, fatal: bool = False) -> Problem:
    """A problem counted by its places, the first of which are its examples."""
    named = [str(place) for place in places]
    return Problem(code, message, len(named), tuple(named[:_EXAMPLES]), fatal)


def quirk(code: str, message: str, places: Iterable[object]) -> list[Problem]:
    """The same of what can be survived; nothing without a place."""
    found = problem(code, message, places)
    return [found] if found.count else []


def label_quirks(train: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    """Labels without duplicate studies, and their quirks."""
    train, problems = _without_duplicates(train, ["study_id"], "train.csv")
    columns = [target.column for target in TARGETS]
    places = [
        f"{study_id}_{column}"
        for column in columns
        for study_id in train.loc[train[column].isna(), "study_id"]
    ]
    return train, problems + quirk("empty_label", "target without a label", places)


def series_quirks(series: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    """Series without duplicates, and their quirks."""
    series, problems = _without_duplicates(series, ["study_id", "series_id"], "the series table")
    kinds = [kind.value for kind in SeriesKind]
    unknown = series.loc[~series["series_description"].isin(kinds), "series_id"]
    problems += quirk("unknown_series_kind", "series whose description is none of the three kinds", unknown)
    counts = pd.crosstab(series["study_id"], series["series_description"]).reindex(
        columns=kinds, fill_value=0
    )
    for kind in kinds:
        several, none = counts.index[counts[kind] > 1], counts.index[counts[kind] == 0]
        problems += quirk("several_series_of_kind", f"study with several {kind} series", several)
        problems += quirk("missing_series_kind", f"study without {kind} series", none)
    return series, problems


def coordinate_quirks(
    coordinates: pd.DataFrame, series: pd.DataFrame | None
) -> tuple[pd.DataFrame, list[Problem]]:
    """Points without duplicates, and their quirks; placeholders stay in the table."""
    coordinates, problems = _without_duplicates(coordinates, _POINT_KEY, "the coordinate table")
    placeholder = is_placeholder(coordinates)
    corner = _places(coordinates[placeholder])
    problems += quirk("placeholder_point", "placeholder point in the image corner", corner)
    if series is not None:
        problems += _series_of_points(coordinates, series)
    shown = coordinates[~placeholder]
    return coordinates, problems + _axes_exchanged(shown) + _canal_order(shown) + _sides_apart(shown)


def point_and_label_quirks(train: pd.DataFrame, coordinates: pd.DataFrame) -> list[Problem]:
    """Studies, labels and points that lack each other."""
    with_points, listed = set(coordinates["study_id"]), set(train["study_id"])
    without = [study_id for study_id in train["study_id"] if study_id not in with_points]
    strangers = sorted(with_points - listed)
    labelled = {
        target.row_id(study_id)
        for target in TARGETS
        for study_id in train.loc[train[target.column].notna(), "study_id"]
    }
    pointed = set(_places(coordinates))
    no_point = sorted(place for place in labelled - pointed if place.split("_")[0] in with_points)
    no_label = sorted(place for place in pointed - labelled if place.split("_")[0] in listed)
    return [
        *quirk("study_without_points", "study without any point", without),
        *quirk("study_without_labels", "study with points but no row in train.csv", strangers),
        *quirk("label_without_point", "labelled target without a point", no_point),
        *quirk("point_without_label", "point of a target without a label", no_label),
    ]


def studies_left_out(have: Mapping[str, Iterable[str]]) -> list[Problem]:
    """Studies that lack something, where all must be there: what is missing → the studies that have it."""
    sets = {name: set(ids) for name, ids in have.items()}
    every = set().union(*sets.values())
    problems = []
    for name, ids in sets.items():
        lacking = sorted(every - ids)
        bare = {study_id.lstrip("0") for study_id in ids}
        zeros = any(study_id.lstrip("0") in bare for study_id in lacking)
        said = "; identifiers of some that have them differ by leading zeros alone" if zeros else ""
        problems += quirk("left_out", f"study without {name}{said}", lacking)
    return problems


def is_placeholder(coordinates: pd.DataFrame) -> pd.Series:
    """Which points lie in the corner of the image, about (5, 5), where no spine is."""
    return (coordinates["x"] <= PLACEHOLDER_MAX_PX) & (coordinates["y"] <= PLACEHOLDER_MAX_PX)


def _without_duplicates(table: pd.DataFrame, key: list[str], name: str) -> tuple[pd.DataFrame, list[Problem]]:
    repeated = table.duplicated(key)
    if not repeated.any():
        return table, []
    places = table.loc[repeated, key].astype(str).agg("/".join, axis=1)
    message = f"repeated row in {name}; the first one counts"
    problems = [problem("duplicate_row", message, places)]
    # Points of one structure may be two clicks; of labels and kinds one must be wrong.
    others = places[~table.fillna("").duplicated()[places.index]]
    if len(others) and key != _POINT_KEY:
        message = f"row of {name} that contradicts an earlier one"
        problems.append(problem("contradictory_row", message, others, fatal=True))
    return table[~repeated].reset_index(drop=True), problems


def _places(points: pd.DataFrame) -> list[str]:
    return (points["study_id"] + "_" + points["condition"] + "_" + points["level"]).tolist()


def _series_of_points(coordinates: pd.DataFrame, series: pd.DataFrame) -> list[Problem]:
    joined = coordinates.merge(series, on=["study_id", "series_id"], how="left")
    unlisted = joined["series_description"].isna()
    message = "point on a series that the series table does not list"
    problems = quirk("point_on_unlisted_series", message, _places(joined[unlisted]))
    usual = joined["condition"].map({item.value: item.series_kind.value for item in Condition})
    other = ~unlisted & (joined["series_description"] != usual)
    message = "point on a series of another kind than its condition is read on"
    return problems + quirk("point_on_other_series_kind", message, _places(joined[other]))


def _canal_order(coordinates: pd.DataFrame) -> list[Problem]:
    """Series whose five canal points do not go down level by level, or do not lie on one smooth curve."""
    inverted, displaced = (map("/".join, faults) for faults in canal_curve_faults(coordinates))
    return [
        *quirk("level_order", "series whose canal points are not in the order of the levels", inverted),
        *quirk(
            "displaced_point", "series with a canal point far from the curve of the other four", displaced
        ),
    ]


def _axes_exchanged(coordinates: pd.DataFrame) -> list[Problem]:
    """Series on which the levels lie beside each other, if they are the most: no patient lies like that.

    Told from points that sagittal slices show, of three levels and more.
    """
    sagittal = [item.value for item in Condition if item.series_kind is not SeriesKind.AXIAL_T2]
    mine = coordinates[coordinates["condition"].isin(sagittal)]
    by_series = mine.groupby(["study_id", "series_id", "condition"])
    spread = by_series[["x", "y"]].agg(np.ptp)[by_series["level"].nunique() >= _LEAST_LEVELS]
    across = spread.index[spread["x"] > spread["y"]]
    if len(across) < _LEAST_SERIES or len(across) <= len(spread) / 2:
        return []
    places = dict.fromkeys("/".join(map(str, place[:2])) for place in across)
    message = "series whose levels lie beside each other, not below: x and y seem to be exchanged"
    return quirk(AXES_EXCHANGED, message, places)


def _sides_apart(coordinates: pd.DataFrame) -> list[Problem]:
    words = {ConditionGroup.FORAMINAL: "foramina", ConditionGroup.SUBARTICULAR: "recesses"}
    problems = []
    for group, named in words.items():
        message = f"series whose left and right {named} are numbered a level apart"
        problems += quirk("sides_disagree", message, map("/".join, side_faults(coordinates, group)))
    return problems


def side_faults(coordinates: pd.DataFrame, group: ConditionGroup) -> list[tuple[str, str]]:
    """Series (study, series id) on which left and right are numbered a level apart.

    Told of foramina by their rows in the image, of recesses by the slices that they lie on.
    """
    keys = ["study_id", "series_id"]
    sides = [Condition.of(group, side).value for side in Side]
    along, least_gap = ("y", 0.0) if group is ConditionGroup.FORAMINAL else ("instance_number", _LEAST_SLICES)
    mine = coordinates[coordinates["condition"].isin(sides)].drop_duplicates([*keys, "condition", "level"])
    wide = mine.pivot(index=keys, columns=["condition", "level"], values=along)
    wide = wide.reindex(columns=[(side, level.value) for side in sides for level in LEVELS])
    rows = wide.to_numpy(dtype=np.float64).reshape(-1, len(sides), len(LEVELS))
    return [
        (str(place[0]), str(place[1]))
        for place, (one, other) in zip(wide.index, rows, strict=True)
        if are_a_level_apart(one, other, least_gap)
    ]


def are_a_level_apart(one: FloatArray, other: FloatArray, least_gap: float = 0.0) -> bool:
    """Whether two lists of the same levels (5,), NaN where unknown, are numbered differently.

    Args:
        one, other: heights of the levels in the image or the patient, in any unit, L1/L2 first.
        least_gap: levels nearer to each other than this cannot be told apart.
    """
    both = np.flatnonzero(np.isfinite(one) & np.isfinite(other))
    if len(both) < _LEAST_LEVELS:
        return False
    heights = np.stack([one[both], other[both]])
    gap = np.median(np.abs(np.diff(heights) / np.diff(both)))
    apart = np.median(np.abs(heights[0] - heights[1]))
    return bool(gap >= least_gap and apart > _SIDES_APART_GAPS * gap)


def canal_curve_faults(coordinates: pd.DataFrame) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Series (study, series id) with canal points in the wrong order, and those with one off the curve."""
    canal = coordinates[coordinates["condition"] == Condition.SPINAL_CANAL_STENOSIS.value]
    keys = ["study_id", "series_id"]
    wide = canal.drop_duplicates([*keys, "level"]).pivot(index=keys, columns="level", values=["x", "y"])
    wide = wide.reindex(columns=[(axis, level.value) for axis in "xy" for level in LEVELS])
    inverted, displaced = [], []
    for place, row in zip(wide.index, wide.to_numpy(dtype=np.float64), strict=True):
        xy_px = row.reshape(2, len(LEVELS)).T
        heights = xy_px[np.isfinite(xy_px[:, 1]), 1]
        if (np.diff(heights) <= 0).any():
            inverted.append((str(place[0]), str(place[1])))
        elif len(heights) == len(LEVELS) and _leaves_curve(xy_px):
            displaced.append((str(place[0]), str(place[1])))
    return inverted, displaced


def _leaves_curve(xy_px: np.ndarray) -> bool:
    """Whether one of five points (5, 2) lies off the parabola through the other four."""
    gap = float(np.linalg.norm(xy_px[4] - xy_px[0])) / 4
    off = np.linalg.norm(_FROM_THE_OTHERS @ xy_px - xy_px, axis=1)
    return bool((off > np.array(_DISPLACED_GAPS) * gap).any())


def _parabola_weights() -> np.ndarray:
    """(5, 5): row i predicts point i of five from the least-squares parabola through the other four."""
    powers = np.vander(np.arange(5.0), 3)
    weights = np.zeros((5, 5))
    for index in range(5):
        others = np.arange(5) != index
        weights[index, others] = powers[index] @ np.linalg.pinv(powers[others])
    return weights


_FROM_THE_OTHERS = _parabola_weights()
