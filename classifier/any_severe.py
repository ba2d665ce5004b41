"""The fourth term of the metric: "is any canal level severe?", answered by the largest q(severe) of a study.

A study's largest q(severe) is the best answer for its own level, not for the study: with several doubtful
levels the study is more likely to have a severe one than any level is. Raising the one row that answers costs
the spinal term a little and may save the fourth term more. How far to go is one number, chosen on
out-of-fold data; it touches the submission alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from classifier.grade import SEVERITY_WEIGHTS
from classifier.prior import competition_weighted
from data_prep.vocabulary import Severity

FloatArray = NDArray[np.float64]

_SEVERE, _MODERATE, _MILD = Severity.SEVERE.index, Severity.MODERATE.index, Severity.NORMAL_MILD.index
_EPS = 1e-6
# Mean of the two terms that have to be saved for a pull to be worth it: less is noise.
_WORTH_A_PULL = 1e-4


def best_answer(p: FloatArray) -> float:
    """The best m for one study's canal levels, p (levels, 3), taken as independent of each other.

    Under the metric's weights, the largest of a study's rows: 4 if any level is severe, else 2 or 1:
    m = 4·P(any severe) / (4·P(any severe) + 2·P(worst is moderate) + P(all mild)).
    """
    none_severe = float(np.prod(1 - p[:, _SEVERE]))
    all_mild = float(np.prod(p[:, _MILD]))
    severe = SEVERITY_WEIGHTS[_SEVERE] * (1 - none_severe)
    other = SEVERITY_WEIGHTS[_MODERATE] * (none_severe - all_mild) + SEVERITY_WEIGHTS[_MILD] * all_mild
    return float(severe / (severe + other))


def pulled(p: FloatArray, study: NDArray[np.int64], pull: float) -> FloatArray:
    """Submitted q (n, 3) of canal rows, the most severe row of each study drawn towards ``best_answer``.

    Args:
        p: (n, 3) calibrated, unweighted.
        study: (n,) study of each row, as a number.
        pull: 0 leaves q ∝ (1, 2, 4)·p; 1 goes all the way, in log odds; q(severe) is never lowered.
    """
    q = competition_weighted(p)
    if pull <= 0:
        return q
    order = np.argsort(study, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(study[order])) + 1):
        row = rows[q[rows, _SEVERE].argmax()]
        now = float(np.clip(q[row, _SEVERE], _EPS, 1 - _EPS))
        wanted = float(np.clip(best_answer(p[rows]), _EPS, 1 - _EPS))
        if wanted > now:
            new = _pulled_share(now, wanted, pull)
            q[row] *= (1 - new) / (1 - now)
            q[row, _SEVERE] = new
    return q


def _pulled_share(now: float, wanted: float, pull: float) -> float:
    """The share ``pull`` of the way from ``now`` to ``wanted`` in log odds."""
    odds = np.log(now / (1 - now)) * (1 - pull) + np.log(wanted / (1 - wanted)) * pull
    return float(1 / (1 + np.exp(-odds)))


def terms(q: FloatArray, label: NDArray[np.int64], study: NDArray[np.int64]) -> tuple[float, float]:
    """The spinal and the any-severe term of canal rows, q (n, 3) as submitted."""
    weight = SEVERITY_WEIGHTS[label]
    q = np.clip(q, 1e-15, 1 - 1e-15)
    spinal = float(np.average(-np.log(q[np.arange(len(label)), label]), weights=weight))
    numbers = np.unique(study, return_inverse=True)[1].reshape(-1)
    largest, severe, heaviest = (np.zeros(numbers.max() + 1) for _ in range(3))
    np.maximum.at(largest, numbers, q[:, _SEVERE])
    np.maximum.at(severe, numbers, (label == _SEVERE).astype(float))
    np.maximum.at(heaviest, numbers, weight)
    loss = -np.log(np.where(severe > 0, largest, 1 - largest))
    return spinal, float(np.average(loss, weights=heaviest))


def fit_pull(p: FloatArray, label: NDArray[np.int64], study: NDArray[np.int64]) -> float:
    """The pull (0–1) under which the mean of both terms is least on out-of-fold rows; 0 if none is better."""

    def loss(pull: float) -> float:
        return float(np.mean(terms(pulled(p, study, pull), label, study)))

    # Here, because only a fit needs it: every process that grades would wait for it.
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded", options={"maxiter": 25})
    return float(found.x) if loss(float(found.x)) < loss(0.0) - _WORTH_A_PULL else 0.0
