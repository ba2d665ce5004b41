"""Cut a body with a plane: layers of tissue painted over each other with soft edges.

Every structure is a signed distance (mm, negative inside) that becomes an occupancy over about one pixel;
thick slices are the mean of several thin cuts. Both together are the partial volume effect.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from data_prep.geometry import Float32Array, SlicePlane
from data_prep.phantom.body import Body
from data_prep.phantom.canal import paint_canal
from data_prep.phantom.painter import Painter, warped
from data_prep.phantom.posterior import paint_posterior
from data_prep.phantom.soft_tissue import inside_torso, paint_soft_tissue
from data_prep.phantom.tissue import Contrast
from data_prep.phantom.vertebrae import paint_vertebrae

FINEST_MM = 0.7


def render_tissue(
    body: Body, plane: SlicePlane, contrast: Contrast, thickness_mm: float = 4.0, cuts: int = 2
) -> Float32Array:
    """Noise-free signal of a slice: float32 ``plane.shape``, 0 in air, fat about 0.5–0.9.

    ``thickness_mm`` is averaged over ``cuts`` parallel planes.
    """
    acquired = _acquired(plane)
    signal = _mean_of_cuts(body, acquired, contrast, thickness_mm, cuts)
    if acquired.shape == plane.shape:
        return signal
    return cv2.resize(signal, plane.shape[::-1], interpolation=cv2.INTER_CUBIC).clip(0.0)


def _acquired(plane: SlicePlane) -> SlicePlane:
    """The same field of view with pixels of at least ``FINEST_MM``: scanners interpolate to finer ones."""
    rows, columns = plane.shape
    fewer = min(rows, int(np.ceil(rows * plane.spacing_mm[1] / FINEST_MM)))
    narrower = min(columns, int(np.ceil(columns * plane.spacing_mm[0] / FINEST_MM)))
    spacing = plane.spacing_mm[0] * columns / narrower, plane.spacing_mm[1] * rows / fewer
    corner = plane.to_mm([0.5 * (spacing[i] / plane.spacing_mm[i] - 1.0) for i in range(2)])
    return replace(plane, origin_mm=corner, spacing_mm=spacing, shape=(fewer, narrower))


def _mean_of_cuts(
    body: Body, plane: SlicePlane, contrast: Contrast, thickness_mm: float, cuts: int
) -> Float32Array:
    rows, columns = plane.shape
    rotation = body.spine.rotation
    x_axis, y_axis, normal = (axis @ rotation for axis in (plane.x_axis, plane.y_axis, plane.normal))
    x = (np.arange(columns) * plane.spacing_mm[0]) * x_axis[:, None]
    y = (np.arange(rows) * plane.spacing_mm[1]) * y_axis[:, None]
    pixel_mm = float(np.sqrt(plane.spacing_mm[0] * plane.spacing_mm[1]))
    total = np.zeros(rows * columns, dtype=np.float32)
    signals = contrast.signals
    for offset in ((np.arange(cuts) + 0.5) / cuts - 0.5) * thickness_mm:
        corner = body.spine.to_body(plane.origin_mm) + offset * normal
        across = (x + corner[:, None]).astype(np.float32)
        points = across[:, None, :] + y.astype(np.float32)[:, :, None]
        total += _cut(body, points.reshape(3, -1), signals, pixel_mm)
    return (total / np.float32(cuts)).reshape(rows, columns).astype(np.float32, copy=False)


def _cut(body: Body, body_mm: Float32Array, signals: dict[str, float], pixel_mm: float) -> Float32Array:
    image = np.zeros(body_mm.shape[1], dtype=np.float32)
    torso = inside_torso(body, body_mm)
    if not len(torso.index):
        return image
    coordinates = body.spine.coordinates(warped(body, body_mm.take(torso.index, axis=1)))
    painter = Painter(body, signals, coordinates, pixel_mm)
    paint_soft_tissue(painter, torso)
    paint_vertebrae(painter)
    paint_posterior(painter)
    paint_canal(painter)
    image[torso.index] = painter.signal
    return image
