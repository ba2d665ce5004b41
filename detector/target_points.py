"""The point of every target: where axial and foramen detector see it, else where geometry puts it."""

from __future__ import annotations

from collections.abc import Sequence

from data_prep.base.beside import Beside
from data_prep.levels import LevelPoint, SpineLevel, aside_along_a_line_mm
from data_prep.study import Series, Study
from data_prep.vocabulary import ConditionGroup, Level
from detector.config import PredictConfig
from detector.look.inference import SlicePredictor
from detector.look.refiner import PointRefiner
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
        aside_mm = sideways_mm(levels, points)
        if is_curved or _is_crooked(tuple(aside_mm.values()), config.crooked_mm):
            if not is_curved and is_straight(levels, aside_mm, leading.normal, config.bows):
                aside_mm = aside_along_a_line_mm(levels, points)
            levels, points = moved_sideways(study, levels, points, leading, aside_mm)
            seen = None
        else:
            if at_once:
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


def _is_crooked(aside_mm: tuple[float, ...], least_mm: float) -> bool:
    """Whether most levels lie at least so far to one side of where the sagittal slices put them."""
    left, right = (sum(sign * aside >= least_mm for aside in aside_mm) for sign in (1, -1))
    return max(left, right) * 2 > len(aside_mm) > 0
