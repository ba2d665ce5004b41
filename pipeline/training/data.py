"""What a training learns from: tables after cleaning, decoded studies, the labels of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from classifier.learn.sources import severities_in
from data_prep.levels import LevelPoint
from data_prep.read.entry import StudyEntry
from data_prep.read.find import find_studies
from data_prep.rsna.annotations import annotated_points
from data_prep.rsna.cleaning import PointRules, clean_points
from data_prep.rsna.decoded_cache import DecodedCache
from data_prep.rsna.table_quirks import studies_left_out
from data_prep.rsna.tables import read_tables
from data_prep.study import Study
from data_prep.vocabulary import TARGETS, Target
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
