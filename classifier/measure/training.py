"""Trains ``borders.safetensors``: python -m classifier.measure.training -o FILE.

The border of the sac on axial slices, from synthetic spines, whose borders are known exactly.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from classifier.measure.borders import DILATION, around
from classifier.measure.planar import PlanarSlice
from classifier.measure.strips import RADII_MM, Strip, round_strip
from data_prep.geometry import FloatArray
from data_prep.phantom.body import Body
from data_prep.phantom.painter import ellipse, warped
from data_prep.phantom.study import PhantomStudy, make_study
from data_prep.phantom.vertebrae import body_outline, disc_half_height
from data_prep.vocabulary import LEVELS, SeriesKind

_FINER = 4
_JITTER_MM = 1.5
# Patches of the filters, how many principal components (each with both signs), and how many of these with a
# threshold of one standard deviation, too; the places around a pixel that the regression sees.
_PATCH, _COMPONENTS, _THRESHOLDED = (5, 7), 7, 3
_NEAR = (5, 5)
_RIDGE, _STEPS = 0.03, 60
# Pixels that are enough for the covariance of the answers.
_COVARIANCE_PIXELS = 12_000

RealArray = NDArray[np.float32]
Inside = Callable[[FloatArray], NDArray[np.bool_]]
# Values (rows, columns), border (rows,) in mm, NaN: unknown.
Sample = tuple[RealArray, FloatArray]


class _Painted:
    """What the implicit functions of the phantom ask of a painter."""

    def __init__(self, body: Body) -> None:
        self.body = body

    def profile(self, name: str, at: Any) -> FloatArray:
        return np.asarray(self.body.profile[name], dtype=np.float64)[at.sample]


def inside_of(body: Body, kind: str) -> Inside:
    """Whether patient points (n, 3) lie in the ``sac`` or in a ``disc``, as images show them."""
    painted = _Painted(body)

    def inside(xyz_mm: FloatArray) -> NDArray[np.bool_]:
        at = body.spine.coordinates(warped(body, body.spine.to_body(xyz_mm).astype(np.float32).T))
        if kind == "sac":
            behind = at.back_mm - painted.profile("sac_centre", at)
            depth, width = painted.profile("sac_depth", at), painted.profile("sac_width", at)
            return np.asarray(ellipse(at.left_mm, behind, width, depth) < 0)
        half = disc_half_height(painted, at, at.back_mm / painted.profile("back_wall", at))  # type: ignore[arg-type]
        return np.asarray(
            (np.abs(at.above_mm) < half) & (body_outline(painted, at, np.float32(0)) < 0)  # type: ignore[arg-type]
        )

    return inside


def ends_of(strip: Strip, inside: Callable[[FloatArray], NDArray[np.bool_]]) -> FloatArray:
    """(rows,) where a structure around the middle of a round strip ends in each row, NaN where it is not.

    The strip is looked at four times as finely.
    """
    step = (strip.across_mm[1] - strip.across_mm[0]) / _FINER
    across = np.arange(strip.across_mm[0], strip.across_mm[-1] + step / 2, step)
    fine = Strip(strip.centres_mm, strip.across, across)
    at = fine.at_mm()
    found = inside(at.reshape(-1, 2)).reshape(at.shape[:2])
    ends = np.full(len(found), np.nan)
    for row, line in enumerate(found):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
        runs = edges.reshape(-1, 2)
        runs = runs[(runs[:, 1] - runs[:, 0]) * step > 1.0]
        if len(runs) and across[runs[0, 0]] <= 3.0 and runs[0, 1] < len(line):
            ends[row] = across[runs[0, 1] - 1] + step / 2
    return ends


def phantom_samples(phantom: PhantomStudy, rng: np.random.Generator) -> Iterator[Sample]:
    """Strips around the canal points of one synthetic patient."""
    canals_mm = {disc.name: disc.canal_mm for disc in phantom.discs}
    axial, inside = phantom.study.of_kind(SeriesKind.AXIAL_T2), inside_of(phantom.body, "sac")
    for level in LEVELS if axial else ():
        canal_mm = canals_mm[level.label]
        item, away = min((series.nearest(canal_mm) for series in axial), key=lambda pair: pair[1])
        if away < 4.0:
            yield _sample(PlanarSlice.of(item), canal_mm, inside, rng)


def _sample(planar: PlanarSlice, canal_mm: FloatArray, inside: Inside, rng: np.random.Generator) -> Sample:
    centre = planar.to_mm2(canal_mm) + rng.normal(0, _JITTER_MM * 0.7, 2)
    strip = round_strip(centre, *planar.displayed())
    truth = ends_of(strip, lambda xy_mm: inside(planar.to_patient(xy_mm)))
    return strip.read(planar.pixels, planar.spacing_mm), truth


def augmented(values: RealArray, rng: np.random.Generator) -> RealArray:
    """Another scanner: gamma, blur, noise, a slope of brightness."""
    low, high = values.min(), values.max()
    share = np.clip((values - low) / max(high - low, 1e-6), 0, 1) ** rng.uniform(0.6, 1.7)
    if rng.random() < 0.6:
        share = cv2.GaussianBlur(share, (0, 0), sigmaX=rng.uniform(0.3, 1.8), sigmaY=rng.uniform(0.3, 1.5))
    share = share * (1 + rng.uniform(-0.3, 0.3) * np.linspace(-1, 1, share.shape[0])[:, None])
    share = share + rng.normal(0, rng.uniform(0, 0.06), share.shape)
    low, high = np.percentile(share, (5, 95))
    return np.clip((share - low) / max(high - low, 1e-6), -1, 2).astype(np.float32)


def train(samples: list[Sample], *, rows: int, seed: int) -> dict[str, RealArray]:
    """The weights: filters from patches, softmax regression on their answers in some rows of a strip.

    The regression is fitted by gradient descent, preconditioned with the covariance of the answers, and
    stopped where rows that are kept apart fit best.
    """
    rng = np.random.default_rng(seed)
    mine = [(augmented(values, rng), truth) for values, truth in samples]
    filters, thresholds = _filters([values for values, _ in mine], rng)
    found, borders = [], []
    for values, truth in mine:
        known = np.flatnonzero(np.isfinite(truth))
        chosen = rng.choice(known, min(rows // len(mine) + 1, len(known)), replace=False)
        windows = around(values[None], filters.shape[2:], 1)
        answers = np.einsum("crsij,ocij->ors", windows, filters, optimize=True) + thresholds[:, None, None]
        near = around(np.maximum(answers, 0.0), _NEAR, DILATION)[:, chosen]
        found.append(near.transpose(1, 2, 0, 3, 4).reshape(len(chosen), len(RADII_MM), -1))
        borders.append(truth[chosen])
    x, y = np.concatenate(found).astype(np.float32), np.concatenate(borders)
    return {
        "sac.filter": filters,
        "sac.threshold": thresholds,
        "sac.regression": _regression(x, y, RADII_MM, rng)
        .reshape(1, len(filters), *_NEAR)
        .astype(np.float32),
        "sac.place": _places([truth for _, truth in mine]),
    }


def _places(borders: list[FloatArray]) -> RealArray:
    """(1, rows, 2) mean and spread of where borders are."""
    found = np.stack(borders)
    return np.stack([np.nanmean(found, axis=0), np.nanstd(found, axis=0)], axis=-1).astype(np.float32)[None]


def _filters(images: list[RealArray], rng: np.random.Generator) -> tuple[RealArray, RealArray]:
    """Both signs of the first principal components of patches, some of them with a threshold."""
    patches = []
    for values in images:
        windows = around(values[None], _PATCH, 1)[0]
        at = rng.integers(0, windows.shape[0], 60), rng.integers(0, windows.shape[1], 60)
        patches.append(windows[at].reshape(60, -1))
    all_patches = np.concatenate(patches)
    mean = all_patches.mean(axis=0)
    _, scale, axes = np.linalg.svd(all_patches - mean, full_matrices=False)
    scale = scale / np.sqrt(len(all_patches))
    chosen = [(i, 0.0) for i in range(_COMPONENTS)] + [(i, 1.0) for i in range(_THRESHOLDED)]
    signed = [(sign * axes[i] / scale[i], t) for i, t in chosen for sign in (1, -1)]
    filters = np.stack([axis for axis, _ in signed])
    thresholds = np.array([-axis @ mean - t for axis, t in signed])
    return filters.reshape(-1, 1, *_PATCH).astype(np.float32), thresholds.astype(np.float32)


def _regression(x: RealArray, truth: FloatArray, across: FloatArray, rng: np.random.Generator) -> RealArray:
    """(answers,) weights of one border; ``x`` is (rows, columns, answers), ``truth`` (rows,) millimetres."""
    sigma = float(across[1] - across[0])
    goal = np.exp(-0.5 * ((across - truth[:, None]) / sigma) ** 2)
    goal /= goal.sum(axis=1, keepdims=True)
    order = rng.permutation(len(x))
    apart, used = order[: len(x) // 6], order[len(x) // 6 :]
    flat = x[used].reshape(-1, x.shape[2])
    some = flat[rng.choice(len(flat), min(_COVARIANCE_PIXELS, len(flat)), replace=False)]
    mean = some.mean(axis=0)
    covariance = (some - mean).T @ (some - mean) / len(some)
    root = np.linalg.cholesky(covariance + np.eye(len(mean)) * covariance.trace() / len(mean) * _RIDGE)
    weights, best = np.zeros(x.shape[2], np.float32), (np.inf, np.zeros(x.shape[2], np.float32))
    for _ in range(_STEPS):
        score = x @ weights
        score -= score.max(axis=1, keepdims=True)
        share = np.exp(score)
        share /= share.sum(axis=1, keepdims=True)
        entropy = float(-(goal[apart] * np.log(share[apart] + 1e-9)).sum(axis=1).mean())
        if entropy < best[0]:
            best = entropy, weights.copy()
        off = (goal[used] - share[used]).reshape(-1) / len(used)
        gradient = flat.T @ off.astype(np.float32) - mean * off.sum()
        weights = weights + 0.7 * np.linalg.solve(root.T, np.linalg.solve(root, gradient)).astype(np.float32)
    return best[1]


def main() -> None:
    """Make the samples, train, write one file."""
    from safetensors.numpy import save_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phantoms", type=int, default=24)
    parser.add_argument("--seed", type=int, default=7000)
    parser.add_argument("--rows", type=int, default=1500, help="Rows of strips that each regression sees.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    samples: list[Sample] = []
    for number in range(given.phantoms):
        samples += phantom_samples(make_study(given.seed + number, appearance="physics"), rng)
    save_file(train(samples, rows=given.rows, seed=given.seed), str(given.output))


if __name__ == "__main__":
    main()
