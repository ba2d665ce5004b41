"""Grades of a synthetic patient: correlated latents, reader noise, labels and the oracle.

The latent of a target lives on the GRADE SCALE: 1 is the boundary between Normal/Mild and Moderate, 2 the
boundary between Moderate and Severe. It alone shapes the anatomy; a reader sees it with Gaussian noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import ndtr, ndtri

from data_prep.geometry import FloatArray
from data_prep.vocabulary import SEVERITIES, TARGETS, ConditionGroup, Severity, Target

# Share of (Moderate, Severe) by level L1/L2 … L5/S1, left and right pooled.
# Computed from train.csv of the RSNA 2024 data (1,973 studies; empty labels left out).
GRADE_SHARES: dict[ConditionGroup, tuple[tuple[float, float], ...]] = {
    ConditionGroup.SPINAL: (
        (0.0340, 0.0106), (0.0766, 0.0269), (0.1161, 0.0619), (0.1197, 0.1288), (0.0259, 0.0096),
    ),
    ConditionGroup.FORAMINAL: (
        (0.0320, 0.0038), (0.0859, 0.0043), (0.2091, 0.0206), (0.3189, 0.0686), (0.2576, 0.1004),
    ),
    ConditionGroup.SUBARTICULAR: (
        (0.0561, 0.0144), (0.1314, 0.0412), (0.2301, 0.0992), (0.3157, 0.2332), (0.2049, 0.0815),
    ),
}  # fmt: skip

# Tetrachoric correlations (Normal/Mild against worse) in the same table. Rows and columns as CONDITIONS:
# canal, left foramen, right foramen, left recess, right recess; at the same level, mean over levels.
CONDITION_CORRELATION = np.array(
    [
        [1.00, 0.48, 0.48, 0.76, 0.76],
        [0.48, 1.00, 0.53, 0.56, 0.50],
        [0.48, 0.53, 1.00, 0.50, 0.56],
        [0.76, 0.56, 0.50, 1.00, 0.69],
        [0.76, 0.50, 0.56, 0.69, 1.00],
    ]
)
# The factor by which a correlation falls with 0 … 4 levels in between (same table).
LEVEL_CORRELATION = (1.0, 0.68, 0.49, 0.36, 0.27)

# Reader noise (standard deviation) on the grade scale. Set so that the oracle scores .30–.40 in the
# official metric (docs/phantom.md); checked in tests/data_prep/phantom/test_severity.py.
READER_NOISE: dict[ConditionGroup, float] = {
    ConditionGroup.SPINAL: 0.70,
    ConditionGroup.FORAMINAL: 0.48,
    ConditionGroup.SUBARTICULAR: 0.58,
}


@dataclass(frozen=True, eq=False)
class Grading:
    """What is true of a patient's 25 targets, and how one reader labelled them.

    Attributes:
        latents: grade scale, see the module.
        severities: the reader's labels.
        oracle: (3,) exact unweighted probability of each severity given the latent.
    """

    latents: dict[Target, float]
    severities: dict[Target, Severity]
    oracle: dict[Target, FloatArray]


def total_moments(target: Target) -> tuple[float, float]:
    """Mean and standard deviation, on the grade scale, of latent + reader noise at a target."""
    moderate, severe = GRADE_SHARES[target.condition.group][target.level.index]
    first, second = -ndtri(moderate + severe), -ndtri(severe)
    scale = 1.0 / (second - first)
    return 1.0 - first * scale, scale


@cache
def latent_distribution() -> tuple[FloatArray, FloatArray]:
    """Mean (25,) and Cholesky factor (25, 25) of the latents in the order of TARGETS."""
    mean, total_sd = np.array([total_moments(target) for target in TARGETS]).T
    latent_sd = np.sqrt(total_sd**2 - _reader_noise() ** 2)
    lag = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    observed = np.kron(CONDITION_CORRELATION, np.array(LEVEL_CORRELATION)[lag])
    reliability = latent_sd / total_sd
    wanted = observed / np.outer(reliability, reliability)
    np.fill_diagonal(wanted, 1.0)
    values, vectors = np.linalg.eigh(wanted)
    valid = (vectors * np.maximum(values, 1e-3)) @ vectors.T
    scale = latent_sd / np.sqrt(np.diag(valid))
    return mean, np.linalg.cholesky(valid * np.outer(scale, scale))


def _reader_noise() -> FloatArray:
    return np.array([READER_NOISE[target.condition.group] for target in TARGETS])


def severity_probability(latents: FloatArray, noise: FloatArray) -> FloatArray:
    """(n, 3) probability of each severity given latents (n,): an ordinal probit with sd ``noise`` (n,)."""
    above = ndtr((latents[:, None] - np.array([1.0, 2.0])) / noise[:, None])
    return np.stack([1.0 - above[:, 0], above[:, 0] - above[:, 1], above[:, 1]], axis=1)


def draw_grading(seed: int, forced: Mapping[Target, float] | None = None) -> Grading:
    """Draw latents and labels of the patient ``seed``; ``forced`` latents replace drawn ones."""
    rng = np.random.default_rng([seed, 1])
    mean, factor = latent_distribution()
    drawn = mean + factor @ rng.standard_normal(len(TARGETS))
    errors = rng.standard_normal(len(TARGETS)) * _reader_noise()
    latents = {target: float(value) for target, value in zip(TARGETS, drawn, strict=True)}
    latents.update({target: float(value) for target, value in (forced or {}).items()})
    values = np.array([latents[target] for target in TARGETS])
    grades = np.digitize(values + errors, [1.0, 2.0])
    return Grading(
        latents=latents,
        severities={target: SEVERITIES[grade] for target, grade in zip(TARGETS, grades, strict=True)},
        oracle=dict(zip(TARGETS, severity_probability(values, _reader_noise()), strict=True)),
    )
