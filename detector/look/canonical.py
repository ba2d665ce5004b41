"""Every slice at one orientation and one scale before a network sees it.

Sagittal: head up, front of the body left. Axial: front up, the patient's right on the image's left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_prep.crops import display_axes, percentiles, resample
from data_prep.geometry import FloatArray, SlicePlane
from detector.spec import STRIDE

BLACK_PERCENTILE, WHITE_PERCENTILE = 0.5, 99.5
# What borders must leave along each side, and of the area: less is no picture, or a crop in black, as those
# are that the detector of axial slices learned from.
_LEAST_CONTENT_PX, _LEAST_CONTENT_SHARE = 16, 0.25


@dataclass(frozen=True, eq=False)
class CanonicalImage:
    """A slice as a network sees it: uint8 (rows, columns), windowed, on an isotropic grid."""

    image: NDArray[np.uint8]
    plane: SlicePlane


def around(plane: SlicePlane, points_mm: ArrayLike, context_mm: float) -> SlicePlane:
    """The part of a grid that shows patient points (n, 3) and ``context_mm`` on every side of them.

    Its sides are multiples of 32 pixels where the grid is large enough. It begins where a cell of the
    network's finest grid does, at most half a cell away: a part that lies between the cells of another one
    shows the network another picture, and points that move by a hair would change scores by .06 in the mean.
    """
    at = plane.to_px(points_mm)
    across, down = (context_mm / side for side in plane.spacing_mm)
    rows, columns = plane.shape
    return _part(plane, _span(at[:, 0], across, columns), _span(at[:, 1], down, rows))


def strip(plane: SlicePlane, points_mm: ArrayLike, context_mm: float) -> SlicePlane:
    """As ``around``, but from the upper to the lower edge."""
    across = context_mm / plane.spacing_mm[0]
    rows, columns = plane.shape
    return _part(plane, _span(plane.to_px(points_mm)[:, 0], across, columns), (0, rows))


def _part(plane: SlicePlane, columns: tuple[int, int], rows: tuple[int, int]) -> SlicePlane:
    """The grid between a first and one past a last column and row."""
    (left, right), (top, bottom) = columns, rows
    return replace(plane, origin_mm=plane.to_mm([left, top]), shape=(bottom - top, right - left))


def _span(at: FloatArray, margin: float, size: int) -> tuple[int, int]:
    """First and one past the last pixel: all of ``at`` and the margin, a multiple of 32, within the image."""
    first, last = float(at.min()) - margin, float(at.max()) + margin
    middle, length = (first + last) / 2, int(-(-(last - first + 1) // 32) * 32)
    length = min(length, size)
    start = round((middle - (length - 1) / 2) / STRIDE) * STRIDE
    start = min(max(start, 0), size - length)
    return start, start + length


def without_border(plane: SlicePlane, pixels: NDArray[np.float32]) -> tuple[SlicePlane, NDArray[np.float32]]:
    """An image without the rows and columns at its edges that are all of one value.

    Exports and scanners fill images up to other sizes. Such borders would move the grid on which an image is
    read, and change how dark black is.
    """
    inner, top = _from_content(pixels)
    inner, bottom = _from_content(inner[::-1])
    inner, left = _from_content(inner[::-1].T)
    inner, right = _from_content(inner[::-1])
    inner = inner[::-1].T
    is_small = min(inner.shape) < _LEAST_CONTENT_PX or inner.size < _LEAST_CONTENT_SHARE * pixels.size
    if is_small or not (top or bottom or left or right):
        return plane, pixels
    height, width = inner.shape
    return replace(plane, origin_mm=plane.to_mm([left, top]), shape=(height, width)), inner


def _from_content(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """The rows from the first on that is not all of the value of the first pixel, and how many lie before."""
    first, size = 0, len(pixels) if pixels.size else 0
    while first < size and bool((pixels[first] == pixels[0, 0]).all()):
        first += 1
    return pixels[first:], first


def canonical_plane(plane: SlicePlane, *, mm_per_px: float, max_side_px: int) -> SlicePlane:
    """The canonical grid of a slice: all of it, or its middle when a side would exceed ``max_side_px``."""
    rightwards, downwards = display_axes(plane)
    rows, columns = plane.shape
    size_mm = columns * plane.spacing_mm[0], rows * plane.spacing_mm[1]
    if abs(float(rightwards @ plane.x_axis)) < 0.5:  # the slice is stored on its side
        size_mm = size_mm[::-1]
    # Fields of view are round numbers: half a pixel is rounded down, whatever the last digit of the spacing.
    width, height = (min(max(round(side / mm_per_px - 1e-3), 1), max_side_px) for side in size_mm)
    corner = rightwards * (width - 1) / 2 + downwards * (height - 1) / 2
    return SlicePlane(
        origin_mm=plane.centre_mm - corner * mm_per_px,
        x_axis=rightwards,
        y_axis=downwards,
        spacing_mm=(mm_per_px, mm_per_px),
        shape=(height, width),
    )


def canonical_image(
    plane: SlicePlane,
    pixels: NDArray[np.float32],
    *,
    mm_per_px: float,
    max_side_px: int,
    part: Callable[[SlicePlane], SlicePlane] | None = None,
) -> CanonicalImage:
    """Orient, resample and window one slice; borders without content are left out.

    Args:
        pixels: float32 (rows, columns) on ``plane``.
        part: which part of the canonical grid is wanted, as bright as it is in the whole slice.
    """
    plane, pixels = without_border(plane, pixels)
    target = canonical_plane(plane, mm_per_px=mm_per_px, max_side_px=max_side_px)
    if part is None:
        image = resample(pixels, plane, target)
        return CanonicalImage(window(image), target)
    shown = part(target)
    return CanonicalImage(window(resample(pixels, plane, shown), of=pixels), shown)


def window(image: NDArray[np.float32], of: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """Cut to 8 bits between two percentiles, its own or those ``of`` another; NaN becomes 0.

    A constant image becomes 0.
    """
    image = _finite(image)
    sample = image[::2, ::2] if of is None else _finite(_some_of(of))
    low, high = percentiles(sample, (BLACK_PERCENTILE, WHITE_PERCENTILE))
    scaled = (image - np.float32(low)) * np.float32(255.0 / max(high - low, 1e-6))
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


def _some_of(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every fourth row and column from either edge to the middle: the same pixels of a mirrored image."""
    rows, columns = map(_some_places, image.shape)
    # One axis after the other takes half the time of both at once.
    return image.take(rows, axis=0).take(columns, axis=1)


@lru_cache(maxsize=64)
def _some_places(size: int) -> NDArray[np.intp]:
    near = np.arange(0, (size + 1) // 2, 4)
    return np.union1d(near, size - 1 - near)


def _finite(image: NDArray[np.float32]) -> NDArray[np.float32]:
    if np.isfinite(image).all():  # nearly always, and 25 times as fast to find out
        return image
    return np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
