"""Vertebral bodies, discs and the sacrum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_prep.phantom.painter import Painter, RealArray, box, ellipse, rounded_both, tunnel
from data_prep.phantom.posture import LUMBOSACRAL
from data_prep.phantom.spine import SpineCoordinates

CORTEX_MM = 0.8


def disc_half_height(painter: Painter, at: SpineCoordinates, depth: RealArray) -> RealArray:
    """Half the height (mm) of the nearest disc; ``depth`` is −1 at its front and +1 at its back.

    Endplates are hollow in the middle only, and here and there a Schmorl node dents them.
    """
    discs = painter.body.discs
    front, middle, back = (discs[name][at.disc] for name in ("front", "middle", "back"))
    t = np.clip(depth, -1.0, 1.0)
    rim = np.minimum(t * t + (at.left_mm / painter.profile("half_width", at)) ** 2, np.float32(1.0))
    half = np.float32(0.5) * (middle + t * (back - front) / 2 + rim * ((back + front) / 2 - middle))
    above = (at.above_mm > 0).astype(np.intp)
    node = discs["schmorl_depth"][at.disc, above]
    dented = np.flatnonzero(node > 0)
    if len(dented):
        which = at.disc[dented], above[dented]
        left = at.left_mm[dented] - discs["schmorl_left"][which]
        behind = at.back_mm[dented] - discs["schmorl_back"][which]
        half[dented] += node[dented] * np.exp(-(left * left + behind * behind) / (1.6 * node[dented]) ** 2)
    return half


def marrow_signal(painter: Painter, at: SpineCoordinates, from_disc: RealArray | None = None) -> RealArray:
    """Fat and water of the marrow with texture; ``from_disc`` (mm) adds Modic changes near the endplates."""
    body, signals = painter.body, painter.signals
    vertebra = np.minimum(at.position.astype(np.intp), len(body.discs["marrow"]) - 1)
    fat = body.discs["marrow"][vertebra]
    fat = fat + np.float32(body.soft["marrow_texture"]) * painter.noise(at.body_mm, 1.1)
    fluid: float | RealArray = 0.0
    if from_disc is not None:
        above = (at.above_mm > 0).astype(np.intp)
        reach = np.clip(1.3 - from_disc / body.discs["modic_depth"][at.disc, above], 0.0, 1.0)
        fat = fat + reach * body.discs["modic_fat"][at.disc, above]
        fluid = reach * body.discs["modic_fluid"][at.disc, above]
        place, left, back, radius, more_fat = body.haemangioma
        if radius > 0:
            along = (at.position - place) * 34.0
            away = np.sqrt(along**2 + (at.left_mm - left) ** 2 + (at.back_mm - back) ** 2)
            fat = fat + more_fat * painter.occupancy(away - radius)
    fat = np.clip(fat, 0.03, 0.97)
    marrow = fat * signals["fat"] + (1 - fat) * signals["marrow_water"]
    return 0.9 * (marrow + fluid * (signals["bowel"] - marrow))


def body_outline(painter: Painter, at: SpineCoordinates, grow: RealArray) -> RealArray:
    """Signed distance (mm) from the side wall of bodies and discs: rounded in front, flat behind.

    Osteophytes ``grow`` (mm) mostly in front and to the sides.
    """
    half_depth = painter.profile("half_depth", at) + grow
    half_width = painter.profile("half_width", at) + 0.7 * grow
    back_wall = painter.profile("back_wall", at) + 0.15 * grow
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
    half = disc_half_height(painter, at, at.back_mm / painter.profile("back_wall", at))
    from_disc = half - np.abs(at.above_mm)
    spur = painter.body.discs["osteophyte"][at.disc] * np.exp(-((from_disc / 4.5) ** 2))
    outline = body_outline(painter, at, spur)
    painter.paint(outline, painter.signals["cortex"], where)
    inner = rounded_both(outline, from_disc, 2.5) + CORTEX_MM
    inside = painter.touched(inner)
    _paint_marrow(painter, at.take(inside), where.take(inside), inner.take(inside), -from_disc.take(inside))
    slab = np.abs(at.above_mm) - half
    inside = painter.touched(slab)
    _paint_discs(painter, at.take(inside), where.take(inside), outline.take(inside), slab.take(inside))


def _paint_marrow(
    painter: Painter,
    at: SpineCoordinates,
    where: NDArray[np.intp],
    inner: RealArray,
    from_disc: RealArray,
) -> None:
    painter.paint(inner, marrow_signal(painter, at, from_disc), where)
    # The vein that leaves each body in the middle of its back wall.
    behind = at.back_mm - painter.profile("back_wall", at)
    across = ((at.position % 1.0) - 0.5) * 34.0
    vein = tunnel(behind, across, 6.0, 1.6, at.left_mm, 6.0)
    lumbar = at.position < LUMBOSACRAL
    painter.paint(np.maximum(vein, inner), painter.signals["bowel"], where, opacity=0.6 * lumbar)


def _paint_discs(
    painter: Painter,
    at: SpineCoordinates,
    where: NDArray[np.intp],
    outline: RealArray,
    slab: RealArray,
) -> None:
    discs, signals = painter.body.discs, painter.signals
    # Behind, the bulge is part of the graded stenosis; in front and to the sides it is free.
    bulge = discs["bulge"][at.disc] * np.where(at.back_mm < 0, np.float32(1.6), np.float32(0.7))
    painter.paint(rounded_both(outline - bulge, slab + 0.2, 1.5), signals["annulus"], where)
    worn = discs["worn"][at.disc]
    nucleus = signals["nucleus"] * (1 - worn) + signals["nucleus_worn"] * worn
    nucleus = nucleus + (signals["annulus"] - nucleus) * np.clip(worn - 0.5, 0, 0.5)
    nucleus = nucleus * (1 + 0.06 * painter.noise(at.body_mm, 1.3))
    depth = painter.profile("half_depth", at)
    cleft = discs["vacuum"][at.disc] * (np.abs(at.above_mm) < 0.9)
    nucleus = nucleus * (1 - 0.9 * cleft)
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
    outline = ellipse(at.left_mm, at.back_mm - 3.0, half_width, thick)
    wing = rounded_both(outline, 10.0 - 34.0 * (down - 0.12), 6.0)
    wing = np.maximum(wing, box(at.position - (LUMBOSACRAL + 2.3), 2.3) * 25.0)
    painter.paint(wing, painter.signals["cortex"], where)
    painter.paint(wing + CORTEX_MM, lambda inside: marrow_signal(painter, at.take(inside)), where)
