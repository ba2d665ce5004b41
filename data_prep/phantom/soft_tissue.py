"""Skin, fat, muscles, vessels, kidneys and bowel: blobs around the spine."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data_prep.phantom.body import Body
from data_prep.phantom.painter import Painter, RealArray, ellipse
from data_prep.phantom.posture import FIRST_LUMBAR, LUMBOSACRAL

MUSCLE_BACK_MM = 40.0
SPINE_BACK_MM = 24.0


@lru_cache(maxsize=1)
def _back_line(body: Body) -> tuple[RealArray, RealArray]:
    """Heights (ascending) and y of the skin of the back: the canal's line, smoothed, moved back."""
    line = body.spine.line[::-1]
    canal_y = line[:, 1] + SPINE_BACK_MM * line[:, 7]
    kernel = np.ones(225, dtype=np.float32) / 225
    smooth = np.convolve(np.pad(canal_y, 112, mode="edge"), kernel, mode="valid")
    # The skin follows the lordosis less than the spine does.
    level = np.maximum(smooth, canal_y - 8.0)
    return line[:, 2], level + body.spine.stature * MUSCLE_BACK_MM + body.soft["fat_back"] + 2.0


def inside_torso(body: Body, body_mm: RealArray) -> tuple[NDArray[np.intp], RealArray]:
    """Of points (3, n) of body coordinates, which are inside the skin, and how deep (mm) under it."""
    heights, skin_y = _back_line(body)
    x, y, z = body_mm
    back = np.interp(z, heights, skin_y).astype(np.float32)
    front = np.float32(-body.soft["front"])
    middle, half = (back + front) / 2, (back - front) / 2
    a = (x / np.float32(body.soft["half_width"])) ** 2
    b = ((y - middle) / half) ** 2
    radius = np.sqrt(np.maximum(a + b - 0.55 * a * b, 0.0))
    depth = (1.0 - radius) * half
    index = np.flatnonzero((depth > 0) & (a < 1) & (b < 1))
    return index, depth[index].astype(np.float32)


def paint_soft_tissue(painter: Painter, depth_mm: RealArray) -> None:
    """Paint from the outside in: fat, skin, belly, muscles, vessels; ``depth_mm``: under the skin."""
    at, signals = painter.at, painter.signals
    painter.signal[:] = signals["fat"] * (0.97 + 0.04 * painter.noise(at.body_mm, 2.3))
    painter.paint(depth_mm - 2.0, signals["skin"])
    _paint_belly(painter, depth_mm)
    _paint_back_muscles(painter, depth_mm)
    _paint_psoas(painter)
    _paint_vessels(painter)


def _paint_belly(painter: Painter, depth_mm: RealArray) -> None:
    at, signals, soft = painter.at, painter.signals, painter.body.soft
    where = np.flatnonzero((depth_mm > soft["fat_side"]) & (at.back_mm < 14.0))
    if not len(where):
        return
    depth = depth_mm.take(where)
    wall = soft["fat_side"] + 9.0
    painter.paint(np.abs(depth - wall) - 5.0, signals["muscle"], where)
    _paint_bowel(painter, depth - wall, where)
    _paint_kidneys(painter, where)


def _paint_bowel(painter: Painter, depth: RealArray, where: NDArray[np.intp]) -> None:
    inside = np.flatnonzero(depth > 4.0)
    depth, where = depth.take(inside), where.take(inside)
    at = painter.at.take(where)
    texture = painter.noise(at.body_mm, 7.0, smooth=True)
    behind_bowel = np.clip((-12.0 - at.back_mm + 5.0 * texture) / 10.0, 0, 1)
    bowel = np.clip(1.5 * (texture + 0.3), 0, 1) * np.clip((depth - 4.0) / 4.0, 0, 1) * behind_bowel
    painter.blend(painter.signals["bowel"] * (1 + 0.25 * texture), bowel, where)


def _paint_kidneys(painter: Painter, where: NDArray[np.intp]) -> None:
    x_mm = painter.at.body_mm[0].take(where)
    for side in (-1.0, 1.0):
        near = where.take(np.flatnonzero(np.abs(x_mm - side * 68.0) < 27.0 + painter.edge_mm))
        if not len(near):
            continue
        x, y, z = painter.at.body_mm.take(near, axis=1)
        x, y = x - side * 68.0, y + 2.0
        z = z - 50.0 - painter.body.soft["kidney_height"] - 6.0 * side
        radius = np.sqrt((x / 27) ** 2 + (y / 26) ** 2 + (z / 55) ** 2)
        painter.paint((radius - 1) * 26, painter.signals["kidney"], near)
        painter.paint((radius - 0.4) * 26, painter.signals["fat"], near)


