"""Levels and points of a study, and their one form as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from data_prep.geometry import FloatArray
from data_prep.vocabulary import Condition, ConditionGroup, Level, Side

if TYPE_CHECKING:
    from data_prep.study import Series, Slice


# From the patient's right to the left, as the detector of axial slices has them.
RECESSES = tuple(Condition.of(ConditionGroup.SUBARTICULAR, side) for side in (Side.RIGHT, Side.LEFT))


class PointSource(StrEnum):
    """How a point was found: detected in the image, predicted by geometry, or annotated by a person."""

    SEEN = "seen"
    PREDICTED = "predicted"
    ANNOTATED = "annotated"


@dataclass(frozen=True)
class Sight:
    """A slice that shows a point, and (column, row) there."""

    series_id: str
    instance_number: int
    xy_px: tuple[float, float]

    @classmethod
    def of(cls, series: Series, item: Slice, xyz_mm: ArrayLike) -> Sight:
        """Of a point (3,) mm, projected onto a slice."""
        x, y = item.plane.to_px(xyz_mm)
        return cls(series.series_id, item.instance_number, (float(x), float(y)))


@dataclass(frozen=True, eq=False)
class LevelPoint:
    """The place where a condition is read at a level.

    Attributes:
        condition, level: the target it belongs to.
        xyz_mm: (3,) patient LPS.
        sight: where the images show it; None when no slice lies within one slice gap.
        confidence: 0–1, that this is the structure named (1 for annotations).
        uncertainty_mm: expected 3-D error (one standard deviation).
        also: the same target on other slices that show it nearly as well, and are read, too; the point itself
            lies where it is shown best.
        share: of the grade that is read here; those of a point and its ``also`` add up to 1.
    """

    condition: Condition
    level: Level
    xyz_mm: FloatArray
    source: PointSource
    confidence: float = 1.0
    uncertainty_mm: float = 0.0
    sight: Sight | None = None
    also: tuple[LevelPoint, ...] = ()
    share: float = 1.0

    def __post_init__(self) -> None:
        xyz = np.array(self.xyz_mm, dtype=np.float64)
        if xyz.shape != (3,) or not np.all(np.isfinite(xyz)):
            raise ValueError(f"xyz_mm must be 3 finite numbers, but got {xyz.tolist()}")
        object.__setattr__(self, "xyz_mm", xyz)
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence must lie in [0, 1], but got {self.confidence}")

    def is_on(self, series: Series) -> bool:
        """Whether a slice of the series shows it."""
        return self.sight is not None and self.sight.series_id == series.series_id


@dataclass(frozen=True, eq=False)
class SpineFrame:
    """The local frame of the spine at a level, patient LPS unit vectors (3,).

    ``up`` along the canal to the head, ``left`` to the patient's left, ``back`` to the back;
    orthonormal.
    """

    up: FloatArray
    left: FloatArray
    back: FloatArray


@dataclass(frozen=True, eq=False)
class SpineLevel:
    """One disc of the chain: centre and the point in the canal behind it (3,) mm, frame, evidence."""

    disc_mm: FloatArray
    canal_mm: FloatArray
    frame: SpineFrame
    confidence: float
    uncertainty_mm: float
    source: PointSource = PointSource.SEEN

    def moved(self, offset_mm: FloatArray) -> SpineLevel:
        """Disc and canal point moved by (3,) mm."""
        return replace(self, disc_mm=self.disc_mm + offset_mm, canal_mm=self.canal_mm + offset_mm)


@dataclass(frozen=True, eq=False)
class SpineLevels:
    """Every level of a study.

    Attributes:
        levels: the five levels; a level that is not in the image is missing from the dict.
        points: at most one per target, for conditions at levels that are present.
        numbering_confidence: 0–1, that no level is off by one.
        other_readings: by how many levels the numbering may be off, with the probability: 1 where what is
            called
            L4/L5 would be L5/S1, −1 where it would be L3/L4. Readings that cannot be excluded, the likeliest
            first.
        voters: series ids that took part.
        flags: codes such as ``numbering_uncertain``, ``no_sagittal_t2``.
        set_aside: ids of sagittal series that show another part of the patient.
        turned: ids of series that lie another way round than their headers say: levels and points were found
            without them, and nothing is graded on them.
    """

    study_id: str
    levels: dict[Level, SpineLevel] = field(default_factory=dict)
    points: tuple[LevelPoint, ...] = ()
    numbering_confidence: float = 0.0
    voters: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    other_readings: Mapping[int, float] = field(default_factory=dict)
    set_aside: tuple[str, ...] = ()
    turned: tuple[str, ...] = ()

    def point(self, condition: Condition, level: Level) -> LevelPoint | None:
        """The point of a target, or None."""
        for item in self.points:
            if item.condition == condition and item.level == level:
                return item
        return None


def seen_aside_mm(levels: Mapping[Level, SpineLevel], points: Sequence[LevelPoint]) -> dict[Level, float]:
    """How far to the patient's left of its level's point each canal lies, where both recesses were seen.

    It lies midway between them; the level's point lies in the middle of the sagittal slices.
    """
    seen = {
        (point.condition, point.level): point.xyz_mm for point in points if point.source is PointSource.SEEN
    }
    aside: dict[Level, float] = {}
    for level, place in levels.items():
        pair = [seen[condition, level] for condition in RECESSES if (condition, level) in seen]
        if len(pair) == len(RECESSES):
            aside[level] = float((np.mean(pair, axis=0) - place.canal_mm) @ place.frame.left)
    return aside


def aside_along_a_line_mm(
    levels: Mapping[Level, SpineLevel], points: Sequence[LevelPoint]
) -> dict[Level, float]:
    """The same for every level, by a straight line through those that were seen; empty where none was.

    The line halves the noise of single levels; of one or two levels it is their mean.
    """
    seen = seen_aside_mm(levels, points)
    if not seen:
        return {}
    line = np.polyfit([level.index for level in seen], list(seen.values()), 1 if len(seen) > 2 else 0)
    return {level: float(np.polyval(line, level.index)) for level in levels}


def point_record(point: LevelPoint, decimals: int | None = None) -> dict[str, Any]:
    """Where a point lies and how sure that is; not which target it is of.

    Args:
        decimals: of millimetres and pixels, confidence then with four, uncertainty with two; None: all.
    """
    short, sight = decimals is not None, point.sight
    record: dict[str, Any] = {
        "xyz_mm": _numbers(point.xyz_mm, decimals),
        "series_id": None if sight is None else sight.series_id,
        "instance_number": None if sight is None else sight.instance_number,
        "xy_px": None if sight is None else _numbers(sight.xy_px, decimals),
        "confidence": round(point.confidence, 4) if short else point.confidence,
        "uncertainty_mm": round(point.uncertainty_mm, 2) if short else point.uncertainty_mm,
        "source": point.source.value,
    }
    if point.share < 1.0:
        record["share"] = round(point.share, 4) if short else point.share
    if point.also:
        record["also"] = [point_record(other, decimals) for other in point.also]
    return record


def point_of(record: Mapping[str, Any], condition: Condition, level: Level) -> LevelPoint:
    """The point of ``point_record``. Raises KeyError, TypeError or ValueError: it is none."""
    place = record["series_id"], record["instance_number"], record["xy_px"]
    return LevelPoint(
        condition=condition,
        level=level,
        xyz_mm=np.array(record["xyz_mm"], dtype=np.float64),
        source=PointSource(record["source"]),
        confidence=record["confidence"],
        uncertainty_mm=record["uncertainty_mm"],
        sight=None if place == (None, None, None) else Sight(place[0], place[1], (place[2][0], place[2][1])),
        also=tuple(point_of(other, condition, level) for other in record.get("also", ())),
        share=record.get("share", 1.0),
    )


def level_record(level: SpineLevel, decimals: int) -> dict[str, Any]:
    """Disc, canal point and how sure they are; the frame follows from all levels together."""
    return {
        "disc_mm": _numbers(level.disc_mm, decimals),
        "canal_mm": _numbers(level.canal_mm, decimals),
        "confidence": round(level.confidence, 4),
        "uncertainty_mm": round(level.uncertainty_mm, 2),
        "source": level.source.value,
    }


def level_of(record: Mapping[str, Any], frame: SpineFrame) -> SpineLevel:
    """The level of ``level_record``. Raises KeyError, TypeError or ValueError: it is none."""
    return SpineLevel(
        disc_mm=np.array(record["disc_mm"], dtype=np.float64),
        canal_mm=np.array(record["canal_mm"], dtype=np.float64),
        frame=frame,
        confidence=record["confidence"],
        uncertainty_mm=record["uncertainty_mm"],
        source=PointSource(record["source"]),
    )


def _numbers(values: Any, decimals: int | None) -> list[float]:
    numbers = [float(value) for value in values]
    return numbers if decimals is None else [round(number, decimals) for number in numbers]
