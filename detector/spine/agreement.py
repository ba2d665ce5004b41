"""Whether axial and sagittal series show the same where their planes meet.

Their coordinates are one only if the patient lay still between them. Along the line where an axial and a
sagittal plane meet both show the same tissue; if the patient has moved along the table, they do so a step
farther up or down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray
from data_prep.problems import DicomRejected
from data_prep.study import Series, Slice

# An image or a part of it, and the (column, row) of its first pixel.
_Smoothed = tuple[NDArray[np.float32], tuple[int, int]]


@dataclass(frozen=True)
class AgreementConfig:
    """What is compared and when two series are said to lie elsewhere.

    Attributes:
        slices: axial slices compared, spread over the series.
        before_mm, behind_mm: how far before and behind the canal the lines are followed.
        reach_mm, step_mm: shifts that are tried along the spine.
        least_shift_mm: a smaller one is no disagreement.
        least_likeness: mean correlation at the best shift below which nothing can be said.
        margin: by which the best shift must be better than none.
    """

    slices: int = 14
    before_mm: float = 45.0
    behind_mm: float = 45.0
    reach_mm: float = 45.0
    step_mm: float = 3.0
    least_shift_mm: float = 9.0
    least_likeness: float = 0.45
    margin: float = 0.15


def shift_between(
    sagittal: Slice, canal_mm: FloatArray, axial: Sequence[Series], config: AgreementConfig
) -> float:
    """How far along the spine an axial series seems to lie from where its coordinates say; 0 if it does not.

    Args:
        sagittal: the middle slice.
        canal_mm: (n, 3) canal points of the levels.
    """
    near = [
        item
        for series in axial
        for item in series.slices
        if abs(float(np.abs(item.plane.distance_mm(canal_mm)).min())) < 40.0
    ]
    if len(near) < 4:
        return 0.0
    chosen = [near[i] for i in np.unique(np.linspace(0, len(near) - 1, config.slices).round().astype(int))]
    shifts = np.arange(-config.reach_mm, config.reach_mm + 0.1, config.step_mm)
    try:
        side = _smoothed(sagittal, None)
    except DicomRejected:
        return 0.0
    likeness = []
    for item in chosen:
        row = _likeness(sagittal, side, item, canal_mm, shifts, config)
        if row is not None:
            likeness.append(row)
    if len(likeness) < 4:
        return 0.0
    rows = np.stack(likeness)
    seen = np.isfinite(rows).sum(axis=0)
    if not seen[len(shifts) // 2]:
        return 0.0
    # A shift at which few lines lie within both images says nothing.
    mean = np.where(2 * seen >= len(rows), np.nansum(rows, axis=0) / np.maximum(seen, 1), -1.0)
    best = int(np.argmax(mean))
    here = float(np.max(mean[np.abs(shifts) < config.least_shift_mm]))
    elsewhere = abs(shifts[best]) >= config.least_shift_mm
    if elsewhere and mean[best] >= config.least_likeness and mean[best] - here >= config.margin:
        return float(shifts[best])
    return 0.0


def _likeness(
    sagittal: Slice,
    side: _Smoothed,
    item: Slice,
    canal_mm: FloatArray,
    shifts: FloatArray,
    config: AgreementConfig,
) -> FloatArray | None:
    """Correlation of both images along the line where they meet, for every shift of the sagittal one."""
    nearest = canal_mm[int(np.argmin(np.abs(item.plane.distance_mm(canal_mm))))]
    direction = np.cross(item.plane.normal, sagittal.plane.normal)
    length = float(np.linalg.norm(direction))
    if length < 0.5:
        return None
    direction *= np.sign(direction[1]) / length  # to the back
    start = _on_both(nearest, item, sagittal)
    steps = np.arange(-config.before_mm, config.behind_mm + 0.1, 1.0)
    line = start + steps[:, None] * direction
    along_table = np.array([0.0, 0.0, 1.0])
    up = along_table - (along_table @ sagittal.plane.normal) * sagittal.plane.normal
    try:
        across, shown = _sampled(item, _smoothed(item, line), line[None])
    except DicomRejected:
        return None
    if not shown[0]:
        return None
    along, shown = _sampled(sagittal, side, line + shifts[:, None, None] * up)
    return np.where(shown, _correlations(across[0], along), np.nan)


def _on_both(point_mm: FloatArray, a: Slice, b: Slice) -> FloatArray:
    """The point moved into both planes."""
    normals = np.stack([a.plane.normal, b.plane.normal])
    gaps = np.array([float(a.plane.distance_mm(point_mm)), float(b.plane.distance_mm(point_mm))])
    return np.asarray(point_mm - np.linalg.lstsq(normals, gaps, rcond=None)[0])


def _smoothed(item: Slice, near_mm: FloatArray | None) -> _Smoothed:
    """The image over about a millimetre; only around points (n, 3), if given. Raises DicomRejected."""
    pixels, sigma = item.pixels(), max(0.5, 1.0 / item.plane.spacing_mm[0])
    left, top = 0, 0
    if near_mm is not None:
        xy, margin = item.plane.to_px(near_mm), math.ceil(4 * sigma) + 2
        left, top = np.maximum(xy.min(axis=0) - margin, 0).astype(int).tolist()
        right, bottom = np.maximum(xy.max(axis=0) + margin + 2, 1).astype(int).tolist()
        left, top = min(left, pixels.shape[1] - 1), min(top, pixels.shape[0] - 1)
        pixels = pixels[top:bottom, left:right]
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma)), (left, top)


def _sampled(item: Slice, smoothed: _Smoothed, points_mm: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """The image along lines of points (lines, n, 3), and of which lines most points lie inside it."""
    xy = item.plane.to_px(points_mm).astype(np.float32)
    pixels, (left, top) = smoothed
    values = cv2.remap(
        pixels, xy[..., 0] - left, xy[..., 1] - top, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(values, dtype=np.float64), item.plane.contains_px(xy).mean(axis=1) >= 0.8


def _correlations(line: FloatArray, others: FloatArray) -> FloatArray:
    """Of a line (n,) with every other (lines, n); NaN where one is constant."""
    # Without the coil's slow fall of brightness towards the belly.
    kernel = cv2.getGaussianKernel(121, 15.0)
    rows = np.concatenate([line[None], others])
    rows = rows - cv2.sepFilter2D(rows, cv2.CV_64F, kernel, np.ones(1))
    sizes = np.linalg.norm(rows, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            np.where(sizes[1:] * sizes[0] > 0, rows[1:] @ rows[0] / (sizes[1:] * sizes[0]), np.nan)
        )
