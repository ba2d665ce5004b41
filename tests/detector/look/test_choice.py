"""Protects: the slices that decide the levels show both sides of the canal, however thin they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.geometry import SlicePlane
from data_prep.phantom import make_study
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import Flag, SeriesKind
from detector.finder import central_slices
from detector.predict import LevelDetector


def sagittal(places_mm: list[float]) -> Series:
    """A sagittal stack whose slices lie at these x."""
    planes = [
        SlicePlane(
            origin_mm=np.array([x, 0.0, 0.0]),
            x_axis=np.array([0.0, 1.0, 0.0]),
            y_axis=np.array([0.0, 0.0, -1.0]),
            spacing_mm=(1.0, 1.0),
            shape=(8, 8),
        )
        for x in places_mm
    ]
    slices = tuple(
        Slice(plane, number, lambda: np.zeros((8, 8), np.float32)) for number, plane in enumerate(planes)
    )
    return Series("1", "1", SeriesKind.SAGITTAL_T2, (slices,))


@pytest.mark.parametrize("turned", [False, True], ids=["to the left", "to the right"])
@pytest.mark.parametrize(
    ("gap_mm", "count", "expected"),
    [
        (4.0, 15, [-8, -4, 0, 4, 8]),
        (2.0, 15, [-4, -2, 0, 2, 4]),
        (0.9, 61, [-5.4, -2.7, 0, 2.7, 5.4]),
        (0.35, 193, [-5.6, -2.8, 0, 2.8, 5.6]),
    ],
)
def test_thin_slices_are_looked_at_as_far_apart_as_thick_ones(
    gap_mm: float, count: int, expected: list[float], turned: bool
) -> None:
    places = [gap_mm * (number - count // 2) for number in range(count)]
    series = sagittal(places[::-1] if turned else places)
    found = [float(item.plane.centre_mm[0]) for item in central_slices(series, 5, 18.0)]
    assert sorted(found) == pytest.approx(expected)
    (middle,) = central_slices(series, 1, 18.0)
    assert middle.plane.centre_mm[0] == pytest.approx(0)


def test_of_two_slices_beside_the_middle_rounded_coordinates_choose_none() -> None:
    places = [4.5878 * (number - 6.5) for number in range(14)]
    exact, rounded = (
        [item.instance_number for item in central_slices(sagittal(some), 5, 18.0)]
        for some in (places, [round(place, 2) + 0.01 * (number > 6) for number, place in enumerate(places)])
    )
    assert exact == rounded == [4, 5, 6, 7, 8]


def test_slices_far_from_the_middle_decide_nothing() -> None:
    """They show foramina or ribs; a stack of them alone has its middle one."""
    found = central_slices(sagittal([-20.0, -10.0, 0.0, 10.0, 20.0]), 5, 18.0)
    assert [item.plane.centre_mm[0] for item in found] == [-10.0, 0.0, 10.0]
    assert len(central_slices(sagittal([-20.0, 20.0]), 5, 18.0)) == 1


def test_a_single_slice_is_its_own_middle() -> None:
    assert len(central_slices(sagittal([3.0]), 5, 18.0)) == 1


def without(study: Study, broken: Callable[[Series], Sequence[Slice]]) -> Study:
    """The sagittal series, some slices of which cannot be decoded."""

    def fails() -> NDArray[np.float32]:
        raise DicomRejected(Rejection(Reason.BAD_PIXELS, "cannot be decoded"))

    changed = []
    for series in study.series:
        if series.kind is not SeriesKind.AXIAL_T2:
            bad = set(map(id, broken(series)))
            stacks = tuple(
                tuple(replace(item, read_pixels=fails) if id(item) in bad else item for item in stack)
                for stack in series.stacks
            )
            changed.append(replace(series, stacks=stacks))
    return replace(study, series=tuple(changed))


@pytest.mark.parametrize("one", [-1, 1], ids=["beside the middle", "on the other side"])
def test_a_series_leads_though_a_slice_near_its_middle_cannot_be_decoded(one: int) -> None:
    def of_t2(series: Series) -> Sequence[Slice]:
        is_t2 = series.kind is SeriesKind.SAGITTAL_T2
        return [series.slices[len(series.slices) // 2 + one]] if is_t2 else []

    study = without(make_study(5).study, of_t2)
    levels = LevelDetector.load_bundled().predict(study)
    assert len(levels.levels) == 5 and Flag.NO_SAGITTAL_T2 not in levels.flags


def test_outer_slices_that_cannot_be_decoded_end_nothing() -> None:
    """They are asked, where there are no axial ones, whether the spine leaves the middle."""
    study = without(make_study(5).study, lambda series: series.slices[:5] + series.slices[-5:])
    assert len(LevelDetector.load_bundled().predict(study).levels) == 5
