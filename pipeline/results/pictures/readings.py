"""What a picture says about a study, whoever says it: the program, or the people who annotated it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_prep.levels import LevelPoint, PointSource, SpineFrame, SpineLevel, SpineLevels
from data_prep.study import Study
from data_prep.vocabulary import TARGETS, Condition, Level, Severity, Target
from pipeline.models import caption
from pipeline.prediction import StudyPrediction
from pipeline.results.words import NOT_A_DEVICE, SOURCE_NAMES, numbering_words, share_words

if TYPE_CHECKING:  # predictions are read without tables
    import pandas as pd

    from data_prep.rsna.tables import RsnaTables

COORDINATES_FILE = "train_label_coordinates.csv"
ANNOTATED = "annotated"
# Tables lie beside the images: at most this many folders above a series.
_LEVELS_UP = 3


@dataclass(frozen=True)
class Opinion:
    """How bad a target is said to be.

    Attributes:
        severity: None: nobody says.
        words: for people, such as ``Severe 83%``.
        sure: False: the frame is dashed.
        why: words for a target that has no image.
    """

    severity: Severity | None
    words: str
    sure: bool = True
    why: str = "no image"


@dataclass(frozen=True, eq=False)
class Reading:
    """Where the levels and points of a study are, and how bad each target is.

    Attributes:
        who: a word for captions: ``detected`` or ``annotated``.
        summary: a line below the title.
        footer: where the grades come from.
    """

    study_id: str
    who: str
    summary: str
    footer: str
    levels: SpineLevels
    opinions: Mapping[Target, Opinion]


def reading_of_prediction(prediction: StudyPrediction) -> Reading:
    """What the program says."""
    opinions = {}
    for target, grade in prediction.grades.items():
        words = f"{grade.severity.value} {share_words(float(grade.probabilities.max()))}"
        why = ", ".join(grade.flags).replace("_", " ") or "no image"
        graded = grade.source.is_graded
        opinions[target] = Opinion(
            grade.severity if graded else None, words if graded else SOURCE_NAMES[grade.source], graded, why
        )
    return Reading(
        prediction.study_id,
        "detected",
        _summary(prediction),
        caption(prediction.provenance.models, prediction.provenance.learned),
        prediction.found,
        opinions,
    )


def _summary(prediction: StudyPrediction) -> str:
    if prediction.rejected:
        reason = prediction.rejections[-1]
        return f"rejected: [{reason.reason.value}] {reason.message}; every grade is the level prior"
    flags = f" · flags: {', '.join(prediction.flags)}" if prediction.flags else ""
    numbering = numbering_words(prediction.found.numbering_confidence, prediction.flags)
    return f"{len(prediction.found.levels)} of 5 levels found · {numbering}{flags}"


def reading_of_annotations(study: Study, tables: RsnaTables) -> Reading:
    """What people said: annotated points and, where the data set has them, labels."""
    from data_prep.rsna.annotations import annotated_points

    points: tuple[LevelPoint, ...] = ()
    problems: tuple[str, ...] = ()
    if tables.coordinates is not None:
        points, problems = annotated_points(study, tables.coordinates)
    frame = SpineFrame(*np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]))
    canals = {p.level: p.xyz_mm for p in points if p.condition is Condition.SPINAL_CANAL_STENOSIS}
    levels = {
        # Nobody annotates the disc: both ends of the line lie in the canal.
        level: SpineLevel(canals[level], canals[level], frame, 1.0, 0.0, PointSource.ANNOTATED)
        for level in Level
        if level in canals
    }
    left_out = f" · {len(problems)} rows of the table not usable" if problems else ""
    return Reading(
        study.study_id,
        ANNOTATED,
        f"{len(points)} of 25 points annotated by radiologists or by the maker of the data set{left_out}",
        f"Annotations of the data set. {NOT_A_DEVICE}",
        SpineLevels(study.study_id, levels, points, 1.0 if levels else 0.0),
        _labels(study.study_id, tables.train, {(p.condition, p.level) for p in points}),
    )


def _labels(
    study_id: str, train: pd.DataFrame | None, pointed: set[tuple[Condition, Level]]
) -> dict[Target, Opinion]:
    rows = None if train is None else train[train["study_id"] == study_id]
    opinions = {}
    for target in TARGETS:
        value = None if rows is None or rows.empty else rows.iloc[0].get(target.column)
        severity = Severity(value) if isinstance(value, str) and value else None
        why = "no image" if (target.condition, target.level) in pointed else "no point"
        opinions[target] = Opinion(severity, "no label" if severity is None else severity.value, why=why)
    return opinions


def data_set_of(path: Path) -> Path | None:
    """The folder of the data set that a path belongs to; None where no coordinate table is near."""
    path = path.absolute()
    near = (path, *path.parents)[: _LEVELS_UP + 1]
    return next((place for place in near if (place / COORDINATES_FILE).is_file()), None)
