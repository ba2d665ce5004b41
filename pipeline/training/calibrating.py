"""Calibration, share of the prior and any-severe pull, fitted without looking at what they are judged on.

What is reported for a fold uses parameters fitted on the OTHER folds' out-of-fold predictions; the final
graders get parameters fitted on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from classifier.any_severe import fit_pull
from classifier.calibration import (
    Calibration,
    JointCalibration,
    best_prior_share,
    fit_calibration,
    fit_joint_calibration,
)
from classifier.config import GraderName
from data_prep.vocabulary import SEVERITIES, split_row_id
from pipeline.training.grading import OutOfFold

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Out-of-fold probabilities that can be believed, and the calibrations of the final graders.

    Attributes:
        p: per grader (n, 3), rows as in the out-of-fold predictions; of the canal, what both views say
            together where both graders saw the target.
        final: per grader, fitted on all folds.
        pulls: per fold, the any-severe pull that was chosen on the other folds.
        joint: how the evidence of both canal graders is joined, fitted on all folds; None where they see no
            target together.
    """

    p: Mapping[GraderName, FloatArray]
    final: Mapping[GraderName, Calibration]
    pulls: Mapping[int, float]
    joint: JointCalibration | None


def calibrate(oof: Mapping[GraderName, OutOfFold]) -> Calibrated:
    """Fit everything, crosswise over the folds and on all of them."""
    p, final = {}, {}
    for group, rows in oof.items():
        p[group] = np.empty((len(rows), len(SEVERITIES)))
        for fold in np.unique(rows.fold):
            mine = rows.fold == fold
            fitted = _fit(rows, ~mine)
            p[group][mine] = fitted.probabilities(rows.logits[mine], rows.log_prior[mine])
        final[group] = _fit(rows, np.ones(len(rows), bool))
    pulls = {}
    joint = _join_canal(oof, p)
    if GraderName.SPINAL in oof:
        spinal, rows = p[GraderName.SPINAL], oof[GraderName.SPINAL]
        study = study_numbers(rows)
        for fold in np.unique(rows.fold):
            others = rows.fold != fold
            pulls[int(fold)] = (
                fit_pull(spinal[others], rows.label[others], study[others]) if others.any() else 0.0
            )
        pull = fit_pull(spinal, rows.label, study)
        final[GraderName.SPINAL] = replace(final[GraderName.SPINAL], any_severe_pull=pull)
    return Calibrated(p, final, pulls, joint)


def _join_canal(
    oof: Mapping[GraderName, OutOfFold], p: dict[GraderName, FloatArray]
) -> JointCalibration | None:
    """Put what both canal graders say together into ``p``, fold by fold as the other folds advise."""
    if not {GraderName.SPINAL, GraderName.SPINAL_AXIAL} <= set(oof):
        return None
    sagittal, axial = oof[GraderName.SPINAL], oof[GraderName.SPINAL_AXIAL]
    _, one, two = np.intersect1d(sagittal.row_ids, axial.row_ids, return_indices=True)
    if not len(one):
        return None
    log_prior, truth = sagittal.log_prior[one], np.eye(len(SEVERITIES))[sagittal.label[one]]

    def fitted(chosen: NDArray[np.bool_]) -> JointCalibration:
        return fit_joint_calibration(
            sagittal.logits[one[chosen]], axial.logits[two[chosen]], log_prior[chosen], truth[chosen]
        )

    for fold in np.unique(sagittal.fold[one]):
        mine = sagittal.fold[one] == fold
        if not mine.all():
            p[GraderName.SPINAL][one[mine]] = fitted(~mine).probabilities(
                sagittal.logits[one[mine]], axial.logits[two[mine]], log_prior[mine]
            )
    return fitted(np.ones(len(one), bool))


def study_numbers(rows: OutOfFold) -> NDArray[np.int64]:
    """(n,) the study of every row, as a number."""
    names = [split_row_id(str(row_id))[0] for row_id in rows.row_ids]
    return np.unique(names, return_inverse=True)[1].astype(np.int64).reshape(-1)


def _fit(rows: OutOfFold, chosen: NDArray[np.bool_]) -> Calibration:
    """Temperature and bias on the chosen rows; the share of the prior on their folds, one by one left out."""
    folds = np.unique(rows.fold[chosen])
    truth = np.eye(len(SEVERITIES))[rows.label]
    if not chosen.any():
        return Calibration()
    fitted = fit_calibration(rows.logits[chosen], rows.log_prior[chosen], truth[chosen])
    if len(folds) < 2:
        return fitted
    p = np.empty((len(rows), len(SEVERITIES)))
    for fold in folds:
        mine = chosen & (rows.fold == fold)
        rest = chosen & ~mine
        inner = fit_calibration(rows.logits[rest], rows.log_prior[rest], truth[rest])
        p[mine] = inner.probabilities(rows.logits[mine], rows.log_prior[mine])
    share = best_prior_share(p[chosen], np.exp(rows.log_prior[chosen]), truth[chosen])
    return replace(fitted, prior_share=share)
