"""What is to be expected of a target that no slice shows, from the grades of the same level.

Stenosis of canal, recesses and foramina goes together: a severe canal seldom has mild recesses. Of a target
that was not seen, the evidence of those that were (how far their log odds of Moderate or worse, and of
Severe, lie from the level prior's) gives the odds of Moderate or worse, and of Severe among these:

    logit = intercept + level · (the level prior's logit) + Σ weights · evidence

No weight is negative, so a worse grade beside never makes the expected one better. ``expected.json`` of a
weights folder holds a model for each condition group and each set of groups that may be known; its numbers
are fitted on grades of patients that the graders did not learn from (``classifier.learn.expect``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from classifier.grade import Grade
from classifier.prior import level_prior
from data_prep.base.manifest import WeightsRejected, read_listed
from data_prep.vocabulary import Condition, ConditionGroup, GradeSource, Side, Target

FILE_NAME = "expected.json"
Evidence = dict[ConditionGroup, NDArray[np.float64]]

# Odds beyond these tell a grader's calibration, not the patient.
_LEAST, _MOST = 1e-3, 1 - 1e-3


def _logit(p: ArrayLike) -> NDArray[np.float64]:
    clipped = np.clip(np.asarray(p, np.float64), _LEAST, _MOST)
    return np.asarray(np.log(clipped / (1 - clipped)))


def cumulative_log_odds(probabilities: ArrayLike) -> NDArray[np.float64]:
    """(2,) log odds of Moderate or worse and of Severe, for probabilities (3,)."""
    _, moderate, severe = np.asarray(probabilities, np.float64)
    return _logit([moderate + severe, severe])


def prior_log_odds(target: Target) -> NDArray[np.float64]:
    """(2,) the level prior's log odds of Moderate or worse, and of Severe among these."""
    _, moderate, severe = level_prior(target)
    return _logit([moderate + severe, severe / (moderate + severe)])


def beside(target: Target, group: ConditionGroup) -> tuple[Target, ...]:
    """The targets of a group at the same level that tell of a target.

    Those of its own side; of the canal, both sides; of the target's own group, the other side.
    """
    side = target.condition.side
    sides: tuple[Side | None, ...] = (side,)
    if group is ConditionGroup.SPINAL:
        sides = (None,)
    elif side is None:
        sides = tuple(Side)
    elif group is target.condition.group:
        sides = (side.other,)
    found = (Target(Condition.of(group, one), target.level) for one in sides)
    return tuple(other for other in found if other != target)


def evidence(target: Target, graded: Mapping[Target, ArrayLike]) -> Evidence:
    """Per group that is graded beside a target, (2,) log odds less the level prior's; two sides are averaged.

    Args:
        graded: target → calibrated, unweighted probabilities (3,) of what was seen.
    """
    found = {}
    for group in ConditionGroup:
        told = [
            cumulative_log_odds(graded[other]) - cumulative_log_odds(level_prior(other))
            for other in beside(target, group)
            if other in graded
        ]
        if told:
            found[group] = np.mean(told, axis=0)
    return found


@dataclass(frozen=True)
class Odds:
    """The log odds of one step.

    Attributes:
        intercept: of all levels.
        level: weight of the level prior's own log odds.
        weights: per group, of its evidence of Moderate or worse and of Severe.

    Raises:
        ValueError: a number is not finite, or a weight is negative.
    """

    intercept: float
    level: float
    weights: Mapping[ConditionGroup, tuple[float, float]]

    def __post_init__(self) -> None:
        weights = [self.level, *(weight for pair in self.weights.values() for weight in pair)]
        if not np.all(np.isfinite([self.intercept, *weights])):
            raise ValueError(f"numbers must be finite, but got {self}")
        if min(weights) < 0:
            raise ValueError(f"a weight must not be negative, but got {self}")

    def probability(self, prior_logit: float, told: Evidence) -> float:
        """Of the step's event."""
        z = self.intercept + self.level * prior_logit
        z += sum(float(np.dot(pair, told[group])) for group, pair in self.weights.items())
        return float(1 / (1 + np.exp(-np.clip(z, -30.0, 30.0))))

    def to_dict(self) -> dict[str, Any]:
        weights = {group.value: list(pair) for group, pair in self.weights.items()}
        return {"intercept": self.intercept, "level": self.level, "weights": weights}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Odds:
        weights = {}
        for name, pair in values["weights"].items():
            worse, severe = (float(weight) for weight in pair)
            weights[ConditionGroup(name)] = worse, severe
        return cls(float(values["intercept"]), float(values["level"]), weights)


