"""From numbered canal points to the five points of every level, by geometry alone.

Offsets are anatomy in the spine's own frame, so lordosis, scoliosis and a patient off the table's axis
need no special case. They are the spread of annotated points around the canal point of the same level
in two RSNA studies, in patient axes (recess midpoint 3 mm in front, half distance 5.5–11; foramina 14–19
to the side, 4–9 above, 0–12 in front, growing with the lordosis), turned into that frame. So figures on
those two studies are not blind for foramina and recesses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.geometry import FloatArray
from data_prep.levels import SpineFrame
from data_prep.vocabulary import Condition, ConditionGroup, Level


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
UNCERTAINTY_MM = {
    ConditionGroup.SPINAL: 0.0,
    ConditionGroup.FORAMINAL: 5.0,
    ConditionGroup.SUBARTICULAR: 4.5,
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
