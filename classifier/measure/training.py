"""Trains ``borders.safetensors``: python -m classifier.measure.training --spider FOLDER -o FILE.

Sources: synthetic spines, whose borders are known exactly, and SPIDER slices with masks (CC BY 4.0): the sac
and the discs. Nothing else; the patients that SPIDER's ``split.csv`` keeps for reports are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from classifier.measure.borders import DILATION, around
from classifier.measure.planar import PlanarSlice
from classifier.measure.sagittal import chain_directions
from classifier.measure.strips import (
    CANAL_ACROSS_MM,
    DISC_ACROSS_MM,
    RADII_MM,
    Strip,
    canal_strip,
    disc_strip,
    round_strip,
)
from data_prep.geometry import FloatArray
from data_prep.phantom.body import Body
from data_prep.phantom.painter import ellipse, tunnel
from data_prep.phantom.study import PhantomStudy, make_study
from data_prep.phantom.vertebrae import body_outline, disc_half_height
from data_prep.vocabulary import LEVELS, Condition, ConditionGroup, SeriesKind, Side

KINDS = {"canal": 2, "disc": 2, "sac": 1, "foramen": 1}
SPIDER_SPACING_MM = 0.47
_FINER = 4
_JITTER_MM = 1.5
# Patches of the filters, how many principal components (each with both signs), and how many of these with a
# threshold of one standard deviation, too; the places around a pixel that the regression sees.
_PATCH, _COMPONENTS, _THRESHOLDED = (5, 7), 7, 3
_NEAR = {"canal": (5, 9), "disc": (5, 9), "sac": (5, 5), "foramen": (5, 5)}
_RIDGE, _STEPS = 0.03, 60
# A narrow canal must not be pulled to the usual width.
_CANAL_FREEDOM = 3.0
# Pixels that are enough for the covariance of the answers.
_COVARIANCE_PIXELS = 12_000

RealArray = NDArray[np.float32]
Inside = Callable[[FloatArray], NDArray[np.bool_]]
Sample = tuple[
    str, RealArray, FloatArray
]  # kind, values (rows, columns), borders (k, rows) in mm, NaN: unknown


class _Painted:
    """What the implicit functions of the phantom ask of a painter."""

    def __init__(self, body: Body) -> None:
        self.body = body

    def profile(self, name: str, at: Any) -> FloatArray:
        return np.asarray(self.body.profile[name], dtype=np.float64)[at.sample]


def inside_of(body: Body, kind: str) -> Inside:
    """Whether patient points (n, 3) lie in the sac, in a disc or in the free foramen."""
    painted = _Painted(body)

    def inside(xyz_mm: FloatArray) -> NDArray[np.bool_]:
        at = body.spine.coordinates(body.spine.to_body(xyz_mm).astype(np.float32))
        behind = at.back_mm - painted.profile("sac_centre", at)
        if kind in ("canal", "sac"):
            depth, width = painted.profile("sac_depth", at), painted.profile("sac_width", at)
            return np.asarray(ellipse(at.left_mm, behind, width, depth) < 0)
        if kind == "disc":
            half = disc_half_height(painted, at, at.back_mm / painted.profile("back_wall", at))  # type: ignore[arg-type]
            return np.asarray(
                (np.abs(at.above_mm) < half) & (body_outline(painted, at, np.float32(0)) < 0)  # type: ignore[arg-type]
            )
        side = (at.left_mm > 0).astype(np.intp)
        half_back, half_up, middle, back, _, _ = body.foramen[side, at.disc].T
        out, scale = np.abs(at.left_mm) - 19.0 * body.spine.stature, body.spine.stature
        free = tunnel(behind - back, at.above_mm - middle, half_back, half_up, out, 9.5 * scale)
        return np.asarray(free < 0)

    return inside


def borders_of(strip: Strip, inside: Callable[[FloatArray], NDArray[np.bool_]], count: int) -> FloatArray:
    """(count, rows) where a structure begins and ends in each row, NaN where it is not.

    Args:
        strip: rows and columns; is looked at four times as finely.
        inside: whether in-plane points (n, 2) lie in the structure.
        count: 2: first and last of the run nearest to the line; 1: end of the run from the line outwards.
    """
    step = (strip.across_mm[1] - strip.across_mm[0]) / _FINER
    across = np.arange(strip.across_mm[0], strip.across_mm[-1] + step / 2, step)
    fine = Strip(strip.centres_mm, strip.across, across, strip.is_round)
    at = fine.at_mm()
    found = inside(at.reshape(-1, 2)).reshape(at.shape[:2])
    borders = np.full((count, len(found)), np.nan)
    for row, line in enumerate(found):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
        runs = edges.reshape(-1, 2)
        runs = runs[(runs[:, 1] - runs[:, 0]) * step > 1.0]
        if not len(runs):
            continue
        gaps = [max(across[a], -across[b - 1], 0.0) for a, b in runs]
        first, last = runs[int(np.argmin(gaps))]
        if min(gaps) > 3.0 or (first == 0 and count == 2) or last == len(line):
            continue
        both = np.array([across[first] - step / 2, across[last - 1] + step / 2])
        borders[:, row] = both if count == 2 else both[1:]
    return borders


def spider_samples(folder: Path, rng: np.random.Generator, *, part: str, every: int) -> Iterator[Sample]:
    """Strips along the canal and the discs of SPIDER slices."""
    split = pd.read_csv(folder / "split.csv")
    patients = set(split[split["part"] == part]["patient"])
    points = pd.read_csv(folder / "level_points.csv").dropna()
    for number, (name, rows) in enumerate(points[points["patient"].isin(patients)].groupby("file")):
        if number % every:
            continue
        image = cv2.imread(str(folder / "images" / str(name)), cv2.IMREAD_GRAYSCALE)
        mask = cv2.imread(str(folder / "masks" / str(name)), cv2.IMREAD_GRAYSCALE)
        rows = rows.sort_values("disc_y")
        rows = rows[rows["level"].isin([level.label for level in LEVELS])]
        if image is None or mask is None or len(rows) < 3:
            continue
        canal = rows[["canal_x", "canal_y"]].to_numpy() * SPIDER_SPACING_MM
        disc = rows[["disc_x", "disc_y"]].to_numpy() * SPIDER_SPACING_MM
        spacing = (SPIDER_SPACING_MM, SPIDER_SPACING_MM)
        yield from _sagittal_samples(
            image.astype(np.float32), spacing, canal, disc, rng, _mask_of(np.asarray(mask, np.uint8))
        )


def _mask_of(mask: NDArray[np.uint8]) -> Callable[[str], Callable[[FloatArray], NDArray[np.bool_]]]:
    values = {"canal": 3, "disc": 1}

    def of(kind: str) -> Callable[[FloatArray], NDArray[np.bool_]]:
        def inside(xy_mm: FloatArray) -> NDArray[np.bool_]:
            at = np.rint(xy_mm / SPIDER_SPACING_MM).astype(np.intp)
            rows, columns = np.clip(at[:, 1], 0, mask.shape[0] - 1), np.clip(at[:, 0], 0, mask.shape[1] - 1)
            return np.asarray(mask[rows, columns] == values[kind])

        return inside

    return of


def _sagittal_samples(
    pixels: RealArray,
    spacing: tuple[float, float],
    canal: FloatArray,
    disc: FloatArray,
    rng: np.random.Generator,
    inside_of_kind: Callable[[str], Callable[[FloatArray], NDArray[np.bool_]]],
) -> Iterator[Sample]:
    canal = canal + rng.normal(0, _JITTER_MM, canal.shape)
    disc = disc + rng.normal(0, _JITTER_MM, disc.shape)
    strip, _ = canal_strip(canal, disc)
    yield "canal", strip.read(pixels, spacing), borders_of(strip, inside_of_kind("canal"), 2)
    ups = chain_directions(disc)
    back = (canal - disc).mean(axis=0)
    for place in range(len(disc)):
        strip = disc_strip(disc[place], ups[place], back)
        yield "disc", strip.read(pixels, spacing), borders_of(strip, inside_of_kind("disc"), 2)


def phantom_samples(phantom: PhantomStudy, rng: np.random.Generator) -> Iterator[Sample]:
    """Strips of all four kinds of one synthetic patient."""
    by_name = {disc.name: disc for disc in phantom.discs}
    discs = [by_name[level.label] for level in LEVELS]
    study = phantom.study
    for series in study.of_kind(SeriesKind.SAGITTAL_T2)[:1]:
        item, _ = series.nearest(discs[2].canal_mm)
        planar = PlanarSlice.of(item)
        canal = planar.to_mm2(np.stack([d.canal_mm for d in discs]))
        disc = planar.to_mm2(np.stack([d.disc_mm for d in discs]))

        def of(kind: str, planar: PlanarSlice = planar) -> Callable[[FloatArray], NDArray[np.bool_]]:
            inside = inside_of(phantom.body, kind)
            return lambda xy_mm: inside(planar.to_patient(xy_mm))

        yield from _sagittal_samples(planar.pixels, planar.spacing_mm, canal, disc, rng, of)
    axial = study.of_kind(SeriesKind.AXIAL_T2)
    for disc_here in discs if axial else []:
        item, away = min((s.nearest(disc_here.canal_mm) for s in axial), key=lambda pair: pair[1])
        if away < 4.0:
            yield _round_sample("sac", item, disc_here.canal_mm, phantom.body, rng)
    points = {(p.condition, p.level): p for p in phantom.points}
    for series in study.of_kind(SeriesKind.SAGITTAL_T1)[:1]:
        for level in LEVELS:
            for side in Side:
                point = points.get((Condition.of(ConditionGroup.FORAMINAL, side), level))
                if point is not None:
                    item, _ = series.nearest(point.xyz_mm)
                    yield _round_sample("foramen", item, point.xyz_mm, phantom.body, rng)


def _round_sample(
    kind: str, item: object, xyz_mm: FloatArray, body: Body, rng: np.random.Generator
) -> Sample:
    planar = PlanarSlice.of(item)  # type: ignore[arg-type]
    centre = planar.to_mm2(xyz_mm) + rng.normal(0, _JITTER_MM * 0.7, 2)
    strip = round_strip(centre, *planar.displayed())
    inside = inside_of(body, kind)
    truth = borders_of(strip, lambda xy_mm: inside(planar.to_patient(xy_mm)), 1)
    return kind, strip.read(planar.pixels, planar.spacing_mm), truth


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


def train(samples: list[Sample], kind: str, *, rows: int, seed: int) -> dict[str, RealArray]:
    """Weights of one kind: filters from patches, softmax regression on their answers in some rows of a strip.

    The regression is fitted by gradient descent, preconditioned with the covariance of the answers, and
    stopped where rows that are kept apart fit best.
    """
    rng = np.random.default_rng(seed)
    mine = [(augmented(values, rng), truth) for name, values, truth in samples if name == kind]
    across, is_round = _across_of(kind), kind in ("sac", "foramen")
    filters, thresholds = _filters([values for values, _ in mine], rng, is_round=is_round)
    found, borders = [], []
    for values, truth in mine:
        known = np.flatnonzero(np.isfinite(truth).all(axis=0))
        chosen = rng.choice(known, min(rows // len(mine) + 1, len(known)), replace=False)
        windows = around(values[None], filters.shape[2:], 1, is_round=is_round)
        answers = np.einsum("crsij,ocij->ors", windows, filters, optimize=True) + thresholds[:, None, None]
        near = around(np.maximum(answers, 0.0), _NEAR[kind], DILATION, is_round=is_round)[:, chosen]
        found.append(near.transpose(1, 2, 0, 3, 4).reshape(len(chosen), len(across), -1))
        borders.append(truth[:, chosen].T)
    x, y = np.concatenate(found).astype(np.float32), np.concatenate(borders)
    regressions = [_regression(x, y[:, k], across, rng) for k in range(KINDS[kind])]
    shape = (KINDS[kind], len(filters), *_NEAR[kind])
    return {
        f"{kind}.filter": filters,
        f"{kind}.threshold": thresholds,
        f"{kind}.regression": np.stack(regressions).reshape(shape).astype(np.float32),
        f"{kind}.place": _places(
            [truth for _, truth in mine], _CANAL_FREEDOM if kind == "canal" else 1.0, is_round=is_round
        ),
    }


def _places(borders: list[FloatArray], freedom: float, *, is_round: bool) -> RealArray:
    """(borders, rows, 2) mean and spread of where borders are; one row where rows are alike."""
    found = np.stack(borders) if is_round else np.concatenate(borders, axis=1).T[..., None]
    places = np.stack([np.nanmean(found, axis=0), freedom * np.nanstd(found, axis=0)], axis=-1)
    return places.astype(np.float32)


def _filters(
    images: list[RealArray], rng: np.random.Generator, *, is_round: bool
) -> tuple[RealArray, RealArray]:
    """Both signs of the first principal components of patches, some of them with a threshold."""
    patches = []
    for values in images:
        windows = around(values[None], _PATCH, 1, is_round=is_round)[0]
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


def _across_of(kind: str) -> FloatArray:
    return {"canal": CANAL_ACROSS_MM, "disc": DISC_ACROSS_MM}.get(kind, RADII_MM)


def main() -> None:
    """Make the samples, train the four kinds, write one file."""
    from safetensors.numpy import save_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spider", type=Path, required=True)
    parser.add_argument("--phantoms", type=int, default=24)
    parser.add_argument("--seed", type=int, default=7000)
    parser.add_argument("--rows", type=int, default=1500, help="Rows of strips that each regression sees.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    samples = list(spider_samples(given.spider, rng, part="train", every=4))
    for number in range(given.phantoms):
        samples += phantom_samples(make_study(given.seed + number, appearance="physics"), rng)
    weights: dict[str, RealArray] = {}
    for kind in KINDS:
        weights |= train(samples, kind, rows=given.rows, seed=given.seed)
    save_file(weights, str(given.output))


if __name__ == "__main__":
    main()
