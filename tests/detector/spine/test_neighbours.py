"""Protects: left and right that change within the axial images are noticed, and so is a patient who moved
between the packages of a series; nothing else is taken for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from data_prep.phantom import make_study
from data_prep.read.find import find_studies
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import SeriesKind
from detector.finder import central_slices
from detector.spine.neighbours import Neighbours, neighbours


@cache
def study(seed: int) -> Study:
    return make_study(seed, size="small").study


def axial_of(seed: int) -> list[Series]:
    return list(study(seed).of_kind(SeriesKind.AXIAL_T2))


def told_by(axial: Sequence[Series]) -> Neighbours:
    return neighbours([stack for series in axial for stack in series.stacks])


def sides_change(axial: Sequence[Series]) -> bool:
    return told_by(axial).sides_change


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
    assert told_by(axial) == Neighbours(sides_change=False, patient_moved=False)
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
    assert told_by(black) == Neighbours(sides_change=False, patient_moved=False)
    some = [
        changed(
            series,
            lambda i: replace(i, read_pixels=lambda: np.zeros(i.plane.shape, np.float32)),
            lambda n: n < 4,
        )
        for series in axial_of(152_000)
    ]
    assert not told_by(some).patient_moved
    assert not sides_change([])


def shifted(item: Slice, aside_mm: float, down_mm: float) -> Slice:
    """Shows the patient elsewhere than its header says."""
    x_mm, y_mm = item.plane.spacing_mm
    pixels = np.roll(item.pixels(), (round(down_mm / y_mm), round(aside_mm / x_mm)), axis=(0, 1))
    return replace(item, read_pixels=lambda: pixels)


def every_second_shifted(series: Series, aside_mm: float, down_mm: float) -> Series:
    return changed(series, lambda item: shifted(item, aside_mm, down_mm), lambda number: number % 2 == 1)


def real_series(data: Path, study_id: str, kind: SeriesKind) -> Series:
    (entry,) = find_studies(data / "train_images" / study_id)
    return entry.load().of_kind(kind)[0]


def alternates(sagittal: Series) -> bool:
    return neighbours([central_slices(sagittal, 5, 18.0)], show_sides=False).patient_moved


@pytest.mark.parametrize("way", [(6.0, 0.0), (0.0, 6.0)], ids=["aside", "back"])
@pytest.mark.parametrize("seed", [152_000, 152_001, 152_002])
def test_a_phantom_that_moved_between_packages(seed: int, way: tuple[float, float]) -> None:
    assert told_by([every_second_shifted(series, *way) for series in axial_of(seed)]).patient_moved
    (t2, *_) = study(seed).of_kind(SeriesKind.SAGITTAL_T2)
    assert not alternates(t2)
    assert not alternates(changed(t2, lambda item: shifted(item, *way), lambda _: True))
    assert alternates(every_second_shifted(t2, *way))


@pytest.mark.parametrize("study_id", ["100206310", "4003253"])
def test_a_real_patient_who_moved_between_packages(real_rsna: Path, study_id: str) -> None:
    axial = real_series(real_rsna, study_id, SeriesKind.AXIAL_T2)
    assert not told_by([axial]).patient_moved
    assert not told_by([changed(axial, lambda item: shifted(item, 6.0, 0.0), lambda _: True)]).patient_moved
    assert told_by([changed(axial, lambda item: shifted(item, 6.0, 0.0), lambda n: n < 12)]).patient_moved
    assert told_by([every_second_shifted(axial, 5.0, 0.0)]).patient_moved
    t2 = real_series(real_rsna, study_id, SeriesKind.SAGITTAL_T2)
    assert not alternates(t2)
    assert alternates(every_second_shifted(t2, 0.0, 5.0))


def moved_across(series: Series) -> Series:
    """Every second slice shows what lies two slices on: the patient moved across them between packages."""
    slices = series.slices
    following = {id(item): slices[min(at + 2, len(slices) - 1)] for at, item in enumerate(slices)}
    return changed(
        series, lambda item: replace(item, read_pixels=following[id(item)].read_pixels), lambda n: n % 2 == 1
    )


@pytest.mark.parametrize("study_id", ["100206310", "4003253"])
def test_a_real_patient_who_moved_across_the_slices(real_rsna: Path, study_id: str) -> None:
    axial = real_series(real_rsna, study_id, SeriesKind.AXIAL_T2)
    assert told_by([moved_across(axial)]).patient_moved


def without_every_third(series: Series) -> Series:
    stacks = tuple(
        tuple(item for number, item in enumerate(stack) if number % 3 != 2) for stack in series.stacks
    )
    return replace(series, stacks=stacks)


@pytest.mark.parametrize("study_id", ["100206310", "4003253"])
def test_slices_that_are_lost_are_no_patient_who_moved(real_rsna: Path, study_id: str) -> None:
    """Steps of one and two slices by turns: so is their likeness more and less."""
    for kind in SeriesKind:
        assert not told_by([without_every_third(real_series(real_rsna, study_id, kind))]).patient_moved


def test_nor_are_they_where_each_slice_is_much_like_the_next() -> None:
    (series,) = axial_of(152_000)
    first, rng = series.slices[0], np.random.default_rng(7)
    pixels, slices = rng.normal(5.0, 1.0, (64, 64)), list[Slice]()
    plane = replace(first.plane, shape=(64, 64), spacing_mm=(3.0, 3.0))
    for number in range(20):
        pixels = 5.0 + 0.9 * (pixels - 5.0) + np.sqrt(1 - 0.9**2) * rng.normal(0.0, 1.0, (64, 64))
        there = replace(plane, origin_mm=plane.origin_mm + 2.0 * number * plane.normal)
        shown = pixels.astype(np.float32)
        slices.append(Slice(there, number, lambda shown=shown: shown))
    whole = replace(series, stacks=(tuple(slices),))
    assert not told_by([whole]).patient_moved
    assert not told_by([without_every_third(whole)]).patient_moved
