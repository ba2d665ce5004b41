"""What images show along lines of points, and how alike two such lines are."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray
from data_prep.study import Slice

# An image or a part of it, and the (column, row) of its first pixel.
Smoothed = tuple[NDArray[np.float32], tuple[int, int]]


def on_both(point_mm: FloatArray, a: Slice, b: Slice) -> FloatArray:
    """The point moved into both planes."""
    normals = np.stack([a.plane.normal, b.plane.normal])
    gaps = np.array([float(a.plane.distance_mm(point_mm)), float(b.plane.distance_mm(point_mm))])
    return np.asarray(point_mm - np.linalg.lstsq(normals, gaps, rcond=None)[0])


def smoothed(item: Slice, near_mm: FloatArray | None) -> Smoothed:
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


def sampled(item: Slice, smoothed: Smoothed, points_mm: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """The image along lines of points (lines, n, 3), and of which lines most points lie inside it."""
    xy = item.plane.to_px(points_mm).astype(np.float32)
    pixels, (left, top) = smoothed
    values = cv2.remap(
        pixels, xy[..., 0] - left, xy[..., 1] - top, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(values, dtype=np.float64), item.plane.contains_px(xy).mean(axis=1) >= 0.8


def correlations(lines: FloatArray, others: FloatArray, *, of_edges: bool = False) -> FloatArray:
    """Of lines (m, n), or their edges, with others (k, n): (m, k), NaN where one is constant."""
    rows = np.concatenate([lines, others])
    rows = _edges(rows) if of_edges else _without_slow_fall(rows)
    sizes = np.linalg.norm(rows, axis=1)
    first, second = np.split(np.arange(len(rows)), [len(lines)])
    both = sizes[first, None] * sizes[second]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(both > 0, rows[first] @ rows[second].T / both, np.nan))


def _without_slow_fall(rows: FloatArray) -> FloatArray:
    """Values (lines, n) without the coil's slow fall of brightness towards the belly."""
    return np.asarray(rows - cv2.sepFilter2D(rows, cv2.CV_64F, cv2.getGaussianKernel(121, 15.0), np.ones(1)))


def _edges(rows: FloatArray) -> FloatArray:
    """How steep values (lines, n) are, whichever way, about its mean: (lines, n - 1)."""
    smooth = cv2.sepFilter2D(rows, cv2.CV_64F, cv2.getGaussianKernel(9, 1.5), np.ones(1))
    # The square root: one very bright edge is not to count for all others.
    steep = np.sqrt(np.abs(np.diff(smooth, axis=1)))
    return np.asarray(steep - steep.mean(axis=1, keepdims=True))
