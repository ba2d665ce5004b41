"""What is graded: the thecal sac, the lateral recesses and the neural foramina."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data_prep.phantom.body import FORAMEN_SIDE_MM, RECESS_BACK_MM, RECESS_SIDE_MM
from data_prep.phantom.painter import Painter, RealArray, ellipse, tunnel
from data_prep.phantom.posture import FIRST_LUMBAR, LUMBOSACRAL
from data_prep.phantom.spine import SpineCoordinates

ROOTLET_RADIUS_MM = 0.7


def paint_canal(painter: Painter) -> None:
    """Paint foramina, epidural fat, recesses and the sac with cord and roots."""
    at = painter.at
    behind = painter.behind_mm
    where = np.flatnonzero((np.abs(at.left_mm) < 30) & (np.abs(behind) < 16))
    if not len(where):
        return
    at, behind = at.take(where), behind.take(where)
    _paint_foramina(painter, at, where, behind)
    _paint_epidural(painter, at, where, behind)
    _paint_recesses(painter, at, where, behind)
    _paint_sac(painter, at, where, behind)


def _paint_foramina(
    painter: Painter, at: SpineCoordinates, where: NDArray[np.intp], behind: RealArray
) -> None:
    scale = painter.body.spine.stature
    near = np.flatnonzero(
        (np.abs(at.left_mm) > 8) & (at.position < LUMBOSACRAL + 0.4) & (np.abs(at.above_mm) < 20)
    )
    if not len(near):
        return
    at, where = at.take(near), where.take(near)
    side = (at.left_mm > 0).astype(np.intp)
    half_back, half_up, middle, back, root, normal_up = painter.body.foramen[side, at.disc].T
    u, v, w = np.abs(at.left_mm), behind.take(near) - back, at.above_mm
    out, length = u - 19.0 * scale, 9.5 * scale
    signals = painter.signals
    # What fills a narrowed foramen is dark and grows out of disc and facet: bulge, capsule, osteophyte.
    narrowed = np.clip((4.4 * scale - half_back) / (1.2 * scale), 0.0, 1.0)
    reach = 1.5 * scale * narrowed
    free = tunnel(v, w - 4.5 * scale, 4.6 * scale + reach, normal_up + 0.4, out, length)
    fat = signals["fat"] * (0.95 + 0.06 * painter.noise(at.body_mm, 1.0))
    painter.paint(free, fat + narrowed * (signals["ligament"] - fat), where)
    open_fat = tunnel(v, w - middle, half_back, half_up, out, length)
    painter.paint(open_fat, fat, where)
    # The root leaves downwards and forwards as it goes out; it is flattened where there is no room.
    out = u - FORAMEN_SIDE_MM * scale
    deep = np.minimum(root, np.maximum(half_back - 0.2, 0.8))
    high = np.minimum(root, np.maximum(half_up - 0.5, 1.2))
    sink = w - 7.2 * scale + 0.35 * out
    exit_root = tunnel(v + 0.15 * out, sink, deep, high, out - 2.5, length)
    painter.paint(exit_root, signals["root"], where)


def _paint_epidural(
    painter: Painter, at: SpineCoordinates, where: NDArray[np.intp], behind: RealArray
) -> None:
    signals = painter.signals
    depth, width = painter.profile("sac_depth_normal", at), painter.profile("sac_width_normal", at)
    back_wall = painter.profile("back_wall", at) - painter.profile("sac_centre", at)
    room = ellipse(at.left_mm, behind, width + 2.2, depth + 1.2)
    fat = 0.75 * signals["fat"] + 0.25 * signals["ligament"]
    painter.paint(room, fat, where)
    # In front of the sac at L5/S1 and in the sacrum lies fat.
    low = np.flatnonzero(at.position > LUMBOSACRAL - 0.45)
    if len(low):
        gap = np.maximum(behind[low], back_wall[low] + 0.6 - behind[low])
        gap = np.maximum(gap, np.abs(at.left_mm[low]) - width[low] - 1.0)
        painter.paint(gap, signals["fat"], where[low])
    behind_sac = ellipse(at.left_mm, behind - depth - 2.6, 4.2, 3.2)
    behind_sac = np.maximum(behind_sac, np.abs(at.above_mm) - 10.0)
    painter.paint(behind_sac, signals["fat"], where)
    # Disc, flavum and facets close in as the sac is squeezed.
    squeeze = painter.profile("squeeze", at)
    tight = np.flatnonzero(squeeze > 0.02)
    if len(tight):
        tube = ellipse(at.left_mm[tight], behind[tight], width[tight] + 0.5, depth[tight] + 1.2)
        painter.paint(tube, signals["ligament"], where[tight], np.clip(squeeze[tight] * 1.2, 0, 1))


def _paint_recesses(
    painter: Painter, at: SpineCoordinates, where: NDArray[np.intp], behind: RealArray
) -> None:
    scale, signals = painter.body.spine.stature, painter.signals
    lumbar = (at.disc >= FIRST_LUMBAR) & (at.disc <= LUMBOSACRAL)
    near = np.flatnonzero(lumbar & (np.abs(at.above_mm + 1.0) < 8.5) & (np.abs(at.left_mm) > 3))
    if not len(near):
        return
    side = (at.left_mm[near] > 0).astype(np.intp)
    half_back, half_left, root, lost = painter.body.recess[side, at.disc[near]].T
    u = np.abs(at.left_mm[near]) - (RECESS_SIDE_MM + 0.9) * scale
    v = behind[near] - RECESS_BACK_MM * scale
    along = at.above_mm[near] + 1.0
    # On T2 the open recess is bright: fat and the fluid in the root's sleeve. What narrows it is dark.
    bright = 0.6 * signals["fat"] + 0.4 * signals["csf"]
    narrowed = np.clip(lost / 0.24, 0.0, 1.0)
    reach = 0.7 * scale * narrowed
    wall = tunnel(u, v, 3.6 * scale + reach, 4.0 * scale + reach, along, 8.5)
    painter.paint(wall, bright + narrowed * (signals["ligament"] - bright), where[near])
    bright = bright + lost * (signals["ligament"] - bright)
    painter.paint(tunnel(u, v, half_left, half_back, along, 8.0), bright, where[near])
    deep = np.minimum(root, np.maximum(half_back - 0.3, 0.5))
    painter.paint(tunnel(u, v, root, deep, along, 8.0), signals["root"], where[near])


def _paint_sac(painter: Painter, at: SpineCoordinates, where: NDArray[np.intp], behind: RealArray) -> None:
    signals = painter.signals
    depth, width = painter.profile("sac_depth", at), painter.profile("sac_width", at)
    inside = np.flatnonzero((np.abs(at.left_mm) < width + 2) & (np.abs(behind) < depth + 2))
    if not len(inside):
        return
    at, behind, where = at.take(inside), behind.take(inside), where.take(inside)
    depth, width = depth.take(inside), width.take(inside)
    sac = ellipse(at.left_mm, behind, width, depth)
    painter.paint(sac - 0.5, signals["ligament"], where)
    # Roots closer together leave less fluid between them; beyond the second boundary there is none.
    crowd = np.clip((painter.profile("squeeze", at) - 0.9) / 2.3, 0.0, 1.0) * 0.9
    painter.paint(sac, signals["csf"] + crowd * (signals["root"] - signals["csf"]), where)
    cord = painter.profile("cord", at)
    a, b = at.left_mm, behind - 0.12 * depth
    _paint_rootlets(painter, at, where, behind, depth, width)
    painter.paint(ellipse(a, b, 4.6 * cord + 0.05, 3.6 * cord + 0.05), signals["cord"], where)


def _paint_rootlets(
    painter: Painter,
    at: SpineCoordinates,
    where: NDArray[np.intp],
    behind: RealArray,
    depth: RealArray,
    width: RealArray,
) -> None:
    # Roots start at the conus and leave level by level.
    below_conus = np.flatnonzero(painter.profile("cord", at) < 0.6)
    if not len(below_conus):
        return
    at, where, behind = at.take(below_conus), where.take(below_conus), behind.take(below_conus)
    depth, width = depth.take(below_conus), width.take(below_conus)
    roots = painter.body.roots
    left = np.clip(np.round(len(roots) * (1.0 - (at.position - FIRST_LUMBAR - 1.0) * 0.16)), 5, len(roots))
    a, b = at.left_mm - roots[:, :1] * width, behind - roots[:, 1:] * depth
    present = np.arange(len(roots))[:, None] < left
    near = np.flatnonzero(present & (np.abs(a) < 1.6) & (np.abs(b) < 1.6))
    a, b = a.take(near), b.take(near)
    distance = np.sqrt(a * a + b * b) - ROOTLET_RADIUS_MM
    root, point = np.divmod(near, len(where))
    first = np.searchsorted(root, np.arange(len(roots) + 1))
    for start, end in pairwise(first):
        painter.paint(distance[start:end], painter.signals["root"], where.take(point[start:end]))
