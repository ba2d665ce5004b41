"""Protects: images at places of others, or one image at several places, are said; of no series as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from data_prep.phantom import make_study, write_dataset
from data_prep.problems import Reason
from data_prep.read.find import find_studies
from data_prep.study import Series, Study
from data_prep.vocabulary import SeriesKind
from detector.spine.neighbours import order_doubt, with_order_doubted

KINDS = (SeriesKind.AXIAL_T2, SeriesKind.SAGITTAL_T1)
OTHER_ORDER = "its images do not follow each other"


@cache
def study(seed: int) -> Study:
    return make_study(seed, size="small").study


def with_images_of(series: Series, order: Sequence[int]) -> Series:
    """The series with the image of another slice at each place, by number from one end."""
    readers = iter([series.slices[number].read_pixels for number in order])
    return series.changed(lambda item: replace(item, read_pixels=next(readers)))


def odd_before_even(count: int) -> list[int]:
    return [*range(0, count, 2), *range(1, count, 2)]


@pytest.mark.parametrize("seed", range(152_000, 152_006))
def test_as_they_are(seed: int) -> None:
    assert with_order_doubted(study(seed)) is study(seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(152_000, 152_004))
def test_another_order(seed: int, kind: SeriesKind) -> None:
    (series,) = study(seed).of_kind(kind)
    count = len(series.slices)
    assert order_doubt(with_images_of(series, odd_before_even(count))).startswith(OTHER_ORDER)
    assert order_doubt(with_images_of(series, range(count)[::-1])) == ""


def test_it_is_said_of_the_series() -> None:
    (axial,) = study(152_000).of_kind(SeriesKind.AXIAL_T2)
    wrong = with_images_of(axial, odd_before_even(len(axial.slices)))
    others = [item for item in study(152_000).series if item is not axial]
    (note,) = with_order_doubted(replace(study(152_000), series=(*others, wrong))).rejections
    assert (note.reason, note.series_id) == (Reason.POSITIONS_DOUBTFUL, axial.series_id)


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_at_several_places(kind: SeriesKind) -> None:
    (series,) = study(152_001).of_kind(kind)
    count = len(series.slices)
    order = [number - number % 3 for number in range(count)]
    assert "are the one before once more" in order_doubt(with_images_of(series, order))


def test_copies_at_one_place_are_no_image_at_several() -> None:
    (series,) = study(152_001).of_kind(SeriesKind.AXIAL_T2)
    (first, *rest) = series.stacks
    twice = tuple(copy for item in first for copy in (item, replace(item, instance_number=9000)))
    assert order_doubt(replace(series, stacks=(twice, *rest))) == ""


def test_copies_do_not_hide_another_order() -> None:
    (series,) = study(152_001).of_kind(SeriesKind.AXIAL_T2)
    wrong = with_images_of(series, odd_before_even(len(series.slices)))
    twice = [
        tuple(copy for item in stack for copy in (item, replace(item, instance_number=9000)))
        for stack in wrong.stacks
    ]
    assert order_doubt(replace(wrong, stacks=tuple(twice))).startswith(OTHER_ORDER)


def test_neighbours_on_one_side_alone_are_alike(tmp_path: Path) -> None:
    """As where the first slice beside the joints follows the last one through them."""
    write_dataset(tmp_path, studies=1, seed=200_951, size="small", headers="pacs")
    (entry,) = find_studies(tmp_path / "train_images")
    (series,) = entry.load().of_kind(SeriesKind.SAGITTAL_T1)
    assert order_doubt(series) == ""


def test_images_of_one_grey_are_no_copies() -> None:
    (series,) = study(152_001).of_kind(SeriesKind.SAGITTAL_T1)
    black = np.zeros(series.slices[0].plane.shape, np.float32)
    assert order_doubt(series.changed(lambda item: replace(item, read_pixels=lambda: black))) == ""


@pytest.mark.parametrize("study_id", ["100206310", "4003253"])
def test_real_series(real_rsna: Path, study_id: str) -> None:
    (entry,) = find_studies(real_rsna / "train_images" / study_id)
    whole = entry.load()
    assert with_order_doubted(whole) is whole
    for kind in KINDS:
        (series,) = whole.of_kind(kind)
        count = len(series.slices)
        by_name = sorted(range(count), key=lambda number: str(number + 1))
        assert order_doubt(with_images_of(series, odd_before_even(count))).startswith(OTHER_ORDER)
        if kind is SeriesKind.AXIAL_T2:
            assert order_doubt(with_images_of(series, by_name)).startswith(OTHER_ORDER)
