"""Trains ``tissues-2.safetensors``: python -m classifier.measure.tissue_training --spider FOLDER -o FILE.

Sources: SPIDER slices with masks (CC BY 4.0), without the patients that its ``split.csv`` keeps for reports,
and synthetic spines, whose borders are known exactly but for the vertebrae. Some patients (``--apart``) are
left out at first, and the network of that time is written as ``FILE-apart``: what is chosen is chosen on
them (``python -m benchmarks.measurements --part apart``). The graph is written beside the weights.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from classifier.measure.fitting import fit, write
from classifier.measure.network import TissueNetwork
from classifier.measure.strips import stretched
from classifier.measure.tissue_samples import Labelled, phantom_slices, spider_slices
from classifier.measure.tissues import BRIGHTEST, PIXEL_MM, TISSUES, RealArray, phases, upright_axes

WINDOW: tuple[int, int] = (192, 112)
BATCH, REAL_SHARE = 8, 0.62
# Largest standard deviation of the points by which a window is bent, and how often tissues are recoloured.
BENT_MM, RECOLOURED_SHARE = 2.0, 0.4
# Every fourth of the patients of SPIDER that may be learned from.
APART: tuple[int, ...] = (35, 61, 110, 161, 220)
_SAC, _VERTEBRA, _DISC = (TISSUES.index(name) for name in ("sac", "vertebra", "disc"))
# Rows that a disc takes at most, over which its height is summed.
_DISC_ROWS = 25


def drawn(item: Labelled, rng: np.random.Generator) -> tuple[RealArray, RealArray, RealArray]:
    """A window of a slice as another scanner shows it, shares of the tissues, what is inside the image."""
    right, down = upright_axes(item.canal_mm, item.disc_mm)
    angle = np.deg2rad(rng.normal(0, 5))
    columns = np.cos(angle) * right + np.sin(angle) * down
    rows = np.cos(angle) * down - np.sin(angle) * right
    middle = (item.canal_mm + item.disc_mm) / 2
    place = float(np.clip(rng.uniform(-0.1, 1.1), 0, 1)) * (len(middle) - 1)
    at = [np.interp(place, np.arange(len(middle)), middle[:, axis]) for axis in range(2)]
    centre = np.array(at) + right * rng.normal(0, 5) + down * rng.normal(0, 3)
    size = np.exp(rng.normal(0, 0.1))
    stretch = size * np.exp(rng.normal(0, (0.09, 0.06)))
    spacing = np.asarray(item.spacing_mm)

    fine = (2 * WINDOW[0], 2 * WINDOW[1])
    bent = bending(rng, fine, (9, 6))
    steps = [(np.arange(count) - (count - 1) / 2) * PIXEL_MM / 2 for count in fine]
    across, along = (steps[1][None] + bent[0]) * stretch[0], (steps[0][:, None] + bent[1]) * stretch[1]
    at_fine = centre + across[..., None] * columns + along[..., None] * rows
    at = at_fine.reshape(WINDOW[0], 2, WINDOW[1], 2, 2).mean(axis=(1, 3))

    def read(
        values: NDArray[np.float32] | NDArray[np.uint8], at_mm: NDArray[np.float64], finer: int, how: int,
        edge: int = cv2.BORDER_CONSTANT,
    ) -> NDArray[np.float32]:  # fmt: skip
        places = (at_mm / spacing * finer + (finer - 1) / 2).astype(np.float32)
        found = cv2.remap(values, places[..., 0], places[..., 1], how, borderMode=edge)
        return np.asarray(found, np.float32)

    sigma = max(0.35 * PIXEL_MM * size / spacing.min() - 0.2, 0.0)
    if rng.random() < 0.5:
        sigma = float(np.hypot(sigma, rng.uniform(0, 1.0) * PIXEL_MM / spacing.min()))
    image = cv2.GaussianBlur(item.pixels, (0, 0), sigma) if sigma > 0.15 else item.pixels
    window = read(np.asarray(image, np.float32), at, 1, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    inside = read(np.ones_like(item.pixels), at, 1, cv2.INTER_LINEAR)
    masks = cv2.merge([np.where(item.mask == value, 255, 0).astype(np.uint8) for value in (1, 2, 3)])
    found = read(np.asarray(masks, np.uint8), at_fine, item.finer, cv2.INTER_LINEAR)
    parts = found.reshape(WINDOW[0], 2, WINDOW[1], 2, len(TISSUES)).mean(axis=(1, 3)) / 255
    shares = np.ascontiguousarray(parts.transpose(2, 0, 1))
    if rng.random() < RECOLOURED_SHARE:
        window = recoloured(window, shares, rng)
    return other_light(window, rng), shares, (inside > 0.5).astype(np.float32)


def bending(rng: np.random.Generator, shape: tuple[int, int], points: tuple[int, int]) -> NDArray[np.float64]:
    """(2, rows, columns) millimetres to the right and down, smooth between so many points."""
    coarse = rng.normal(0, rng.uniform(0, BENT_MM), (2, *points)).astype(np.float32)
    found = [cv2.resize(part, shape[::-1], interpolation=cv2.INTER_CUBIC) for part in coarse]
    return np.stack(found).astype(np.float64)


def recoloured(window: RealArray, shares: RealArray, rng: np.random.Generator) -> RealArray:
    """Every tissue as bright and as rich in contrast as it might be in another patient."""
    low, high = np.percentile(window, (1, 99))
    parts = np.concatenate([shares, np.maximum(1 - shares.sum(axis=0), 0)[None]])
    gains = np.exp(rng.normal(0, 0.25, len(parts))).astype(np.float32)
    means = (parts * window).sum(axis=(1, 2)) / (parts.sum(axis=(1, 2)) + 1e-6)
    shifts = rng.normal(0, 0.15, len(parts)) * max(high - low, 1e-6)
    off = [
        share * (mean + shift + gain * (window - mean))
        for share, mean, shift, gain in zip(parts, means, shifts, gains, strict=True)
    ]
    return np.asarray(np.sum(off, axis=0), np.float32)


def other_light(window: RealArray, rng: np.random.Generator) -> RealArray:
    """Gamma, slopes of brightness, clipping, noise, stripes."""
    low, high = np.percentile(window, (1, 99))
    share = np.clip((window - low) / max(high - low, 1e-6), 0, 1.6) ** rng.uniform(0.55, 1.6)
    down, right = np.linspace(-1, 1, window.shape[0])[:, None], np.linspace(-1, 1, window.shape[1])[None]
    slope = rng.normal(0, 0.2) * down + rng.normal(0, 0.35) * right + rng.normal(0, 0.15) * down * down
    share = share * np.exp(slope)
    if rng.random() < 0.3:
        share = np.minimum(share, np.quantile(share, rng.uniform(0.75, 0.98)))
    if rng.random() < 0.5:
        noise = rng.normal(0, 1, share.shape).astype(np.float32)
        share = share + cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.3, 1.0)) * rng.uniform(0, 0.12)
    if rng.random() < 0.2:
        share = share * (1 + rng.uniform(0.02, 0.1) * np.sin(down * rng.uniform(10, 60) + rng.uniform(0, 6)))
    return stretched(share.astype(np.float32), most=BRIGHTEST)


def loss_of(scores: Tensor, shares: Tensor, inside: Tensor, has_vertebrae: Tensor) -> Tensor:
    """Cross-entropy with shares, overlap, and the thickness of the sac in a row and of the discs in a column.

    Args:
        scores, shares: (B, tissues, H, W); inside: (B, H, W); has_vertebrae: (B,) 1 where they are labelled.
    """
    weight = inside[:, None].expand_as(scores).clone()
    weight[:, _VERTEBRA] *= has_vertebrae[:, None, None]
    entropy = functional.binary_cross_entropy_with_logits(scores, shares, reduction="none")
    edge = 1 + 2 * ((shares > 0.02) & (shares < 0.98)).float()
    found = torch.sigmoid(scores)
    both = (found * shares * weight).sum((2, 3))
    each = ((found + shares) * weight).sum((2, 3))
    off = (found - shares) * weight
    sac = off[:, _SAC].sum(2) * PIXEL_MM
    disc = (
        functional.avg_pool2d(off[:, _DISC : _DISC + 1], (_DISC_ROWS, 1), stride=(4, 1))
        * _DISC_ROWS
        * PIXEL_MM
    )
    thickness = 0.06 * torch.sqrt(sac**2 + 0.04).mean() + 0.12 * torch.sqrt(disc**2 + 0.04).mean()
    overlap = 1 - (2 * both + 20) / (each + 20)
    return (entropy * weight * edge).sum() / weight.sum() + 0.3 * overlap.mean() + thickness


def train(
    real: Sequence[Labelled],
    made: Sequence[Labelled],
    *,
    steps: int,
    seed: int,
    start: TissueNetwork | None = None,
    rate: float = 1.0,
) -> TissueNetwork:
    """The mean of the last networks, with normalisation; ``folded`` makes it one to be used.

    Args:
        real, made: slices of patients and of synthetic spines.
        steps: of ``BATCH`` windows.
        seed: of weights and draws.
        start: go on from it, instead of from nothing.
        rate: by which the learning rate is multiplied.

    Raises:
        FloatingPointError: the loss is no number.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    counts = {item.patient: sum(other.patient == item.patient for other in real) for item in real}
    weights = np.array([counts[item.patient] ** -0.7 for item in real])

    def loss(network: TissueNetwork) -> Tensor:
        items = [
            real[int(rng.choice(len(real), p=weights / weights.sum()))]
            if rng.random() < REAL_SHARE or not made
            else made[int(rng.integers(len(made)))]
            for _ in range(BATCH)
        ]
        samples = [drawn(item, rng) for item in items]
        images = torch.from_numpy(np.stack([phases(window) for window, _, _ in samples]))
        shares, inside = (torch.from_numpy(np.stack([s[k] for s in samples])) for k in (1, 2))
        labelled = torch.tensor([float(item.has_vertebrae) for item in items])
        return loss_of(network(images), shares, inside, labelled)

    network = TissueNetwork(is_trained=True) if start is None else copy.deepcopy(start)
    return fit(network, loss, steps=steps, rate=rate)


def main() -> None:
    """Gather slices, train, write two files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spider", type=Path, required=True)
    parser.add_argument("--phantoms", type=int, default=80)
    parser.add_argument("--apart", type=int, nargs="*", default=APART, help="Patients left out at first.")
    parser.add_argument(
        "--steps", type=int, nargs=2, default=(2200, 800), help="Without these, and with all."
    )
    parser.add_argument("--seed", type=int, default=7000)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    real = list(spider_slices(given.spider))
    made = list(phantom_slices(range(given.seed, given.seed + given.phantoms)))
    others = [item for item in real if item.patient not in given.apart]
    first = train(others, made, steps=given.steps[0], seed=given.seed)
    write(first.folded(), given.output.with_stem(f"{given.output.stem}-apart"))
    last = train(real, made, steps=given.steps[1], seed=given.seed + 1, start=first, rate=0.3)
    write(last.folded(), given.output)


if __name__ == "__main__":
    main()
