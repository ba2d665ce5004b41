"""The official metric: golden values, and properties that any proper score has."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from classifier.metric import PROBABILITY_COLUMNS, long_labels, score
from classifier.prior import competition_weighted, level_prior
from data_prep.vocabulary import SEVERITIES, TARGETS, ConditionGroup, Severity

REAL_LABELS = Path(__file__).resolve().parents[3] / "shared" / "real" / "rsna2024" / "train.csv"


def label_table(severities: np.ndarray, study_ids: list[str] | None = None) -> pd.DataFrame:
    """A label table from (studies, 25) severity indices; −1 is an empty cell."""
    names = np.array([*(s.value for s in SEVERITIES), None], dtype=object)
    table = pd.DataFrame(names[severities], columns=[target.column for target in TARGETS])
    table.insert(0, "study_id", study_ids or [str(100 + k) for k in range(len(severities))])
    return table


def constant(labels: pd.DataFrame, probabilities: dict[str, np.ndarray]) -> pd.DataFrame:
    """The same prediction for every target of a column name."""
    rows = [(t.row_id(s), *probabilities[t.column]) for s in labels["study_id"] for t in TARGETS]
    return pd.DataFrame(rows, columns=["row_id", *PROBABILITY_COLUMNS])


def uniform(labels: pd.DataFrame) -> pd.DataFrame:
    return constant(labels, {t.column: np.full(3, 1 / 3) for t in TARGETS})


@pytest.fixture(scope="module")
def real_labels() -> pd.DataFrame:
    if not REAL_LABELS.is_file():
        pytest.skip("the real label table is not here")
    return pd.read_csv(REAL_LABELS, dtype={"study_id": str})


def test_uniform_submission_on_the_real_labels(real_labels: pd.DataFrame) -> None:
    report = score(uniform(real_labels), real_labels)
    assert report.score == pytest.approx(0.9993, abs=5e-5)
    assert (report.n_studies, report.n_rows, report.n_unlabelled) == (1973, 48753, 572)


def test_weighted_level_prior_on_the_real_labels(real_labels: pd.DataFrame) -> None:
    submission = constant(real_labels, {t.column: competition_weighted(level_prior(t)) for t in TARGETS})
    report = score(submission, real_labels)
    assert report.score == pytest.approx(0.7900, abs=5e-5)
    assert report.spinal == pytest.approx(0.7061, abs=5e-5)
    assert report.foraminal == pytest.approx(0.8045, abs=5e-5)
    assert report.subarticular == pytest.approx(0.9513, abs=5e-5)
    assert report.any_severe_spinal == pytest.approx(0.6980, abs=5e-5)


def test_two_studies_computed_by_hand() -> None:
    """Study a is normal but for one severe canal; study b is normal with one empty canal cell."""
    severities = np.zeros((2, 25), dtype=int)
    canal = [i for i, t in enumerate(TARGETS) if t.condition.group is ConditionGroup.SPINAL]
    severities[0, canal[3]] = Severity.SEVERE.index
    severities[1, canal[0]] = -1
    labels = label_table(severities, ["a", "b"])
    submission = constant(labels, {t.column: np.array([0.7, 0.2, 0.1]) for t in TARGETS})

    report = score(submission, labels)

    # Canal: 8 normal rows of weight 1, one severe row of weight 4; the empty cell is not scored.
    assert report.spinal == pytest.approx(-(8 * log(0.7) + 4 * log(0.1)) / 12)
    assert report.foraminal == report.subarticular == pytest.approx(-log(0.7))
    # Any severe: study a true with weight 4, study b false with weight 1, both predicted 0.1.
    assert report.any_severe_spinal == pytest.approx(-(4 * log(0.1) + log(0.9)) / 5)
    terms = [report.spinal, report.foraminal, report.subarticular, report.any_severe_spinal]
    assert report.score == pytest.approx(sum(terms) / 4)
    assert (report.n_spinal, report.n_foraminal, report.n_unlabelled) == (9, 20, 1)
    assert list(report.to_dict())[:5] == [
        "score",
        "spinal",
        "foraminal",
        "subarticular",
        "any_severe_spinal",
    ]


def test_any_severe_takes_the_maximum_of_each_study() -> None:
    severities = np.zeros((1, 25), dtype=int)
    labels = label_table(severities)
    submission = uniform(labels)
    spinal = submission.index[submission["row_id"].str.contains("spinal")]
    submission.loc[spinal[2], PROBABILITY_COLUMNS] = [0.1, 0.3, 0.6]
    assert score(submission, labels).any_severe_spinal == pytest.approx(-log(1 - 0.6))


def test_a_perfect_submission_scores_nothing_and_a_wrong_one_is_clipped() -> None:
    severities = np.random.default_rng(0).integers(0, 3, size=(6, 25))
    labels = label_table(severities)
    truth = long_labels(labels)
    perfect = pd.DataFrame(np.eye(3)[truth["severity"]], columns=PROBABILITY_COLUMNS)
    perfect.insert(0, "row_id", truth["row_id"])
    assert score(perfect, labels).score == pytest.approx(0, abs=1e-12)
    wrong = perfect.assign(**{c: np.roll(perfect[PROBABILITY_COLUMNS], 1, axis=1)[:, i]
                              for i, c in enumerate(PROBABILITY_COLUMNS)})  # fmt: skip
    assert score(wrong, labels).spinal == pytest.approx(-log(np.finfo(float).eps))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_group_is_sklearns_log_loss(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = label_table(rng.integers(-1, 3, size=(5, 25)))
    submission = uniform(labels)
    submission[PROBABILITY_COLUMNS] = rng.dirichlet(np.ones(3) * 0.5, size=len(submission))
    shuffled = submission.sample(frac=1, random_state=seed % 2**31)
    report = score(shuffled, labels)
    truth = long_labels(labels).merge(submission, on="row_id")
    for group in ConditionGroup:
        rows = truth[truth["group"] == group.value]
        expected = log_loss(
            rows["severity"], rows[PROBABILITY_COLUMNS], sample_weight=rows["weight"], labels=[0, 1, 2]
        )
        assert getattr(report, group.value) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_weighted_frequencies_are_the_best_constant(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = label_table(rng.choice([0, 0, 0, 1, 2], size=(8, 25)))
    severities = long_labels(labels).query("group == 'foraminal'")["severity"]
    frequencies = np.bincount(severities, minlength=3) / len(severities)

    def foraminal(q: np.ndarray) -> float:
        return score(constant(labels, {t.column: q for t in TARGETS}), labels).foraminal

    best = competition_weighted(frequencies)
    other = np.clip(best + rng.normal(0, 0.05, 3), 1e-3, None)
    assert foraminal(best) <= foraminal(other / other.sum()) + 1e-12


def test_probabilities_are_renormalised() -> None:
    labels = label_table(np.ones((2, 25), dtype=int))
    submission = uniform(labels)
    doubled = submission.assign(**{c: submission[c] * 2 for c in PROBABILITY_COLUMNS})
    assert score(doubled, labels) == score(submission, labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.iloc[1:], "each of the 50 labelled rows once"),
        (lambda s: pd.concat([s, s.iloc[:1]]), "each of the 50 labelled rows once"),
        (lambda s: s.assign(severe=np.nan), "must be finite"),
        (lambda s: s.assign(severe=-0.1), "not negative"),
    ],
)
def test_a_submission_that_cannot_be_scored_is_refused(change, message: str) -> None:
    labels = label_table(np.zeros((2, 25), dtype=int))
    with pytest.raises(ValueError, match=message):
        score(change(uniform(labels)), labels)


def test_a_label_table_with_unknown_words_is_refused() -> None:
    labels = label_table(np.zeros((1, 25), dtype=int))
    labels.iloc[0, 4] = "Mild"
    with pytest.raises(ValueError, match="unknown severities: 'Mild'"):
        long_labels(labels)
    with pytest.raises(ValueError, match="lacks the columns spinal_canal_stenosis_l1_l2"):
        long_labels(labels.drop(columns="spinal_canal_stenosis_l1_l2"))


def test_a_group_without_labels_has_no_score() -> None:
    severities = np.zeros((1, 25), dtype=int)
    severities[0, [t.condition.group is ConditionGroup.SUBARTICULAR for t in TARGETS]] = -1
    labels = label_table(severities)
    with pytest.raises(ValueError, match="no subarticular row has a label"):
        score(uniform(labels), labels)
