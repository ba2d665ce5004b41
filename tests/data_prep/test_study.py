"""Protects: how far slices lie apart is told within the stack that they belong to."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.geometry import SlicePlane
from data_prep.study import Series, Slice


def axial(z_mm: float) -> Slice:
    plane = SlicePlane.from_dicom((0, 0, z_mm), (1, 0, 0, 0, 1, 0), (1, 1), (8, 8))
    return Slice(plane, round(z_mm), lambda: np.zeros((8, 8), np.float32))


def test_the_gap_of_a_slice_is_that_to_its_neighbour_in_its_stack() -> None:
    stacks = tuple(
        tuple(map(axial, places)) for places in ((0.0, 3.0, 6.0), (40.0, 44.0, 51.0), (90.0,), (5.0, 95.0))
    )
    series = Series("1", "2", None, stacks)
    gaps = [series.gap_mm(item) for item in series.slices]
    assert gaps == pytest.approx([3.0, 3.0, 3.0, 4.0, 4.0, 7.0, 5.0, 90.0, 90.0])
