"""Quirks of annotations. No prediction reads them: the grades stay, and ``lumbar check`` names each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from data_prep.rsna.tables import COORDINATES_FILE, LABELS_FILE
from data_prep.vocabulary import LEVELS, Condition, Level, SeriesKind, Target
from tests.hostile.quirks.stored import Quirk, StoredStudy

CANAL = Condition.SPINAL_CANAL_STENOSIS
Change = Callable[[pd.DataFrame, pd.DataFrame, StoredStudy], None]


def on_tables(change: Change) -> Quirk:
    """Annotation tables changed in place: ``change(labels, points, study)``."""

    def quirk(study: StoredStudy, rng: np.random.Generator) -> StoredStudy:
        labels, points = study.tables[LABELS_FILE].copy(), study.tables[COORDINATES_FILE].copy()
        change(labels, points, study)
        tables = {LABELS_FILE: labels, COORDINATES_FILE: points}
        content = {
            name: table.to_csv(index=False, lineterminator="\n").encode() for name, table in tables.items()
        }
        return study.plus(others=content)

    return quirk


def _of(points: pd.DataFrame, condition: Condition, level: Level | None = None) -> pd.Series:
    chosen = points["condition"] == condition.label
    return chosen if level is None else chosen & (points["level"] == level.label)


def _placeholder(labels: pd.DataFrame, points: pd.DataFrame, study: StoredStudy) -> None:
    points.loc[_of(points, CANAL, Level.L1_L2), ["x", "y"]] = ["5.2", "4.9"]


def _displaced(labels: pd.DataFrame, points: pd.DataFrame, study: StoredStudy) -> None:
    canal = points.loc[_of(points, CANAL), "y"].astype(float)
    row = points.index[_of(points, CANAL, Level.L3_L4)][0]
    points.loc[row, "x"] = str(float(points.loc[row, "x"]) + 0.3 * (canal.max() - canal.min()))


def _inverted(labels: pd.DataFrame, points: pd.DataFrame, study: StoredStudy) -> None:
    canal = _of(points, CANAL)
    names = {level.label: LEVELS[-1 - level.index].label for level in LEVELS}
    points.loc[canal, "level"] = points.loc[canal, "level"].map(names)


def _sides_apart(labels: pd.DataFrame, points: pd.DataFrame, study: StoredStudy) -> None:
    right = _of(points, Condition.RIGHT_NEURAL_FORAMINAL_NARROWING)
    above = {level.label: LEVELS[level.index + 1].label for level in LEVELS[:-1]}
    points.loc[right, "level"] = points.loc[right, "level"].map(above)
    points.drop(points.index[right & points["level"].isna()], inplace=True)


def _on_t1(labels: pd.DataFrame, points: pd.DataFrame, study: StoredStudy) -> None:
    (t1, *_) = study.ids_of(SeriesKind.SAGITTAL_T1)
    numbers = sorted(int(image.dataset.InstanceNumber) for image in study.of(t1))
    points.loc[_of(points, CANAL), ["series_id", "instance_number"]] = [t1, str(numbers[len(numbers) // 2])]


def _no_points(labels: pd.DataFrame, points: pd.DataFrame, study: StoredStudy) -> None:
    points.drop(points.index, inplace=True)


def _no_label(labels: pd.DataFrame, points: pd.DataFrame, study: StoredStudy) -> None:
    labels[Target(CANAL, Level.L4_L5).column] = ""


def _no_point(labels: pd.DataFrame, points: pd.DataFrame, study: StoredStudy) -> None:
    points.drop(points.index[_of(points, CANAL, Level.L4_L5)], inplace=True)


# Name, title, change, and the code that `lumbar check` must give.
TABLE_QUIRKS: tuple[tuple[str, str, Quirk, str], ...] = (
    ("point-placeholder", "a canal point near (5, 5)", on_tables(_placeholder), "placeholder_point"),
    ("point-displaced", "a canal point displaced", on_tables(_displaced), "displaced_point"),
    ("points-inverted", "canal points in inverted level order", on_tables(_inverted), "level_order"),
    ("foramen-sides", "right foramina numbered a level lower", on_tables(_sides_apart), "sides_disagree"),
    ("points-on-t1", "canal points on a T1 series", on_tables(_on_t1), "point_on_other_series_kind"),
    ("no-points", "a study without points", on_tables(_no_points), "study_without_points"),
    ("label-empty", "an empty label", on_tables(_no_label), "empty_label"),
    ("point-without-label", "a point without a label", on_tables(_no_label), "point_without_label"),
    ("label-without-point", "a label without a point", on_tables(_no_point), "label_without_point"),
)
