"""From a grader's evidence to probabilities that can be believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from classifier.grade import SEVERITY_WEIGHTS
from data_prep.vocabulary import SEVERITIES

# Pulls a bias towards 0 like the evidence of a score of targets. A fit on some dozen severe targets of real
# readers otherwise follows their chance errors: on the validation studies of canal and foramen, fitted
# crosswise, no correction at all beat one that was hardly held.
_BIAS_PENALTY = 20.0
# The same for the logarithm of the temperature: fitted crosswise on these studies, log loss is .001 to .002
# lower with it for canal, foramen and recess. Beyond about 0.3 it costs no more: evidence that says nothing
# shall fall back to the prior.
_TEMPERATURE_PENALTY, _TEMPERATURE_KNEE = 100.0, 0.3
# A grader that needs more of the prior than this should be trained again.
_MOST_PRIOR_SHARE = 0.6
# Log loss that a share of the prior has to save: less is noise.
_WORTH_A_SHARE = 1e-4
# Of a calibration error, and how often outcomes are drawn for one by chance.
CALIBRATION_BINS, _DRAWS_OF_CHANCE = 15, 200


# By hand, because grading would otherwise need scipy, and wait for it.
def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """As ``scipy.special.softmax``, along the last axis."""
    raised = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def _three(values: Iterable[Any]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _check_bias(bias: Sequence[float]) -> None:
    if len(bias) != len(SEVERITIES) or not np.all(np.isfinite(bias)):
        raise ValueError(f"bias must be 3 finite numbers, but got {bias}")


@dataclass(frozen=True)
class Calibration:
    """Probabilities p = (1 − s)·c + s·prior, with c ∝ prior · exp(logits / temperature + bias).

    A large temperature falls back to the level prior, so a grader that sees nothing says so; a share s of the
    prior bounds how wrong it can be on images unlike those that it knows.
    (Temperature and bias: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.)

    Attributes:
        temperature: > 0; above 1 the network was too sure.
        bias: one number per severity, added to its logit; they sum to 0.
        prior_share: s, 0–1.
        any_severe_pull: how far a submission's largest severe canal probability of a study is drawn towards
            the best answer to "is any level severe" (``classifier.any_severe``); never changes p.

    Raises:
        ValueError: temperature not positive and finite, bias not 3 finite numbers, a share outside 0–1.
    """

    temperature: float = 1.0
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    prior_share: float = 0.0
    any_severe_pull: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature must be positive, but got {self.temperature}")
        _check_bias(self.bias)
        if not (0 <= self.prior_share <= 1 and 0 <= self.any_severe_pull <= 1):
            raise ValueError(f"shares must lie in 0–1, but got {self.prior_share}, {self.any_severe_pull}")

    def probabilities(self, logits: ArrayLike, log_prior: ArrayLike) -> NDArray[np.float64]:
        """Unweighted probabilities (n, 3) from evidence logits (n, 3) and log prior (n, 3)."""
        z = np.asarray(logits, dtype=np.float64) / self.temperature + np.array(self.bias)
        prior = np.asarray(log_prior, dtype=np.float64)
        p = softmax(z + prior)
        if self.prior_share:
            p = (1 - self.prior_share) * p + self.prior_share * softmax(prior)
        return p

    def to_dict(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "bias": list(self.bias),
            "prior_share": self.prior_share,
            "any_severe_pull": self.any_severe_pull,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        return cls(
            float(values["temperature"]),
            _three(values["bias"]),
            float(values.get("prior_share", 0.0)),
            float(values.get("any_severe_pull", 0.0)),
        )


@dataclass(frozen=True)
class JointCalibration:
    """Probabilities from the evidence of two graders of one target: p ∝ prior · exp(Σ weight · logits +
    bias).

    Attributes:
        weights: of the sagittal and the axial grader's logits; not negative.
        bias: one number per severity.

    Raises:
        ValueError: not 2 finite weights from 0 on, or not 3 finite numbers.
    """

    weights: tuple[float, float]
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if len(self.weights) != 2 or not all(np.isfinite(w) and w >= 0 for w in self.weights):
            raise ValueError(f"weights must be 2 finite numbers from 0 on, but got {self.weights}")
        _check_bias(self.bias)

    def probabilities(
        self, sagittal: ArrayLike, axial: ArrayLike, log_prior: ArrayLike
    ) -> NDArray[np.float64]:
        """Unweighted probabilities (n, 3) from two evidence logits (n, 3) and log prior (n, 3)."""
        z = self.weights[0] * np.asarray(sagittal, np.float64) + self.weights[1] * np.asarray(
            axial, np.float64
        )
        return softmax(z + np.array(self.bias) + np.asarray(log_prior, np.float64))

    def to_dict(self) -> dict[str, Any]:
        return {"weights": list(self.weights), "bias": list(self.bias)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JointCalibration:
        first, second = (float(value) for value in values["weights"])
        return cls((first, second), _three(values["bias"]))


def fit_joint_calibration(
    sagittal: ArrayLike, axial: ArrayLike, log_prior: ArrayLike, truth: ArrayLike
) -> JointCalibration:
    """The weights and bias under which unweighted log loss is least; arguments (n, 3).

    Raises:
        ValueError: shapes differ or there is no row.
    """
    first, second, prior, target = (np.asarray(v, np.float64) for v in (sagittal, axial, log_prior, truth))
    if not len(first) or not first.shape == second.shape == prior.shape == target.shape:
        raise ValueError("expected four (n, 3) arrays of one shape")

    from scipy.optimize import minimize
    from scipy.special import log_softmax

    def loss(parameters: NDArray[np.float64]) -> float:
        bias = parameters[2:] - parameters[2:].mean()
        log_p = log_softmax(parameters[0] * first + parameters[1] * second + bias + prior, axis=1)
        return float(-(target * log_p).sum() / len(first) + _BIAS_PENALTY * (bias**2).sum() / len(first))

    bounds = [(0.0, 3.0)] * 2 + [(-5.0, 5.0)] * len(SEVERITIES)
    found = minimize(loss, np.array([0.5, 0.5, 0.0, 0.0, 0.0]), method="L-BFGS-B", bounds=bounds)
    weights = float(found.x[0]), float(found.x[1])
    return JointCalibration(weights, _three(found.x[2:] - found.x[2:].mean()))


def fit_calibration(logits: ArrayLike, log_prior: ArrayLike, truth: ArrayLike) -> Calibration:
    """The temperature and bias under which unweighted log loss is least.

    Args:
        logits, log_prior, truth: (n, 3); truth one-hot or the probability of each severity.

    Raises:
        ValueError: shapes differ or there is no row.
    """
    z, prior, target = (np.asarray(value, dtype=np.float64) for value in (logits, log_prior, truth))
    if z.size == 0 or z.shape[1:] != (len(SEVERITIES),) or not z.shape == prior.shape == target.shape:
        raise ValueError(f"expected three (n, 3) arrays, but got {z.shape}, {prior.shape}, {target.shape}")

    # Here, because only a fit needs it: every process that grades would wait for it.
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    def loss(parameters: NDArray[np.float64]) -> float:
        bias = parameters[1:] - parameters[1:].mean()
        log_p = log_softmax(z * np.exp(-parameters[0]) + bias + prior, axis=1)
        held = _BIAS_PENALTY * (bias**2).sum()
        held += _TEMPERATURE_PENALTY * parameters[0] ** 2 / (1 + (parameters[0] / _TEMPERATURE_KNEE) ** 2)
        return float((held - (target * log_p).sum()) / len(z))

    bounds = [(-3.0, 5.0)] + [(-5.0, 5.0)] * len(SEVERITIES)
    found = minimize(loss, np.zeros(1 + len(SEVERITIES)), method="L-BFGS-B", bounds=bounds)
    return Calibration(float(np.exp(found.x[0])), _three(found.x[1:] - found.x[1:].mean()))


def best_prior_share(probabilities: ArrayLike, prior: ArrayLike, truth: ArrayLike) -> float:
    """The share of the level prior under which the competition's log loss is least; 0 where none is better.

    To be fitted on data that neither the grader nor the calibration has seen, of the kind that the share
    shall guard against: another scanner range, or the folds left out.

    Args:
        probabilities, prior, truth: (n, 3) calibrated, of the level prior, and one-hot or probable.
    """
    p, before, target = (np.asarray(value, dtype=np.float64) for value in (probabilities, prior, truth))
    weighted = target * SEVERITY_WEIGHTS

    def loss(share: float) -> float:
        q = ((1 - share) * p + share * before) * SEVERITY_WEIGHTS
        q /= q.sum(axis=1, keepdims=True)
        return float(-(weighted * np.log(np.clip(q, 1e-12, 1.0))).sum() / weighted.sum())

    # Here, because only a fit needs it: every process that grades would wait for it.
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(loss, bounds=(0.0, _MOST_PRIOR_SHARE), method="bounded")
    return float(found.x) if loss(float(found.x)) < loss(0.0) - _WORTH_A_SHARE else 0.0


def calibration_error_by_chance(probability: ArrayLike) -> float:
    """The calibration error that the same predictions would show on average if they were exactly right.

    What is measured has this much of noise in it, and more with fewer rows.

    Outcomes are drawn from these probabilities, always the same ones.

    Args:
        probability: (n,) predicted probability of an event.
    """
    p = np.asarray(probability, dtype=np.float64)
    rng = np.random.default_rng(0)
    groups = equal_groups(p, CALIBRATION_BINS)
    order, starts = np.concatenate(groups), np.cumsum([0, *map(len, groups[:-1])])
    means = [p[group].mean() for group in groups]
    found = np.zeros(_DRAWS_OF_CHANCE)
    for draw in range(_DRAWS_OF_CHANCE):
        events = np.add.reduceat(rng.random(len(p))[order] < p[order], starts, dtype=np.int64)
        for group, mean, count in zip(groups, means, events, strict=True):
            found[draw] += len(group) * abs(mean - count / len(group))
    return float(np.mean(found / len(p)))


def expected_calibration_error(probability: ArrayLike, happened: ArrayLike) -> float:
    """Mean |probability − frequency| over bins of equally many predictions.

    Args:
        probability: (n,) predicted probability of an event.
        happened: (n,) 0 or 1, or the event's true probability.
    """
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(happened, dtype=np.float64)
    groups = equal_groups(p, CALIBRATION_BINS)
    return float(sum(len(g) * abs(p[g].mean() - y[g].mean()) for g in groups) / max(1, len(p)))


def equal_groups(p: NDArray[np.float64], bins: int) -> list[NDArray[np.intp]]:
    """Indices of equally many predictions each, from the smallest probability on; none is empty."""
    order = np.argsort(p, kind="stable")
    return [group for group in np.array_split(order, min(bins, max(1, len(p)))) if len(group)]
