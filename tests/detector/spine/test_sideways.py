"""Protects: where the canal lies sideways is what axial slices show, however crooked the spine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from data_prep.levels import (
    RECESSES,
    LevelPoint,
    PointSource,
    Sight,
    SpineFrame,
    SpineLevel,
)
from data_prep.phantom import make_study
from data_prep.read.find import find_studies
from data_prep.study import Series, Study
from data_prep.vocabulary import LEVELS, Condition, ConditionGroup, Flag, Level, SeriesKind, Side
from detector import predict
from detector.config import PredictConfig
from detector.look.candidates import SliceCandidate
from detector.predict import LevelDetector
from detector.spine.axial import AxialConfig, _agreeing, sideways_mm
from detector.spine.bows import BowConfig, is_straight, recesses_tell_a_bend
from detector.spine.points import moved_sideways
from detector.target_points import _towards_axials

FRAME = SpineFrame(up=np.array([0.0, 0, 1]), left=np.array([1.0, 0, 0]), back=np.array([0.0, 1, 0]))
EXPECTED = np.array([[-8.0, -3.0, 0.0], [8.0, -3.0, 0.0]])


def pair(aside: float, *, score: float = 0.8, forward: float = 0.0) -> SliceCandidate:
    points = EXPECTED + np.array([aside, -forward, 0.0])
    return SliceCandidate(score, np.zeros(0), points, "1", 1)


@pytest.mark.parametrize("aside", [0.0, 7.0, -18.0, 25.0])
def test_a_sure_pair_is_found_however_far_aside(aside: float) -> None:
    found = _agreeing((pair(aside),), EXPECTED, AxialConfig())
    assert found is not None
    np.testing.assert_allclose(found[1], EXPECTED + [aside, 0, 0], atol=1e-9)


def test_of_several_pairs_the_surest_counts() -> None:
    pairs = pair(2.0, score=0.05), pair(4.0, score=0.5), pair(-6.0, score=0.9)
    for found in (_agreeing(pairs, EXPECTED, AxialConfig()), _agreeing(pairs[::-1], EXPECTED, AxialConfig())):
        assert found is not None and found[0] is pairs[2]


@pytest.mark.parametrize("candidate", [pair(18.0, score=0.4), pair(45.0), pair(0.0, forward=12.0)])
def test_what_is_unsure_or_elsewhere_is_not(candidate: SliceCandidate) -> None:
    assert _agreeing((candidate,), EXPECTED, AxialConfig()) is None


X = np.array([1.0, 0.0, 0.0])


def spine() -> dict[Level, SpineLevel]:
    return {
        level: SpineLevel(
            np.array([0.0, -30.0, -33.0 * level.index]),
            np.array([0.0, 0.0, -33.0 * level.index]),
            FRAME,
            1,
            2,
        )
        for level in LEVELS
    }


def recesses(level: Level, aside: float, source: PointSource = PointSource.SEEN) -> list[LevelPoint]:
    at = np.array([aside, -3.0, -33.0 * level.index])
    return [
        LevelPoint(condition, level, at + np.array([x, 0, 0]), source)
        for condition, x in zip(RECESSES, (-8.0, 8.0), strict=True)
    ]


def test_the_canal_lies_between_the_recesses_and_gaps_are_filled() -> None:
    bent = {Level.L1_L2: 2.0, Level.L2_L3: 12.0, Level.L4_L5: 14.0}
    points = [point for level, aside in bent.items() for point in recesses(level, aside)]
    points += recesses(Level.L3_L4, 99.0, PointSource.PREDICTED)
    found = sideways_mm(spine(), tuple(points))
    assert [round(found[level], 6) for level in LEVELS] == [2.0, 12.0, 13.0, 14.0, 14.0]
    assert sideways_mm(spine(), tuple(recesses(Level.L3_L4, 5.0, PointSource.PREDICTED))) == {}


@pytest.mark.parametrize("bows", [False, True])
def test_canals_follow_axial_slices_more_and_more(bows: bool) -> None:
    """No hair's breadth in an image moves a spine by the whole way."""
    levels, config = spine(), PredictConfig()
    leading = cast(Series, SimpleNamespace(normal=X))

    def put(most: float) -> float:
        aside = {level: most * (1 - (level.index - 2) ** 2 / 4 if bows else 1) for level in LEVELS}
        points = tuple(point for level in LEVELS for point in recesses(level, aside[level]))
        base, by = _towards_axials(levels, levels, points, leading, config, is_curved=False)
        assert base is levels
        return by.get(Level.L3_L4, 0.0)

    asides = np.arange(3.0, 12.0, 0.1)
    moved = np.array([put(aside) for aside in asides])
    low, high = config.crooked_mm
    assert not moved[asides < low].any()
    np.testing.assert_allclose(put(14.0), 14.0, atol=0.01)
    assert np.diff(moved).min() > -0.2 and np.abs(np.diff(moved)).max() < (2.9 if bows else 0.4)
    assert moved[asides > high + 0.1].min() > 5.0
    if not bows:
        np.testing.assert_allclose(moved[asides > high], asides[asides > high], atol=0.01)


