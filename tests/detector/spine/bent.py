"""A study bent sideways: what lay at x is shown at x + f(z)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import Orientation
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import SeriesKind

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def bow(amplitude_mm: float, z_mm: tuple[float, float]) -> Curve:
    """A bow to the patient's left (+x) that ends 20 mm beyond lowest and highest ``z_mm``."""
    middle, half = sum(z_mm) / 2, abs(z_mm[1] - z_mm[0]) / 2 + 20
    return lambda z: amplitude_mm * np.cos(np.clip((z - middle) / half, -1, 1) * np.pi / 2)


def bent(study: Study, curve: Curve, kinds: tuple[SeriesKind, ...]) -> Study:
    """The series of these kinds, bent; the others are left out."""
    return replace(study, series=tuple(_bent(item, curve) for item in study.series if item.kind in kinds))


def _bent(series: Series, curve: Curve) -> Series:
    move = _sagittal if series.orientation is Orientation.SAGITTAL else _axial
    return replace(series, stacks=tuple(move(stack, curve) for stack in series.stacks))


def _sagittal(stack: tuple[Slice, ...], curve: Curve) -> tuple[Slice, ...]:
    x = np.array([item.plane.centre_mm[0] for item in stack])
    order = np.argsort(x)
    volume = np.stack([stack[i].pixels() for i in order])
    found = []
    for item in stack:
        rows = np.arange(item.plane.shape[0])
        z = np.array([item.plane.to_mm((item.plane.shape[1] / 2, row))[2] for row in rows])
        place = np.interp(item.plane.centre_mm[0] - curve(z), x[order], np.arange(len(x)))
        low = np.floor(place).astype(int)
        share = (place - low)[:, None]
        high = np.minimum(low + 1, len(x) - 1)
        pixels = ((1 - share) * volume[low, rows] + share * volume[high, rows]).astype(np.float32)
        found.append(replace(item, read_pixels=partial(np.array, pixels)))
    return tuple(found)


def _axial(stack: tuple[Slice, ...], curve: Curve) -> tuple[Slice, ...]:
    found = []
    for item in stack:
        plane = item.plane
        moved_px = float(curve(np.array(plane.centre_mm[2]))) / plane.spacing_mm[0] * np.sign(plane.x_axis[0])
        pixels = cv2.warpAffine(
            item.pixels(),
            np.array([[1.0, 0.0, moved_px], [0.0, 1.0, 0.0]]),
            plane.shape[::-1],
            borderMode=cv2.BORDER_REPLICATE,
        )
        found.append(replace(item, read_pixels=partial(np.array, pixels)))
    return tuple(found)
