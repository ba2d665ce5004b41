"""The any-severe answer: best for independent levels, never lowered, and left alone where it does not pay."""

from __future__ import annotations

import numpy as np
import pytest

from classifier.any_severe import best_answer, fit_pull, pulled, terms
from classifier.judge.evaluate import as_rows
from classifier.judge.quality import official_terms
from classifier.prior import competition_weighted
from tests.classifier.judge.test_evaluate import graded


def test_the_best_answer_weighs_studies_as_the_metric_does() -> None:
    one = np.array([[0.6, 0.3, 0.1]])
    assert best_answer(one) == pytest.approx(competition_weighted(one)[0, 2])
    # Five doubtful levels: more likely that any is severe than that the worst of them is.
    assert best_answer(np.repeat(one, 5, axis=0)) > 1.5 * competition_weighted(one)[0, 2]


def test_a_pull_raises_one_row_per_study_and_keeps_it_a_distribution() -> None:
    p = np.random.default_rng(0).dirichlet((6, 2, 1), 20)
    study = np.repeat(np.arange(4), 5)
    before, after = competition_weighted(p), pulled(p, study, 0.7)
    changed = (np.abs(after - before) > 1e-9).any(axis=1)
    assert np.bincount(study[changed]).tolist() == [1, 1, 1, 1]
    assert (after[changed, 2] > before[changed, 2]).all() and np.allclose(after.sum(axis=1), 1)
    assert np.array_equal(pulled(p, study, 0.0), before)


def test_terms_are_the_official_ones() -> None:
    rows = as_rows(graded(0.4, 30))
    spinal = rows.where(rows.group == 0)
    study = np.unique(spinal.study_ids, return_inverse=True)[1]
    official = official_terms(rows, resamples=0)
    assert official is not None
    expected = (official["spinal"][0], official["any_severe_spinal"][0])
    assert terms(competition_weighted(spinal.p), spinal.label, study) == pytest.approx(expected)


def test_a_pull_is_chosen_where_it_pays() -> None:
    generator = np.random.default_rng(3)
    p = generator.dirichlet((5, 3, 2), 3000)
    label = np.array([generator.choice(3, p=row) for row in p])
    study = np.repeat(np.arange(600), 5)
    pull = fit_pull(p, label, study)
    assert pull > 0.2
    before, after = (np.mean(terms(pulled(p, study, x), label, study)) for x in (0.0, pull))
    assert after < before
    # Perfect knowledge has nothing to gain.
    sure = np.clip(np.eye(3)[label], 1e-3, None)
    assert fit_pull(sure / sure.sum(axis=1, keepdims=True), label, study) < 0.6
    # Nor has a study of one level, whose row is the best answer as it is.
    assert fit_pull(p[:600], label[:600], np.arange(600)) == 0.0
