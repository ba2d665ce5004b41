"""Millimetre-sized crops around a patient-space point, the same whatever the scanner's grid.

Every crop is shown in one orientation: sagittal head up and front left, axial front up and patient
right on image left, coronal head up and patient right on image left. A mirrored crop shows the patient
as in a mirror that swaps left and right, so that a right-side target looks like a left-side one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_prep.geometry import FloatArray, Orientation, SlicePlane
from data_prep.problems import DicomRejected
from data_prep.study import Series, Slice

# Percentiles that become 0 and 1: enough clipping to ignore single hot pixels, too little to hide CSF.
BLACK_PERCENTILE = 1.0
WHITE_PERCENTILE = 99.0
# A crop's slice that lies farther beside its middle than its place says, by half a gap, is no neighbour:
# slices between are missing, or it belongs to another block. Larger gaps than this are holes themselves.
_LARGEST_GAP_MM = 10.0
# Percentiles are read on every third row and column: nine times faster, the same within noise.
_PERCENTILE_STRIDE = 3

# Directions (rightwards, downwards): axis of patient LPS, and which way along it.
_DISPLAY_AXES: dict[Orientation, tuple[tuple[int, int], tuple[int, int]]] = {
    Orientation.SAGITTAL: ((1, 1), (2, -1)),
    Orientation.AXIAL: ((0, 1), (1, 1)),
    Orientation.CORONAL: ((0, 1), (2, -1)),
}


@dataclass(frozen=True, eq=False)
class Crop:
    """A small stack of neighbouring slices around a point.

    Attributes:
        pixels: float32 (slices, size_px, size_px) in [0, 1]; slices that do not exist are 0.
        valid: bool (slices,), which slices exist and could be read.
        planes: (slices) pixel grid of each crop slice in patient space, None where there is no slice;
            ``plane.to_mm`` takes a crop pixel back to the patient, mirrored crops included.
        distance_mm: from the point to the plane of the centre slice, never negative.
        inside: whether the centre slice shows the point within its image.
        signal: float32 (size_px, size_px), the centre slice at the scale of its image: its darkest tissue is
            not black. 0 where there is none.
    """

    pixels: NDArray[np.float32]
    valid: NDArray[np.bool_]
    planes: tuple[SlicePlane | None, ...]
    distance_mm: float
    inside: bool
    signal: NDArray[np.float32]


def display_axes(plane: SlicePlane, *, mirror: bool = False) -> tuple[FloatArray, FloatArray]:
    """In-plane unit vectors (3,) LPS that run rightwards and downwards when ``plane`` is displayed.

    They are the plane's own axes, swapped and reversed as needed: nothing is rotated. ``mirror`` reverses
    the rightward axis of axial and coronal planes; a sagittal plane has no left or right to reverse.
    """
    (right, way_right), (down, way_down) = _DISPLAY_AXES[plane.orientation]
    axes = (plane.x_axis, plane.y_axis)
    x, y = axes[0].tolist(), axes[1].tolist()
    if abs(x[right]) + abs(y[down]) < abs(y[right]) + abs(x[down]):
        axes, x, y = axes[::-1], y, x
    rightwards = axes[0] if x[right] * way_right >= 0 else -axes[0]
    downwards = axes[1] if y[down] * way_down >= 0 else -axes[1]
    if mirror and plane.orientation is not Orientation.SAGITTAL:
        rightwards = -rightwards
    return rightwards, downwards


def crop_plane(
    plane: SlicePlane, centre_mm: ArrayLike, *, size_mm: float, size_px: int, mirror: bool = False
) -> SlicePlane:
    """The square grid, in ``plane``, whose middle is the projection of ``centre_mm`` (3,) LPS.

    The middle is the pixel position ((size_px - 1) / 2, (size_px - 1) / 2).
    """
    middle = plane.projected(np.asarray(centre_mm, dtype=np.float64))
    rightwards, downwards = display_axes(plane, mirror=mirror)
    step_mm = size_mm / size_px
    origin = middle - (size_px - 1) / 2 * step_mm * (rightwards + downwards)
    return SlicePlane(origin, rightwards, downwards, (step_mm, step_mm), (size_px, size_px))


def resample(
    pixels: NDArray[Any], source: SlicePlane, target: SlicePlane, *, once_up_to: float = 1.05
) -> NDArray[Any]:
    """Read an image on another grid of the same plane.

    Where the target is coarser, it is sampled several times per pixel and averaged over the pixel's area.
    Outside the source the border value is repeated.

    Args:
        pixels: (rows, columns) of ``source``.
        source: grid of ``pixels``.
        target: square-pixel or other grid; points are projected onto ``source`` along its normal.
        once_up_to: how many times as coarse the target may be and is still sampled once per pixel.

    Returns:
        ``target.shape``; uint8 of uint8, else float32.
    """
    coarseness = max(target.spacing_mm) / min(source.spacing_mm)
    factor = 1 if coarseness <= once_up_to else min(max(math.ceil(coarseness - 0.05), 1), 8)
    rows, columns = target.shape
    at = source.to_px(target.to_mm(_fine_corners(factor)))
    affine = np.empty((2, 3))
    affine[:, 0], affine[:, 1], affine[:, 2] = (at[1] - at[0]) / factor, (at[2] - at[0]) / factor, at[0]
    # The same pixels whatever the last digits of the geometry, which file formats keep differently.
    affine = np.rint(affine / _LEAST_STEPS) * _LEAST_STEPS
    fine = cv2.warpAffine(
        np.ascontiguousarray(pixels, dtype=np.uint8 if pixels.dtype == np.uint8 else np.float32),
        affine,
        (columns * factor, rows * factor),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if factor == 1:
        return np.asarray(fine)
    return np.asarray(cv2.resize(fine, (columns, rows), interpolation=cv2.INTER_AREA))


_LEAST_STEPS = np.array([2.0**-17, 2.0**-17, 2.0**-8])


@cache
def _fine_corners(factor: int) -> FloatArray:
    """Fine pixels (0, 0), (factor, 0) and (0, factor) in coarse pixels (3, 2)."""
    # Fine pixel i of a coarse pixel lies at (i + 0.5) / factor - 0.5 coarse steps.
    return np.asarray((np.array([[0.0, 0.0], [factor, 0.0], [0.0, factor]]) + 0.5) / factor - 0.5)


def percentiles(values: NDArray[np.float32], shares: Sequence[float]) -> list[float]:
    """As ``np.percentile(values, shares)``, without its detours; ``shares`` in per cent below 100.

    NaN if any value is.
    """
    ordered = values.flatten()
    places = [(values.size - 1) * (share / 100) for share in shares]
    around: dict[int, tuple[np.float32, np.float32]] = {}
    end = values.size
    # One place after the other, from above: numpy takes several times as long for several at once.
    for index in sorted({int(place) for place in places}, reverse=True):
        ordered[:end].partition(index)
        if end == values.size and np.isnan(ordered[index:].max()):
            return [math.nan] * len(shares)
        above = ordered[index + 1 : end + 1]
        around[index] = ordered[index], above.min() if above.size else ordered[index]
        end = index
    found = []
    for place in places:
        low, high = around[int(place)]
        part, step = place - int(place), float(high - low)
        found.append(float(low) + step * part if part < 0.5 else float(high) - step * (1 - part))
    return found


def normalise(
    pixels: NDArray[np.float32], valid: NDArray[np.bool_], rows: slice = slice(None)
) -> NDArray[np.float32]:
    """Stretch a crop between its own robust black and white, so that scanner scaling does not matter.

    Args:
        pixels: (slices, rows, columns), any scale.
        valid: bool (slices,); the others are not looked at and come back 0.
        rows: the same for rows.

    Returns:
        float32, same shape, in [0, 1]; all 0 when the crop is constant or no slice is valid.
    """
    out = np.zeros(pixels.shape, dtype=np.float32)
    if not valid.any():
        return out
    found = black_and_white(pixels[:, rows][valid])
    if found is not None:
        black, white = found
        for index in np.flatnonzero(valid):
            stretched = pixels[index, rows].astype(np.float64)
            stretched -= black
            stretched /= white - black
            out[index, rows] = np.clip(stretched, 0.0, 1.0, out=stretched)
    return out


def black_and_white(pixels: NDArray[np.float32]) -> tuple[float, float] | None:
    """The robust black and white of images (…, rows, columns); None when they are constant, or any is NaN."""
    sample = pixels[..., ::_PERCENTILE_STRIDE, ::_PERCENTILE_STRIDE]
    black, white = percentiles(sample, (BLACK_PERCENTILE, WHITE_PERCENTILE))
    # A relative bound: float32 noise on a constant image must not be stretched into a picture.
    return (black, white) if white - black > 1e-5 * max(1.0, abs(white), abs(black)) else None


def _is_neighbour(middle: SlicePlane, other: SlicePlane, away: int, gap_mm: float) -> bool:
    """Whether a slice lies as far from the middle one as ``away`` places in a stack without holes."""
    return away == 0 or abs(float(middle.distance_mm(other.centre_mm))) <= (abs(away) + 0.5) * gap_mm


def seen_rows(size_mm: float, size_px: int, seen_height_mm: float | None) -> slice:
    """The rows of a crop that lie within half of ``seen_height_mm`` of its middle; all for None."""
    if seen_height_mm is None:
        return slice(None)
    hidden = max(0, round(size_px * (1 - seen_height_mm / size_mm) / 2))
    return slice(hidden, size_px - hidden)


def _as_coarse(
    pixels: NDArray[np.float32], plane: SlicePlane, resolution_mm: float, step_mm: float
) -> NDArray[np.float32]:
    """A crop of ``plane`` as an image with pixels of ``resolution_mm`` would have given it.

    Averaging over a pixel of width w and reading between pixels blur as a Gaussian of w / 2 does.
    """
    missing = resolution_mm**2 - min(plane.spacing_mm) * max(plane.spacing_mm)
    if missing <= 0:
        return pixels
    sd_px = 0.5 * math.sqrt(missing) / step_mm
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sd_px), dtype=np.float32) if sd_px > 0.2 else pixels


def extract_crop(
    series: Series,
    centre_mm: ArrayLike,
    *,
    size_mm: float,
    size_px: int,
    slices: int,
    mirror: bool = False,
    slice_step_mm: float | None = None,
    resolution_mm: float | None = None,
    seen_height_mm: float | None = None,
    nearest: tuple[Slice, float] | None = None,
) -> Crop:
    """Cut ``slices`` neighbouring slices around a patient point out of the stack that shows it best.

    Args:
        series: where to cut. The stack is the one of ``series.nearest(centre_mm)``.
        centre_mm: (3,) patient LPS; becomes the middle of the crop.
        size_mm: side of the square crop.
        size_px: pixels along a side.
        slices: odd number of slices; the middle one is nearest to the point.
        mirror: swap the patient's left and right: columns of axial crops, slice order of sagittal ones.
        slice_step_mm: take every second, third … slice of a stack whose gap is smaller than this;
            None takes neighbours.
        resolution_mm: finer images are smoothed to what pixels of this size show; None leaves them.
        seen_height_mm: what lies farther above or below the point than half of this is black; None shows all.
        nearest: what ``series.nearest(centre_mm)`` gave, if it was asked.

    Returns:
        The crop. Slices beyond the stack's end or beyond a hole in it, or that cannot be decoded, are 0 and
        not valid.

    Raises:
        ValueError: sizes not positive, or ``slices`` even.
    """
    if size_mm <= 0 or size_px < 1 or slices < 1 or slices % 2 == 0:
        raise ValueError(
            "a crop needs size_mm > 0, size_px > 0 and an odd number of slices, "
            f"but got {size_mm}, {size_px}, {slices}"
        )
    centre = np.asarray(centre_mm, dtype=np.float64)
    item, distance_mm = nearest or series.nearest(centre)
    stack = series.stack_of(item)
    step = 1
    if slice_step_mm is not None and len(stack) > 1:
        step = max(1, round(slice_step_mm / max(series.gap_mm(item), 0.1)))
    if mirror and item.plane.orientation is Orientation.SAGITTAL:
        step = -step
    middle = stack.index(item)
    gap_mm = min(series.gap_mm(item), _LARGEST_GAP_MM)

    raw = np.zeros((slices, size_px, size_px), dtype=np.float32)
    valid = np.zeros(slices, dtype=np.bool_)
    planes: list[SlicePlane | None] = []
    for position in range(slices):
        away = (position - slices // 2) * step
        index = middle + away
        if not 0 <= index < len(stack) or not _is_neighbour(item.plane, stack[index].plane, away, gap_mm):
            planes.append(None)
            continue
        plane = stack[index].plane
        grid = crop_plane(plane, centre, size_mm=size_mm, size_px=size_px, mirror=mirror)
        planes.append(grid)
        try:
            source = stack[index].pixels()
        except DicomRejected:
            continue
        raw[position] = resample(source, plane, grid)
        if resolution_mm is not None:
            raw[position] = _as_coarse(raw[position], plane, resolution_mm, size_mm / size_px)
        valid[position] = True
    if not np.isfinite(raw).all():
        raw = np.nan_to_num(raw)
    return Crop(
        pixels=normalise(raw, valid, seen_rows(size_mm, size_px, seen_height_mm)),
        valid=valid,
        planes=tuple(planes),
        distance_mm=distance_mm,
        inside=item.plane.shows(centre),
        signal=raw[slices // 2].copy(),
    )
