"""Sagittal T2 slices with a label for every pixel, from which the network of tissues learns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from classifier.measure.planar import PlanarSlice
from classifier.measure.tissues import RealArray
from classifier.measure.training import inside_of
from data_prep.geometry import FloatArray
from data_prep.phantom.study import PhantomStudy, make_study
from data_prep.vocabulary import LEVELS, SeriesKind

SPIDER_SPACING_MM = 0.47
# A slice beside those with points borrows the points of the nearest of them.
_REACH_SLICES = 4
_LABEL_MM, _AROUND_MM = 0.42, 55.0


@dataclass(frozen=True, eq=False)
class Labelled:
    """A slice.

    Attributes:
        patient: whose.
        pixels: (rows, columns).
        mask: ``finer`` times as many rows and columns: 0 other, 1 disc, 2 vertebra, 3 sac.
        spacing_mm: of the pixels, (column distance, row distance).
        canal_mm, disc_mm: (levels, 2) in-plane points, head to foot.
        has_vertebrae: whether these are labelled.
    """

    patient: int
    pixels: RealArray
    mask: NDArray[np.uint8]
    finer: int
    spacing_mm: tuple[float, float]
    canal_mm: FloatArray
    disc_mm: FloatArray
    has_vertebrae: bool


def spider_slices(folder: Path, part: str = "train") -> Iterator[Labelled]:
    """Slices of SPIDER near the middle of each patient of a part of ``split.csv``."""
    split = pd.read_csv(folder / "split.csv")
    points = pd.read_csv(folder / "level_points.csv").dropna()
    points = points[points["level"].isin([level.label for level in LEVELS])]
    for patient in sorted(set(split[split["part"] == part]["patient"])):
        rows = points[points["patient"] == patient]
        known = {
            int(index): group.sort_values("disc_y")
            for index, group in rows.groupby("slice_index")
            if len(group) >= 4
        }
        for path in sorted((folder / "images").glob(f"{patient:03d}_*.png")) if known else ():
            number = int(path.stem.split("_")[1])
            nearest = min(known, key=lambda index: abs(index - number))
            image, mask = (
                cv2.imread(str(folder / what / path.name), cv2.IMREAD_GRAYSCALE)
                for what in ("images", "masks")
            )
            if abs(nearest - number) > _REACH_SLICES or image is None or mask is None:
                continue
            canal, disc = (
                known[nearest][[f"{what}_x", f"{what}_y"]].to_numpy() * SPIDER_SPACING_MM
                for what in ("canal", "disc")
            )
            spacing = (SPIDER_SPACING_MM, SPIDER_SPACING_MM)
            pixels = np.asarray(image, np.float32)
            yield Labelled(int(patient), pixels, np.asarray(mask, np.uint8), 1, spacing, canal, disc, True)


def phantom_slices(seeds: Iterable[int]) -> Iterator[Labelled]:
    """Synthetic patients; of four, one has fine pixels, and one signals drawn at random."""
    for number, seed in enumerate(seeds):
        phantom = make_study(
            seed,
            size="full" if number % 4 == 2 else "small",
            appearance="randomised" if number % 4 == 3 else "physics",
        )
        series = phantom.study.of_kind(SeriesKind.SAGITTAL_T2)
        if series:
            middle = {disc.name: disc for disc in phantom.discs}[LEVELS[2].label].canal_mm
            yield _labelled(phantom, PlanarSlice.of(series[0].nearest(middle)[0]), seed)


def _labelled(phantom: PhantomStudy, planar: PlanarSlice, seed: int) -> Labelled:
    by_name = {disc.name: disc for disc in phantom.discs}
    discs = [by_name[level.label] for level in LEVELS]
    canal, disc = (
        planar.to_mm2(np.stack([getattr(item, name) for item in discs])) for name in ("canal_mm", "disc_mm")
    )
    spacing, size = np.asarray(planar.spacing_mm), np.array(planar.pixels.shape[::-1])
    points = np.concatenate([canal, disc])
    first = np.clip(np.floor((points.min(axis=0) - _AROUND_MM) / spacing), 0, size - 1).astype(int)
    last = np.clip(np.ceil((points.max(axis=0) + _AROUND_MM) / spacing), 1, size).astype(int)
    pixels = planar.pixels[first[1] : last[1], first[0] : last[0]]
    finer = max(1, round(float(spacing[0]) / _LABEL_MM))
    y, x = np.mgrid[: pixels.shape[0] * finer, : pixels.shape[1] * finer]
    at = planar.to_patient(
        (((np.stack([x, y], axis=-1) + 0.5) / finer - 0.5 + first) * spacing).reshape(-1, 2)
    )
    mask = np.zeros(x.shape, np.uint8)
    for value, kind in ((1, "disc"), (3, "sac")):
        mask[inside_of(phantom.body, kind)(at).reshape(x.shape)] = value
    off = first * spacing
    return Labelled(
        seed, np.ascontiguousarray(pixels), mask, finer, planar.spacing_mm, canal - off, disc - off, False
    )
