"""Levels and points of a study as JSON, and back: the one form in which they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from data_prep.study import LevelPoint, PointSource, Sight, SpineFrame, SpineLevel
from data_prep.vocabulary import Condition, Level


def point_record(point: LevelPoint, decimals: int | None = None) -> dict[str, Any]:
    """Where a point lies and how sure that is; not which target it is of.

    Args:
        decimals: of millimetres and pixels, confidence then with four, uncertainty with two; None: all.
    """
    short, sight = decimals is not None, point.sight
    return {
        "xyz_mm": _numbers(point.xyz_mm, decimals),
        "series_id": None if sight is None else sight.series_id,
        "instance_number": None if sight is None else sight.instance_number,
        "xy_px": None if sight is None else _numbers(sight.xy_px, decimals),
        "confidence": round(point.confidence, 4) if short else point.confidence,
        "uncertainty_mm": round(point.uncertainty_mm, 2) if short else point.uncertainty_mm,
        "source": point.source.value,
    }


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
