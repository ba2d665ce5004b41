"""Vertebral bodies, discs and the sacrum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_prep.phantom.painter import Painter, box, ellipse, rounded_both, tunnel
from data_prep.phantom.spine import LUMBOSACRAL, SpineCoordinates

RealArray = NDArray[np.floating]  # float32 in practice; numpy's stubs lose track of it

CORTEX_MM = 0.8


def disc_half_height(painter: Painter, at: SpineCoordinates, depth: RealArray) -> RealArray:
    """Half the height (mm) of the nearest disc; ``depth`` is −1 at its front and +1 at its back."""
    discs = painter.body.discs
    front, middle, back = (discs[name][at.disc] for name in ("front", "middle", "back"))
    t = np.clip(depth, -1.0, 1.0)
    return np.float32(0.5) * (middle + t * (back - front) / 2 + t * t * ((back + front) / 2 - middle))


def marrow_signal(painter: Painter, at: SpineCoordinates) -> RealArray:
    """Fat and water of the marrow, with texture and one fat fraction per vertebra."""
    vertebra = np.minimum(at.position.astype(np.intp), len(painter.body.discs["marrow"]) - 1)
    fat = painter.body.discs["marrow"][vertebra]
    fat = np.clip(fat + 0.06 * painter.noise(at.body_mm, 1.1), 0.05, 0.95)
    return 0.9 * (fat * painter.signals["fat"] + (1 - fat) * painter.signals["marrow_water"])


def body_outline(painter: Painter, at: SpineCoordinates, grow: float | RealArray = 0.0) -> RealArray:
    """Signed distance (mm) from the side wall of bodies and discs: rounded in front, flat behind."""
    half_depth = painter.profile("half_depth", at) + grow
    half_width = painter.profile("half_width", at) + grow
    back_wall = painter.profile("back_wall", at) + grow
    depth = np.where(at.back_mm > 0, back_wall, half_depth)
    a, b = (at.left_mm / half_width) ** 2, (at.back_mm / depth) ** 2
    squareness = np.where(at.back_mm > 0, np.float32(0.8), np.float32(0.35))
    radius = np.sqrt(np.maximum(a + b - squareness * a * b * (a < 1) * (b < 1), 0.0))
    return (radius - 1.0) * depth


def paint_vertebrae(painter: Painter) -> None:
    """Sacral wings, bodies with cortex and marrow, discs with annulus and nucleus."""
    _paint_sacral_wings(painter)
    at = painter.at
    widest = painter.profile("half_width", at) + 6.0
    deepest = painter.profile("half_depth", at) + 6.0
    where = np.flatnonzero((np.abs(at.left_mm) < widest) & (np.abs(at.back_mm) < deepest))
    if not len(where):
        return
    at = at.take(where)
    outline = body_outline(painter, at)
    half = disc_half_height(painter, at, at.back_mm / painter.profile("back_wall", at))
    from_disc = half - np.abs(at.above_mm)
    painter.paint(outline, painter.signals["cortex"], where)
    inner = rounded_both(outline, from_disc, 2.5) + CORTEX_MM
    painter.paint(inner, marrow_signal(painter, at), where)
    # The vein that leaves each body in the middle of its back wall.
    behind = at.back_mm - painter.profile("back_wall", at)
    across = ((at.position % 1.0) - 0.5) * 34.0
    vein = tunnel(behind, across, 6.0, 1.6, at.left_mm, 6.0)
    lumbar = at.position < LUMBOSACRAL
    painter.paint(np.maximum(vein, inner), painter.signals["bowel"], where, opacity=0.6 * lumbar)
    _paint_discs(painter, at, where, outline, half)


def _paint_discs(
    painter: Painter,
    at: SpineCoordinates,
    where: NDArray[np.intp],
    outline: RealArray,
    half: RealArray,
) -> None:
    discs, signals = painter.body.discs, painter.signals
    slab = np.abs(at.above_mm) - half
    bulge = discs["bulge"][at.disc]
    painter.paint(rounded_both(outline - bulge, slab + 0.2, 1.5), signals["annulus"], where)
    worn = discs["worn"][at.disc]
    nucleus = signals["nucleus"] * (1 - worn) + signals["nucleus_worn"] * worn
    nucleus = nucleus + (signals["annulus"] - nucleus) * np.clip(worn - 0.5, 0, 0.5)
    nucleus = nucleus * (1 + 0.06 * painter.noise(at.body_mm, 1.3))
    depth = painter.profile("half_depth", at)
    # The nucleus passes into the annulus over some millimetres.
    core = np.maximum(outline + 0.3 * depth, slab + 0.9)
    painter.blend(nucleus, np.clip(0.5 - core / 4.5, 0, 1) * (slab < 0), where)


def _paint_sacral_wings(painter: Painter) -> None:
    at = painter.at
    where = np.flatnonzero((at.position > LUMBOSACRAL + 0.12) & (np.abs(at.left_mm) < 62))
    if not len(where):
        return
    at = at.take(where)
    down = at.position - LUMBOSACRAL
    half_width = np.clip(54.0 - 7.0 * down, 8.0, 54.0) * painter.body.spine.stature
    thick = np.clip(13.0 - 2.2 * down, 3.0, 13.0)
    wing = np.maximum(ellipse(at.left_mm, at.back_mm - 3.0, half_width, thick), 10.0 - 80.0 * (down - 0.12))
    wing = np.maximum(wing, box(at.position - (LUMBOSACRAL + 2.3), 2.3) * 25.0)
    painter.paint(wing, painter.signals["cortex"], where)
    painter.paint(wing + CORTEX_MM, marrow_signal(painter, at), where)
