"""The slices and crops of a report: small, upright, and with the points that lie on them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import Orientation, SlicePlane
from data_prep.levels import LevelPoint, SpineLevels
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import LEVELS, Condition, Level, SeriesKind
from pipeline.results.pictures.displayed import displayed, edge_letters
from pipeline.results.pictures.montage import canal_middle_mm, crop_at, read_at
from pipeline.results.pictures.overlays import where_words

# Longest side of a slice and JPEG quality, the best first; the first that keeps within the bytes is taken.
# A slice of fewer pixels, down to the least, keeps its own: the browser enlarges it as well, for nothing.
_LEAST_SIDE_PX = 320
_STEPS = ((448, 82), (384, 78), (320, 72), (256, 68), (224, 55))
_MAX_SLICES_BYTES = 2_300_000
# Not all slices need be drawn to know that they take too many bytes: every so many tell it well enough.
_SAMPLE_STEP = 8
_MAX_SLICES_PER_SERIES = 96
_CROP_PX, _CROP_QUALITY = 224, 82
# A level is named beside a slice that lies no farther from its disc than this.
_NEAR_MM = 12.0
# Half the depth of a disc and a little more.
_IN_FRONT_MM = 20.0
_KINDS = (SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1, SeriesKind.AXIAL_T2)


@dataclass(frozen=True)
class ShownPoint:
    """A point on a slice, in pixels of the picture.

    Attributes:
        target: column name of the target that it belongs to.
        radius: of the ring of uncertainty.
        on_left: its label goes to the left of it.
    """

    target: str
    label: str
    level: Level
    source: str
    x: float
    y: float
    radius: float
    on_left: bool


@dataclass(frozen=True)
class ShownSlice:
    """One slice as a picture.

    Attributes:
        data: data URI of a JPEG, or None when the slice cannot be decoded.
        width, height: of the picture in pixels.
        edges: patient direction at the left, right, upper and lower edge.
        level_names: level and where to write it, in front of its disc, on a sagittal slice without its point.
        px_per_mm: to scale.
    """

    instance: int
    caption: str
    data: str | None
    width: int
    height: int
    edges: tuple[str, str, str, str]
    points: tuple[ShownPoint, ...]
    level_names: tuple[tuple[Level, float, float], ...]
    px_per_mm: float


@dataclass(frozen=True)
class ShownSeries:
    """A series as pictures; ``start`` is the slice to begin with. The name tells several of a kind apart."""

    series_id: str
    name: str
    slices: tuple[ShownSlice, ...]
    start: int


def shown_series(study: Study, levels: SpineLevels) -> tuple[ShownSeries, ...]:
    """Every series that was read, sagittal T2 first, small enough together for one file.

    Of a kind that several series have, those without points are left out, but never all of them.
    """
    chosen: list[Series] = []
    for kind in _KINDS:
        found = study.of_kind(kind)
        used = [s for s in found if any(point.is_on(s) for point in levels.points)]
        chosen += used or found[:1]
    names = _names(chosen)
    picked = [(series, _slices_to_show(series, levels)) for series in chosen]
    for side_px, quality in _STEPS:
        is_last = (side_px, quality) == _STEPS[-1]
        if not is_last and _bytes_of_some(picked, side_px, quality) > _MAX_SLICES_BYTES:
            continue
        shown = [
            _shown(series, name, slices, levels, side_px, quality)
            for name, (series, slices) in zip(names, picked, strict=True)
        ]
        size = sum(len(item.data or "") for series in shown for item in series.slices)
        if size <= _MAX_SLICES_BYTES:
            break
    return tuple(shown)


def _bytes_of_some(picked: Sequence[tuple[Series, Sequence[Slice]]], side_px: int, quality: int) -> float:
    """How many bytes all slices would have, told from every eighth."""
    slices = [item for _, items in picked for item in items]
    some = slices[::_SAMPLE_STEP]
    images = [_picture(item, side_px) for item in some]
    size = sum(len(jpeg_uri(image[0], quality)) for image in images if image is not None)
    return size * len(slices) / max(len(some), 1)


def _names(chosen: Sequence[Series]) -> list[str]:
    """The kind of each series; where several have the same, also its number."""
    kinds = [series.kind.value if series.kind else "series" for series in chosen]
    return [
        f"{kind}, {kinds[: place + 1].count(kind)}" if kinds.count(kind) > 1 else kind
        for place, kind in enumerate(kinds)
    ]


def _slices_to_show(series: Series, levels: SpineLevels) -> tuple[Slice, ...]:
    """All slices, or of a very long series every second, third … and those that carry points."""
    step = -(-len(series.slices) // _MAX_SLICES_PER_SERIES)
    kept = {point.sight.instance_number for point in levels.points if point.sight and point.is_on(series)}
    return tuple(
        item for place, item in enumerate(series.slices) if place % step == 0 or item.instance_number in kept
    )


def _shown(
    series: Series, name: str, slices: Sequence[Slice], levels: SpineLevels, side_px: int, quality: int
) -> ShownSeries:
    shown = tuple(_shown_slice(series, item, levels, side_px, quality) for item in slices)
    counts = [len(item.points) for item in shown]
    start = int(np.argmax(counts)) if any(counts) else len(shown) // 2
    return ShownSeries(series.series_id, name, shown, start)


def _shown_slice(series: Series, item: Slice, levels: SpineLevels, side_px: int, quality: int) -> ShownSlice:
    caption = _caption(item, levels)
    image = _picture(item, side_px)
    if image is None:
        return ShownSlice(
            item.instance_number, f"{caption}, cannot be decoded", None, 320, 320, ("",) * 4, (), (), 1.0
        )
    pixels, grid = image
    points = [
        _shown_point(point, grid)
        for point in levels.points
        if point.sight and point.is_on(series) and point.sight.instance_number == item.instance_number
    ]
    named = {point.level for point in points}
    names = []
    if series.kind is not SeriesKind.AXIAL_T2:
        for level, found in levels.levels.items():
            x, y = grid.to_px(found.disc_mm - _IN_FRONT_MM * found.frame.back) + 0.5
            if level not in named and 0 < y < grid.shape[0]:
                names.append((level, float(x), float(y)))
    return ShownSlice(
        item.instance_number,
        caption,
        jpeg_uri(pixels, quality),
        pixels.shape[1],
        pixels.shape[0],
        edge_letters(grid),
        tuple(points),
        tuple(names),
        1 / grid.spacing_mm[0],
    )


def _picture(item: Slice, side_px: int) -> tuple[NDArray[np.uint8], SlicePlane] | None:
    """See ``displayed``; the longest side of at most so many pixels."""
    spacing, size = item.plane.spacing_mm, item.plane.shape[::-1]
    own_px = round(max(step * count for step, count in zip(spacing, size, strict=True)) / min(spacing))
    side_px = min(side_px, max(own_px, _LEAST_SIDE_PX))
    return displayed(item, side_px, side_px)


def _shown_point(point: LevelPoint, grid: SlicePlane) -> ShownPoint:
    x, y = grid.to_px(point.xyz_mm) + 0.5
    side = point.condition.side
    letter = "" if side is None else f" {side.value[0].upper()}"
    return ShownPoint(
        f"{point.condition.value}_{point.level.value}",
        f"{point.level.label}{letter}",
        point.level,
        str(point.source),
        float(x),
        float(y),
        point.uncertainty_mm / grid.spacing_mm[0],
        side is not None and side.sign < 0,
    )


def _caption(item: Slice, levels: SpineLevels) -> str:
    if item.plane.orientation is Orientation.SAGITTAL:
        return f"instance {item.instance_number}, {where_words(item, canal_middle_mm(levels))}"
    distances = {
        level: abs(float(item.plane.distance_mm(levels.levels[level].canal_mm)))
        for level in LEVELS
        if level in levels.levels
    }
    near = min(distances, key=lambda level: distances[level], default=None)
    if near is None or distances[near] > _NEAR_MM:
        return f"instance {item.instance_number}, between levels"
    return f"instance {item.instance_number}, near {near.label}"


def shown_crop(study: Study, levels: SpineLevels, condition: Condition, level: Level) -> str | None:
    """Data URI of the crop of a target where it was read, 60 mm wide; None when no slice shows it."""
    point = read_at(levels, condition, level)
    pixels = None if point is None else crop_at(study, point, _CROP_PX)
    return None if pixels is None else jpeg_uri(pixels, _CROP_QUALITY)


def jpeg_uri(grey: NDArray[np.uint8], quality: int) -> str:
    """Grey values (rows, columns) as a JPEG in a data URI."""
    done, coded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("the slice could not be coded as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode("ascii")
