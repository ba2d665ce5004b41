"""New pictures of real anatomy: a slice with its tissue map, deformed, and rendered in another contrast.

Label maps of a few real patients stand for many more when their shapes are bent and their tissues get
intensities at random (Billot et al., SynthSeg, Med Image Anal 2023;86:102789). Here the real texture stays:
every tissue has a tone curve of its own, so that what was brighter or darker within it still differs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from detector.learn.slices import LabelledSlice

FloatImage = NDArray[np.float32]

BACKGROUND, DISC, VERTEBRA, CANAL = range(4)
# Intensities within a tissue, darkest to brightest: its knots on the tone curve.
_KNOT_PERCENTILES = (1.0, 25.0, 50.0, 75.0, 99.0)
# T1-weighted brightness (low, high) at these knots, each drawn evenly: fluid dark, marrow and fat bright,
# what is dark on T2 in the background (muscle, vessel, cortex) dark to middle.
_T1_KNOTS: dict[int, tuple[tuple[float, float], ...]] = {
    BACKGROUND: ((0.0, 0.15), (0.15, 0.35), (0.25, 0.5), (0.5, 0.9), (0.75, 1.0)),
    DISC: ((0.2, 0.35), (0.25, 0.4), (0.28, 0.45), (0.28, 0.45), (0.28, 0.5)),
    VERTEBRA: ((0.1, 0.35), (0.4, 0.7), (0.45, 0.8), (0.5, 0.85), (0.6, 1.0)),
    CANAL: ((0.25, 0.5), (0.2, 0.4), (0.12, 0.3), (0.08, 0.22), (0.05, 0.2)),
}

# The sacrum leaves the line of the last two discs backwards by about so much (front of the body left).
_SACRUM_TURN_DEG = 25.0


@dataclass(frozen=True)
class SynthesisConfig:
    """How often and how far a slice with a tissue map is changed.

    Attributes:
        deform_share: share of slices whose shapes are bent.
        deform_sd_px: standard deviation of the displacement at the nodes of a grid of ``deform_step_px``.
        random_share: share of slices whose tissues get brightness at random.
        t1_share: share that is rendered like a T1 image.
        tissue_spread: how far the knots of one tissue stray from its mean brightness.
        mm_per_px: scale of the slices.
    """

    deform_share: float = 0.4
    deform_sd_px: float = 4.0
    deform_step_px: float = 56.0
    random_share: float = 0.25
    t1_share: float = 0.15
    tissue_spread: float = 0.2
    mm_per_px: float = 1.0


NO_SYNTHESIS = SynthesisConfig(deform_share=0.0, random_share=0.0, t1_share=0.0)


def synthesised(item: LabelledSlice, config: SynthesisConfig, rng: np.random.Generator) -> LabelledSlice:
    """One random variant of a slice; a slice without a tissue map keeps its contrast.

    Returns:
        A slice with the same objects: image uint8 of the same shape, keypoints moved with the anatomy.
    """
    if rng.random() < config.deform_share:
        item = deformed(item, config, rng)
    draw = rng.random()
    if item.labels is None or draw >= config.random_share + config.t1_share:
        return item
    knots = _t1_knots(rng) if draw < config.t1_share else _random_knots(config, rng)
    return replace(item, image=rerendered(item.image, _with_sacrum(item, config.mm_per_px), knots))


def deformed(item: LabelledSlice, config: SynthesisConfig, rng: np.random.Generator) -> LabelledSlice:
    """Bend a slice: image, tissue map and keypoints by one smooth displacement."""
    rows, columns = item.image.shape
    nodes = (int(rows / config.deform_step_px) + 3, int(columns / config.deform_step_px) + 3)
    coarse = rng.normal(0.0, config.deform_sd_px, (*nodes, 2)).astype(np.float32)
    shift = np.asarray(cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
    x, y = np.meshgrid(np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32))
    at = x + shift[..., 0], y + shift[..., 1]
    labels = item.labels
    if labels is not None:
        labels = cv2.remap(labels, *at, cv2.INTER_NEAREST).astype(np.uint8)
    return replace(
        item,
        image=cv2.remap(item.image, *at, cv2.INTER_LINEAR).astype(np.uint8),
        labels=labels,
        keypoints_px=_moved(item.keypoints_px, shift),
    )


def _moved(points: NDArray[np.float64], shift: FloatImage) -> NDArray[np.float64]:
    """Where points (..., 2) go when pixel p of the new image shows p + shift(p): solved by iteration."""
    rows, columns = shift.shape[:2]
    moved = points.copy()
    for _ in range(8):
        at = np.rint(np.nan_to_num(moved)).astype(int)
        column, row = np.clip(at[..., 0], 0, columns - 1), np.clip(at[..., 1], 0, rows - 1)
        moved = points - shift[row, column]
    return moved


def rerendered(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], knots: dict[int, NDArray[np.float64]]
) -> NDArray[np.uint8]:
    """The slice with a tone curve per tissue.

    Args:
        image: uint8 (rows, columns).
        labels: uint8 (rows, columns), values of ``BACKGROUND`` … ``CANAL``.
        knots: brightness 0–1 of each tissue at its 1st, 25th, 50th, 75th and 99th percentile.

    Returns:
        uint8 (rows, columns); what was black outside the body stays so.
    """
    flat = _without_shading(image)
    total = np.zeros(image.shape, dtype=np.float32)
    weight = np.full(image.shape, 1e-6, dtype=np.float32)
    for tissue, values in knots.items():
        mask = labels == tissue
        if not mask.any():
            continue
        places = np.maximum.accumulate(np.percentile(flat[mask], _KNOT_PERCENTILES))
        places += np.arange(len(places)) * 1e-4
        share = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)  # tissues pass into each other
        near = share > 0.01
        total[near] += share[near] * np.interp(flat[near], places, values).astype(np.float32)
        weight += share
    seen = cv2.GaussianBlur((image > 4).astype(np.float32), (0, 0), 2.0)
    return np.clip(255 * total / weight * np.minimum(2 * seen, 1.0), 0, 255).astype(np.uint8)


def _with_sacrum(item: LabelledSlice, mm_per_px: float) -> NDArray[np.uint8]:
    """The tissue map with S1 counted among the vertebrae.

    Maps that end at L5 would show where the lumbar spine ends by a change of brightness. What lies under the
    L5/S1 disc and is as bright as the vertebrae is taken for S1.
    """
    assert item.labels is not None
    discs = dict(zip(item.names, item.keypoints_px[:, 0], strict=True))
    low, above = discs.get("L5/S1"), discs.get("L4/L5")
    if low is None or above is None or not np.isfinite([low, above]).all():
        return item.labels
    direction = (low - above) / max(float(np.linalg.norm(low - above)), 1.0)
    turned = np.radians(_SACRUM_TURN_DEG)
    down = np.array([
        direction[0] * np.cos(turned) + direction[1] * np.sin(turned),
        direction[1] * np.cos(turned) - direction[0] * np.sin(turned),
    ])  # fmt: skip
    rows, columns = item.labels.shape
    x, y = np.meshgrid(np.arange(columns) - low[0], np.arange(rows) - low[1])
    along, across = x * down[0] + y * down[1], x * down[1] - y * down[0]
    near = (along > 4 / mm_per_px) & (along < 34 / mm_per_px) & (np.abs(across) < 17 / mm_per_px)
    flat = _without_shading(item.image)
    marrow = flat[item.labels == VERTEBRA]
    if not len(marrow):
        return item.labels
    darkest, brightest = np.percentile(marrow, (3.0, 97.0))
    labels = item.labels.copy()
    labels[near & (labels == BACKGROUND) & (flat > darkest) & (flat < brightest)] = VERTEBRA
    return labels


def _without_shading(image: NDArray[np.uint8]) -> FloatImage:
    """float32 (rows, columns): the image over its own wide blur, so that equal tissues are equally bright."""
    values = image.astype(np.float32)
    small = cv2.resize(values, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    wide = cv2.resize(cv2.GaussianBlur(small, (0, 0), 8.0), image.shape[::-1])
    return np.asarray(values / (wide + 20.0), dtype=np.float32)


def _t1_knots(rng: np.random.Generator) -> dict[int, NDArray[np.float64]]:
    return {
        tissue: np.array([rng.uniform(low, high) for low, high in ranges])
        for tissue, ranges in _T1_KNOTS.items()
    }


def _random_knots(config: SynthesisConfig, rng: np.random.Generator) -> dict[int, NDArray[np.float64]]:
    """Brightness at random: one mean per tissue of the spine; the background holds many tissues."""
    number = len(_KNOT_PERCENTILES)
    knots = {BACKGROUND: rng.uniform(0.02, 1.0, number)}
    for tissue in (DISC, VERTEBRA, CANAL):
        mean = rng.uniform(0.05, 0.95)
        knots[tissue] = np.clip(mean + rng.normal(0.0, config.tissue_spread, number), 0.0, 1.0)
    return knots
