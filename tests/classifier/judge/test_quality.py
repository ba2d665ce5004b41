"""Figures per condition and level agree with scikit-learn and the metric; intervals are of studies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, roc_auc_score

from classifier.calibration import expected_calibration_error
from classifier.judge.evaluate import as_rows, evaluate
from classifier.judge.plots import save_figures
from classifier.judge.quality import (
    ALL_LEVELS,
    FIGURES,
    confusion,
    official_terms,
    quality_tables,
    review_curve,
    score_with_intervals,
)
from classifier.judge.rows import GradedRows, StudyDraws, value_and_interval
from classifier.metric import PROBABILITY_COLUMNS, score
from classifier.prior import competition_weighted
from data_prep.vocabulary import CONDITIONS, LEVELS, SEVERITIES, TARGETS, ConditionGroup, Target
from tests.classifier.judge.test_evaluate import graded

STUDIES = 60


@pytest.fixture(scope="module")
def rows() -> GradedRows:
    generator = np.random.default_rng(0)
    sharp = as_rows(graded(0.5, STUDIES))
    noisy = generator.dirichlet((6, 2, 1), len(sharp))
    return sharp.with_p(0.5 * sharp.p + 0.5 * noisy)


def tables_of(rows: GradedRows) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows as a label table and a submission."""
    targets = [Target(CONDITIONS[c], LEVELS[k]) for c, k in zip(rows.condition, rows.level, strict=True)]
    labels: dict[str, dict[str, str | None]] = {}
    for study, target, label in zip(rows.study_ids, targets, rows.label, strict=True):
        empty: dict[str, str | None] = {item.column: None for item in TARGETS}
        labels.setdefault(str(study), empty)[target.column] = SEVERITIES[label].value
    table = pd.DataFrame([{"study_id": study, **cells} for study, cells in labels.items()])
    submission = pd.DataFrame(competition_weighted(rows.p), columns=PROBABILITY_COLUMNS)
    ids = [target.row_id(str(study)) for study, target in zip(rows.study_ids, targets, strict=True)]
    submission.insert(0, "row_id", ids)
    return table, submission


def score_of(rows: GradedRows) -> float:
    terms = official_terms(rows, resamples=0)
    assert terms is not None
    return float(terms["score"][0])


def test_the_terms_are_the_official_metrics(rows: GradedRows) -> None:
    terms = official_terms(rows, resamples=3)
    assert terms is not None
    table, submission = tables_of(rows)
    expected = score(submission, table).to_dict()
    for name, values in terms.items():
        assert values[0] == pytest.approx(expected[name], rel=1e-9)
    # A draw is the metric of the drawn studies, repeated ones as studies of their own.
    draws = StudyDraws.make(STUDIES, resamples=3)
    names = np.unique(rows.study_ids)
    parts = []
    for index, count in enumerate(draws.counts[2].astype(int)):
        for copy in range(count):
            part = rows.where(rows.study_ids == names[index])
            ids = np.array([f"{names[index]}x{copy}"] * len(part))
            parts.append(GradedRows(ids, part.condition, part.level, part.label, part.p))
    drawn = official_terms(GradedRows.join(parts), resamples=0)
    assert drawn is not None and terms["score"][2] == pytest.approx(drawn["score"][0], rel=1e-9)


def test_a_submission_comes_back_as_the_same_rows(rows: GradedRows) -> None:
    table, submission = tables_of(rows)
    back = GradedRows.from_tables(submission.sample(frac=1, random_state=0), table)
    assert np.allclose(np.sort(back.p, axis=0), np.sort(rows.p, axis=0))
    assert score_of(back) == pytest.approx(score_of(rows))


