"""Protects: a sagittal T1 whose columns and rows were exchanged, or mirrored, is noticed; one that lies
right, wherever the patient moved, is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.geometry import FloatArray
from data_prep.levels import LevelPoint
from data_prep.phantom import make_study
from data_prep.read.find import find_studies
from data_prep.rsna.annotations import annotated_points
from data_prep.rsna.tables import read_tables
from data_prep.study import Series, Slice, Study
from data_prep.synthetic import Appearance
from data_prep.vocabulary import Condition, SeriesKind
from detector.spine.in_plane import InPlaneConfig, lies_another_way

Pixels = NDArray[np.float32]
WAYS: dict[str, Callable[[Pixels], Pixels]] = {
    "transposed": np.transpose,
    "turned": np.rot90,
    "mirrored": np.fliplr,
    "upended": np.flipud,
}


def square(pixels: Pixels) -> Pixels:
    """Padded as a program does that leaves the headers."""
    return np.pad(pixels, [(0, max(pixels.shape) - length) for length in pixels.shape])


def stored(series: Series, change: Callable[[Pixels], Pixels]) -> Series:
    def other(item: Slice) -> Slice:
        side = max(item.plane.shape)
        plane = replace(item.plane, shape=(side, side))
        return replace(
            item, plane=plane, read_pixels=lambda: np.ascontiguousarray(change(square(item.pixels())))
        )

    return series.changed(other)


def moved(series: Series, by_mm: tuple[float, float, float]) -> Series:
    return series.changed(
        lambda item: replace(item, plane=replace(item.plane, origin_mm=item.plane.origin_mm + by_mm))
    )


def told(study: Study, canal_mm: FloatArray, change: Callable[[Series], Series]) -> bool:
    t1, t2 = (study.of_kind(kind)[0] for kind in (SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2))
    return lies_another_way(change(t1), t2, canal_mm, InPlaneConfig())


def canal_of(points: tuple[LevelPoint, ...]) -> FloatArray:
    return np.stack([p.xyz_mm for p in points if p.condition is Condition.SPINAL_CANAL_STENOSIS])


@cache
def phantom(seed: int, appearance: Appearance) -> tuple[Study, FloatArray]:
    made = make_study(seed, size="small", appearance=appearance)
    return made.study, canal_of(made.points)


def real(data: Path, study_id: str) -> tuple[Study, FloatArray]:
    (entry,) = find_studies(data / "train_images" / study_id)
    study, coordinates = entry.load(), read_tables(data).coordinates
    assert coordinates is not None
    return study, canal_of(annotated_points(study, coordinates)[0])


@pytest.mark.parametrize("appearance", ["physics", "randomised"])
@pytest.mark.parametrize("seed", [157_100, 157_103, 157_108])
def test_a_phantom(seed: int, appearance: Appearance) -> None:
    study, canal_mm = phantom(seed, appearance)
    assert not told(study, canal_mm, lambda series: series)
    assert not told(study, canal_mm, lambda series: moved(series, (0.0, 5.0, -6.0)))
    assert told(study, canal_mm, lambda series: stored(series, WAYS["transposed"]))
    assert told(study, canal_mm, lambda series: stored(series, WAYS["turned"]))


@pytest.mark.parametrize("study_id", ["100206310", "4003253"])
def test_a_real_patient(real_rsna: Path, study_id: str) -> None:
    """The fat of one is suppressed in T2: upside down alone does not show there."""
    study, canal_mm = real(real_rsna, study_id)
    for by_mm in ((0.0, 0.0, 0.0), (4.0, 0.0, 0.0), (0.0, 14.0, 0.0), (0.0, 0.0, 33.0)):
        assert not told(study, canal_mm, lambda series, by_mm=by_mm: moved(series, by_mm))
    ways = WAYS if study_id == "4003253" else ("mirrored", "transposed", "turned")
    for way in ways:
        assert told(study, canal_mm, lambda series, way=way: stored(series, WAYS[way]))


def test_black_images_and_such_that_cannot_be_turned_say_nothing() -> None:
    study, canal_mm = phantom(157_100, "physics")
    black = stored(study.of_kind(SeriesKind.SAGITTAL_T1)[0], np.zeros_like)
    assert not told(study, canal_mm, lambda _: black)
    constant = stored(study.of_kind(SeriesKind.SAGITTAL_T1)[0], lambda pixels: np.full_like(pixels, 7))
    assert not told(study, canal_mm, lambda _: constant)
