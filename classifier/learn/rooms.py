"""Fits what the measured room of a foramen says of its grade, see ``classifier.room_evidence``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.model_selection import GroupKFold

from classifier.calibration import expected_calibration_error
from classifier.config import GraderName
from classifier.learn.crop_cache import LabelledStudy
from classifier.predict import Grader
from classifier.prior import competition_log_loss, level_prior
from classifier.room_evidence import FILE_NAME, RoomEvidence, heights_of
from data_prep.base.files import write_json
from data_prep.base.manifest import write_manifest
from data_prep.levels import SpineLevels
from data_prep.pixel_cache import PixelCache
from data_prep.vocabulary import Severity

# How far points are moved, in the plane, as a localiser errs; along the normal they stay on their slice.
_JITTER_MM = 2.0
_PENALTY, _FOLDS, _MIDDLE_MM = 0.002, 5, 12.0
_MILD, _SEVERE = Severity.NORMAL_MILD.index, Severity.SEVERE.index


@dataclass(frozen=True, eq=False)
class RoomRows:
    """Foramina that were graded and measured.

    Attributes:
        study_ids: (n,) str.
        logits, truth, log_prior: (n, 3); height_mm: (n,).
    """

    study_ids: NDArray[np.str_]
    logits: NDArray[np.float64]
    height_mm: NDArray[np.float64]
    truth: NDArray[np.float64]
    log_prior: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.study_ids)

    def take(self, places: NDArray[np.intp]) -> RoomRows:
        return RoomRows(
            self.study_ids[places],
            self.logits[places],
            self.height_mm[places],
            self.truth[places],
            self.log_prior[places],
        )

    def probabilities(self, joint: RoomEvidence) -> NDArray[np.float64]:
        return joint.probabilities(self.logits, self.height_mm, self.log_prior)


def room_rows(grader: Grader, studies: Iterable[LabelledStudy], *, seed: int = 0) -> RoomRows:
    """Grade and measure the foramina of labelled studies at points that are moved a little.

    Raises:
        ValueError: none of them has a labelled foramen on T1.
    """
    rng = np.random.default_rng(seed)
    found = []
    for item in studies:
        study = PixelCache(item.study).study
        moved = tuple(
            replace(point, xyz_mm=point.xyz_mm + rng.normal(0, (0.4, 1, 1)) * _JITTER_MM)
            for point in item.points
        )
        levels = SpineLevels(study.study_id, points=moved)
        logits, heights = grader.logits(GraderName.FORAMINAL, study, levels), heights_of(study, levels)
        found += [
            (study.study_id, logits[target], heights[target], item.truth[target], np.log(level_prior(target)))
            for target in item.labels
            if target in logits and target in heights
        ]
    if not found:
        raise ValueError("no labelled foramen on sagittal T1: there is nothing to fit")
    study_ids, *parts = zip(*found, strict=True)
    return RoomRows(np.array(study_ids, np.str_), *(np.array(part, np.float64) for part in parts))


def fit_rooms(sources: Sequence[RoomRows]) -> RoomEvidence:
    """The numbers of the least log loss, all sources alike, however many foramina each has."""

    def loss(numbers: NDArray[np.float64]) -> float:
        joint = _joint(numbers)
        parts = [np.log(np.clip(rows.probabilities(joint), 1e-9, 1)) * rows.truth for rows in sources]
        return float(-sum(part.sum() / len(part) for part in parts) + _PENALTY * (numbers[1:] ** 2).sum())

    start = np.array([0.5, 0.0, 0.0, 0.4, 0.1])
    bounds = [(0.0, None), (None, None), (None, None), (0.0, None), (0.0, None)]
    return _joint(np.asarray(minimize(loss, start, method="L-BFGS-B", bounds=bounds).x))


def _joint(numbers: NDArray[np.float64]) -> RoomEvidence:
    """From the weight, two biases at a usual height, and how far the slopes of 4 mm fall, twice."""
    weight, mild, moderate, first, second = (float(number) for number in numbers)
    slope = np.cumsum([0.0, -first, -second]) / 4
    slope -= slope.mean()
    bias = np.array([mild, moderate, -mild - moderate]) - _MIDDLE_MM * slope
    bias -= bias.mean()
    return RoomEvidence(weight, (bias[0], bias[1], bias[2]), (slope[0], slope[1], slope[2]))


def figures_of(sources: Sequence[RoomRows], grader: Grader) -> list[dict[str, Any]]:
    """Of each source what the fit is worth on studies that it was not made of, beside the grader alone.

    Raises:
        ValueError: a source is of a single study.
    """
    folds = min(_FOLDS, *(len(np.unique(rows.study_ids)) for rows in sources))
    if folds < 2:
        raise ValueError("the foramina are of a single study: two at least are needed")
    parts = [list(GroupKFold(folds).split(rows.logits, groups=rows.study_ids)) for rows in sources]
    held_out = [np.zeros_like(rows.truth) for rows in sources]
    for fold in range(folds):
        joint = fit_rooms([rows.take(part[fold][0]) for rows, part in zip(sources, parts, strict=True)])
        for rows, part, p in zip(sources, parts, held_out, strict=True):
            p[part[fold][1]] = rows.take(part[fold][1]).probabilities(joint)
    calibration = grader.graders[GraderName.FORAMINAL].calibration
    return [
        {
            "foramina": len(rows),
            "studies": len(np.unique(rows.study_ids)),
            "grades": rows.truth.sum(axis=0).round().astype(int).tolist(),
            "log_loss": competition_log_loss(p, rows.truth),
            "log_loss_of_the_grader_alone": competition_log_loss(
                calibration.probabilities(rows.logits, rows.log_prior), rows.truth
            ),
            "prior_log_loss": competition_log_loss(np.exp(rows.log_prior), rows.truth),
            "ece_severe": expected_calibration_error(p[:, _SEVERE], rows.truth[:, _SEVERE]),
            "ece_moderate_or_worse": expected_calibration_error(1 - p[:, _MILD], 1 - rows.truth[:, _MILD]),
        }
        for rows, p in zip(sources, held_out, strict=True)
    ]


def save_rooms(folder: Path, joint: RoomEvidence, figures: Sequence[dict[str, Any]]) -> None:
    """Write ``rooms.json`` and renew the folder's manifest."""
    write_json(folder / FILE_NAME, {"joint": joint.to_dict(), "cross_validated": list(figures)}, indent=1)
    write_manifest(folder)
