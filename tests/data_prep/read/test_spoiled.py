"""Protects: of a sequence that was acquired twice the better one is used, whichever came first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.phantom import make_study
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.choosing import chosen, differing
from data_prep.read.spoiled import beside
from data_prep.study import Series, Slice, Study
from data_prep.traits import Image
from data_prep.vocabulary import SeriesKind

Pixels = NDArray[np.float32]
Change = Callable[[Pixels], Pixels]


@cache
def study() -> Study:
    return make_study(152_003, size="small").study


def acquired(kind: SeriesKind, change: Change, *, at: float, **traits: object) -> Series:
    """The series of a kind as it would be if taken at some time, its images changed."""
    (series, *_) = study().of_kind(kind)

    def of(item: Slice) -> Slice:
        return replace(item, read_pixels=lambda: change(item.pixels()))

    made = replace(series.changed(of), series_id=f"{series.series_id}.{at:g}")
    return replace(made, traits=replace(series.traits, acquired=at, **traits))  # type: ignore[arg-type]


def as_it_is(pixels: Pixels) -> Pixels:
    return pixels


def blurred(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 1.5))


def with_ghosts(pixels: Pixels) -> Pixels:
    far = len(pixels) // 9
    return 0.5 * pixels + 0.25 * np.roll(pixels, far, 0) + 0.25 * np.roll(pixels, -far, 0)


def noisy(pixels: Pixels) -> Pixels:
    spread = float(np.percentile(pixels, 95)) / 5
    noise = np.random.default_rng(3).normal(0, spread, (2, *pixels.shape))
    return np.hypot(pixels + noise[0], noise[1]).astype(np.float32)


def inverted(pixels: Pixels) -> Pixels:
    return pixels.max() - pixels


def brighter(pixels: Pixels) -> Pixels:
    return 2.5 * pixels


def of_another_coil(pixels: Pixels) -> Pixels:
    return (pixels * np.geomspace(0.6, 1.6, len(pixels))[:, None]).astype(np.float32)


def of_a_patient_who_moved(pixels: Pixels) -> Pixels:
    return np.roll(pixels, (4, 3), (0, 1))


def without_fat(pixels: Pixels) -> Pixels:
    return np.where(pixels > np.percentile(pixels, 70), 0.1 * pixels, pixels)


def is_spoiled(series: Series, other: Series) -> bool:
    found = beside(series, other)
    return found is not None and found.is_spoiled


def used(*series: Series) -> dict[float, str]:
    return {item.traits.acquired: item.unused for item in chosen(series)}


@pytest.mark.parametrize("kind", SeriesKind)
@pytest.mark.parametrize("change", [blurred, with_ghosts, noisy, inverted])
@pytest.mark.parametrize("first", [True, False], ids=["spoiled first", "spoiled second"])
def test_the_better_of_two_is_used(kind: SeriesKind, change: Change, first: bool) -> None:
    spoiled = acquired(kind, change, at=1.0 if first else 2.0)
    good = acquired(kind, as_it_is, at=2.0 if first else 1.0)
    told = {spoiled.traits.acquired: "spoiled", good.traits.acquired: ""}
    assert used(spoiled, good) == used(good, spoiled) == told


@pytest.mark.parametrize("kind", SeriesKind)
@pytest.mark.parametrize("change", [as_it_is, brighter, of_another_coil, without_fat])
def test_what_only_looks_otherwise_is_not_spoiled(kind: SeriesKind, change: Change) -> None:
    """T2 is used as it was taken last, T1 as it was first, and axial series all."""
    other, good = acquired(kind, change, at=1.0), acquired(kind, as_it_is, at=2.0)
    assert not is_spoiled(other, good) and not is_spoiled(good, other)
    assert used(other, good) == {1.0: "repeated" if kind is SeriesKind.SAGITTAL_T2 else "", 2.0: ""}


def test_another_kind_of_image_or_echo_is_no_repetition() -> None:
    kind = SeriesKind.SAGITTAL_T2
    good = acquired(kind, as_it_is, at=2.0)
    assert used(acquired(kind, blurred, at=1.0, image=Image.SUPPRESSED), good)[1.0] == ""
    assert used(acquired(kind, blurred, at=1.0, echo_ms=50.0), good)[1.0] == ""


def test_what_cannot_be_decoded_is_neither_better_nor_worse() -> None:
    def refuse(pixels: Pixels) -> Pixels:
        raise DicomRejected(Rejection(Reason.BAD_PIXELS, "cut off"))

    kind = SeriesKind.SAGITTAL_T1
    broken, blank = acquired(kind, refuse, at=1.0), acquired(kind, np.zeros_like, at=3.0)
    for other in (broken, blank):
        good = acquired(kind, as_it_is, at=2.0)
        assert not is_spoiled(other, good) and not is_spoiled(good, other)


@pytest.mark.parametrize("kind", [SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2])
def test_series_called_alike_that_show_something_else_are_said(kind: SeriesKind) -> None:
    """Not where a table says what they are, or a name that they differ."""
    plain = replace(acquired(kind, as_it_is, at=1.0), kind_source="header")
    other = replace(acquired(kind, without_fat, at=2.0), kind_source="header")
    names = dict.fromkeys((plain.series_id, other.series_id), "SAG")
    (said,) = differing(chosen([plain, other]), names)
    assert (said.reason, said.series_id) == (Reason.KIND_DISAGREES, other.series_id)
    named_otherwise = differing([plain, other], {**names, other.series_id: "SAG FLEXION"})
    assert named_otherwise == ([said] if kind is SeriesKind.SAGITTAL_T1 else [])
    assert differing([plain, replace(other, kind_source="table")], names) == []
    suppressed = replace(other, traits=replace(other.traits, image=Image.SUPPRESSED))
    assert differing([plain, suppressed], names) == []


@pytest.mark.parametrize("kind", SeriesKind)
@pytest.mark.parametrize(
    "change", [as_it_is, brighter, of_another_coil, blurred, noisy, of_a_patient_who_moved]
)
def test_series_that_show_the_same_are_not_said_to_differ(kind: SeriesKind, change: Change) -> None:
    first = replace(acquired(kind, as_it_is, at=1.0), kind_source="header")
    again = replace(acquired(kind, change, at=2.0), kind_source="header")
    assert differing([first, again], {}) == []


def test_the_times_of_a_dynamic_series_are_not_compared() -> None:
    """Each with each other would take long, and one of them lacks what the agent shows."""
    kind = SeriesKind.SAGITTAL_T1
    few = [acquired(kind, as_it_is, at=float(time)) for time in range(2, 7)]
    spoiled = acquired(kind, blurred, at=1.0)
    assert used(spoiled, *few)[1.0] == "spoiled"
    assert used(spoiled, *few, acquired(kind, as_it_is, at=7.0))[1.0] == ""
