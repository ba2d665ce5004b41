"""Slices are decoded once, within a memory bound, and what cannot be decoded is remembered."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.geometry import SlicePlane
from data_prep.pixel_cache import PixelCache
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import SeriesKind


def slice_of(number: int, reads: Counter[int], *, broken: bool) -> Slice:
    """A slice of 4 × 4 pixels that are filled with its number."""

    def read() -> NDArray[np.float32]:
        reads[number] += 1
        if broken:
            raise DicomRejected(Rejection(Reason.BAD_PIXELS, "broken", "1", "2", f"{number}.dcm"))
        return np.full((4, 4), number, dtype=np.float32)

    plane = SlicePlane(np.array([number, 0, 0]), np.eye(3)[1], -np.eye(3)[2], (1, 1), (4, 4))
    return Slice(plane, number, read)


def study_of(reads: Counter[int], broken: tuple[int, ...] = ()) -> Study:
    """Two series of two stacks of two slices each, numbered 0 to 7."""
    slices = [slice_of(number, reads, broken=number in broken) for number in range(8)]
    pairs = [(slices[i], slices[i + 1]) for i in range(0, 8, 2)]
    return Study(
        "1",
        (
            Series("1", "1", SeriesKind.SAGITTAL_T2, (pairs[0], pairs[1])),
            Series("1", "2", SeriesKind.AXIAL_T2, (pairs[2], pairs[3])),
        ),
    )


def slices_of(study: Study) -> list[Slice]:
    return [item for series in study.series for item in series.slices]


def test_every_slice_is_decoded_once_and_keeps_its_pixels() -> None:
    reads: Counter[int] = Counter()
    cache = PixelCache(study_of(reads))
    assert not reads
    for _ in range(2):
        for item in slices_of(cache.study):
            assert (item.pixels() == item.instance_number).all()
            assert not item.pixels().flags.writeable
    assert set(reads.values()) == {1} and len(reads) == 8
    assert cache.rejections == ()


def test_whoever_asks_again_shares_pixels_and_failures() -> None:
    reads: Counter[int] = Counter()
    first = PixelCache(study_of(reads, broken=(1,)))
    again = PixelCache(PixelCache(first.study).study)
    assert again.study is first.study
    for item in slices_of(again.study)[:2]:
        with suppress(DicomRejected):
            item.pixels()
    assert [item.file for item in first.rejections] == ["1.dcm"]
    mixed = replace(first.study, series=(first.study.series[0], study_of(reads).series[1]))
    assert PixelCache(mixed).study is not mixed  # not every slice is held


def test_beyond_its_bound_nothing_is_kept() -> None:
    reads: Counter[int] = Counter()
    cache = PixelCache(study_of(reads), max_bytes=3 * 64)
    for _ in range(2):
        for item in slices_of(cache.study):
            item.pixels()
    assert [reads[number] for number in range(8)] == [1, 1, 1, 2, 2, 2, 2, 2]


def test_a_slice_that_cannot_be_decoded_is_listed_once_in_spatial_order() -> None:
    reads: Counter[int] = Counter()
    cache = PixelCache(study_of(reads, broken=(6, 1, 7)))
    slices = slices_of(cache.study)
    for number in (6, 1, 6, 1):
        with pytest.raises(DicomRejected, match=rf"bad_pixels.*{number}\.dcm"):
            slices[number].pixels()
    assert [item.file for item in cache.rejections] == ["1.dcm", "6.dcm"]  # 7 was not asked for
    assert reads[1] == reads[6] == 1


def test_pixels_leave_memory_with_their_study() -> None:
    """Without waiting for Python to look for circles: a batch would keep the pixels of many studies."""
    cache = PixelCache(study_of(Counter()))
    pixels = weakref.ref(slices_of(cache.study)[0].pixels())
    study = weakref.ref(cache.study)
    gc.disable()
    try:
        del cache
        assert study() is None and pixels() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("empty", "named"),
    [((2,), [2]), ((1, 2), [1, 2]), ((0,), []), ((4,), []), ((0, 1, 4), []), ((0, 1, 2, 3, 4), [])],
)
def test_a_slice_of_one_grey_between_others_is_named(empty: tuple[int, ...], named: list[int]) -> None:
    """At the ends of a stack the coil may see nothing; only what was asked for is said."""
    slices = []
    for number in range(5):
        item = slice_of(number, Counter(), broken=False)
        pixels = np.zeros((4, 4), np.float32) if number in empty else np.eye(4, dtype=np.float32)
        slices.append(replace(item, read_pixels=lambda pixels=pixels: pixels, path=Path(f"{number}.dcm")))  # type: ignore[misc]
    other = slice_of(9, Counter(), broken=False)
    series = Series("1", "2", SeriesKind.SAGITTAL_T2, (tuple(slices), (other,)))
    cache = PixelCache(Study("1", (series,)))
    assert cache.rejections == ()
    for item in slices_of(cache.study):
        item.pixels()
    said = [(item.reason, item.series_id, item.file) for item in cache.rejections]
    assert said == [(Reason.BAD_PIXELS, "2", f"{number}.dcm") for number in named]
