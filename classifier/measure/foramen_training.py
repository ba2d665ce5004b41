"""Trains ``foramina.safetensors``: python -m classifier.measure.foramen_training -o FILE.

``foramina-2.safetensors`` is of other patients and draws: ``--seed 8000``.

From synthetic spines alone, whose fat and roots are known exactly. What narrows a synthetic foramen grows as
a ring around its root; in patients disc, joint and roof close in from their sides, and fat is lost from the
border inwards. So free foramina are narrowed in the picture: parts of their room are painted over with what
is dark beside it. The graph is written beside the weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from classifier.measure.fitting import fit, write
from classifier.measure.foramen_samples import Foramen, foramina_of, sampled, share_in
from classifier.measure.foramina import SHAPE
from classifier.measure.network import TissueNetwork, Widths
from classifier.measure.tissue_training import bending, other_light
from classifier.measure.tissues import PIXEL_MM, phases
from data_prep.geometry import FloatArray

WIDTHS: Widths = (16, 32, 64)
BATCH = 16
RealArray = NDArray[np.float32]


def drawn(item: Foramen, rng: np.random.Generator) -> tuple[RealArray, RealArray]:
    """A window as another scanner and another patient would show it, and the share of room in each pixel."""
    turn = np.deg2rad(rng.normal(0, 7))
    right = np.cos(turn) * item.right + np.sin(turn) * item.down
    down = np.cos(turn) * item.down - np.sin(turn) * item.right
    middle = item.middle_mm + right * rng.normal(0, 2.5) + down * rng.normal(0, 2.5)
    size = float(np.exp(rng.normal(0, 0.12)))
    stretch = size * np.exp(rng.normal(0, 0.08, 2))
    fine = (2 * SHAPE[0], 2 * SHAPE[1])
    bent = bending(rng, fine, (5, 4))
    rows, columns = ((np.arange(count) - (count - 1) / 2) * PIXEL_MM / 2 for count in fine)
    across, along = (columns[None] + bent[0]) * stretch[0], (rows[:, None] + bent[1]) * stretch[1]
    at_fine = middle + across[..., None] * right + along[..., None] * down
    at = at_fine.reshape(SHAPE[0], 2, SHAPE[1], 2, 2).mean(axis=(1, 3))
    window = sampled(_as_coarse(item, size, rng), item, at, 1, cv2.BORDER_REPLICATE)
    share = share_in(item, at_fine)
    if rng.random() < 0.4:
        window = _recoloured(window, share, rng)
    if item.is_free and (share > 0.5).sum() >= 30:
        if rng.random() < 0.4:
            window = _with_roots(window, share, rng)
        if rng.random() < 0.65:
            window, share = _narrowed(window, share, rng)
    return other_light(window, rng), share


def _as_coarse(item: Foramen, size: float, rng: np.random.Generator) -> RealArray:
    """The picture as coarse as others are stored, and as smooth as a window wants it."""
    pixels, finest = item.pixels, float(item.spacing_mm.min())
    factor = rng.uniform(0.8, 1.3) / finest
    if rng.random() < 0.4 and factor > 1.1:
        rows, columns = pixels.shape
        fewer = max(8, round(columns / factor)), max(8, round(rows / factor))
        coarse = cv2.resize(pixels, fewer, interpolation=cv2.INTER_AREA)
        pixels = np.asarray(cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)
    sigma = max(0.35 * PIXEL_MM * size / finest - 0.2, 0.0)
    if rng.random() < 0.4:
        sigma = float(np.hypot(sigma, rng.uniform(0, 0.8) * PIXEL_MM / finest))
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.float32) if sigma > 0.15 else pixels


def _recoloured(window: RealArray, share: RealArray, rng: np.random.Generator) -> RealArray:
    low, high = np.percentile(window, (1, 99))
    for part, spread in ((share, 0.25), (1 - share, 0.2)):
        mean = (part * window).sum() / (part.sum() + 1e-6)
        gain, shift = np.exp(rng.normal(0, spread)) - 1, rng.normal(0, 0.12) * max(high - low, 1e-6)
        window = window + part * (gain * (window - mean) + shift)
    return window.astype(np.float32)


def _with_roots(window: RealArray, share: RealArray, rng: np.random.Generator) -> RealArray:
    """Dark roots and vessels anywhere in the room, mostly under its roof: they are a part of it."""
    inside, beside = _inside_and_beside(share)
    rows = np.flatnonzero(inside.any(axis=1))
    for _ in range(int(rng.integers(1, 3))):
        row = int(rows[0] + (rows[-1] - rows[0]) * np.clip(rng.normal(0.25, 0.2), 0, 0.9))
        columns = np.flatnonzero(inside[row])
        if len(columns):
            at = float(row), rng.uniform(columns[0], columns[-1])
            spot = cv2.GaussianBlur(
                _ellipse(share.shape, at, rng.uniform(1, 3.4, 2)).astype(np.float32), (0, 0), 0.7
            )
            spot = spot * share
            window = window * (1 - spot) + spot * np.quantile(window[beside], rng.uniform(0.1, 0.6))
    return window.astype(np.float32)


def _narrowed(window: RealArray, share: RealArray, rng: np.random.Generator) -> tuple[RealArray, RealArray]:
    """Disc from the front, joint from the back, roof and floor close in; what they take is no room."""
    inside, beside = _inside_and_beside(share)
    rows = np.flatnonzero(inside.any(axis=1))
    taken = np.zeros(share.shape, bool)
    middle = (share.shape[0] - 1) / 2
    for chance, last, low, spread in ((0.75, 0, 5.0, 3.0), (0.75, -1, 1.0, 4.0)):
        if rng.random() < chance:
            row = float(np.clip(middle + rng.normal(low, spread) / PIXEL_MM, rows[0], rows[-1]))
            columns = np.flatnonzero(inside[int(row)])
            edge = float(columns[last]) if len(columns) else (share.shape[1] - 1) / 2
            at = row, edge + rng.uniform(0, 2) * (-1 if last == 0 else 1)
            taken |= _ellipse(share.shape, at, np.array([rng.uniform(3, 10.5), rng.uniform(1.5, 8.5)]))
    y, x = np.mgrid[: share.shape[0], : share.shape[1]]
    tilt = rng.normal(0, 0.18, 2)[:, None, None] * (x - (share.shape[1] - 1) / 2)
    if rng.random() < 0.35:
        taken |= y < rows[0] + rng.uniform(0, 7) / PIXEL_MM + tilt[0]
    if rng.random() < 0.25:
        taken |= y > rows[-1] - rng.uniform(0, 6) / PIXEL_MM + tilt[1]
    cover = cv2.GaussianBlur(taken.astype(np.float32), (0, 0), rng.uniform(0.4, 0.9))
    grain = cv2.GaussianBlur(rng.normal(0, 1, share.shape).astype(np.float32), (0, 0), rng.uniform(0.6, 1.5))
    low_grey, high_grey = np.quantile(window, (0.05, 0.95))
    grain *= rng.uniform(0, 0.12) * (high_grey - low_grey) / (grain.std() + 1e-6)
    dark = np.quantile(window[beside], rng.uniform(0.05, 0.55)) + grain
    painted = cover * cv2.dilate((share > 0.02).astype(np.uint8), np.ones((3, 3), np.uint8))
    return (window * (1 - painted) + dark * painted).astype(np.float32), (share * (1 - cover)).astype(
        np.float32
    )


def _inside_and_beside(share: RealArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    inside = share > 0.5
    return inside, (cv2.dilate(inside.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0) & ~inside


def _ellipse(shape: tuple[int, ...], at: tuple[float, float], radii_mm: FloatArray) -> NDArray[np.bool_]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    high, wide = radii_mm / PIXEL_MM
    return np.asarray(((y - at[0]) / high) ** 2 + ((x - at[1]) / wide) ** 2 < 1)


def loss_of(scores: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy with shares, overlap, and the length of the room down each column and along each row.

    Args:
        scores, shares: (B, 1, H, W).
    """
    entropy = functional.binary_cross_entropy_with_logits(scores, shares, reduction="none")
    edge = 1 + 2 * ((shares > 0.02) & (shares < 0.98)).float()
    found = torch.sigmoid(scores)
    both, each = (found * shares).sum((2, 3)), (found + shares).sum((2, 3))
    off = (found - shares) * PIXEL_MM
    wide = functional.avg_pool2d(off.sum(3, keepdim=True), (4, 1), stride=(2, 1))
    high = functional.avg_pool2d(off.sum(2, keepdim=True), (1, 4), stride=(1, 2))
    lengths = 0.08 * torch.sqrt(wide**2 + 0.04).mean() + 0.04 * torch.sqrt(high**2 + 0.04).mean()
    return 3 * (entropy * edge).mean() + 0.5 * (1 - (2 * both + 10) / (each + 10)).mean() + lengths


def train(foramina: Sequence[Foramen], *, steps: int, seed: int, widths: Widths = WIDTHS) -> TissueNetwork:
    """The mean of the last networks, with normalisation; ``folded`` makes it one to be used.

    Raises:
        FloatingPointError: the loss is no number.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)

    def loss(network: TissueNetwork) -> Tensor:
        samples = [drawn(foramina[int(rng.integers(len(foramina)))], rng) for _ in range(BATCH)]
        images = torch.from_numpy(np.stack([phases(window) for window, _ in samples]))
        return loss_of(network(images), torch.from_numpy(np.stack([share[None] for _, share in samples])))

    return fit(TissueNetwork(is_trained=True, tissues=1, widths=widths), loss, steps=steps)


def main() -> None:
    """Gather foramina, train, write two files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phantoms", type=int, default=280)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=7000)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    foramina = list(foramina_of(range(given.seed, given.seed + given.phantoms)))
    write(train(foramina, steps=given.steps, seed=given.seed).folded(), given.output)


if __name__ == "__main__":
    main()
