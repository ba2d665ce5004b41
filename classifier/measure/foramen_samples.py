"""Synthetic foramina with their room drawn, from which the networks of the rooms learn and are judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from classifier.measure.foramina import SHAPE, Place
from classifier.measure.planar import PlanarSlice
from classifier.measure.tissues import PIXEL_MM
from data_prep.geometry import FloatArray
from data_prep.phantom.posture import FIRST_LUMBAR
from data_prep.phantom.render import share_of
from data_prep.phantom.study import PhantomStudy, make_study
from data_prep.study import Series
from data_prep.synthetic import Size
from data_prep.vocabulary import LEVELS, Condition, ConditionGroup, Level, SeriesKind, Side, Target

# What is room, and how fine it is drawn.
_ROOM_TISSUES: Final = ("fat", "root")
_FINE_MM, _BORDER_MM, _AROUND_MM = 0.35, 0.35, 34.0
# A room ends so far above or below, and before or behind the point: where pedicles do not close it, at last.
_HIGH_MM, _DEEP_MM, _LOW_MM = 13.0, 11.0, 1.0
_NECK_MM, _REACH_MM, _SLICE_MM = 1.0, 6.0, 4.0
# Latents (grade scale) of foramina that patients are drawn with: most are free, and narrowed in the picture.
_FREE, _FREE_SHARE, _RINGED = -1.5, 0.65, -0.3

RealArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Foramen:
    """A synthetic foramen on its slice.

    Attributes:
        level, side: which; latent: on the grade scale.
        pixels: (rows, columns) around it; spacing_mm: (column distance, row distance).
        room: ``finer`` times as many rows and columns, 1 where room is.
        middle_mm: (2,) in-plane; right, down: (2,) in-plane unit vectors to the back and to the foot.
    """

    level: Level
    side: Side
    latent: float
    pixels: RealArray
    spacing_mm: FloatArray
    room: NDArray[np.uint8]
    finer: int
    middle_mm: FloatArray
    right: FloatArray
    down: FloatArray

    @property
    def is_free(self) -> bool:
        return self.latent < _RINGED


def latents_of(seed: int) -> dict[Target, float]:
    """How narrow the foramina of a patient for training are."""
    rng = np.random.default_rng([seed, 77])
    targets = [
        Target(Condition.of(ConditionGroup.FORAMINAL, side), level) for side in Side for level in LEVELS
    ]
    return {
        target: _FREE if rng.random() < _FREE_SHARE else float(np.clip(rng.normal(1.2, 1.2), _FREE, 3.2))
        for target in targets
    }


def phantom_foramina(phantom: PhantomStudy) -> Iterator[Foramen]:
    """The foramina of a synthetic patient that T1 shows."""
    planes: dict[int, PlanarSlice] = {}
    for series in phantom.study.of_kind(SeriesKind.SAGITTAL_T1)[:1]:
        for side in Side:
            for level in LEVELS:
                found = _foramen(phantom, series, level, side, planes)
                if found is not None:
                    yield found


def _foramen(
    phantom: PhantomStudy, series: Series, level: Level, side: Side, planes: dict[int, PlanarSlice]
) -> Foramen | None:
    body, spine = phantom.body, phantom.body.spine
    point = body.foramen_mm(level, side)
    item, away = series.nearest(point)
    if away > _SLICE_MM:
        return None
    if item.instance_number not in planes:
        planes[item.instance_number] = PlanarSlice.of(item)
    planar = planes[item.instance_number]
    up, back = (spine.rotation @ axis[FIRST_LUMBAR + level.index] for axis in (spine.up, spine.back))
    grid = Place(planar, point, up, back).grid
    middle, spacing = planar.to_mm2(point), np.asarray(planar.spacing_mm)
    size = np.array(planar.pixels.shape[::-1])
    first = np.clip(np.floor((middle - _AROUND_MM) / spacing), 0, size - 1).astype(int)
    last = np.clip(np.ceil((middle + _AROUND_MM) / spacing) + 1, 1, size).astype(int)
    pixels = np.ascontiguousarray(planar.pixels[first[1] : last[1], first[0] : last[0]])
    finer = max(1, round(float(spacing[0]) / _FINE_MM))
    y, x = np.mgrid[: pixels.shape[0] * finer, : pixels.shape[1] * finer]
    at = ((np.stack([x, y], axis=-1) + 0.5) / finer - 0.5 + first) * spacing
    down, backwards = (at - middle) @ grid.down, (at - middle) @ grid.right
    near = (np.abs(down - _LOW_MM) <= _HIGH_MM) & (np.abs(backwards) <= _DEEP_MM)
    fat = np.zeros(x.shape, np.uint8)
    fat[near] = share_of(body, planar.to_patient(at[near]), _ROOM_TISSUES, _BORDER_MM) > 0.5
    room = _room(fat, np.hypot(down, backwards), max(1, round(_NECK_MM / float(spacing[0]) * finer)))
    if room is None:
        return None
    latent = phantom.latents[Target(Condition.of(ConditionGroup.FORAMINAL, side), level)]
    return Foramen(
        level, side, latent, pixels, spacing, room, finer, middle - first * spacing, grid.right, grid.down
    )


def _room(fat: NDArray[np.uint8], away_mm: FloatArray, neck_px: int) -> NDArray[np.uint8] | None:
    """Of the fat the part nearest to the point, parted from others at their necks; None: none is near."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * neck_px + 1, 2 * neck_px + 1))
    parts = cv2.connectedComponents(cv2.morphologyEx(fat, cv2.MORPH_OPEN, kernel))[1]
    away = np.where(parts > 0, away_mm, np.inf)
    if away.min() > _REACH_MM:
        return None
    nearest = (parts == parts.flat[away.argmin()]).astype(np.uint8)
    room = cv2.bitwise_and(cv2.dilate(nearest, kernel), fat)
    return np.asarray(cv2.morphologyEx(room, cv2.MORPH_CLOSE, kernel), np.uint8)


def share_in(item: Foramen, at_mm: FloatArray) -> RealArray:
    """(rows, columns) share of each pixel that is room; ``at_mm`` (2 rows, 2 columns, 2): their quarters."""
    found = sampled(item.room * np.uint8(255), item, at_mm, item.finer, cv2.BORDER_CONSTANT)
    rows, columns = found.shape
    return (found.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3)) / 255).astype(np.float32)


def sampled(
    values: NDArray[np.float32] | NDArray[np.uint8], item: Foramen, at_mm: FloatArray, finer: int, edge: int
) -> RealArray:
    places = (at_mm / item.spacing_mm * finer + (finer - 1) / 2).astype(np.float32)
    found = cv2.remap(values, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=edge)
    return np.asarray(found, np.float32)


def upright(item: Foramen) -> FloatArray:
    """(2 rows, 2 columns, 2) in-plane millimetres of the quarters of a window's pixels."""
    down, right = ((np.arange(2 * count) - count + 0.5) * PIXEL_MM / 2 for count in SHAPE)
    return item.middle_mm + right[None, :, None] * item.right + down[:, None, None] * item.down


def foramina_of(seeds: Iterable[int]) -> Iterator[Foramen]:
    """Foramina for training; every fourth patient has fine pixels."""
    for number, seed in enumerate(seeds):
        size: Size = "full" if number % 4 == 2 else "small"
        yield from phantom_foramina(make_study(seed, size=size, latents=latents_of(seed)))
