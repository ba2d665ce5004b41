"""The level prior: how often each severity occurs at each level, before anything is seen.

Left and right are pooled. It is the floor that a grader must beat and the answer for a target that cannot
be seen. Bundled counts: the label table of the RSNA 2024 Lumbar Spine Degenerative Classification, see
``level_prior.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from classifier.grade import SEVERITY_WEIGHTS, Grade
from data_prep.vocabulary import LEVELS, SEVERITIES, ConditionGroup, GradeSource, Target

if TYPE_CHECKING:  # grading does without
    import pandas as pd


def competition_weighted(probabilities: ArrayLike) -> NDArray[np.float64]:
    """The best submission q ∝ (1, 2, 4)·p for probabilities p (..., 3), under the metric's sample weights.

    Minimising E[w(y)·(−ln q(y))] over q on the simplex gives q(y) ∝ w(y)·p(y).
    """
    weighted = np.asarray(probabilities, dtype=np.float64) * SEVERITY_WEIGHTS
    return weighted / weighted.sum(axis=-1, keepdims=True)


@dataclass(frozen=True, eq=False)
class LevelPrior:
    """Counts of severities per condition group and level.

    Attributes:
        counts: int (3 groups, 5 levels, 3 severities), in the order of the vocabulary.

    Raises:
        ValueError: wrong shape, a negative count, or a group and level without any label.
    """

    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        counts = np.array(self.counts, dtype=np.int64)
        expected = (len(ConditionGroup), len(LEVELS), len(SEVERITIES))
        if counts.shape != expected or counts.min() < 0:
            raise ValueError(f"counts must be {expected} numbers ≥ 0, but got shape {counts.shape}")
        empty = [
            f"{group.value} {level.label}"
            for group, row in zip(ConditionGroup, counts.sum(axis=2), strict=True)
            for level, n in zip(LEVELS, row, strict=True)
            if n == 0
        ]
        if empty:
            raise ValueError(f"no label for {', '.join(empty)}: the prior is not defined there")
        object.__setattr__(self, "counts", counts)

    def __call__(self, target: Target) -> NDArray[np.float64]:
        """(3,) unweighted probability of each severity at a target."""
        row = self.counts[list(ConditionGroup).index(target.condition.group), target.level.index]
        return row / row.sum()

    def to_dict(self) -> dict[str, dict[str, dict[str, int]]]:
        """Group → level → severity → count."""
        return {
            group.value: {
                level.value: {s.column: int(n) for s, n in zip(SEVERITIES, row, strict=True)}
                for level, row in zip(LEVELS, rows, strict=True)
            }
            for group, rows in zip(ConditionGroup, self.counts, strict=True)
        }

    @classmethod
    def from_dict(cls, counts: dict[str, dict[str, dict[str, int]]]) -> LevelPrior:
        """The reverse of ``to_dict``. Raises KeyError when a group, level or severity is missing."""
        return cls(
            np.array(
                [
                    [[counts[group.value][level.value][s.column] for s in SEVERITIES] for level in LEVELS]
                    for group in ConditionGroup
                ]
            )
        )


def fit_level_prior(labels: pd.DataFrame) -> LevelPrior:
    """Count a label table in the shape of ``train.csv``; empty cells do not count.

    Raises:
        ValueError: the table is not of that shape, or a group and level has no label.
    """
    from classifier.metric import long_labels

    long = long_labels(labels)
    table = long.groupby(["group", "level", "severity"]).size()
    return LevelPrior(
        np.array(
            [
                [[table.get((group.value, level.value, s.index), 0) for s in SEVERITIES] for level in LEVELS]
                for group in ConditionGroup
            ]
        )
    )


@cache
def bundled_level_prior() -> LevelPrior:
    """The prior counted on the real RSNA label table."""
    text = files("classifier").joinpath("level_prior.json").read_text(encoding="utf-8")
    return LevelPrior.from_dict(json.loads(text)["counts"])


def level_prior(target: Target) -> NDArray[np.float64]:
    """(3,) unweighted probability of each severity at a target, from the real RSNA label table."""
    return bundled_level_prior()(target)


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