@dataclass(frozen=True)
class Expectation:
    """A target of a group, from the groups that are graded beside it.

    Attributes:
        group: of the target.
        worse: odds of Moderate or worse.
        severe: odds of Severe, where it is Moderate or worse.
        metrics: what was measured, for the model card.

    Raises:
        ValueError: nothing is known beside it, or both steps do not ask for the same.
    """

    group: ConditionGroup
    worse: Odds
    severe: Odds
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.worse.weights or set(self.worse.weights) != set(self.severe.weights):
            raise ValueError("both steps must have weights of the same groups, and of one at least")

    @property
    def given(self) -> frozenset[ConditionGroup]:
        """The groups that it needs; its own stands for the other side."""
        return frozenset(self.worse.weights)

    def probabilities(self, target: Target, told: Evidence) -> NDArray[np.float64]:
        """(3,) calibrated and unweighted."""
        of_worse, of_severe = prior_log_odds(target)
        worse = self.worse.probability(float(of_worse), told)
        severe = self.severe.probability(float(of_severe), told)
        return np.array([1 - worse, worse * (1 - severe), worse * severe])

    def to_dict(self) -> dict[str, Any]:
        return {
            "group": self.group.value,
            "worse": self.worse.to_dict(),
            "severe": self.severe.to_dict(),
            "metrics": dict(self.metrics),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Expectation:
        steps = Odds.from_dict(values["worse"]), Odds.from_dict(values["severe"])
        return cls(ConditionGroup(values["group"]), *steps, dict(values["metrics"]))


@dataclass(frozen=True)
class Expectations:
    """All of a weights folder; none where it has no ``expected.json``."""

    models: tuple[Expectation, ...] = ()

    def probabilities(self, target: Target, graded: Mapping[Target, ArrayLike]) -> NDArray[np.float64] | None:
        """(3,) by the model that uses most of what is graded beside a target; None where none can be used."""
        told = evidence(target, graded)
        usable = [
            model
            for model in self.models
            if model.group is target.condition.group and model.given <= set(told)
        ]
        if not usable:
            return None
        return max(usable, key=lambda model: len(model.given)).probabilities(target, told)

    def completed(self, grades: Mapping[Target, Grade]) -> dict[Target, Grade]:
        """The same grades, and in place of the level prior what is expected beside those that were seen."""
        graded = {target: grade.probabilities for target, grade in grades.items() if grade.source.is_graded}
        found = {}
        for target, grade in grades.items():
            p = None if target in graded else self.probabilities(target, graded)
            found[target] = grade if p is None else Grade(p, GradeSource.EXPECTED, grade.flags)
        return found

    def to_dict(self) -> dict[str, Any]:
        return {"models": [model.to_dict() for model in self.models]}

    @classmethod
    def from_dicts(cls, rows: Iterable[Mapping[str, Any]]) -> Expectations:
        return cls(tuple(map(Expectation.from_dict, rows)))


def read_expectations(folder: Path) -> Expectations:
    """Those of a weights folder; none where its manifest lists none.

    Raises:
        WeightsRejected: the file is not as in the manifest, or says nothing that can be used.
    """
    content = read_listed(folder, FILE_NAME)
    if content is None:
        return Expectations()
    try:
        return Expectations.from_dicts(json.loads(content)["models"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsRejected(
            f"'{folder.name}/{FILE_NAME}' cannot be used ({type(error).__name__}): "
            "`lumbar classifier expect` fits it anew"
        ) from None
