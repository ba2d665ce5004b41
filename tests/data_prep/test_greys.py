"""Protects: images that a program inverted, cut, folded back or scaled are told from what scanners write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.greys import are_edited
from data_prep.phantom import make_study
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import SeriesKind
from pipeline.study_flags import is_degraded

Pixels = NDArray[np.float32]


@cache
def study() -> Study:
    return make_study(152_003, size="small").study


def inverted(pixels: Pixels) -> Pixels:
    return pixels.max() - pixels


def windowed(pixels: Pixels) -> Pixels:
    low, high = np.percentile(pixels, (30, 78))
    return np.clip((pixels - low) / (high - low), 0, 1).astype(np.float32)


def narrow_window(pixels: Pixels) -> Pixels:
    """Of a third of the values, which leaves most of the air dark."""
    return np.clip(pixels, 0, 0.35 * np.percentile(pixels, 99.7))


def equalised(pixels: Pixels) -> Pixels:
    """As many pixels of every grey, as converters make them for people to look at."""
    ranks = np.searchsorted(np.sort(pixels, axis=None), pixels, side="right")
    return (ranks * (255 / pixels.size)).round().astype(np.float32)


def folded_back(pixels: Pixels) -> Pixels:
    """A value of too many bits, of which the lower ones are left."""
    return np.mod(pixels, np.percentile(pixels, 96))


def few_greys(pixels: Pixels) -> Pixels:
    return np.round(15 * np.clip(pixels / np.percentile(pixels, 99.5), 0, 1))


def changed(series: Series, change: Callable[[Pixels], Pixels]) -> Series:
    return changed_in_turn(series, change)


def changed_in_turn(series: Series, *changes: Callable[[Pixels], Pixels]) -> Series:
    """The first slice changed in the first way, the next one in the next, and so on."""

    def of(place: int, item: Slice) -> Slice:
        return replace(item, read_pixels=lambda: changes[place % len(changes)](item.pixels()))

    stacks = (tuple(of(place, item) for place, item in enumerate(stack)) for stack in series.stacks)
    return replace(series, stacks=tuple(stacks))


def times(factor: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: pixels * factor


def plus(offset: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: pixels + offset


def noise(pixels: Pixels) -> Pixels:
    return np.abs(np.random.default_rng(3).normal(0, pixels.mean(), pixels.shape))


def lettered(pixels: Pixels) -> Pixels:
    drawn = np.zeros(pixels.shape, np.uint8)
    cv2.putText(drawn, "HOSPITAL 12:30 L", (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255)
    return np.where(drawn > 127, pixels.max(), pixels)


@pytest.mark.parametrize("kind", SeriesKind)
def test_letters_are_not_taken_for_values_that_begin_again(kind: SeriesKind) -> None:
    (series, *_) = study().of_kind(kind)
    assert not are_edited(changed(series, lettered))


@pytest.mark.parametrize("kind", SeriesKind)
@pytest.mark.parametrize("change", [inverted, windowed, narrow_window, equalised, folded_back, few_greys])
def test_edited_greys_are_told(kind: SeriesKind, change: Callable[[Pixels], Pixels]) -> None:
    (series, *_) = study().of_kind(kind)
    assert not are_edited(series)
    edited = changed(series, change)
    assert are_edited(edited)
    others = [item for item in study().series if item is not series]
    assert is_degraded(replace(study(), series=(*others, edited)))
    unused = replace(edited, unused="repeated")
    assert not is_degraded(replace(study(), series=(*others, unused))) and not is_degraded(study())


def test_what_shows_nothing_is_not_called_edited() -> None:
    (series, *_) = study().of_kind(SeriesKind.SAGITTAL_T1)
    assert not are_edited(changed(series, np.zeros_like))


@pytest.mark.parametrize("kind", SeriesKind)
@pytest.mark.parametrize(
    "changes",
    [
        [times(factor) for factor in (0.15, 0.5, 0.3, 0.8)],
        [plus(offset) for offset in (-1000, 1500)],
        [times(1.0), inverted],
        [times(1.0), noise],
    ],
    ids=["another scale each", "another offset each", "every second inverted", "every second noise"],
)
def test_slices_unlike_their_neighbours_are_told(
    kind: SeriesKind, changes: list[Callable[[Pixels], Pixels]]
) -> None:
    (series, *_) = study().of_kind(kind)
    assert are_edited(changed_in_turn(series, *changes))


@pytest.mark.parametrize("kind", SeriesKind)
def test_slices_that_differ_as_scanners_make_them_are_not_told(kind: SeriesKind) -> None:
    """Of a receiver set anew for each slice, of a stack that ends, and of slices far from each other."""
    (series, *_) = study().of_kind(kind)
    assert not are_edited(changed_in_turn(series, times(1.0), times(1.15), times(0.9)))
    assert not are_edited(replace(series, stacks=tuple(stack[:2] for stack in series.stacks)))
    unlike = changed_in_turn(series, times(1.0), times(0.2))
    assert are_edited(unlike)
    apart = [tuple(far(item, place) for place, item in enumerate(stack)) for stack in unlike.stacks]
    assert not are_edited(replace(series, stacks=tuple(apart)))


def far(item: Slice, place: int) -> Slice:
    plane = replace(item.plane, origin_mm=item.plane.origin_mm + 20.0 * place * item.plane.normal)
    return replace(item, plane=plane)


def test_a_slice_that_cannot_be_decoded_says_nothing_of_its_neighbours() -> None:
    (series, *_) = study().of_kind(SeriesKind.SAGITTAL_T2)
    unlike = changed_in_turn(series, times(1.0), times(0.2))
    whole = tuple(unlike.main_stack)
    middle = len(whole) // 2

    def refuse() -> Pixels:
        raise DicomRejected(Rejection(Reason.BAD_PIXELS, "cut off"))

    broken = (*whole[:middle], replace(whole[middle], read_pixels=refuse), *whole[middle + 1 :])
    assert not are_edited(replace(unlike, stacks=(broken,)))


def narrowed(pixels: Pixels, *, folds: bool) -> Pixels:
    """The inner six tenths, and what lies beside them folded over, or not."""
    beside = round(0.2 * pixels.shape[1])
    image = pixels[:, beside:-beside].copy()
    if folds:
        image[:, :beside] += pixels[:, -beside:]
        image[:, -beside:] += pixels[:, :beside]
    return image


@pytest.mark.parametrize("across", [True, False], ids=["columns across", "rows across"])
def test_tissue_beside_axial_slices_that_is_folded_over_them_is_told(across: bool) -> None:
    (series, *_) = study().of_kind(SeriesKind.AXIAL_T2)

    def stored(item: Slice, *, folds: bool) -> Slice:
        image = narrowed(item.pixels(), folds=folds)
        plane = item.plane
        if not across:
            plane, image = replace(plane, x_axis=plane.y_axis, y_axis=plane.x_axis), image.T
        return replace(item, plane=plane, read_pixels=lambda: image)

    assert not are_edited(series.changed(lambda item: stored(item, folds=False)))
    assert are_edited(series.changed(lambda item: stored(item, folds=True)))


def test_tissue_in_front_of_axial_slices_that_is_folded_over_their_back_is_told() -> None:
    (series, *_) = study().of_kind(SeriesKind.AXIAL_T2)

    def stored(*, folds: bool) -> Series:
        return changed(series, lambda pixels: narrowed(pixels.T, folds=folds).T)

    assert not are_edited(stored(folds=False))
    assert are_edited(stored(folds=True))
    assert not are_edited(changed(series, lambda pixels: pixels + 1000))


def test_two_axial_slices_are_too_few_to_tell_a_fold() -> None:
    (series, *_) = study().of_kind(SeriesKind.AXIAL_T2)
    folded = changed(series, lambda pixels: narrowed(pixels, folds=True))
    assert are_edited(folded)
    assert not are_edited(replace(folded, stacks=(folded.main_stack[:2],)))
