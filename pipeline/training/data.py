"""What a training learns from: tables after cleaning, decoded studies, the labels of each, folds by study."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from classifier.learn.sources import severities_in
from classifier.metric import long_labels
from data_prep.levels import LevelPoint
from data_prep.read.entry import StudyEntry
from data_prep.read.find import find_studies
from data_prep.rsna.annotations import PointRules, annotated_points, clean_points
from data_prep.rsna.decoded_cache import DecodedCache
from data_prep.rsna.table_quirks import studies_left_out
from data_prep.rsna.tables import read_tables
from data_prep.study import Study
from data_prep.vocabulary import SEVERITIES, TARGETS, ConditionGroup, Target
from pipeline.training.stages import digest_of


@dataclass(frozen=True, eq=False)
class TrainingData:
    """A labelled data set in the RSNA layout.

    Attributes:
        labels: ``train.csv``, the studies that have images.
        points: ``train_label_coordinates.csv`` after cleaning.
        entries: studies with images and at least one label, in order.
        cache: their decoded images.
        points_taken: how many rows each cleaning rule took.
        rules: that were used.
        left_out: studies without images or labels, and what makes all points doubtful, in words.
    """

    labels: pd.DataFrame
    points: pd.DataFrame
    entries: Sequence[StudyEntry]
    cache: DecodedCache
    points_taken: Mapping[str, int]
    rules: PointRules
    left_out: tuple[str, ...]

    @property
    def study_ids(self) -> list[str]:
        return [entry.study_id for entry in self.entries]

    def digest(self, study_ids: Sequence[str]) -> str:
        """Of labels, points and images of some studies."""
        ids = set(study_ids)
        return digest_of(
            {
                "labels": self.labels[self.labels["study_id"].isin(ids)].fillna("").to_csv(index=False),
                "points": self.points[self.points["study_id"].isin(ids)].to_csv(index=False),
                "images": {study_id: self.cache.digest(study_id) for study_id in sorted(ids)},
            }
        )

    def annotated(self, study: Study) -> tuple[LevelPoint, ...]:
        """The annotated points of a study that survived the cleaning."""
        return self.annotated_or_why(study)[0]

    def annotated_or_why(self, study: Study) -> tuple[tuple[LevelPoint, ...], tuple[str, ...]]:
        """The same, and what is wrong with those that are left out, see ``annotated_points``."""
        return annotated_points(study, self.points, keep_placeholders=not self.rules.placeholders)

    def grades(self, study_id: str) -> dict[Target, int]:
        """The severity index of every labelled target of a study."""
        return severities_in(self.labels[self.labels["study_id"] == study_id].iloc[0])


def read_training_data(data: Path, cache: Path, rules: PointRules) -> TrainingData:
    """Read and clean the tables and find the images; nothing is decoded yet.

    Raises:
        ValueError: labels or coordinates are missing, or no study has images and labels.
        TablesInvalid: the tables cannot be used.
        DicomRejected: no study is there.
    """
    tables = read_tables(data)
    if tables.train is None or tables.coordinates is None:
        raise ValueError(
            f"'{data.name}' needs train.csv and train_label_coordinates.csv: both stages learn from them"
        )
    points, taken = clean_points(tables.coordinates, tables.series, rules)
    columns = [target.column for target in TARGETS]
    labelled = set(tables.train.loc[tables.train[columns].notna().any(axis=1), "study_id"])
    found = [entry for entry in find_studies(data) if not entry.is_only_listed]
    entries = [entry for entry in found if entry.study_id in labelled]
    lacking = studies_left_out({"images": [entry.study_id for entry in found], "labels": labelled})
    if not entries:
        raise ValueError(f"'{data.name}' has no study with images and labels: try `lumbar check`")
    labels = tables.train[tables.train["study_id"].isin({entry.study_id for entry in entries})]
    left_out = (*tables.alarming, *(item.said for item in lacking))
    return TrainingData(
        labels.reset_index(drop=True), points, entries, DecodedCache(cache), taken, rules, left_out
    )


def assign_folds(labels: pd.DataFrame, study_ids: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """Study → fold, 0 … folds − 1; no study is in two.

    Stratified by condition group and severity, row by row, so that the rare severe canals are spread evenly.

    Args:
        labels: in the shape of ``train.csv``.
        study_ids: the studies to divide; each needs a label.

    Raises:
        ValueError: fewer studies than folds.
    """
    if len(study_ids) < folds:
        raise ValueError(
            f"{folds} folds need at least {folds} studies with images and labels, not {len(study_ids)}"
        )
    long = long_labels(labels)
    long = long[long["study_id"].isin(set(study_ids))].reset_index(drop=True)
    group = long["group"].map({item.value: index for index, item in enumerate(ConditionGroup)})
    stratum = (group * len(SEVERITIES) + long["severity"]).to_numpy(np.int64)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    found: dict[str, int] = {}
    studies = long["study_id"].to_numpy().astype(str)
    with warnings.catch_warnings():
        # A severity rarer than there are folds cannot be in each of them.
        warnings.filterwarnings("ignore", message="The least populated class")
        parts = list(splitter.split(np.zeros(len(long)), stratum, groups=studies))
    for fold, (_, held_out) in enumerate(parts):
        found |= {str(study_id): fold for study_id in np.unique(studies[held_out])}
    if len(set(found.values())) < folds:
        # So few studies that the balance left a fold empty: deal them out.
        order = np.random.default_rng(seed).permutation(len(study_ids))
        found = {study_ids[index]: place % folds for place, index in enumerate(order.tolist())}
    return {study_id: found[study_id] for study_id in study_ids}


def share_of_severe(labels: pd.DataFrame, folds: Mapping[str, int]) -> dict[int, dict[str, int]]:
    """Per fold: studies, and severe labels per condition group."""
    long = long_labels(labels)
    long["fold"] = long["study_id"].map(dict(folds))
    severe = long[long["severity"] == len(SEVERITIES) - 1].groupby(["fold", "group"]).size()
    return {
        fold: {"studies": count}
        | {f"severe {group.value}": int(severe.get((fold, group.value), 0)) for group in ConditionGroup}
        for fold, count in sorted(Counter(folds.values()).items())
    }


def without_severe(labels: pd.DataFrame, folds: Mapping[str, int]) -> list[str]:
    """Which folds have no severe label of a condition group: ``severe spinal of fold 1``."""
    return [
        f"{name} of fold {fold}"
        for fold, counts in share_of_severe(labels, folds).items()
        for name, count in counts.items()
        if name != "studies" and not count
    ]
