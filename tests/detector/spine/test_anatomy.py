"""Foramina and recesses follow the spine, not the table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.vocabulary import CONDITIONS, LEVELS, Condition, ConditionGroup, Level, Side
from detector.spine.levels import condition_point_mm, frames_along

CANAL = np.array([[0, 0, 0], [0, -6, -33], [0, -10, -66], [0, -8, -97], [0, 0, -121]], float)
DISC = CANAL - [0, 24, 0]


def points(canal: np.ndarray, disc: np.ndarray) -> np.ndarray:
    frames = frames_along(canal, disc)
    return np.array(
        [
            [
                condition_point_mm(condition, level, canal[level.index], frames[level.index])
                for level in LEVELS
            ]
            for condition in CONDITIONS
        ]
    )


def rotation_about_x(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def test_frames_are_orthonormal_and_right_handed_in_lps() -> None:
    for frame in frames_along(CANAL, DISC):
        axes = np.stack([frame.left, frame.back, frame.up])
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
        assert frame.left[0] > 0.9 and frame.back[1] > 0.7 and frame.up[2] > 0.7


@pytest.mark.parametrize("group", [ConditionGroup.FORAMINAL, ConditionGroup.SUBARTICULAR])
@pytest.mark.parametrize("level", LEVELS)
def test_left_lies_left_of_right_within_the_anatomy(group: ConditionGroup, level: Level) -> None:
    frame = frames_along(CANAL, DISC)[level.index]
    left, right = (
        condition_point_mm(Condition.of(group, side), level, CANAL[level.index], frame)
        for side in (Side.LEFT, Side.RIGHT)
    )
    apart = left[0] - right[0]
    low, high = (26, 40) if group is ConditionGroup.FORAMINAL else (11, 22)
    assert low <= apart <= high


@given(st.floats(-25, 25))
def test_points_turn_with_a_patient_who_bends_forward(degrees: float) -> None:
    turn = rotation_about_x(degrees)
    np.testing.assert_allclose(points(CANAL @ turn.T, DISC @ turn.T), points(CANAL, DISC) @ turn.T, atol=1e-6)


def test_mirrored_anatomy_gives_mirrored_points() -> None:
    lean = np.array([0.15, 0, 0]) * CANAL[:, 2:3]  # scoliosis to one side
    mirror = np.array([-1.0, 1, 1])
    there = points(CANAL + lean, DISC + lean)
    back = points((CANAL + lean) * mirror, (DISC + lean) * mirror)
    swapped = back[[0, 2, 1, 4, 3]]  # left and right conditions change places
    np.testing.assert_allclose(swapped, there * mirror, atol=1e-9)
