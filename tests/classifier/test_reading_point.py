"""Protects: a canal is read where axial slices show it, however the sagittal slices were planned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from classifier.config import GraderName
from classifier.predict import Grader
from classifier.target_crops import grader_point, reading_point
from data_prep.levels import LevelPoint, PointSource, SpineFrame, SpineLevel, SpineLevels
from data_prep.phantom import make_study
from data_prep.vocabulary import LEVELS, Condition, Flag, Level, SeriesKind, Target
from detector.predict import LevelDetector
from tests.classifier.synthetic import all_points, textured_study

FRAME = SpineFrame(up=np.array([0.0, 0, 1]), left=np.array([1.0, 0, 0]), back=np.array([0.0, 1, 0]))
CANAL = Condition.SPINAL_CANAL_STENOSIS
LEFT, RIGHT = Condition.LEFT_SUBARTICULAR_STENOSIS, Condition.RIGHT_SUBARTICULAR_STENOSIS


def spine(
    aside_mm: dict[Level, float], source: PointSource = PointSource.SEEN, x_mm: float = 0.0
) -> SpineLevels:
    """Canal points at one x, and pairs of recesses so far to the left of them."""
    levels, points = {}, []
    for level in LEVELS:
        at = np.array([x_mm, 0.0, 70.0 - 35.0 * level.index])
        levels[level] = SpineLevel(at - [0, 12.0, 0], at, FRAME, 1.0, 2.0)
        points.append(LevelPoint(CANAL, level, at, PointSource.SEEN))
        for condition, x in ((LEFT, 8.0), (RIGHT, -8.0)):
            if level in aside_mm:
                moved = at + [aside_mm[level] + x, -3.0, 0]
                points.append(LevelPoint(condition, level, moved, source))
    return SpineLevels("1", levels, tuple(points))


def read_x(levels: SpineLevels) -> list[float]:
    found = [reading_point(GraderName.SPINAL, levels, Target(CANAL, level)) for level in LEVELS]
    return [float(point.xyz_mm[0]) for point in found if point is not None]


def test_a_canal_is_read_midway_between_its_recesses_along_a_straight_line() -> None:
    lean = {level: 2.0 * level.index - 3.0 for level in LEVELS}
    assert read_x(spine(lean)) == pytest.approx(list(lean.values()))
    noisy = read_x(spine({level: value + (-1) ** level.index for level, value in lean.items()}))
    assert max(abs(x - value) for x, value in zip(noisy, lean.values(), strict=True)) < 0.75


def test_few_levels_have_their_mean_and_nothing_far_aside_is_believed() -> None:
    assert read_x(spine({Level.L4_L5: 4.0, Level.L5_S1: 2.0})) == pytest.approx([3.0] * 5)
    assert read_x(spine(dict.fromkeys(LEVELS, 30.0))) == pytest.approx([7.0] * 5)
    assert read_x(spine({})) == [0.0] * 5


@pytest.mark.parametrize("source", [PointSource.PREDICTED, PointSource.ANNOTATED])
def test_recesses_that_no_detector_saw_move_no_canal(source: PointSource) -> None:
    assert read_x(spine(dict.fromkeys(LEVELS, 5.0), source)) == [0.0] * 5


def test_other_targets_are_read_at_their_points() -> None:
    levels = spine(dict.fromkeys(LEVELS, 5.0))
    for grader, condition in ((GraderName.SUBARTICULAR, LEFT), (GraderName.SPINAL_AXIAL, CANAL)):
        target = Target(condition, Level.L3_L4)
        read, point = reading_point(grader, levels, target), grader_point(grader, levels, target)
        assert read is not None and point is not None
        np.testing.assert_array_equal(read.xyz_mm, point.xyz_mm)


def test_a_canal_is_read_at_the_same_place_though_two_sagittal_slices_of_a_side_are_missing() -> None:
    study, detector = make_study(153_301).study, LevelDetector.load_bundled()
    read: list[list[float]] = []
    points: list[list[float]] = []
    for first, end in ((0, None), (2, None), (0, -2)):
        series = tuple(
            replace(item, stacks=tuple(stack[first:end] for stack in item.stacks))
            if item.kind is SeriesKind.SAGITTAL_T2
            else item
            for item in study.series
        )
        found = detector.predict(replace(study, series=series))
        read.append(read_x(found))
        canals = [found.point(CANAL, level) for level in LEVELS]
        points.append([float(point.xyz_mm[0]) for point in canals if point is not None])
    assert len(read[0]) == len(LEVELS)
    for other in read[1:]:
        np.testing.assert_allclose(other, read[0], atol=1.0)
    assert np.ptp(points, axis=0).max() > 2.0  # which is what the points depend on


def test_a_canal_is_read_at_its_point_where_no_slice_lies_midway_between_its_recesses() -> None:
    study, grader = make_study(153_301).study, Grader.load_bundled(threads=1)
    found = LevelDetector.load_bundled(threads=1).predict(study)
    aside = tuple(
        replace(point, xyz_mm=point.xyz_mm + [7.0, 0, 0]) if point.condition in (LEFT, RIGHT) else point
        for point in found.points
    )
    levels = replace(found, points=aside)
    canals = [found.point(CANAL, level) for level in LEVELS]
    middle = next(point.sight.instance_number for point in canals if point is not None and point.sight)
    series = tuple(
        replace(item, stacks=(tuple(one for one in item.slices if one.instance_number == middle),))
        if item.kind is SeriesKind.SAGITTAL_T2
        else item
        for item in study.series
        if item.kind is not SeriesKind.AXIAL_T2
    )
    grades = grader.grade(replace(study, series=series), levels)
    sources = [grades[Target(CANAL, level)].source for level in LEVELS]
    assert set(sources) <= {"seen", "predicted"}, sources


@pytest.mark.parametrize("seen_on", [SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2, None])
def test_a_canal_is_graded_on_what_there_is_and_marked_where_axial_slices_alone_show_it(
    seen_on: SeriesKind | None,
) -> None:
    kinds = (SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2) if seen_on is None else (seen_on,)
    grades = Grader.load_bundled(threads=1).grade(
        textured_study(kinds=kinds), SpineLevels("1", points=all_points())
    )
    canals = [grades[Target(CANAL, level)] for level in LEVELS]
    assert all(grade.source.is_graded for grade in canals)
    alone = seen_on is SeriesKind.AXIAL_T2
    assert [grade.flags for grade in canals] == [(Flag.AXIAL_ONLY,) if alone else ()] * len(LEVELS)


def test_grades_of_canals_come_from_where_they_are_read() -> None:
    """Canal points on the middle slice and recesses beside it: as if the points lay midway between these."""
    study = textured_study(kinds=(SeriesKind.SAGITTAL_T2,))
    grader = Grader.load_bundled(threads=1)

    def graded(canal_x_mm: float) -> np.ndarray:
        aside = dict.fromkeys(LEVELS, 4.5 - canal_x_mm)
        levels = spine(aside, x_mm=canal_x_mm)
        grades = grader.grade(study, levels)
        assert all(grades[Target(CANAL, level)].source.is_graded for level in LEVELS)
        return np.stack([grades[Target(CANAL, level)].probabilities for level in LEVELS])

    np.testing.assert_array_equal(graded(0.0), graded(4.5))