def test_figures_agree_with_scikit_learn(rows: GradedRows) -> None:
    tables = quality_tables(rows, resamples=20)
    assert len(tables) == (len(CONDITIONS) + len(ConditionGroup)) * (1 + len(LEVELS))
    by_name = {(row["condition"], row["level"]): row for row in tables}
    part = rows.where((rows.condition == 1) & (rows.level == 3))
    row = by_name[CONDITIONS[1].value, LEVELS[3].value]
    decided, cheapest = part.p.argmax(axis=1), competition_weighted(part.p).argmax(axis=1)
    expected = {
        "accuracy": (decided == part.label).mean(),
        "balanced_accuracy": balanced_accuracy_score(part.label, cheapest),
        "kappa_linear": cohen_kappa_score(part.label, decided, weights="linear"),
        "auc_severe": roc_auc_score(part.label == 2, part.p[:, 2]),
        "auc_moderate_or_worse": roc_auc_score(part.label > 0, 1 - part.p[:, 0]),
        "ece_severe": expected_calibration_error(part.p[:, 2], part.label == 2),
        "ece": np.mean([expected_calibration_error(part.p[:, s], part.label == s) for s in range(3)]),
    }
    assert {name: row[name]["value"] for name in expected} == pytest.approx(expected)
    assert row["n"] == STUDIES and row["severe"] == (part.label == 2).sum()
    for name in FIGURES:
        low, high = row[name]["interval"]
        assert low <= high
    for index, group in enumerate(ConditionGroup):
        mine, row = rows.where(rows.group == index), by_name[group.value, ALL_LEVELS]
        assert (row["n"], row["severe"]) == (len(mine), (mine.label == 2).sum())
    groups = evaluate(graded(0.5, STUDIES))["groups"]
    assert set(groups) == {group.value for group in ConditionGroup}
    assert confusion(part).sum() == len(part)


def test_ties_count_half_and_a_missing_class_gives_no_auc() -> None:
    draws = StudyDraws.make(4, resamples=50, seed=1)
    study = np.arange(4)
    tied = draws.auc(study, np.array([0.5, 0.5, 0.5, 0.5]), np.array([True, False, True, False]))
    assert np.allclose(tied[np.isfinite(tied)], 0.5) and tied[0] == 0.5
    assert np.isnan(draws.auc(study, np.arange(4.0), np.zeros(4, bool))).all()
    assert value_and_interval(np.full(5, np.nan)) == (None, None)


def test_intervals_are_of_studies_not_of_rows() -> None:
    # Every study repeats one row 20 times: more rows are no more evidence.
    few = as_rows(graded(0.3, 12))
    many = GradedRows.join([few] * 20)
    narrow, wide = (score_with_intervals(part, resamples=200) for part in (few, many))
    assert narrow is not None and wide is not None
    assert narrow["spinal"]["interval"] == pytest.approx(wide["spinal"]["interval"], rel=1e-6)


def test_no_score_without_every_condition_group(rows: GradedRows) -> None:
    assert score_with_intervals(rows.where(rows.group == 0)) is None


def test_plots_are_written(rows: GradedRows, tmp_path: Path) -> None:
    save_figures(rows, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"reliability.png", "roc.png", "confusion.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_severe_recall_is_the_share_found_at_a_tenth_of_false_alarms() -> None:
    generator = np.random.default_rng(3)
    label = (generator.random(400) < 0.2) * 2
    p_severe = np.clip(0.3 * (label > 0) + generator.normal(0.4, 0.15, 400), 0.01, 0.98)
    threshold = np.quantile(p_severe[label == 0], 0.9, method="higher")
    expected = (p_severe[label == 2] > threshold).mean()
    draws = StudyDraws.make(80, resamples=50)
    study = np.repeat(np.arange(80), 5)
    found = draws.recall(study, p_severe, label == 2, false_alarms=0.10)
    assert found[0] == pytest.approx(expected, abs=0.02)
    assert found[1:].min() < found[0] < found[1:].max()
    assert np.isnan(draws.recall(study, p_severe, label == 5, false_alarms=0.10)).all()
    flat = draws.recall(study, np.full(400, 0.5), label == 2, false_alarms=0.10)
    assert flat[0] == 0.0, "rows of one score are alarmed together or not at all"


def test_a_reader_who_looks_at_the_least_certain_targets_gains() -> None:
    generator = np.random.default_rng(4)
    p = generator.dirichlet((1.0, 1.0, 1.0), 600)
    label = np.array([generator.choice(3, p=row) for row in p])
    zeros = np.zeros(600, np.int64)
    rows = GradedRows(np.arange(600).astype(str), zeros, zeros, label, p)
    curve = review_curve(rows)
    accuracy = [row["accuracy"] for row in curve]
    assert accuracy[0] == pytest.approx((p.argmax(axis=1) == label).mean())
    assert accuracy == sorted(accuracy) and accuracy[-1] > accuracy[0] + 0.2
    assert curve[-1]["missed_severe"] < curve[0]["missed_severe"]
    everything = [row for row in curve if row["reviewed"] == 0.5]
    uncertain = np.argsort(p.max(axis=1), kind="stable")[:300]
    right = p.argmax(axis=1) == label
    right[uncertain] = True
    assert everything[0]["accuracy"] == pytest.approx(right.mean())
