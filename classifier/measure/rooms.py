"""The rooms of a study's foramina: which slices, which way is up, and what the networks find there."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from classifier.measure.foramina import Place, Room, find_rooms
from classifier.measure.planar import PlanarSlice
from data_prep.geometry import FloatArray
from data_prep.levels import LevelPoint, PointSource, SpineLevels
from data_prep.problems import DicomRejected
from data_prep.study import Slice, Study
from data_prep.vocabulary import LEVELS, Condition, ConditionGroup, SeriesKind, Side

# Points of neighbouring levels lie farther apart than that, or say nothing of the spine's direction.
_LEAST_APART_MM = 5.0


def foramen_rooms(
    study: Study, levels: SpineLevels, *, seen_alone: bool
) -> list[tuple[LevelPoint, Room | None]]:
    """Each foramen's point that a T1 slice shows, and the room there, or None; from head to foot.

    Args:
        levels: points alone suffice: the direction of the spine is then that from level to level.
        seen_alone: leave out points that geometry placed.
    """
    by_id = {series.series_id: series for series in study.of_kind(SeriesKind.SAGITTAL_T1)}
    planes: dict[Slice, PlanarSlice] = {}
    points: list[LevelPoint] = []
    places: list[Place] = []
    for level in LEVELS:
        for side in Side:
            point = levels.point(Condition.of(ConditionGroup.FORAMINAL, side), level)
            if point is None or point.sight is None or point.sight.series_id not in by_id:
                continue
            if seen_alone and point.source is PointSource.PREDICTED:
                continue
            item = by_id[point.sight.series_id].by_instance(point.sight.instance_number)
            with suppress(DicomRejected):
                if item not in planes:
                    planes[item] = PlanarSlice.of(item)
                place = Place(planes[item], point.xyz_mm, *_directions(levels, point, planes[item]))
                if place.is_shown:
                    places.append(place)
                    points.append(point)
    return list(zip(points, find_rooms(places), strict=True))


def _directions(levels: SpineLevels, point: LevelPoint, planar: PlanarSlice) -> tuple[FloatArray, FloatArray]:
    """(3,) to the head along the spine, and to the back."""
    if point.level in levels.levels:
        frame = levels.levels[point.level].frame
        return frame.up, frame.back
    right, down = (planar.to_patient(way) - planar.to_patient(np.zeros(2)) for way in planar.displayed())
    place = point.level.index
    beside = [
        found.xyz_mm
        for level in LEVELS[max(place - 1, 0) : place + 2]
        if (found := levels.point(point.condition, level)) is not None
    ]
    up = beside[0] - beside[-1]
    return (up if np.linalg.norm(up) > _LEAST_APART_MM else -down), right
