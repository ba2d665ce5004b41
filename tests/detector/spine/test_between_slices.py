"""Protects: a recess between two axial slices is read on both, and no grade hops from one to the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data_prep.levels import RECESSES, LevelPoint, PointSource, Sight
from data_prep.phantom import make_study
from data_prep.study import Series, Slice
from data_prep.vocabulary import Level, SeriesKind
from detector.spine.axial import AxialConfig, read_between_slices

CONFIG = AxialConfig()
STUDY = make_study(100_400).study


@pytest.fixture(scope="module")
def neighbours() -> tuple[Series, Slice, Slice]:
    """Two neighbouring axial slices of one stack."""
    (series, *_) = STUDY.of_kind(SeriesKind.AXIAL_T2)
    stack = series.main_stack
    return series, stack[1], stack[2]


def read(neighbours: tuple[Series, Slice, Slice], part: float, *, seen: bool = True) -> dict[int, float]:
    """The share of each slice (by instance number) of a pair that lies this part of the way between two."""
    series, one, other = neighbours
    start, end = one.plane.centre_mm, other.plane.centre_mm
    nearer = one if part <= 0.5 else other
    expected, found = [], []
    for condition, aside in zip(RECESSES, (-8.0, 8.0), strict=True):
        xyz_mm = start + part * (end - start) + aside * one.plane.x_axis
        point = LevelPoint(condition, Level.L3_L4, xyz_mm, PointSource.PREDICTED)
        on_slice = xyz_mm - float(nearer.plane.distance_mm(xyz_mm)) * nearer.plane.normal
        source = PointSource.SEEN if seen else PointSource.PREDICTED
        expected.append(point)
        found.append(replace(point, xyz_mm=on_slice, source=source, sight=Sight.of(series, nearer, on_slice)))
    points = read_between_slices(STUDY, tuple(expected), tuple(found), CONFIG)
    shares = [
        {on.sight.instance_number: on.share for on in (point, *point.also) if on.sight is not None}
        for point in points
    ]
    for point in points:
        assert sum(on.share for on in (point, *point.also)) == pytest.approx(1.0)
        for on in (point, *point.also):
            assert on.sight is not None
            plane = series.by_instance(on.sight.instance_number).plane
            assert abs(float(plane.distance_mm(on.xyz_mm))) < 1e-6
            np.testing.assert_allclose(plane.to_px(on.xyz_mm), on.sight.xy_px, atol=1e-6)
    assert shares[0] == pytest.approx(shares[1])
    return shares[0]


@pytest.mark.parametrize(
    ("part", "share"), [(0.0, 0.0), (0.39, 0.0), (0.45, 0.25), (0.5, 0.5), (0.55, 0.75), (0.61, 1.0)]
)
def test_the_share_of_the_farther_slice_grows_to_half_midway(
    neighbours: tuple[Series, Slice, Slice], part: float, share: float
) -> None:
    _, one, other = neighbours
    shares = read(neighbours, part)
    assert shares.get(other.instance_number, 0.0) == pytest.approx(share, abs=1e-6)
    assert shares.get(one.instance_number, 0.0) == pytest.approx(1.0 - share, abs=1e-6)


def test_a_hair_past_the_middle_leaves_the_shares_as_they_are(
    neighbours: tuple[Series, Slice, Slice],
) -> None:
    before, after = read(neighbours, 0.4999), read(neighbours, 0.5001)
    assert before == pytest.approx(after, abs=0.01) and len(before) == 2


def test_where_geometry_alone_guesses_one_slice_is_read(neighbours: tuple[Series, Slice, Slice]) -> None:
    assert len(read(neighbours, 0.5, seen=False)) == 1
