"""The synthetic patients' grades: as frequent as the real ones, and known as well as the noise allows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from data_prep.phantom.severity import GRADE_SHARES, Grading, draw_grading, total_moments
from data_prep.vocabulary import LEVELS, SEVERITIES, TARGETS, Condition, ConditionGroup, Level, Target

WEIGHTS = np.array([float(severity.weight) for severity in SEVERITIES])


@pytest.fixture(scope="module")
def gradings() -> list[Grading]:
    return [draw_grading(seed) for seed in range(2500)]


@pytest.fixture(scope="module")
def labels(gradings: list[Grading]) -> NDArray[np.int64]:
    """(patients, 25) severity indices."""
    return np.array([[grading.severities[target].index for target in TARGETS] for grading in gradings])


def _official_score(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Mean of the four terms of the official metric (docs/phantom.md), for arrays (patients, 25[, 3])."""
    weighted = probabilities / probabilities.sum(axis=-1, keepdims=True)
    terms = []
    for group in ConditionGroup:
        columns = [i for i, target in enumerate(TARGETS) if target.condition.group is group]
        truth = labels[:, columns].ravel()
        guess = weighted[:, columns].reshape(-1, 3)
        terms.append(log_loss(truth, guess, sample_weight=WEIGHTS[truth], labels=[0, 1, 2]))
        if group is ConditionGroup.SPINAL:
            worst = labels[:, columns].max(axis=1)
            severe = weighted[:, columns, 2].max(axis=1)
            terms.append(log_loss(worst == 2, severe, sample_weight=WEIGHTS[worst]))
    return float(np.mean(terms))


def test_labels_are_as_frequent_as_in_the_real_table(labels: NDArray[np.int64]) -> None:
    drawn = np.stack([(labels == grade).mean(axis=0) for grade in (1, 2)], axis=1)
    wanted = np.array([GRADE_SHARES[target.condition.group][target.level.index] for target in TARGETS])
    assert np.abs(drawn - wanted).max() < 0.035
    assert np.abs(drawn - wanted).mean() < 0.01


def test_grade_shares_agree_with_the_real_table(real_rsna) -> None:  # type: ignore[no-untyped-def]
    import pandas as pd

    table = pd.read_csv(real_rsna / "train.csv")
    for group, shares in GRADE_SHARES.items():
        for level in LEVELS:
            columns = [t.column for t in TARGETS if t.condition.group is group and t.level is level]
            values = pd.concat([table[column] for column in columns]).dropna()
            real = [(values == severity.value).mean() for severity in SEVERITIES[1:]]
            assert shares[level.index] == pytest.approx(real, abs=1e-3)


def test_oracle_scores_in_the_window_and_the_level_prior_far_above(
    gradings: list[Grading], labels: NDArray[np.int64]
) -> None:
    oracle = np.array([[grading.oracle[target] for target in TARGETS] for grading in gradings])
    shares = np.array([GRADE_SHARES[target.condition.group][target.level.index] for target in TARGETS])
    prior = np.concatenate([1 - shares.sum(axis=1, keepdims=True), shares], axis=1)
    assert 0.30 <= _official_score(labels, oracle * WEIGHTS) <= 0.40
    assert 0.74 <= _official_score(labels, np.broadcast_to(prior * WEIGHTS, oracle.shape)) <= 0.83


def test_oracle_is_the_frequency_of_the_labels_given_the_latent() -> None:
    target = Target(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
    drawn = [draw_grading(seed, {target: 1.4}) for seed in range(1500)]
    observed = np.bincount([grading.severities[target].index for grading in drawn], minlength=3) / 1500
    assert drawn[0].oracle[target].sum() == pytest.approx(1.0)
    assert observed == pytest.approx(drawn[0].oracle[target], abs=0.05)


def test_forcing_a_latent_changes_no_other_target() -> None:
    target = Target(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Level.L3_L4)
    free, forced = draw_grading(5), draw_grading(5, {target: 2.9})
    assert forced.latents[target] == 2.9
    assert {t for t in TARGETS if free.latents[t] != forced.latents[t]} == {target}
    assert {t for t in TARGETS if free.severities[t] != forced.severities[t]} <= {target}


def test_targets_are_correlated_as_in_the_real_table(labels: NDArray[np.int64]) -> None:
    """Spearman of canal with the recesses .5–.6, of the two recesses .4–.6 (docs/phantom.md), at L4/L5."""
    columns = {t: i for i, t in enumerate(TARGETS)}
    canal = labels[:, columns[Target(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)]]
    left = labels[:, columns[Target(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L4_L5)]]
    right = labels[:, columns[Target(Condition.RIGHT_SUBARTICULAR_STENOSIS, Level.L4_L5)]]
    assert 0.4 < np.corrcoef(canal, left)[0, 1] < 0.7
    assert 0.4 < np.corrcoef(left, right)[0, 1] < 0.7


def test_grade_scale_puts_the_boundaries_where_the_shares_are() -> None:
    from scipy.stats import norm

    mean, sd = total_moments(Target(Condition.RIGHT_SUBARTICULAR_STENOSIS, Level.L4_L5))
    moderate, severe = GRADE_SHARES[ConditionGroup.SUBARTICULAR][3]
    assert norm.sf((2.0 - mean) / sd) == pytest.approx(severe)
    assert norm.sf((1.0 - mean) / sd) == pytest.approx(moderate + severe)
