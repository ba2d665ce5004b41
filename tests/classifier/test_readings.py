"""Protects: a target that several slices show is graded by all of them, by their shares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from classifier.readings import averaged, other_readings
from data_prep.levels import SpineLevels
from data_prep.vocabulary import Condition, Target
from tests.classifier.synthetic import all_points

SURE, OTHER = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])


def test_slices_count_by_their_shares_and_what_has_one_or_no_point_stays_as_it_is() -> None:
    one, two, *_ = (p for p in all_points() if p.condition is Condition.LEFT_NEURAL_FORAMINAL_NARROWING)
    two = replace(two, share=0.6, also=(replace(two, share=0.4),))
    levels = SpineLevels("1", points=(one, two))
    targets = [Target(point.condition, point.level) for point in (one, two)]
    unpointed = Target(Condition.SPINAL_CANAL_STENOSIS, one.level)
    (reading,) = other_readings(levels)
    assert [(point.condition, point.level) for point in reading.points] == [(two.condition, two.level)]
    found = averaged(levels, dict.fromkeys([*targets, unpointed], SURE), [{targets[1]: OTHER}])
    np.testing.assert_allclose(found[targets[1]], [0.6, 0.0, 0.4])
    assert found[targets[0]] is found[unpointed] is SURE
