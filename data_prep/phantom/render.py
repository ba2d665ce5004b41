"""Cut a body with a plane: layers of tissue painted over each other with soft edges.

Every structure is a signed distance (mm, negative inside) that becomes an occupancy over about one pixel;
thick slices are the mean of several thin cuts. Both together are the partial volume effect.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import Float32Array, FloatArray, SlicePlane
from data_prep.phantom.body import Body
from data_prep.phantom.canal import paint_canal
from data_prep.phantom.painter import Painter, RealArray, ellipse, tunnel, warped
from data_prep.phantom.posture import FIRST_LUMBAR, LUMBOSACRAL
from data_prep.phantom.soft_tissue import inside_torso, paint_soft_tissue
from data_prep.phantom.spine import SpineCoordinates
from data_prep.phantom.tissue import TISSUES, Contrast
from data_prep.phantom.vertebrae import CORTEX_MM, marrow_signal, paint_vertebrae

FINEST_MM = 0.7
# A part of the marrow is fat: its water counts so much against it that no marrow is taken for fat.
_WATER_OF_MARROW = -4.0


def paint_posterior(painter: Painter) -> None:
    """Paint the neural arches over the muscles."""
    at = painter.at
    behind = painter.behind_mm
    where = np.flatnonzero((np.abs(at.left_mm) < 48) & (behind > -16) & (behind < 50))
    if not len(where):
        return
    at, behind = at.take(where), behind.take(where)
    scale = painter.body.spine.stature
    fraction = at.position % 1.0
    side = np.abs(at.left_mm)
    sac = painter.profile("sac_depth_normal", at)
    bone = _pedicle(painter, at, behind, side, fraction, scale)
    bone = np.minimum(bone, _lamina(behind, side, fraction, sac, scale))
    bone = np.minimum(bone, _spinous(painter, at, behind, sac, fraction))
    bone = np.minimum(bone, _transverse(at, behind, side, fraction, scale))
    upper, lower = _facets(painter, at, behind, side, scale)
    bone = np.minimum(bone, np.minimum(upper, lower))
    painter.paint(bone, painter.signals["cortex"], where)
    painter.paint(bone + CORTEX_MM * 1.2, lambda inside: marrow_signal(painter, at.take(inside)), where)
    joint = np.maximum(np.abs(upper - lower) - 1.1, np.minimum(upper, lower) - 0.5)
    painter.paint(np.maximum(joint, np.maximum(upper, lower) - 2.5), painter.signals["ligament"], where)
    _paint_flavum(painter, at, where, behind, side, sac)


def _facets(
    painter: Painter, at: SpineCoordinates, behind: RealArray, side: RealArray, scale: float
) -> tuple[RealArray, RealArray]:
    """The articular processes of the vertebrae below (in front) and above (behind) a disc."""
    size = painter.body.soft["facet"] * scale
    lean = np.float32(0.12) * at.above_mm
    front = tunnel(side - 18.0 * scale, behind - 2.0 + lean, 6.0 * size, 4.8 * size, at.above_mm + 3.0, 13.0)
    rear = tunnel(side - 15.0 * scale, behind - 8.8 + lean, 6.2 * size, 4.8 * size, at.above_mm - 4.0, 15.0)
    lumbar = at.position < LUMBOSACRAL + 0.25
    return np.where(lumbar, front, np.float32(9.0)), np.where(lumbar, rear, np.float32(9.0))


def _pedicle(
    painter: Painter,
    at: SpineCoordinates,
    behind: RealArray,
    side: RealArray,
    fraction: RealArray,
    scale: float,
) -> RealArray:
    # Height 12.9 of a 36 mm segment, width 6 at L1 to 16 at L5 (docs/phantom.md); just under the upper disc.
    half_width = np.clip(3.5 + 0.9 * (at.position - FIRST_LUMBAR), 3.2, 7.5) * scale
    middle = painter.profile("sac_width_normal", at) + 3.0 * scale + half_width
    return tunnel(
        side - middle, (fraction - 0.335) * 36.0, half_width, 7.2 * scale, behind + 2.0, 12.5 * scale
    )


def _transverse(
    at: SpineCoordinates, behind: RealArray, side: RealArray, fraction: RealArray, scale: float
) -> RealArray:
    bone = tunnel(
        behind - 3.0, (fraction - 0.42) * 36.0, 3.0 * scale, 5.5 * scale, side - 30.0 * scale, 15.0 * scale
    )
    return np.where(at.position < LUMBOSACRAL, bone, np.float32(9.0))


def _lamina(
    behind: RealArray, side: RealArray, fraction: RealArray, sac: RealArray, scale: float
) -> RealArray:
    line = behind - sac - 7.5 * scale + 0.62 * side
    plate = np.maximum(np.abs(line) - 2.9 * scale, side - 17.0 * scale)
    return np.maximum(plate, (np.abs(fraction - 0.66) - 0.21) * 30.0)


def _spinous(
    painter: Painter, at: SpineCoordinates, behind: RealArray, sac: RealArray, fraction: RealArray
) -> RealArray:
    length = painter.body.soft["spinous"] * np.where(
        at.position > LUMBOSACRAL, np.float32(0.35), np.float32(1)
    )
    out = behind - sac - 6.0
    # The process slants to the feet.
    height = ellipse(out - length / 2, (fraction - 0.70 - 0.004 * out) * 33.0, length / 2, 10.5)
    return np.maximum(height, np.abs(at.left_mm) - 3.0)


def _paint_flavum(
    painter: Painter,
    at: SpineCoordinates,
    where: NDArray[np.intp],
    behind: RealArray,
    side: RealArray,
    sac: RealArray,
) -> None:
    thick = painter.body.soft["flavum"]
    line = behind - sac - 4.6 + 0.60 * side
    band = np.maximum(np.abs(line) - thick / 2, np.abs(side - 6.5) - 5.5)
    band = np.maximum(band, np.abs(at.above_mm) - 12.0)
    painter.paint(band, painter.signals["ligament"], where)


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


def share_of(body: Body, xyz_mm: FloatArray, tissues: Collection[str], pixel_mm: float) -> Float32Array:
    """How much of some tissues there is at patient points (n, 3): about 1 within, about 0 elsewhere.

    Marrow is none of them, though a part of it is fat. ``pixel_mm`` is the width of a border.
    """
    signals = {tissue: float(tissue in tissues) for tissue in TISSUES} | {"marrow_water": _WATER_OF_MARROW}
    return _cut(
        body, np.ascontiguousarray(body.spine.to_body(xyz_mm).astype(np.float32).T), signals, pixel_mm
    )


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
    index, depth_mm = inside_torso(body, body_mm)
    if not len(index):
        return image
    coordinates = body.spine.coordinates(warped(body, body_mm.take(index, axis=1)))
    painter = Painter(body, signals, coordinates, pixel_mm)
    paint_soft_tissue(painter, depth_mm)
    paint_vertebrae(painter)
    paint_posterior(painter)
    paint_canal(painter)
    image[index] = painter.signal
    return image