def test_recesses_say_where_a_spine_lies_though_discs_seemed_to_lie_elsewhere() -> None:
    """Of a spine that lies in the middle of its slices, which its discs had put 7.7 mm beside it."""
    central = spine()
    followed = {level: place.moved(np.array([7.7, 0.0, 0.0])) for level, place in central.items()}
    leading = cast(Series, SimpleNamespace(normal=X))

    def base(levels: Iterable[Level]) -> tuple[bool, set[float]]:
        points = tuple(point for level in levels for point in recesses(level, 1.0))
        found, by = _towards_axials(followed, central, points, leading, PredictConfig(), is_curved=True)
        return found is central, set(by.values())

    assert base(LEVELS) == (True, {0.0})
    assert base(LEVELS[:2])[0] is False  # too few to tell


def test_levels_canal_points_and_foramina_move_and_recesses_stay() -> None:
    phantom = make_study(100_321)
    study = phantom.study
    sagittal = next(series for series in study.series if series.kind == "Sagittal T2/STIR")
    canal = {p.level: p.xyz_mm for p in phantom.points if p.condition is Condition.SPINAL_CANAL_STENOSIS}
    levels = {level: replace(place, canal_mm=canal[level]) for level, place in spine().items()}
    moved, points = moved_sideways(study, levels, phantom.points, sagittal, dict.fromkeys(LEVELS, 6.0))
    for before, after in zip(phantom.points, points, strict=True):
        if before.condition.group is ConditionGroup.SUBARTICULAR:
            assert after is before
    for level in LEVELS:
        np.testing.assert_allclose(moved[level].canal_mm, canal[level] + [6.0, 0, 0])
        new = {p.condition: p.xyz_mm for p in points if p.level is level}
        np.testing.assert_allclose(new[Condition.SPINAL_CANAL_STENOSIS], moved[level].canal_mm)
        sides = [new[Condition.of(ConditionGroup.FORAMINAL, side)] for side in Side]
        assert np.mean(sides, axis=0)[0] == pytest.approx(moved[level].canal_mm[0], abs=1e-6)


def seen_foramina(study: Study, detector: LevelDetector) -> list[Sight | None]:
    points = detector.predict(study).points
    return [point.sight for point in points if point.condition.group is ConditionGroup.FORAMINAL]


def without_t2_slices(study: Study, first: int, end: int | None) -> Study:
    series = (
        replace(item, stacks=tuple(stack[first:end] for stack in item.stacks))
        if item.kind is SeriesKind.SAGITTAL_T2
        else item
        for item in study.series
    )
    return replace(study, series=tuple(series))


@pytest.mark.parametrize("seed", [154_102, 154_108])
def test_foramina_are_seen_on_the_same_slices_though_t2_was_planned_to_one_side(seed: int) -> None:
    study, detector = make_study(seed).study, LevelDetector.load_bundled()
    whole = seen_foramina(study, detector)
    assert len(whole) == 2 * len(LEVELS)
    for first, end in ((2, None), (3, None), (0, -3)):
        assert seen_foramina(without_t2_slices(study, first, end), detector) == whole


