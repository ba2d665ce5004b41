"""The level prior: how often each severity occurs at each level, before anything is seen.

Left and right are pooled. It is the floor that a grader must beat and the answer for a target that cannot
be seen. Bundled counts: the label table of the RSNA 2024 Lumbar Spine Degenerative Classification, see
``level_prior.json``.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike, NDArray

from classifier.grade import SEVERITY_WEIGHTS, Grade
from data_prep.vocabulary import LEVELS, SEVERITIES, ConditionGroup, GradeSource, Target


def competition_weighted(probabilities: ArrayLike) -> NDArray[np.float64]:
    """The best submission q ∝ (1, 2, 4)·p for probabilities p (..., 3), under the metric's sample weights.

    Minimising E[w(y)·(−ln q(y))] over q on the simplex gives q(y) ∝ w(y)·p(y).
    """
    weighted = np.asarray(probabilities, dtype=np.float64) * SEVERITY_WEIGHTS
    return weighted / weighted.sum(axis=-1, keepdims=True)


@cache
def level_prior_counts() -> NDArray[np.int64]:
    """(3 groups, 5 levels, 3 severities) labels of the real RSNA table, in the order of the vocabulary."""
    text = files("classifier").joinpath("level_prior.json").read_text(encoding="utf-8")
    counts = json.loads(text)["counts"]
    return np.array(
        [
            [[counts[group.value][level.value][s.column] for s in SEVERITIES] for level in LEVELS]
            for group in ConditionGroup
        ]
    )


def level_prior(target: Target) -> NDArray[np.float64]:
    """(3,) unweighted probability of each severity at a target, from the real RSNA label table."""
    row = level_prior_counts()[list(ConditionGroup).index(target.condition.group), target.level.index]
    return np.asarray(row / row.sum())


def prior_grade(target: Target, flag: str) -> Grade:
    """The level prior as a grade, with the reason why nothing better is known."""
    return Grade(level_prior(target), GradeSource.PRIOR, (flag,))


def competition_log_loss(probabilities: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """The metric's log loss of one condition group for unweighted p (n, 3), submitted as q ∝ (1, 2, 4)·p.

    Args:
        truth: (n, 3) probability of each severity; with one-hot rows this is the official term, with the
            oracle's probabilities its expected value.
    """
    log_q = np.log(np.clip(competition_weighted(probabilities), 1e-12, 1.0))
    weighted_truth = truth * SEVERITY_WEIGHTS
    return float(-(weighted_truth * log_q).sum() / weighted_truth.sum())
