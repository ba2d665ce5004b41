"""What is fitted of targets that no slice shows: what was hidden is found, and no weight has a wrong sign."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from classifier.expected import FILE_NAME, Expectations, read_expectations
from classifier.judge.evaluate import GradedTarget
from classifier.learn.expect import fit_expectations, save_expectations, seen_and_labelled
from classifier.prior import level_prior
from data_prep.base.manifest import read_manifest
from data_prep.vocabulary import TARGETS, ConditionGroup, GradeSource, Target

CANAL, FORAMEN, RECESS = ConditionGroup
Fate = tuple[dict[str, dict[Target, NDArray[np.float64]]], dict[str, dict[Target, int]]]


def patients(count: int, *, turned: bool = False) -> Fate:
    """Canals as their graders say, foramina that say nothing, and recesses that go with the canal.

    Args:
        turned: the worse the canal the better the recess, which no patient has.
    """
    draw = np.random.default_rng(3)
    graded: dict[str, dict[Target, NDArray[np.float64]]] = {}
    labels: dict[str, dict[Target, int]] = {}
    for number in range(count):
        seen, told = graded.setdefault(str(number), {}), labels.setdefault(str(number), {})
        bad = {target.level: draw.normal() for target in TARGETS}
        for target in TARGETS:
            by = 0.0 if target.condition.group is FORAMEN else bad[target.level]
            log_p = np.log(level_prior(target)) + np.array([0.0, 1.5, 3.0]) * by
            p = np.exp(log_p) / np.exp(log_p).sum()
            if target.condition.group is not RECESS:
                seen[target] = p
            else:
                p = p[::-1] if turned else p
            told[target] = int(draw.choice(3, p=p))
    return graded, labels


def log_loss(found: Expectations, group: ConditionGroup, *given: ConditionGroup) -> float:
    """Of a model, cross-validated."""
    (model,) = (item for item in found.models if item.group is group and item.given == set(given))
    assert model.metrics["log_loss"] < model.metrics["prior_log_loss"] + 0.02
    return float(model.metrics["log_loss"])


def test_what_goes_together_is_found_and_what_does_not_is_not() -> None:
    found = fit_expectations(*patients(120))
    # Recesses are seen of nobody: of them nothing is known of another target.
    assert {(item.group, item.given) for item in found.models} == {
        (CANAL, frozenset({FORAMEN})),
        (FORAMEN, frozenset({CANAL})),
        (FORAMEN, frozenset({FORAMEN})),
        (FORAMEN, frozenset({CANAL, FORAMEN})),
        (RECESS, frozenset({CANAL})),
        (RECESS, frozenset({FORAMEN})),
        (RECESS, frozenset({CANAL, FORAMEN})),
    }
    by_canal, by_foramen = log_loss(found, RECESS, CANAL), log_loss(found, RECESS, FORAMEN)
    assert by_canal < by_foramen - 0.1
    assert log_loss(found, RECESS, CANAL, FORAMEN) == pytest.approx(by_canal, abs=0.02)
    assert log_loss(found, FORAMEN, CANAL) == pytest.approx(log_loss(found, FORAMEN, FORAMEN), abs=0.03)


def weights(found: Expectations) -> Iterator[float]:
    for model in found.models:
        for step in (model.worse, model.severe):
            yield step.level
            yield from (weight for pair in step.weights.values() for weight in pair)


def test_no_weight_is_negative_though_the_labels_would_have_it() -> None:
    found = fit_expectations(*patients(60, turned=True))
    assert min(weights(found)) >= 0
    (model,) = (item for item in found.models if item.group is RECESS and item.given == {CANAL})
    assert model.worse.weights[CANAL] == (0.0, 0.0)


def test_of_too_few_nothing_is_said() -> None:
    assert fit_expectations(*patients(4)).models == ()
    graded, labels = patients(40)
    mild = {study: {target: 0 for target in told} for study, told in labels.items()}
    assert fit_expectations(graded, mild).models == ()
    assert fit_expectations({}, labels).models == ()


def test_the_first_grade_of_a_target_counts_and_what_was_not_graded_does_not(tmp_path: Path) -> None:
    target, other, third = TARGETS[:3]
    p = np.array([0.5, 0.3, 0.2])
    rows = [
        GradedTarget("1", target, 2, np.eye(3)[2], p),
        GradedTarget("1", target, 2, np.eye(3)[2], p[::-1]),
        GradedTarget("1", other, 1, np.eye(3)[1], p, ("no_slice",), GradeSource.EXPECTED),
        GradedTarget("1", third, 1, np.eye(3)[1], p, ("no_slice",), GradeSource.PRIOR),
    ]
    seen, told = seen_and_labelled(rows, {"2": {target: 0}})
    assert list(seen) == ["1"] and list(seen["1"]) == [target]
    np.testing.assert_array_equal(seen["1"][target], p)
    assert told == {"1": {target: 2, other: 1, third: 1}, "2": {target: 0}}


def test_what_is_written_is_listed_and_read(tmp_path: Path) -> None:
    found = fit_expectations(*patients(60))
    save_expectations(tmp_path, found)
    assert FILE_NAME in read_manifest(tmp_path)
    assert read_expectations(tmp_path) == found


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_studies_changes_nothing_that_matters(order: int) -> None:
    graded, labels = patients(60)
    turned = fit_expectations(dict(list(graded.items())[::order]), labels)
    for one, two in zip(fit_expectations(graded, labels).models, turned.models, strict=True):
        assert one.worse.intercept == pytest.approx(two.worse.intercept, abs=1e-3)
