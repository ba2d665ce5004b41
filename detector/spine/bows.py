"""Whether a spine bends sideways, told from the sagittal T1 slices that show its foramina.

The foramina of a level are seen on slices to both sides of its canal, and not on those of the canal itself.
How far to the side they lie in all differs between patients by more than 10 mm; how that changes from level
to level tells a bend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_prep.geometry import FloatArray
from data_prep.levels import LevelPoint, SpineLevel
from data_prep.study import Series, Study
from data_prep.vocabulary import ConditionGroup, Level, SeriesKind
from detector.look.inference import SlicePredictor
from detector.look.sightings import SliceSighting, look_at
from detector.spine.axial import sideways_mm
from detector.spine.foramina import ForamenConfig
from detector.spine.points import all_points


@dataclass(frozen=True)
class BowConfig:
    """What the foramina of a straight spine look like across the slices, and what is called a bend.

    Chosen on 42 synthetic patients (seeds 153,400 to 153,441), as they lie and bent, and the two complete
    studies; grid and bow once more on 16 of them (153,400 to 153,415) and the two studies. As they lie, these
    have a bow of 2.4 mm at most, and one leans by more than 9 mm; of 72 bends of 12 mm four are missed.

    Attributes:
        aside_mm, seen: how sure a foramen is seen so far beside the middle of the canal.
        context_mm: how far around the expected foramina these slices are looked at; ``seen`` holds for it.
        stiffness: of the line through the levels, per mm² between two of them.
        fewest_levels, fewest_slices, least_score: with fewer levels whose foramina are seen nothing is said.
        bow_mm: how far the levels may lie to both sides of a straight line.
        lean_mm: how far from where the levels have them, the largest less the smallest.
        straight_mm: a bow of the middles of recesses, each as it was seen, that is no more than the noise of
            single levels: 5.3 mm at most as they lie in 15 of 16 synthetic patients (seeds 153,500 to
            153,515; 7.2 in one) and the two studies; 6.3 and more of those that are bent by 12 mm and then
            lie 7 mm aside somewhere.
        told_mm: one that is told though the levels were put on a line: of a complete study whose stack
            lay aside it was 4.1 mm, which prompted it. With 4.0 and with 4.4 the same are told of 24 others,
            synthetic ones (seeds 217,000 to 217,023), as they lie and bent by 8, 12 and 16 mm, without three
            slices of a side of T2: four came near, 3.1 and 5.2 to 5.5. What is not told lies within
            3 mm of the line.
    """

    aside_mm: tuple[float, ...] = (0.0, 4.0, 10.0, 22.0, 32.0)
    seen: tuple[float, ...] = (0.08, 0.2, 0.55, 0.55, 0.02)
    context_mm: float = 38.0
    stiffness: float = 0.005
    step_mm: float = 0.5
    fewest_levels: int = 4
    fewest_slices: int = 7
    least_score: float = 0.2
    bow_mm: float = 3.1
    lean_mm: float = 9.0
    straight_mm: float = 5.8
    told_mm: float = 4.4


def foramina_tell_a_bend(
    study: Study,
    levels: Mapping[Level, SpineLevel],
    leading: Series,
    predictor: SlicePredictor,
    foramen: ForamenConfig,
    config: BowConfig,
) -> bool:
    """Whether the foramina of T1 lie along a bent line, or one that leaves where the levels have the canal.

    Args:
        leading: the sagittal series that decided the levels.
    """
    t1 = study.of_kind(SeriesKind.SAGITTAL_T1)
    stack = t1[0].main_stack if t1 else ()
    if len(stack) < config.fewest_slices or len(levels) < config.fewest_levels:
        return False
    wanted = [
        point
        for point in all_points(study, levels, leading)
        if point.condition.group is ConditionGroup.FORAMINAL
    ]
    wide = replace(foramen, context_mm=config.context_mm)
    part = wide.part_around([point.xyz_mm for point in wanted], np.inf)
    sightings = look_at([(t1[0], item) for item in stack], predictor, foramen.candidates, part)
    across = stack[0].plane.normal
    places = np.array([float(one.item.plane.centre_mm @ across) for one in sightings])
    scores = {level: _scores(sightings, wanted, level, foramen.max_from_geometry_mm) for level in levels}
    shown = sorted(
        (level for level in levels if scores[level].max(initial=0.0) >= config.least_score),
        key=lambda level: level.index,
    )
    if len(shown) < config.fewest_levels:
        return False
    middles = middles_mm(places, np.stack([scores[level] for level in shown]), config)
    lean = middles - np.array([float(levels[level].canal_mm @ across) for level in shown])
    return bool(_bow_mm(lean) >= config.bow_mm or np.ptp(lean) >= config.lean_mm)


def lies_along_a_bow(levels: Mapping[Level, SpineLevel], across: FloatArray, config: BowConfig) -> bool:
    """Whether the levels, where axial slices put them, lie along a bent line.

    As they lie, 24 synthetic patients (seeds 283,000 to 283,023) have a bow of 1.1 mm at most; bent by 20 mm
    all but one have one of 4.0 mm at least, three of which nothing else told.

    Args:
        across: (3,) unit normal of the sagittal slices.
    """
    if len(levels) < config.fewest_levels:
        return False
    return _bow_mm(np.array([float(level.canal_mm @ across) for level in levels.values()])) >= config.bow_mm


def is_straight(
    levels: Mapping[Level, SpineLevel],
    aside_mm: Mapping[Level, float],
    across: FloatArray,
    config: BowConfig,
) -> bool:
    """Whether canals that lie to one side of the levels lie along a straight line: a stack was planned aside.

    Args:
        aside_mm: how far to the patient's left of each level its canal is seen.
        across: (3,) unit normal of the sagittal slices.
    """
    return _bow_mm(_places_mm(levels, aside_mm, across)) <= config.straight_mm


def recesses_tell_a_bend(
    levels: Mapping[Level, SpineLevel],
    points: tuple[LevelPoint, ...],
    across: FloatArray,
    config: BowConfig,
) -> bool:
    """Whether the middles of recesses, as axial slices show them, lie along a bent line.

    Args:
        across: (3,) unit normal of the sagittal slices.
    """
    aside_mm = sideways_mm(levels, points)
    if len(aside_mm) < config.fewest_levels:
        return False
    return _bow_mm(_places_mm(levels, aside_mm, across)) >= config.told_mm


def _places_mm(
    levels: Mapping[Level, SpineLevel], aside_mm: Mapping[Level, float], across: FloatArray
) -> FloatArray:
    """(levels,) where canals lie along a direction, so far to the left of each level."""
    seen_mm = [levels[at].canal_mm + aside * levels[at].frame.left for at, aside in aside_mm.items()]
    return np.array([float(xyz @ across) for xyz in seen_mm])


def _bow_mm(places_mm: FloatArray) -> float:
    """How far places, head to foot, lie to both sides of a straight line."""
    if len(places_mm) < 3:
        return 0.0
    number = np.arange(len(places_mm))
    return float(np.ptp(places_mm - np.polyval(np.polyfit(number, places_mm, 1), number)))


def middles_mm(places_mm: FloatArray, scores: FloatArray, config: BowConfig) -> FloatArray:
    """(levels,) where the middle between left and right foramina lies, along a line that bends little.

    Args:
        places_mm: (slices,) along their normal.
        scores: (levels, slices) how sure the foramina of a level are seen, neighbouring levels in order.
    """
    grid = np.arange(places_mm.min(), places_mm.max() + config.step_mm / 2, config.step_mm)
    expected = np.interp(np.abs(places_mm[None] - grid[:, None]), config.aside_mm, config.seen)
    misfit = ((scores[:, None] - expected[None]) ** 2).sum(axis=2)
    bending = config.stiffness * (grid[:, None] - grid[None]) ** 2
    best, steps = misfit[0], []
    for own in misfit[1:]:
        total = best[:, None] + bending
        steps.append(total.argmin(axis=0))
        best = total.min(axis=0) + own
    way = [int(best.argmin())]
    for step in reversed(steps):
        way.append(int(step[way[-1]]))
    return np.asarray(grid[way[::-1]])


def _scores(
    sightings: Sequence[SliceSighting], wanted: Sequence[LevelPoint], level: Level, reach_mm: float
) -> FloatArray:
    """(slices,) of the best candidate near to where a foramen of the level is expected in the slice."""
    expected = [point.xyz_mm for point in wanted if point.level is level]
    found = np.zeros(len(sightings))
    for place, one in enumerate(sightings):
        plane = one.item.plane
        in_plane = [plane.projected(xyz) for xyz in expected]
        found[place] = max(
            (
                candidate.score
                for candidate in one.candidates
                if any(np.linalg.norm(candidate.points_mm[0] - xyz) <= reach_mm for xyz in in_plane)
            ),
            default=0.0,
        )
    return found
