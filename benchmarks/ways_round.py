"""How often series of patients that lie right are said to lie another way round.

    python -m benchmarks.ways_round --studies FOLDER --series-table FILE --spider FOLDER --draws 20 [-o FILE]

Of every study, whole: axial and sagittal series with slices left out at random, the patient moved between
them (standard deviation 0 to 12 mm and half as many degrees), and other light, blur and noise. Of every
SPIDER patient (T2 SPACE, 20 mm wide): thick sagittal slices, seen as T1 and T2, and axial ones are made of
the volume, drawn likewise. Counts the draws and those that are flagged, by the movement. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from data_prep.geometry import FloatArray, SlicePlane
from data_prep.pixel_cache import PixelCache
from data_prep.problems import DicomRejected
from data_prep.read.find import find_all_studies
from data_prep.study import Series, Slice
from data_prep.vocabulary import SeriesKind
from detector.predict import LevelDetector
from detector.spine.in_plane import InPlaneConfig
from detector.spine.ways_round import CrossingConfig
from detector.spine.wrong_way import wrong_way_round
from pipeline.commands import console

MOVED_MM = (0.0, 3.0, 6.0, 12.0)
_SPIDER_MM, _SPIDER_GAP_MM = 0.47, 0.9
_ACROSS_MM, _AXIAL_MM = (0.5, 0.6), 4.0


@dataclass(frozen=True, eq=False)
class Compared:
    """Sagittal and axial series of one patient, and the canal points of the levels (n, 3)."""

    sagittal: list[Series]
    axial: Series
    canal_mm: FloatArray


def studies(folder: Path, table: Path | None, draws: int, rng: np.random.Generator) -> Iterator[Compared]:
    """Parts of whole studies."""
    detector = LevelDetector.load_bundled()
    for entry in find_all_studies([folder], series_table=table):
        try:
            study = PixelCache(entry.load()).study
        except DicomRejected:  # listed in the table alone
            continue
        levels = detector.predict(study).levels.values()
        canal_mm = np.stack([level.canal_mm for level in levels])
        sagittal = [study.of_kind(kind)[0] for kind in (SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2)]
        axial = study.of_kind(SeriesKind.AXIAL_T2)[0]
        for _ in range(draws):
            kept = [_thinned(item, rng) for item in sagittal if rng.random() < 0.75] or sagittal[1:]
            yield Compared(kept, _cut(axial, rng), canal_mm)


def _thinned(series: Series, rng: np.random.Generator) -> Series:
    first, last = rng.integers(0, 4, 2)
    stack = series.main_stack
    return replace(series, stacks=(stack[first : len(stack) - last : 1 + int(rng.random() < 0.25)],))


def _cut(series: Series, rng: np.random.Generator) -> Series:
    """Some slices of an axial series: all, neighbours, or any."""
    count = len(series.slices)
    some = int(rng.integers(5, count + 1))
    first = int(rng.integers(0, count - some + 1))
    kept = (range(count), range(first, first + some), rng.choice(count, some, replace=False))[rng.integers(3)]
    ids = {id(series.slices[place]) for place in kept}
    stacks = [tuple(item for item in stack if id(item) in ids) for stack in series.stacks]
    return replace(series, stacks=tuple(stack for stack in stacks if stack))


def spider(folder: Path, draws: int, rng: np.random.Generator) -> Iterator[Compared]:
    """Series made of volumes of real patients."""
    points = pd.read_csv(folder / "level_points.csv").dropna()
    for patient, rows in points.groupby("patient"):
        paths = sorted((folder / "images").glob(f"{patient:03d}_*.png"))
        numbers = np.array([int(path.stem.split("_")[1]) for path in paths])
        volume = np.stack(
            [np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.float64) for path in paths]
        )
        x_mm = (numbers - numbers.mean()) * _SPIDER_GAP_MM
        number = rows.groupby("slice_index").size().idxmax()
        at = rows[rows["slice_index"] == number].sort_values("canal_y")[["canal_x", "canal_y"]].to_numpy()
        across_mm = np.full(len(at), np.interp(int(str(number)), numbers, x_mm))
        canal_mm = np.stack([across_mm, at[:, 0] * _SPIDER_MM, -at[:, 1] * _SPIDER_MM], axis=1)
        for _ in range(draws):
            sagittal = [_sagittal(kind, volume, x_mm, rng) for kind in ("T1", "T2") if rng.random() < 0.75]
            sagittal = sagittal or [_sagittal("T2", volume, x_mm, rng)]
            yield Compared(sagittal, _axial(volume, x_mm, at[:, 1], rng), canal_mm)


def _sagittal(kind: str, volume: FloatArray, x_mm: FloatArray, rng: np.random.Generator) -> Series:
    thick, step = rng.integers(2, 5, 2)
    stack: list[Slice] = []
    for first in range(int(rng.integers(0, 2)), len(volume) - thick + 1, step):
        image = volume[first : first + thick].mean(axis=0)
        if kind == "T1":  # fluid dark, what is between bright
            share = np.clip(image / np.percentile(image, 99.5), 0, 1.2)
            image = np.clip(1.1 * share * (1.6 - 1.45 * share), 0, 1)
        corner = np.array([x_mm[first : first + thick].mean(), 0.0, 0.0])
        plane = SlicePlane(
            corner, np.array([0.0, 1, 0]), np.array([0.0, 0, -1]), (_SPIDER_MM, _SPIDER_MM), image.shape
        )
        stack.append(_slice(plane, image, len(stack) + 1))
    called = SeriesKind.SAGITTAL_T1 if kind == "T1" else SeriesKind.SAGITTAL_T2
    return Series("1", kind, called, (tuple(stack),))


def _axial(volume: FloatArray, x_mm: FloatArray, rows: FloatArray, rng: np.random.Generator) -> Series:
    """Of the whole view in equal steps, or three at each level."""
    step = rng.choice([4.0, 5.0, 8.0]) / _SPIDER_MM
    whole = np.arange(rows.min() - 40, rows.max() + 40, step)
    places = whole if rng.random() < 0.6 else (rows[:, None] + [-9.0, 0.0, 9.0]).ravel()
    thick = int(_AXIAL_MM / _SPIDER_MM)
    size = (
        int(len(volume) * _SPIDER_GAP_MM / _ACROSS_MM[0]),
        int(volume.shape[2] * _SPIDER_MM / _ACROSS_MM[1]),
    )
    stack: list[Slice] = []
    for row in sorted(places, reverse=True):
        first = int(row - thick / 2)
        if first >= 0 and first + thick <= volume.shape[1]:
            image = np.asarray(cv2.resize(volume[:, first : first + thick].mean(axis=1).T, size))
            corner = np.array([x_mm[0] - (_SPIDER_GAP_MM - _ACROSS_MM[0]) / 2, 0.0, -row * _SPIDER_MM])
            plane = SlicePlane(
                corner, np.array([1.0, 0, 0]), np.array([0.0, 1, 0]), _ACROSS_MM, image.shape[:2]
            )
            stack.append(_slice(plane, image, len(stack) + 1))
    return Series("1", "axial", SeriesKind.AXIAL_T2, (tuple(stack),))


def _slice(plane: SlicePlane, image: FloatArray, number: int) -> Slice:
    pixels = image.astype(np.float32)
    return Slice(plane, number, lambda: pixels)


def seen_otherwise(series: Series, rng: np.random.Generator) -> Series:
    """With another gamma, a slope of brightness, blur and noise."""
    gamma, (down, right) = rng.uniform(0.5, 2.0), rng.uniform(-1.0, 1.0, 2)
    blur, noise, seed = (
        rng.choice([0.0, 0.0, 1.0, 2.0]),
        rng.choice([0.0, 0.02, 0.06]),
        int(rng.integers(2**31)),
    )

    def read(item: Slice) -> Any:
        pixels = item.pixels()
        share = np.clip(pixels / max(float(np.percentile(pixels, 99.5)), 1e-6), 0, 1) ** gamma
        share = cv2.GaussianBlur(share, (0, 0), blur) if blur else share
        y, x = (np.linspace(-1, 1, count) for count in share.shape)
        share = share * np.exp(down * y[:, None] + right * x[None])
        drawn = np.random.default_rng([seed, item.instance_number]).normal(0, noise, share.shape)
        return np.asarray(1000.0 * (share + drawn), np.float32)

    def other(item: Slice) -> Slice:
        return replace(item, read_pixels=lambda: read(item))

    return series.changed(other)


def moved(series: Series, about_mm: FloatArray, by_mm: float, rng: np.random.Generator) -> Series:
    """As if the patient had moved: standard deviations ``by_mm`` in space and half as many degrees."""
    turn = cv2.Rodrigues(np.deg2rad(rng.normal(0, by_mm / 2, 3)))[0]
    shift = rng.normal(0, by_mm / np.sqrt(3), 3)

    def other(item: Slice) -> Slice:
        old = item.plane
        corner = turn @ (old.origin_mm - about_mm) + about_mm + shift
        return replace(
            item, plane=replace(old, origin_mm=corner, x_axis=turn @ old.x_axis, y_axis=turn @ old.y_axis)
        )

    return series.changed(other)


def alarms(found: Iterator[Compared], rng: np.random.Generator) -> dict[str, dict[str, int]]:
    """How many draws there were, and how many of them were flagged, by the movement."""
    counts = {f"{by_mm:g} mm": Counter(draws=0, flagged=0) for by_mm in MOVED_MM}
    for one in found:
        by_mm = float(rng.choice(MOVED_MM))
        axial = moved(one.axial, one.canal_mm.mean(axis=0), by_mm, rng)
        sagittal = [seen_otherwise(item, rng) for item in one.sagittal]
        seen = seen_otherwise(axial, rng)
        wrong = wrong_way_round(sagittal, [seen], one.canal_mm, CrossingConfig(), InPlaneConfig())
        flagged = bool(wrong.series or wrong.sides_doubtful)
        counts[f"{by_mm:g} mm"].update(draws=1, flagged=int(flagged))
    return {name: dict(count) for name, count in counts.items()}


def main() -> None:
    """Draw and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=Path)
    parser.add_argument("--series-table", type=Path)
    parser.add_argument("--spider", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    rng, results = np.random.default_rng(given.seed), {}
    if given.studies:
        results["studies"] = alarms(studies(given.studies, given.series_table, given.draws, rng), rng)
    if given.spider:
        results["spider"] = alarms(spider(given.spider, given.draws, rng), rng)
    if given.output:
        given.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    console.print_json(results)


if __name__ == "__main__":
    main()
