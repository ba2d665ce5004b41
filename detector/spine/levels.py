"""From a numbered chain of discs to the five levels, with frames, uncertainties and what was not seen.

Where geometry alone expects the five points of a level: offsets are anatomy in the spine's own frame, so
lordosis, scoliosis and a patient off the table's axis need no special case. They are the spread of annotated
points around the canal point of the same level in two RSNA studies, in patient axes (recess midpoint 3 mm in
front, half distance 5.5–11; foramina 14–19 to the side, 4–9 above, 0–12 in front, growing with the lordosis),
turned into that frame. So figures on those two studies are not blind for foramina and recesses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.geometry import FloatArray
from data_prep.levels import PointSource, SpineFrame, SpineLevel
from data_prep.study import Series
from data_prep.vocabulary import LEVELS, Condition, ConditionGroup, Level
from detector.spine.chain import CANAL_GAPS_MM, FIRST_LUMBAR, ChainDisc, NumberedChain

UNCERTAINTY_MM = {
    ConditionGroup.SPINAL: 0.0,
    ConditionGroup.FORAMINAL: 5.0,
    ConditionGroup.SUBARTICULAR: 4.5,
}


@dataclass(frozen=True)
class LevelOffsets:
    """Where the points of a level lie from its canal point, millimetres along the frame (left, up, back).

    ``foramen`` and ``recess`` are for the left side; the right side mirrors ``left``.
    """

    foramen: tuple[float, float, float]
    recess: tuple[float, float, float]


OFFSETS: dict[Level, LevelOffsets] = {
    Level.L1_L2: LevelOffsets(foramen=(15.0, 6.0, -2.0), recess=(6.8, -1.0, -3.0)),
    Level.L2_L3: LevelOffsets(foramen=(15.5, 6.0, -4.0), recess=(7.5, -1.0, -3.0)),
    Level.L3_L4: LevelOffsets(foramen=(16.0, 6.0, -6.0), recess=(8.5, -1.0, -3.0)),
    Level.L4_L5: LevelOffsets(foramen=(16.5, 7.0, -8.0), recess=(9.3, -1.0, -3.0)),
    Level.L5_S1: LevelOffsets(foramen=(17.5, 4.5, -10.5), recess=(10.0, -1.0, -3.0)),
}


def frames_along(canal_mm: FloatArray, disc_mm: FloatArray) -> list[SpineFrame]:
    """The spine's frame at every disc of a chain, head to foot.

    Args:
        canal_mm, disc_mm: (n, 3) patient LPS, head to foot.

    ``up`` follows the canal points (central differences), ``back`` points from disc to canal, made
    perpendicular to ``up``; ``left = back × up``. A single disc is taken as upright.
    """
    frames = []
    count = len(canal_mm)
    mean_back = _unit(np.mean(canal_mm - disc_mm, axis=0) * [0, 1, 1])
    for i in range(count):
        above, below = max(i - 1, 0), min(i + 1, count - 1)
        up = canal_mm[above] - canal_mm[below] if count > 1 else np.array([0.0, 0.0, 1.0])
        up = _unit(up)
        back = (canal_mm[i] - disc_mm[i]) * [0, 1, 1]
        back = back if np.linalg.norm(back) > 5 else mean_back
        back = _unit(back - up * float(back @ up))
        frames.append(SpineFrame(up=up, left=np.cross(back, up), back=back))
    return frames


def condition_point_mm(
    condition: Condition, level: Level, canal_mm: FloatArray, frame: SpineFrame
) -> FloatArray:
    """Where a condition is read at a level, (3,) patient LPS, predicted from the canal point."""
    if condition.group is ConditionGroup.SPINAL:
        return canal_mm
    offsets = OFFSETS[level]
    left, up, back = offsets.foramen if condition.group is ConditionGroup.FORAMINAL else offsets.recess
    side = condition.side.sign if condition.side is not None else 0
    return canal_mm + side * left * frame.left + up * frame.up + back * frame.back


def _unit(vector: FloatArray) -> FloatArray:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-9 else np.array([0.0, 1.0, 0.0])


def spine_levels(
    chain: NumberedChain, series: tuple[Series, ...], *, margin_mm: float
) -> dict[Level, SpineLevel]:
    """The five levels of a numbered chain; a level that is not in the image is missing.

    Args:
        series: sagittal series of the study, to tell what the images show.
        margin_mm: a level next to the chain that was not seen but must lie at least this far inside the
            image is placed by extrapolation.
    """
    known = {position + chain.offset: disc for position, disc in enumerate(chain.discs)}
    wanted = {FIRST_LUMBAR + level.index: level for level in LEVELS}
    known.update(_extrapolated(known, wanted, series, margin_mm))
    order = sorted(known)
    frames = frames_along(
        np.stack([known[i].canal_mm for i in order]), np.stack([known[i].disc_mm for i in order])
    )
    levels: dict[Level, SpineLevel] = {}
    for index, frame in zip(order, frames, strict=True):
        if index not in wanted:
            continue
        disc, seen = known[index], known[index].candidate
        levels[wanted[index]] = SpineLevel(
            disc_mm=disc.disc_mm,
            canal_mm=disc.canal_mm,
            frame=frame,
            confidence=float(np.clip(0.3 if seen is None else seen.score, 0, 1)) * chain.confidence,
            uncertainty_mm=7.0 if seen is None else 2.0 + seen.spread_mm,
            source=PointSource.PREDICTED if seen is None else PointSource.SEEN,
        )
    return levels


def straightened(discs: tuple[ChainDisc, ...], across: FloatArray | None = None) -> tuple[ChainDisc, ...]:
    """Move each disc and its canal point across the slices, onto a smooth curve along the chain.

    A single disc is seen on few thick slices; the spine as a whole bends slowly (a parabola).

    Args:
        across: (3,) unit normal of the slices, LPS; left and right if not given. Slices of a patient who lies
            askew are oblique, and a disc does not lie straight before its canal then.
    """
    if len(discs) < 3:
        return discs
    across = np.array([1.0, 0.0, 0.0]) if across is None else across
    z = np.array([disc.canal_mm[2] for disc in discs])
    place = np.array([disc.canal_mm @ across for disc in discs])
    weights = np.array([disc.candidate.score if disc.candidate else 0.05 for disc in discs])
    degree = 2 if len(discs) >= 5 else 1
    fit = np.polynomial.Polynomial.fit(z, place, degree, w=weights)

    def moved(disc: ChainDisc) -> ChainDisc:
        at = float(fit(disc.canal_mm[2]))
        disc_mm, canal_mm = (p + (at - p @ across) * across for p in (disc.disc_mm, disc.canal_mm))
        return ChainDisc(disc_mm, canal_mm, disc.candidate)

    return tuple(moved(disc) for disc in discs)


def _extrapolated(
    known: dict[int, ChainDisc],
    wanted: dict[int, Level],
    series: tuple[Series, ...],
    margin_mm: float,
) -> dict[int, ChainDisc]:
    """Levels next to the chain's ends that were not seen although the image must show them."""
    added: dict[int, ChainDisc] = {}
    if not set(known) & set(wanted) or len(known) < 3:
        return added
    for direction in (-1, 1):
        have = {**known, **added}
        index = (min if direction < 0 else max)(have) + direction
        while index in wanted:
            near, before = have[index - direction], have[index - 2 * direction]
            step = near.canal_mm - before.canal_mm
            usual = CANAL_GAPS_MM[min(max(wanted[index].index - (direction > 0), 0), 3)]
            step = step / max(float(np.linalg.norm(step)), 1.0) * usual
            disc = ChainDisc(near.disc_mm + step, near.canal_mm + step, None)
            if not _shown(disc.canal_mm, series, margin_mm) or not _shown(disc.disc_mm, series, margin_mm):
                break
            added[index] = have[index] = disc
            index += direction
    return added


def _shown(point_mm: FloatArray, series: tuple[Series, ...], margin_mm: float) -> bool:
    planes = (item.nearest(point_mm)[0].plane for item in series)
    return any(plane.shows(point_mm, margin_mm / max(plane.spacing_mm)) for plane in planes)
