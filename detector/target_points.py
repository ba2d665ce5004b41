"""The point of every target: where axial and foramen detector see it, else where geometry puts it."""

from __future__ import annotations

from collections.abc import Sequence

from data_prep.levels import LevelPoint, SpineLevel
from data_prep.study import Series, Study
from data_prep.vocabulary import Level
from detector.config import PredictConfig
from detector.look.inference import SlicePredictor
from detector.look.refiner import PointRefiner
from detector.spine.axial import refine_recesses, sideways_mm
from detector.spine.foramina import refine_foramina
from detector.spine.points import all_points, moved_sideways


def target_points(
    study: Study,
    levels: dict[Level, SpineLevel],
    leading: Series,
    config: PredictConfig,
    *,
    is_curved: bool = False,
    axial: SlicePredictor | None = None,
    foramen: SlicePredictor | None = None,
    refiners: Sequence[PointRefiner] = (),
) -> tuple[dict[Level, SpineLevel], tuple[LevelPoint, ...]]:
    """The levels, and a point for each of their targets.

    Axial slices also say where the canal lies sideways, of which sagittal ones tell little: canal points
    and foramina are looked for from there.

    Args:
        leading: the sagittal series that decided the levels.
        is_curved: the spine leaves the central slices.
        axial, foramen: detectors of recesses and foramina.
        refiners: take a second look at points that were seen.
    """
    points = all_points(study, levels, leading)
    if axial is not None:
        points = refine_recesses(study, levels, points, axial, config.axial)
        aside_mm = sideways_mm(levels, points)
        if is_curved or _is_crooked(tuple(aside_mm.values()), config.crooked_mm):
            levels, points = moved_sideways(study, levels, points, leading, aside_mm)
    if foramen is not None:
        points = refine_foramina(study, points, foramen, config.foramen)
    for refiner in refiners:
        points = refiner.refine(study, points)
    return levels, points


def _is_crooked(aside_mm: tuple[float, ...], least_mm: float) -> bool:
    """Whether most levels lie at least so far to one side of where the sagittal slices put them."""
    left, right = (sum(sign * aside >= least_mm for aside in aside_mm) for sign in (1, -1))
    return max(left, right) * 2 > len(aside_mm) > 0
