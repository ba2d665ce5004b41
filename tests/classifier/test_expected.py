"""What is expected of a target that was not seen: from grades of its level alone, and never the wrong way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier import BUNDLED_WEIGHTS
from classifier.config import GROUP_GRADERS, GraderName
from classifier.expected import (
    FILE_NAME,
    Expectation,
    Expectations,
    Odds,
    beside,
    cumulative_log_odds,
    read_expectations,
)
from classifier.grade import Grade
from classifier.predict import Grader
from classifier.prior import level_prior, prior_grade
from data_prep.base.manifest import Bundle, WeightsRejected, write_manifest
from data_prep.levels import SpineLevels
from data_prep.vocabulary import LEVELS, TARGETS, Condition, ConditionGroup, Flag, Level, SeriesKind, Target
from tests.classifier.synthetic import all_points, textured_study, write_tiny

CANAL, FORAMEN, RECESS = ConditionGroup
MILD, SEVERE = np.array([0.998, 0.0015, 0.0005]), np.array([0.05, 0.15, 0.8])


def odds(*groups: ConditionGroup, weight: float = 0.5) -> Odds:
    return Odds(0.1, 1.0, {group: (weight, weight) for group in groups})


def model(group: ConditionGroup, *groups: ConditionGroup, weight: float = 0.5) -> Expectation:
    return Expectation(group, odds(*groups, weight=weight), odds(*groups, weight=weight))


def targets(group: ConditionGroup) -> list[Target]:
    return [target for target in TARGETS if target.condition.group is group]


@pytest.fixture(params=list(Bundle))
def bundled(request: pytest.FixtureRequest) -> Expectations:
    return read_expectations(BUNDLED_WEIGHTS[request.param])


def test_what_stands_beside_a_target() -> None:
    left = Target(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L4_L5)
    assert beside(left, CANAL) == (Target(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5),)
    assert beside(left, FORAMEN) == (Target(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Level.L4_L5),)
    assert beside(left, RECESS) == (Target(Condition.RIGHT_SUBARTICULAR_STENOSIS, Level.L4_L5),)
    canal = Target(Condition.SPINAL_CANAL_STENOSIS, Level.L1_L2)
    assert beside(canal, CANAL) == ()
    assert {target.condition.side for target in beside(canal, RECESS)} == {"left", "right"}


def test_bundled_weights_tell_of_every_target_whatever_is_known(bundled: Expectations) -> None:
    known = {item.given for item in bundled.models if item.group is RECESS}
    assert len(bundled.models) == 17 and len(known) == 7
    for target in TARGETS:
        for group in ConditionGroup:
            graded = {other: MILD for other in beside(target, group)}
            assert (bundled.probabilities(target, graded) is not None) == bool(graded)


P = st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda p: sum(p) > 0.01)


@settings(max_examples=60, deadline=None)
@given(shares=st.lists(P, min_size=24, max_size=24), keep=st.integers(1, 24), bundle=st.sampled_from(Bundle))
def test_expected_probabilities_are_sound_whatever_is_graded(
    shares: list[list[float]], keep: int, bundle: Bundle
) -> None:
    found = read_expectations(BUNDLED_WEIGHTS[bundle])
    graded = {target: np.array(p) / sum(p) for target, p in zip(TARGETS[:keep], shares, strict=False)}
    for target in set(TARGETS) - set(graded):
        p = found.probabilities(target, graded)
        if p is not None:
            assert np.isfinite(p).all() and (p > 0).all() and p.sum() == pytest.approx(1, abs=1e-12)


def test_worse_beside_is_never_better_here(bundled: Expectations) -> None:
    scale = [
        MILD,
        np.array([0.8, 0.15, 0.05]),
        np.array([0.4, 0.4, 0.2]),
        SEVERE,
        np.array([0.0, 0.0, 1.0]),
    ]
    for target in TARGETS:
        for group in ConditionGroup:
            others = [other for some in ConditionGroup for other in beside(target, some)]
            changed = beside(target, group)
            if not changed:
                continue
            told = [
                bundled.probabilities(target, {other: p if other in changed else MILD for other in others})
                for p in scale
            ]
            worse = np.array([[1 - p[0], p[2]] for p in told if p is not None])
            assert len(worse) == len(scale) and (np.diff(worse, axis=0) >= -1e-12).all()
    assert min(w for item in bundled.models for pair in item.worse.weights.values() for w in pair) >= 0


@pytest.mark.parametrize("level", LEVELS)
def test_a_severe_canal_does_not_leave_its_recess_at_the_level_prior(
    level: Level, bundled: Expectations
) -> None:
    canal = Target(Condition.SPINAL_CANAL_STENOSIS, level)
    recess = Target(Condition.RIGHT_SUBARTICULAR_STENOSIS, level)
    severe, mild = (bundled.probabilities(recess, {canal: p}) for p in (SEVERE, MILD))
    assert severe is not None and mild is not None
    assert severe[2] > 2 * level_prior(recess)[2] and mild[2] < level_prior(recess)[2]


def test_the_model_that_uses_most_is_taken_and_one_that_lacks_something_is_not() -> None:
    canal, foramen = (Target(condition, Level.L4_L5) for condition in list(Condition)[:2])
    recess = Target(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L4_L5)
    alone, both = model(RECESS, CANAL), model(RECESS, CANAL, FORAMEN, weight=0.2)
    found = Expectations((alone, both))
    told = {canal: SEVERE, foramen: SEVERE}
    evidence = {
        group: cumulative_log_odds(SEVERE) - cumulative_log_odds(level_prior(target))
        for group, target in ((CANAL, canal), (FORAMEN, foramen))
    }
    np.testing.assert_array_equal(found.probabilities(recess, told), both.probabilities(recess, evidence))
    np.testing.assert_array_equal(
        found.probabilities(recess, {canal: SEVERE}), alone.probabilities(recess, evidence)
    )
    assert found.probabilities(recess, {foramen: SEVERE}) is None
    assert found.probabilities(recess, {replace(canal, level=Level.L3_L4): SEVERE}) is None


def test_what_was_seen_stays_and_what_was_not_keeps_its_flags() -> None:
    grades = {target: prior_grade(target, Flag.NO_SERIES) for target in TARGETS}
    for target in targets(CANAL)[:4]:
        grades[target] = Grade(SEVERE, "predicted")
    found = Expectations((model(RECESS, CANAL), model(FORAMEN, RECESS))).completed(grades)
    assert tuple(found) == TARGETS
    for target, grade in found.items():
        is_expected = target.condition.group is RECESS and target.level is not Level.L5_S1
        assert (grade.source == "expected") is is_expected
        # What is expected of a recess tells nothing further of its foramen.
        assert is_expected or grade is grades[target]
        assert grade.flags == grades[target].flags
    assert Expectations().completed(grades) == grades


@pytest.mark.parametrize(
    ("weights", "intercept", "message"),
    [
        ((-0.1, 0.2), 0.0, "must not be negative"),
        ((0.1, np.nan), 0.0, "finite"),
        ((0.1, 0.2), np.inf, "finite"),
    ],
)
def test_weights_that_would_mislead_are_refused(
    weights: tuple[float, float], intercept: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Odds(intercept, 1.0, {CANAL: weights})
    with pytest.raises(ValueError, match="of one at least"):
        Expectation(RECESS, odds(), odds())


def test_the_file_comes_back_and_is_as_the_manifest_says(tmp_path: Path) -> None:
    assert not (tmp_path / FILE_NAME).exists()
    write_manifest(tmp_path)
    assert read_expectations(tmp_path) == Expectations()
    wanted = Expectations((model(RECESS, CANAL), model(CANAL, FORAMEN, RECESS)))
    (tmp_path / FILE_NAME).write_text(json.dumps(wanted.to_dict()))
    write_manifest(tmp_path)
    assert read_expectations(tmp_path) == wanted
    told = wanted.to_dict()
    told["models"][0]["worse"]["weights"]["spinal"] = [-1.0, 0.0]
    (tmp_path / FILE_NAME).write_text(json.dumps(told))
    with pytest.raises(WeightsRejected, match="not the released file"):
        read_expectations(tmp_path)
    write_manifest(tmp_path)
    with pytest.raises(WeightsRejected, match="lumbar classifier expect"):
        read_expectations(tmp_path)


@pytest.mark.usefixtures("really_computed")
def test_a_study_without_axial_slices(tmp_path: Path) -> None:
    for seed, group in enumerate(GROUP_GRADERS):
        write_tiny(tmp_path, group, seed)
    plain = Grader.load(tmp_path, backend="torch")
    (tmp_path / FILE_NAME).write_text(json.dumps(Expectations((model(RECESS, CANAL, FORAMEN),)).to_dict()))
    write_manifest(tmp_path)
    told = Grader.load(tmp_path, backend="torch")
    study = textured_study(kinds=(SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1))
    levels = SpineLevels("7", points=all_points())
    before, after = plain.grade(study, levels), told.grade(study, levels)
    for target in TARGETS:
        unseen = target.condition.group is RECESS
        assert after[target].flags == before[target].flags == (("no_series",) if unseen else ())
        same = after[target].probabilities.tobytes() == before[target].probabilities.tobytes()
        assert same is not unseen
        assert after[target].source == ("expected" if unseen else before[target].source)
    doubtful = told.grade(study, replace(levels, flags=(Flag.NUMBERING_UNCERTAIN,)))
    assert {doubtful[target].source for target in targets(RECESS)} == {"prior"}
    # Graders that are made anew say other things than those that this was fitted on.
    write_tiny(tmp_path, GraderName.SPINAL, 9)
    assert not (tmp_path / FILE_NAME).exists() and read_expectations(tmp_path) == Expectations()
