"""Protects: the slices that decide the levels show both sides of the canal, however thin they are."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.geometry import SlicePlane
from data_prep.study import Series, Slice
from data_prep.vocabulary import SeriesKind
from detector.look.choice import central_slices


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


def test_slices_far_from_the_middle_decide_nothing() -> None:
    """They show foramina or ribs; a stack of them alone has its middle one."""
    found = central_slices(sagittal([-20.0, -10.0, 0.0, 10.0, 20.0]), 5, 18.0)
    assert [item.plane.centre_mm[0] for item in found] == [-10.0, 0.0, 10.0]
    assert len(central_slices(sagittal([-20.0, 20.0]), 5, 18.0)) == 1


def test_a_single_slice_is_its_own_middle() -> None:
    assert len(central_slices(sagittal([3.0]), 5, 18.0)) == 1
