"""Protects: left and right that change within the axial images are noticed; nothing else is taken for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from data_prep.phantom import make_study
from data_prep.read.find import find_studies
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import SeriesKind
from detector.spine.neighbours import sides_change


@cache
def study(seed: int) -> Study:
    return make_study(seed, size="small").study


def axial_of(seed: int) -> list[Series]:
    return list(study(seed).of_kind(SeriesKind.AXIAL_T2))


def mirrored(item: Slice) -> Slice:
    return replace(item, read_pixels=lambda: item.pixels()[:, ::-1])


def stored_mirrored(item: Slice) -> Slice:
    """The same picture from the other corner, as its header says."""
    plane = item.plane
    last = plane.to_mm([plane.shape[1] - 1.0, 0.0])
    return replace(mirrored(item), plane=replace(plane, origin_mm=last, x_axis=-plane.x_axis))


def changed(series: Series, change: Callable[[Slice], Slice], which: Callable[[int], bool]) -> Series:
    """The series, its slices from foot to head, with some of them changed."""
    numbers = {id(item): number for number, item in enumerate(series.slices)}
    stacks = tuple(
        tuple(change(item) if which(numbers[id(item)]) else item for item in stack) for stack in series.stacks
    )
    return replace(series, stacks=stacks)


@pytest.mark.parametrize("seed", range(152_000, 152_006))
def test_as_they_are_or_mirrored_all_together(seed: int) -> None:
    """Whether all of them are on the wrong side sagittal images tell, not the neighbours."""
    axial = axial_of(seed)
    assert not sides_change(axial)
    assert not sides_change([changed(series, mirrored, lambda _: True) for series in axial])
    assert not sides_change([changed(series, stored_mirrored, lambda n: n % 2 == 1) for series in axial])


@pytest.mark.parametrize(
    "which", [lambda n: n % 2 == 1, lambda n: n >= 8], ids=["every second", "upper ones"]
)
@pytest.mark.parametrize("study_id", ["100206310", "4003253"])
def test_real_slices_that_change_sides(real_rsna: Path, study_id: str, which: Callable[[int], bool]) -> None:
    (entry,) = find_studies(real_rsna / "train_images" / study_id)
    axial = list(entry.load().of_kind(SeriesKind.AXIAL_T2))
    assert not sides_change(axial)
    assert sides_change([changed(series, mirrored, which) for series in axial])


def test_a_phantom_whose_slices_change_sides() -> None:
    """With an organ on one side of its body."""

    def one_sided(item: Slice) -> Slice:
        rows, columns = item.plane.shape
        pixels = np.zeros((rows, columns), dtype=np.float32)
        pixels[rows // 4 : 3 * rows // 4, columns // 4 : 3 * columns // 4] = 100
        pixels[rows // 3 : rows // 2, columns // 4 : columns // 2] = 300
        return replace(item, read_pixels=lambda: pixels)

    axial = [changed(series, one_sided, lambda _: True) for series in axial_of(152_000)]
    assert not sides_change(axial)
    assert sides_change([changed(series, mirrored, lambda n: n % 2 == 1) for series in axial])


def test_nothing_to_compare() -> None:
    black = [
        changed(
            series,
            lambda i: replace(i, read_pixels=lambda: np.zeros(i.plane.shape, np.float32)),
            lambda _: True,
        )
        for series in axial_of(152_000)
    ]
    assert not sides_change(black)
    assert not sides_change([])
