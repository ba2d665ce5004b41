"""Evaluation: perfect grades are perfect, the prior is the prior, absent classes give no figure."""

from __future__ import annotations

import numpy as np
import pytest

from classifier.judge.evaluate import GradedTarget, as_rows, evaluate, group_figures
from classifier.prior import level_prior
from data_prep.vocabulary import TARGETS, ConditionGroup


def graded(sharpness: float, studies: int = 40) -> list[GradedTarget]:
    """Labels drawn from the prior, probabilities between the prior (0) and the truth (1)."""
    generator = np.random.default_rng(0)
    rows = []
    for study in range(studies):
        for target in TARGETS:
            prior = level_prior(target)
            label = int(generator.choice(3, p=prior))
            truth = np.eye(3)[label]
            p = (1 - sharpness) * prior + sharpness * truth
            rows.append(GradedTarget(str(study), target, label, truth, p))
    return rows


def test_near_perfect_grades_score_near_zero() -> None:
    figures = evaluate(graded(0.999))
    assert figures["score"]["score"] < 0.01 < 0.5 < figures["prior_score"]["score"]
    assert figures["n_targets"] == 1000 and figures["n_studies"] == 40
    for group in figures["groups"].values():
        assert group["accuracy"] == 1 and group["kappa_linear"] == pytest.approx(1)
        assert group["auc_severe"] == 1 and group["ece_severe"] < 0.01
    assert len(figures["conditions"]) == 5
    for pair in ("neural_foraminal_narrowing", "subarticular_stenosis"):
        sides = [figures["conditions"][f"{side}_{pair}"]["n"] for side in ("left", "right")]
        assert sides == [200, 200]


def test_the_prior_scores_as_the_prior() -> None:
    figures = evaluate(graded(0.0))
    assert figures["score"] == figures["prior_score"]
    assert figures["oracle_score"] is None
    for group in ConditionGroup:
        part = figures["groups"][group.value]
        assert part["log_loss"] == pytest.approx(figures["score"][group.value])
        assert part["ece_moderate_or_worse"] < 0.1


def test_figures_of_a_class_that_does_not_occur_are_none() -> None:
    rows = [row for row in graded(0.5) if row.label == 0 and row.target.condition.group == "spinal"]
    part = group_figures(as_rows(rows))
    assert part["auc_severe"] is None and part["kappa_linear"] is None
    assert evaluate(rows)["score"] is None


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate([])


def test_a_target_that_is_there_twice_is_an_error() -> None:
    rows = graded(0.5, studies=2)
    with pytest.raises(ValueError, match="1 targets are graded twice, such as 0_spinal_canal_stenosis_l1_l2"):
        evaluate([*rows, rows[0]])