def test_a_straight_spine_beside_the_middle_of_its_slices_moves_as_a_whole(real_rsna: Path) -> None:
    (found,) = find_studies(real_rsna / "train_images" / "100206310")
    study, detector = found.load(), LevelDetector.load_bundled()
    aside = without_t2_slices(study, 0, -3)
    found = detector.predict(aside)
    at = [float(level.canal_mm[0]) for level in found.levels.values()]
    left, right = (
        [point.xyz_mm[0] for point in found.points if point.condition is condition] for condition in RECESSES
    )
    np.testing.assert_allclose(at, np.mean([left, right], axis=0), atol=4.0)
    line = np.polyval(np.polyfit(range(len(LEVELS)), at, 1), range(len(LEVELS)))
    np.testing.assert_allclose(at, line, atol=0.8)
    assert Flag.SPINE_CURVED not in found.flags
    slices = [
        [None if sight is None else sight.instance_number for sight in seen_foramina(one, detector)]
        for one in (study, aside)
    ]
    assert sum(before == after for before, after in zip(*slices, strict=True)) >= 8


@pytest.mark.parametrize(("bow", "straight"), [(0.0, True), (2.0, True), (4.0, False)])
def test_a_bow_beyond_the_noise_of_single_levels_is_none_of_a_straight_spine(
    bow: float, straight: bool
) -> None:
    aside = {level: 9.0 + bow * (level.index - 2) ** 2 / 2 for level in LEVELS}
    assert is_straight(spine(), aside, X, BowConfig()) is straight


def test_where_the_coordinates_begin_makes_no_spine_bent() -> None:
    """The left of a level is turned a little with its disc: 400 mm from the origin that is not to matter."""
    aside = {level: 9.0 for level in LEVELS}
    levels = {}
    for level, place in spine().items():
        turn = 0.02 * (level.index - 2) ** 2
        frame = replace(FRAME, left=np.array([np.cos(turn), 0.0, np.sin(turn)]))
        levels[level] = replace(place, canal_mm=place.canal_mm + [0.0, 0.0, -400.0], frame=frame)
    assert is_straight(levels, aside, X, BowConfig())


@pytest.mark.parametrize(("bow", "is_bent"), [(0.0, False), (2.1, False), (2.3, True)])
def test_recesses_tell_a_bend_of_levels_that_were_put_on_a_line(bow: float, is_bent: bool) -> None:
    points = [point for level in LEVELS for point in recesses(level, bow * (level.index - 2) ** 2 / 2)]
    assert recesses_tell_a_bend(spine(), tuple(points), X, BowConfig()) is is_bent
    assert not recesses_tell_a_bend(spine(), (), X, BowConfig())


@pytest.mark.parametrize(
    ("own_bow", "bow", "is_told"),
    [(0.0, 0.0, False), (0.0, 4.0, True), (4.0, 0.0, True)],
    ids=["straight", "of the recesses", "of the levels"],
)
def test_a_bow_of_the_recesses_is_told_though_the_levels_were_put_on_a_line(
    monkeypatch: pytest.MonkeyPatch, own_bow: float, bow: float, is_told: bool
) -> None:
    """And that of the levels, whatever the recesses say."""
    found = predict.target_points

    def bent(by: float, levels: dict[Level, SpineLevel]) -> dict[Level, SpineLevel]:
        return {
            at: level.moved(by * (at.index - 2) ** 2 / 2 * level.frame.left) for at, level in levels.items()
        }

    def on_a_line(*args: Any, **kwargs: Any) -> tuple[dict[Level, SpineLevel], tuple[LevelPoint, ...]]:
        levels, points = found(*args, **kwargs)
        middle = {at: level.canal_mm for at, level in bent(bow, levels).items()}
        seen = tuple(
            replace(point, xyz_mm=middle[point.level] + side * 8.0 * levels[point.level].frame.left)
            for point in points
            for condition, side in zip(RECESSES, (-1, 1), strict=True)
            if point.condition is condition
        )
        return bent(own_bow, levels), tuple(replace(point, source=PointSource.SEEN) for point in seen)

    monkeypatch.setattr(predict, "target_points", on_a_line)
    flags = LevelDetector.load_bundled().predict(make_study(154_102).study).flags
    assert (Flag.SPINE_CURVED in flags) is is_told
    assert not {Flag.LEVEL_ABSENT, Flag.SACRUM_UNSEEN} & set(flags)
