"""Measures a study: what the borders around the found points say in millimetres."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from classifier.measure.around import sac_area
from classifier.measure.planar import PlanarSlice
from classifier.measure.quantities import NOT_MEASURED, Measured, Quantity
from classifier.measure.rooms import foramen_rooms
from classifier.measure.sagittal import FLOOR_DEG, SagittalReading, read_sagittal
from data_prep.geometry import FloatArray
from data_prep.levels import SpineLevels
from data_prep.problems import DicomRejected
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import LEVELS, Condition, Level, SeriesKind, Side

# An axial slice farther from the disc than this does not show its level.
_AXIAL_REACH_MM = 4.0
_LEAST_LEVELS = 3


def measure_study(study: Study, levels: SpineLevels) -> tuple[Measured, ...]:
    """Everything that can be measured at the levels that were found; nothing where they were not.

    A slice that cannot be decoded is left out.
    """
    found: list[Measured] = []
    for parts in (_sagittal, _axial, _foramina):
        try:
            found += parts(study, levels)
        except DicomRejected:
            continue
    return tuple(found)


def _sagittal(study: Study, levels: SpineLevels) -> Iterator[Measured]:
    """Canal and discs on the sagittal T2 slice that lies nearest to most canal points."""
    present = [level for level in LEVELS if level in levels.levels]
    canals = [point for point in levels.points if point.condition is Condition.SPINAL_CANAL_STENOSIS]
    series = max(
        study.of_kind(SeriesKind.SAGITTAL_T2),
        key=lambda item: sum(point.is_on(item) for point in canals),
        default=None,
    )
    if series is None or len(present) < _LEAST_LEVELS:
        return
    ends: dict[Level, FloatArray] = {}
    chosen = _slices_of(series, levels, present)
    for level_slice, members in chosen.items():
        planar = PlanarSlice.of(level_slice)
        canal = planar.to_mm2(np.stack([levels.levels[level].canal_mm for level in present]))
        disc = planar.to_mm2(np.stack([levels.levels[level].disc_mm for level in present]))
        reading = read_sagittal(planar, canal, disc)
        yield from _of_reading(reading, planar, present, members, series.series_id, level_slice)
        for level, upper in ((LEVELS[0], True), (LEVELS[-1], False)):
            if level in members:
                edge = reading.endplate(present.index(level), upper=upper)
                if edge is not None:
                    ends[level] = planar.to_patient(edge) - planar.to_patient(np.zeros(2))
    if len(ends) == 2:
        middle = levels.levels[present[len(present) // 2]].frame
        value = lordosis(ends[LEVELS[0]], ends[LEVELS[-1]], middle.up, middle.back)
        number = next(iter(chosen)).instance_number
        yield Measured(
            Quantity.LORDOSIS, value, FLOOR_DEG, series_id=series.series_id, instance_number=number
        )


def lordosis(first: FloatArray, last: FloatArray, up: FloatArray, back: FloatArray) -> float:
    """Degrees between two endplates, perhaps on different slices; positive: the last points down in front.

    Args:
        first, last: (3,) patient directions from front to back in the sagittal plane.
        up, back: (3,) directions to the head and to the back between them.
    """
    normal = np.cross(back, up)
    turned = float(np.cross(first, last) @ normal / np.linalg.norm(normal))
    return float(np.degrees(np.arctan2(turned, first @ last)))


def _slices_of(series: Series, levels: SpineLevels, present: list[Level]) -> dict[Slice, set[Level]]:
    """The slice for each level; the one that most levels share reads the spine as a whole, too."""
    chosen: dict[Slice, set[Level]] = {}
    for level in present:
        item, _ = series.nearest(levels.levels[level].canal_mm)
        chosen.setdefault(item, set()).add(level)
    return dict(sorted(chosen.items(), key=lambda pair: (-len(pair[1]), pair[0].instance_number)))


def _of_reading(
    reading: SagittalReading,
    planar: PlanarSlice,
    present: list[Level],
    members: set[Level],
    series_id: str,
    item: Slice,
) -> Iterator[Measured]:
    for place, level in enumerate(present):
        if level not in members:
            continue
        for quantity, found in reading.at_level(place).items():
            if (quantity, level) in NOT_MEASURED:
                continue
            ends = None if found.ends_mm is None else planar.to_patient(found.ends_mm)
            yield Measured(
                quantity, found.value, found.uncertainty, level, None, series_id, item.instance_number, ends
            )


def _axial(study: Study, levels: SpineLevels) -> Iterator[Measured]:
    """The sac on the axial slice nearest to each disc."""
    for level, found in levels.levels.items():
        near = [(series, *series.nearest(found.canal_mm)) for series in study.of_kind(SeriesKind.AXIAL_T2)]
        series, item, away = min(near, key=lambda entry: entry[2], default=(None, None, np.inf))
        if series is None or item is None or away > _AXIAL_REACH_MM:
            continue
        planar = PlanarSlice.of(item)
        # The slice cuts the canal obliquely: its area is that of the cross-section over the cosine.
        cosine = abs(float(planar.plane.normal @ found.frame.up))
        area = sac_area(planar, found.canal_mm, cosine)
        if area is not None:
            value, uncertainty = area
            yield Measured(
                Quantity.SAC_AREA, value, uncertainty, level, None, series.series_id, item.instance_number
            )


def _foramina(study: Study, levels: SpineLevels) -> Iterator[Measured]:
    """The room of each foramen that was seen on T1, on the slice that shows it best."""
    heights: dict[tuple[Level, Side | None], tuple[float, float]] = {}
    for point, room in foramen_rooms(study, levels, seen_alone=True):
        level, side = point.level, point.condition.side
        if room is None or point.sight is None or level not in levels.levels:
            continue
        heights[level, side] = room.height_mm, room.height_sd_mm
        at = level, side, point.sight.series_id, point.sight.instance_number
        yield Measured(Quantity.FORAMEN_HEIGHT, room.height_mm, room.height_sd_mm, *at)
        yield Measured(Quantity.FORAMEN_WIDTH, room.width_mm, room.width_sd_mm, *at)
    for level in levels.levels:
        if (level, Side.RIGHT) in heights and (level, Side.LEFT) in heights:
            (right, right_sd), (left, left_sd) = heights[level, Side.RIGHT], heights[level, Side.LEFT]
            off_sd = float(np.hypot(right_sd, left_sd))
            yield Measured(Quantity.FORAMEN_DIFFERENCE, right - left, off_sd, level)
