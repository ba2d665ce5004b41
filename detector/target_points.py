"""The point of every target: where axial and foramen detector see it, else where geometry puts it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_prep.base.workers import Beside
from data_prep.levels import LevelPoint, SpineLevel, aside_along_a_line_mm, seen_aside_mm
from data_prep.study import Series, Study
from data_prep.vocabulary import ConditionGroup, Level
from detector.config import PredictConfig
from detector.look.inference import SlicePredictor
from detector.look.refiner import PointRefiner
from detector.spine.aside import most_aside_mm
from detector.spine.axial import read_between_slices, refine_recesses, sideways_mm
from detector.spine.bows import is_straight
from detector.spine.foramina import look_for_foramina, refine_foramina
from detector.spine.points import all_points, foramina_sideways, moved_sideways


def target_points(
    study: Study,
    levels: dict[Level, SpineLevel],
    leading: Series,
    config: PredictConfig,
    *,
    central: dict[Level, SpineLevel],
    is_curved: bool,
    axial: SlicePredictor | None,
    foramen: SlicePredictor | None,
    refiners: Sequence[PointRefiner],
    thread: Beside,
) -> tuple[dict[Level, SpineLevel], tuple[LevelPoint, ...]]:
    """The levels, and a point for each of their targets.

    Axial slices also say where the canal lies sideways, of which sagittal ones tell little: canal points
    and foramina are looked for from there.

    Args:
        leading: the sagittal series that decided the levels.
        central: the levels before they were followed across the sagittal slices.
        is_curved: the spine leaves the central slices.
        axial, foramen: detectors of recesses and foramina.
        refiners: take a second look at points that were seen.
        thread: looks for recesses while foramina are looked for beside where the canal is expected, and once
            more where it turns out to lie elsewhere.
    """
    points = all_points(study, levels, leading)
    again, seen = tuple(refiners), None
    if axial is not None:
        at_once = foramen is not None and not is_curved
        of_canals = tuple(refiner for refiner in again if refiner.spec.group is not ConditionGroup.FORAMINAL)
        recesses = thread.begin(
            _seen_on_axials, study, levels, points, axial, config, of_canals if at_once else ()
        )
        if foramen is not None and at_once:
            seen = look_for_foramina(study, points, foramen, config.foramen)
        points, looked_at_again = recesses()
        follows, aside_mm = _towards_axials(levels, central, points, leading, config, is_curved=is_curved)
        if aside_mm:
            levels, points = moved_sideways(study, follows, points, leading, aside_mm)
            seen = None
        elif at_once:
            points = looked_at_again
            again = tuple(refiner for refiner in again if refiner not in of_canals)
        points = foramina_sideways(study, levels, points, aside_along_a_line_mm(levels, points))
    if foramen is not None:
        seen = look_for_foramina(study, points, foramen, config.foramen, known=seen or ())
        points = refine_foramina(points, seen, config.foramen)
    return levels, _refined(study, points, again)


def _seen_on_axials(
    study: Study,
    levels: dict[Level, SpineLevel],
    expected: tuple[LevelPoint, ...],
    axial: SlicePredictor,
    config: PredictConfig,
    refiners: Sequence[PointRefiner],
) -> tuple[tuple[LevelPoint, ...], tuple[LevelPoint, ...]]:
    """The points with recesses where they are seen, and the same after a second look."""
    points = refine_recesses(study, levels, expected, axial, config.axial)
    points = read_between_slices(study, expected, points, config.axial)
    return points, _refined(study, points, refiners)


def _refined(
    study: Study, points: tuple[LevelPoint, ...], refiners: Sequence[PointRefiner]
) -> tuple[LevelPoint, ...]:
    for refiner in refiners:
        points = refiner.refine(study, points)
    return points


def _towards_axials(
    levels: dict[Level, SpineLevel],
    central: dict[Level, SpineLevel],
    points: tuple[LevelPoint, ...],
    leading: Series,
    config: PredictConfig,
    *,
    is_curved: bool,
) -> tuple[dict[Level, SpineLevel], dict[Level, float]]:
    """Levels, and how far to the patient's left of each its canal is put for axial slices; empty: not moved.

    Within a slice or two the sagittal images know better, beyond that axial ones: from the one to the other
    more and more of the way is gone, for a limit would move a spine that lies there by all of it, or not,
    with any change of an image. Where enough recesses are seen, levels begin where the central slices have
    them: where discs end is seen less surely than where recesses lie.
    """
    few = len(seen_aside_mm(central, points)) < config.aside.fewest_levels
    base = levels if few else central
    aside_mm = sideways_mm(base, points)
    low, high = config.crooked_mm
    share = float(np.clip((most_aside_mm(base, aside_mm, config.aside) - low) / (high - low), 0.0, 1.0))
    if share == 0.0 and base is levels:
        return levels, {}
    if not is_curved and is_straight(base, aside_mm, leading.normal, config.bows):
        aside_mm = aside_along_a_line_mm(base, points)
    return base, {level: share * aside for level, aside in aside_mm.items()}