def _paint_back_muscles(painter: Painter, depth_mm: RealArray) -> None:
    at, signals, soft = painter.at, painter.signals, painter.body.soft
    behind = painter.behind_mm
    where = np.flatnonzero((behind > -9) & (np.abs(at.left_mm) < 96) & (depth_mm > soft["fat_back"]))
    if not len(where):
        return
    scale = painter.body.spine.stature
    at, behind = at.take(where), behind.take(where)
    side = np.abs(at.left_mm)
    erector = ellipse(side - 38.0 * scale, behind - 19.0 * scale, 34.0 * scale, 20.0 * scale)
    multifidus = ellipse(side - 15.0 * scale, behind - 23.0 * scale, 14.0 * scale, 16.0 * scale)
    erector = np.minimum(erector, multifidus)
    quadratus = ellipse(side - 62.0 * scale, behind + 2.0, 16.0 * scale, 8.0 * scale)
    bundle = np.minimum(erector, np.where(at.position < LUMBOSACRAL - 0.3, quadratus, np.float32(9)))
    bundle = np.maximum(bundle, soft["fat_back"] + 1.0 - depth_mm.take(where))
    # Between and behind the spinous processes: ligaments and small muscles in fat.
    midline = np.maximum(side - 5.0, np.abs(behind - 24.0 * scale) - 15.0 * scale)
    painted = painter.touched(np.minimum(bundle, midline))
    at, where, side, behind = at.take(painted), where.take(painted), side.take(painted), behind.take(painted)
    bundle, midline = bundle.take(painted), midline.take(painted)
    texture = painter.noise(at.body_mm * np.array([[1], [1], [0.3]], dtype=np.float32), 1.2, smooth=True)
    lower = 0.10 * np.clip(at.position - LUMBOSACRAL + 2.0, -2.0, 3.0)
    streak = np.clip(0.9 * texture - 1.4 + 3.0 * soft["muscle_fat"] + lower, 0.0, 1.0)
    value = signals["muscle"] * (1 + 0.08 * texture) + streak * (0.8 * signals["fat"] - signals["muscle"])
    painter.paint(bundle, value, where)
    between = 0.6 * signals["muscle"] + 0.4 * signals["fat"]
    painter.paint(midline, between * (1 + 0.15 * texture), where)
    fascia = np.abs(side - 18.0 * scale - 0.35 * behind + 2.5 * texture) - 0.3 - 0.8 * texture
    painter.paint(np.maximum(fascia, bundle), 0.7 * signals["fat"], where)


def _paint_psoas(painter: Painter) -> None:
    at = painter.at
    size = painter.profile("psoas", at)
    where = np.flatnonzero((size > 0.05) & (np.abs(at.left_mm) < 90) & (np.abs(at.back_mm) < 45))
    if not len(where):
        return
    at, size = at.take(where), size.take(where)
    lower = np.clip(at.position - LUMBOSACRAL + 0.6, 0.0, 3.0)
    half_a, half_b = 3.0 + 15.0 * size, 4.0 + 17.0 * size
    middle = painter.profile("half_width", at) * 0.85 + half_a + 4.0 * lower
    muscle = ellipse(np.abs(at.left_mm) - middle, at.back_mm + 1.0 + 14.0 * lower, half_a, half_b)
    inside = painter.touched(muscle)
    value = painter.signals["muscle"] * (1 + 0.08 * painter.noise(at.take(inside).body_mm, 1.4))
    painter.paint(muscle.take(inside), value, where.take(inside))


def _paint_vessels(painter: Painter) -> None:
    at, radius = painter.at, painter.body.soft["aorta"]
    front = at.back_mm + painter.profile("half_depth", at)
    where = np.flatnonzero((front < 4) & (front > -32) & (np.abs(at.left_mm) < 70))
    if not len(where):
        return
    at, front = at.take(where), front.take(where)
    # The aorta divides at L4, the vena cava a little lower.
    split = np.maximum(painter.profile("vessel_position", at) - (FIRST_LUMBAR + 2.7), 0.0)
    right = np.abs(at.left_mm + 13.0 + 16.0 * split)
    left = np.abs(at.left_mm - 7.0 - 20.0 * split)
    narrow = np.where(split > 0, np.float32(0.68), np.float32(1.0))
    void = painter.signals["vessel"]
    for across, size in ((left, radius), (right, radius * 1.15)):
        tube = ellipse(across, front + radius + 1.5, size * narrow, radius * narrow)
        painter.paint(tube - 1.0, 0.6 * painter.signals["muscle"], where)
        painter.paint(tube, void, where)
