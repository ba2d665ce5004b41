"""Calibration finds the truth that was hidden, and falls back to the prior when there is nothing to see."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from classifier.calibration import (
    Calibration,
    JointCalibration,
    calibration_error_by_chance,
    expected_calibration_error,
    fit_calibration,
)
from classifier.learn.losses import weighted_loss
from classifier.prior import competition_log_loss


def drawn_labels(probabilities: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    labels = (generator.random((len(probabilities), 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return np.eye(3)[np.minimum(labels, 2)]


def test_a_known_temperature_and_bias_are_recovered() -> None:
    generator = np.random.default_rng(0)
    log_prior = np.log(np.tile([0.8, 0.15, 0.05], (20_000, 1)))
    evidence = generator.normal(0, 1.5, (20_000, 3))
    bias = np.array([0.3, -0.1, -0.2])
    truth = drawn_labels(softmax(evidence + bias + log_prior, axis=1), 1)
    found = fit_calibration(evidence * 2.5, log_prior, truth)
    assert found.temperature == pytest.approx(2.5, rel=0.08)
    assert np.allclose(found.bias, bias, atol=0.08)


def test_evidence_that_says_nothing_falls_back_to_the_prior() -> None:
    generator = np.random.default_rng(0)
    prior = np.tile([0.7, 0.2, 0.1], (5_000, 1))
    logits = generator.normal(0, 3, (5_000, 3))
    found = fit_calibration(logits, np.log(prior), drawn_labels(prior, 1))
    assert np.abs(found.probabilities(logits, np.log(prior)) - prior).max() < 0.12


def test_calibrated_predictions_have_a_small_error_and_overconfident_ones_do_not() -> None:
    generator = np.random.default_rng(2)
    p = generator.beta(0.5, 2, 20_000)
    happened = generator.random(20_000) < p
    assert expected_calibration_error(p, happened) < 0.015
    assert expected_calibration_error((p > 0.5).astype(float), happened) > 0.1


def test_calibration_survives_its_dictionary_and_refuses_nonsense() -> None:
    calibration = Calibration(1.7, (0.1, 0.2, -0.3))
    assert Calibration.from_dict(calibration.to_dict()) == calibration
    with pytest.raises(ValueError, match="temperature must be positive"):
        Calibration(0.0)
    with pytest.raises(ValueError, match="3 finite numbers"):
        Calibration(1.0, (0.0, float("nan"), 0.0))
    with pytest.raises(ValueError, match=r"three \(n, 3\) arrays"):
        fit_calibration(np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((3, 3)))


def test_training_loss_of_no_evidence_is_the_level_priors_score() -> None:
    torch = pytest.importorskip("torch")
    truth = np.eye(3)[[0, 0, 0, 0, 1, 2]]
    prior = np.tile(truth.mean(axis=0), (6, 1))
    loss = weighted_loss(
        torch.zeros(6, 3, dtype=torch.float64),
        torch.from_numpy(np.log(prior)),
        torch.from_numpy(truth),
        torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64),
    )
    assert float(loss) == pytest.approx(competition_log_loss(prior, truth), abs=1e-9)
    worse = competition_log_loss(np.full((6, 3), 1 / 3), truth)
    assert float(loss) < worse


def test_calibration_error_by_chance_is_what_right_predictions_show() -> None:
    rng = np.random.default_rng(4)
    p = rng.beta(1, 4, 1000)
    chance = calibration_error_by_chance(p)
    right = [expected_calibration_error(p, rng.random(1000) < p) for _ in range(40)]
    assert abs(np.mean(right) - chance) < 0.003 and 0.01 < chance < 0.04
    assert calibration_error_by_chance(np.tile(p, 16)) < chance / 3
    too_sure = p**1.8
    assert expected_calibration_error(too_sure, rng.random(1000) < p) > 2 * calibration_error_by_chance(
        too_sure
    )


@pytest.mark.parametrize("bias", [[0.1, -0.1], [0.1, -0.1, 0.0, 0.0]])
def test_a_description_with_another_number_of_biases_is_refused(bias: list[float]) -> None:
    """A longer one used to lose its end, a shorter one to end the program."""
    with pytest.raises(ValueError, match="values to unpack"):
        Calibration.from_dict({"temperature": 1.0, "bias": bias})
    with pytest.raises(ValueError, match="values to unpack"):
        JointCalibration.from_dict({"weights": [0.5, 0.5], "bias": bias})
