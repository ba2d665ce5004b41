"""The level prior and the grade type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.grade import Grade
from classifier.metric import long_labels
from classifier.prior import competition_weighted, level_prior, level_prior_counts
from data_prep.vocabulary import (
    LEVELS,
    SEVERITIES,
    TARGETS,
    Condition,
    ConditionGroup,
    Level,
    Severity,
    Target,
)

REAL_LABELS = Path(__file__).resolve().parents[3] / "shared" / "real" / "rsna2024" / "train.csv"


def test_the_bundled_prior_is_counted_on_the_real_table() -> None:
    if not REAL_LABELS.is_file():
        pytest.skip("the real label table is not here")
    labels = long_labels(pd.read_csv(REAL_LABELS, dtype={"study_id": str}))
    counted = labels.groupby(["group", "level", "severity"]).size()
    for group, counts in zip(ConditionGroup, level_prior_counts(), strict=True):
        for level, row in zip(LEVELS, counts, strict=True):
            assert [counted.get((group.value, level.value, s.index), 0) for s in SEVERITIES] == row.tolist()


def test_the_bundled_prior_gives_a_probability_for_every_target() -> None:
    for target in TARGETS:
        p = level_prior(target)
        assert p.shape == (3,)
        assert p.sum() == pytest.approx(1)
        assert p.min() > 0
        assert np.argmax(p) == Severity.NORMAL_MILD.index


def test_left_and_right_share_a_prior_and_l4_l5_has_the_most_severe_canals() -> None:
    left = Target(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L3_L4)
    right = Target(Condition.RIGHT_SUBARTICULAR_STENOSIS, Level.L3_L4)
    np.testing.assert_array_equal(level_prior(left), level_prior(right))
    severe = [level_prior(Target(Condition.SPINAL_CANAL_STENOSIS, level))[2] for level in LEVELS]
    assert LEVELS[int(np.argmax(severe))] is Level.L4_L5


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_competition_weighting_multiplies_the_odds(values: list[float]) -> None:
    p = np.array(values) / sum(values)
    q = competition_weighted(p)
    assert q.sum() == pytest.approx(1)
    assert q[1] / q[0] == pytest.approx(2 * p[1] / p[0])
    assert q[2] / q[0] == pytest.approx(4 * p[2] / p[0])


def test_a_grade_is_three_probabilities() -> None:
    grade = Grade(np.array([0.2, 0.5, 0.3], dtype=np.float32), "seen", ("level_not_in_image",))
    assert grade.severity is Severity.MODERATE
    assert grade.probabilities.dtype == np.float64
    assert grade.probabilities.sum() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    ("probabilities", "source", "message"),
    [
        ([0.5, 0.5], "seen", r"shape \(3,\), but got shape \(2,\)"),
        ([0.5, 0.5, np.nan], "seen", "finite"),
        ([1.1, -0.1, 0.0], "seen", r"lie in \[0, 1\]"),
        ([0.5, 0.3, 0.1], "seen", "sum to 1"),
        ([0.5, 0.3, 0.2], "guessed", "source must be one of"),
    ],
)
def test_a_grade_refuses(probabilities: list[float], source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grade(np.array(probabilities), source, ())  # type: ignore[arg-type]
