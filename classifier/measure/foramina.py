"""The room of a neural foramen on sagittal T1: its fat, with the root and the vessels that lie in it.

A window around each found point is read upright, on pixels of one size; small networks (``network.py``, run
by ONNX Runtime) give the share of each pixel that is room, and their mean counts. Bone, disc, ligament and
joint, and what grows out of them, are none: so the room is what stenosis takes away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from classifier.measure.planar import PlanarSlice
from classifier.measure.strips import part_around
from classifier.measure.tissues import PIXEL_MM, UprightGrid, bundled, phases
from data_prep.geometry import FloatArray

# Networks whose shares are averaged.
STEMS: Final = ("foramina", "foramina-2")
# Rows and columns of a window: 48 by 36 mm.
SHAPE: Final = (64, 48)
# A share below and above this is none and all; pixels above ``_JOINED`` that touch are one room.
_NONE, _ALL, _JOINED = 0.1, 0.9, 0.3
# A room is usually that near to the point: of several it is the one with most weight.
_USUAL_MM: Final = 4.0
# What encloses less is no border, but noise in the fat, or a vessel.
_CLOSED_PX: Final = 5
# Neighbouring columns (rows) whose mean is a height (width), so that no single pixel makes one.
_WIDE: Final = 3
# A slice of larger pixels, and a point nearer to the edge of the image, are not measured.
_COARSEST_MM, _SURROUNDINGS_MM = 2.0, 10.0
# Fewer square millimetres than that are not seen.
_LEAST_MM2: Final = 6.0
# Standard deviation of the logistic distribution in units of its scale, which the sum of s (1 - s) is.
_LOGISTIC_SD: Final = 1.81
_FLOOR_HEIGHT_MM, _FLOOR_WIDTH_MM = 1.4, 1.1

RealArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Place:
    """Where a foramen is looked for.

    Attributes:
        planar: the slice; several places may share one.
        point_mm: (3,) patient point.
        up, back: (3,) patient directions to the head along the spine, and to the back.
    """

    planar: PlanarSlice
    point_mm: FloatArray
    up: FloatArray
    back: FloatArray

    @property
    def grid(self) -> UprightGrid:
        """The window: the point in its middle, the head above, the back on the right."""
        up, middle = self.planar.along(self.up), self.planar.to_mm2(self.point_mm)
        right = np.array([up[1], -up[0]])
        if right @ self.planar.along(self.back) < 0:
            right = -right
        rows, columns = (PIXEL_MM * (count - 1) / 2 for count in SHAPE)
        return UprightGrid(middle - columns * right + rows * up, right, -up, PIXEL_MM, SHAPE)

    @property
    def is_shown(self) -> bool:
        """Whether the slice is fine enough, shows the point's surroundings, and shows something there."""
        rows, columns = self.planar.pixels.shape
        spacing = np.asarray(self.planar.spacing_mm)
        at, reach = self.planar.to_mm2(self.point_mm) / spacing, _SURROUNDINGS_MM / spacing
        inside = np.all(at >= reach) and np.all(at <= np.array([columns, rows]) - 1 - reach)
        return bool(spacing.max() <= _COARSEST_MM and inside and self.window.any())

    @cached_property
    def window(self) -> RealArray:
        """Grey values (rows, columns) as the network takes them; all 0 where there is but one grey."""
        grid, spacing = self.grid, np.asarray(self.planar.spacing_mm)
        rows, columns = SHAPE
        corners = np.array([[(0, 0), (columns - 1, 0)], [(0, rows - 1), (columns - 1, rows - 1)]]) * PIXEL_MM
        at = grid.corner_mm + corners[..., :1] * grid.right + corners[..., 1:] * grid.down
        margin = 3 + int(2 * PIXEL_MM / spacing.min())
        pixels, first = part_around(self.planar.pixels, (at / spacing).astype(np.float32), margin)
        return replace(grid, corner_mm=grid.corner_mm - first * spacing).read(pixels, self.planar.spacing_mm)


@dataclass(frozen=True)
class Room:
    """Height and width of a foramen's room (mm), with their standard deviations."""

    height_mm: float
    width_mm: float
    height_sd_mm: float
    width_sd_mm: float


def find_rooms(places: Sequence[Place]) -> list[Room | None]:
    """The room at each place, None where there is none to be seen."""
    if not places:
        return []
    seen = np.stack([phases(place.window) for place in places])
    shares = [
        1.0 / (1.0 + np.exp(-scores[:, 0])) for (scores,) in (bundled(stem)([(seen,)]) for stem in STEMS)
    ]
    return [room_of(share) for share in np.asarray(np.mean(shares, axis=0), dtype=np.float32)]


def room_of(shares: RealArray) -> Room | None:
    """Measure a room.

    Args:
        shares: (rows, columns) of a window, the point in its middle.

    Returns:
        As high as the column, and as wide as the row, with most room; a pixel that a border crosses counts in
        part.
    """
    values = room_around_middle(shares)
    if values.sum() * PIXEL_MM**2 < _LEAST_MM2:
        return None
    doubt = 0.5 * _LOGISTIC_SD * values * (1.0 - values)
    found = []
    for axis, floor in ((0, _FLOOR_HEIGHT_MM), (1, _FLOOR_WIDTH_MM)):
        runs = np.convolve(values.sum(axis=axis), np.full(_WIDE, PIXEL_MM / _WIDE), mode="same")
        most = int(runs.argmax())
        spread = float((doubt if axis == 0 else doubt.T)[:, most].sum() * PIXEL_MM)
        found.append((float(runs[most]), float(np.hypot(floor, spread))))
    (height, height_sd), (width, width_sd) = found
    return Room(height, width, height_sd, width_sd)


def room_around_middle(shares: RealArray) -> RealArray:
    """(rows, columns) shares of the room at the middle alone, with what it encloses."""
    values = np.clip((shares - _NONE) / (_ALL - _NONE), 0.0, 1.0).astype(np.float32)
    count, labels = cv2.connectedComponents((values > _JOINED).astype(np.uint8))
    if count == 1:
        return np.zeros_like(values)
    row, column = (np.arange(size) - (size - 1) / 2 for size in shares.shape)
    away = (row[:, None] ** 2 + column**2) * PIXEL_MM**2
    weight = np.bincount(labels.ravel(), (values * np.exp(-0.5 * away / _USUAL_MM**2)).ravel())
    room = (labels == 1 + weight[1:].argmax()).astype(np.uint8)
    values = values * cv2.dilate(room, np.ones((3, 3), np.uint8))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_CLOSED_PX, _CLOSED_PX))
    return np.asarray(cv2.morphologyEx(values, cv2.MORPH_CLOSE, kernel), np.float32)
