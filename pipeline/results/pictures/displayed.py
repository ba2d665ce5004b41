"""A slice as it is shown: upright, in grey values, with the patient's directions; all that reports need."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.crops import black_and_white, display_axes, resample
from data_prep.geometry import FloatArray, SlicePlane
from data_prep.problems import DicomRejected
from data_prep.study import Slice
from data_prep.vocabulary import LEVELS

# Okabe and Ito's colour-blind safe palette; the level's name always stands beside its colour.
LEVEL_COLOURS = dict(zip(LEVELS, ("#F0E442", "#56B4E9", "#CC79A7", "#009E73", "#E69F00"), strict=True))
# To look at, a picture of two thirds of the pixels need not be averaged from finer ones.
_ONCE_UP_TO = 1.5
# What stands at the end of a patient axis: x to the left, y to the back, z to the head.
_AXIS_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))


def edge_letters(plane: SlicePlane) -> tuple[str, str, str, str]:
    """The patient direction at the left, right, upper and lower edge of an image.

    R and L right and left, A and P front and back, H and F head and foot: the patient's
    (DICOM PS3.3 C.7.6.1.1.1).
    """
    letters = []
    for axis in (plane.x_axis, plane.y_axis):
        main = int(np.argmax(np.abs(axis)))
        pair = _AXIS_LETTERS[main]
        letters += [*(pair if axis[main] > 0 else pair[::-1])]
    return letters[0], letters[1], letters[2], letters[3]


def displayed(
    item: Slice, width: int, height: int, *, around_mm: FloatArray | None = None
) -> tuple[NDArray[np.uint8], SlicePlane] | None:
    """A slice, upright and with square pixels, stretched between its robust black and white.

    Args:
        width, height: of the room for it, in pixels.
        around_mm: (3,) patient point; the slice then fills the height, and what does not fit into the
            width is cut off as far from this point as can be. None shows the whole slice.

    Returns:
        uint8 (rows ≤ height, columns ≤ width), and its grid; None when it cannot be decoded.
    """
    try:
        pixels = item.pixels()
    except DicomRejected:
        return None
    plane = item.plane
    rightwards, downwards = display_axes(plane)
    rows, columns = plane.shape
    corners = plane.to_mm([[-0.5, -0.5], [columns - 0.5, rows - 0.5]]) - plane.centre_mm
    left_mm, right_mm = np.sort(corners @ rightwards)
    top_mm, bottom_mm = np.sort(corners @ downwards)
    step_mm = max((right_mm - left_mm) / width, (bottom_mm - top_mm) / height)
    if around_mm is not None:
        step_mm = (bottom_mm - top_mm) / height
        shown_mm = min(width * step_mm, right_mm - left_mm)
        middle_mm = float((around_mm - plane.centre_mm) @ rightwards)
        left_mm = np.clip(middle_mm - shown_mm / 2, left_mm, right_mm - shown_mm)
        right_mm = left_mm + shown_mm
    shape = (max(1, round((bottom_mm - top_mm) / step_mm)), max(1, round((right_mm - left_mm) / step_mm)))
    steps_mm = (right_mm - left_mm) / shape[1], (bottom_mm - top_mm) / shape[0]
    origin = (
        plane.centre_mm + (left_mm + steps_mm[0] / 2) * rightwards + (top_mm + steps_mm[1] / 2) * downwards
    )
    grid = SlicePlane(origin, rightwards, downwards, steps_mm, shape)
    if around_mm is not None:
        return resample(_stretched(pixels), plane, grid, once_up_to=_ONCE_UP_TO), grid
    return _resized(_upright(_stretched(pixels), plane, rightwards, downwards), shape), grid


def _upright(
    pixels: NDArray[np.uint8], plane: SlicePlane, rightwards: FloatArray, downwards: FloatArray
) -> NDArray[np.uint8]:
    """The image, its own axes turned so that they run ``rightwards`` and ``downwards``."""
    columns, rows = plane.x_axis, plane.y_axis
    if abs(float(rightwards @ columns)) < 0.5:
        pixels, columns, rows = pixels.T, rows, columns
    return pixels[:: 1 if downwards @ rows > 0 else -1, :: 1 if rightwards @ columns > 0 else -1]


def _resized(pixels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The whole image on other pixels: averaged where they are larger."""
    is_smaller = shape[0] < pixels.shape[0] or shape[1] < pixels.shape[1]
    how = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), shape[::-1], interpolation=how))


def _stretched(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Between robust black and white; in 8 bits already, which are resampled in a third of the time."""
    found = black_and_white(pixels)
    if found is None:
        return np.zeros(pixels.shape, np.uint8)
    black, white = found
    per_step = 255 / (white - black)
    return np.asarray(cv2.convertScaleAbs(np.maximum(pixels, black), alpha=per_step, beta=-black * per_step))


def eight_bits(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Grey values in [0, 1] as 0 to 255."""
    return np.rint(grey * np.float32(255)).astype(np.uint8)
