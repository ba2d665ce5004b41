"""Protects: how far slices lie apart is told within the stack that they belong to."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.geometry import SlicePlane
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import SeriesKind


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


def test_the_darkest_signal_of_a_slice_is_looked_for_once_and_is_a_number() -> None:
    pixels, decoded = np.full((8, 8), 5.0, np.float32), []
    pixels[0, 0], pixels[3, 4] = np.nan, -7.0

    def read() -> np.ndarray:
        decoded.append(1)
        return pixels

    item = Slice(axial(0.0).plane, 1, read)
    assert [item.darkest, item.darkest] == [-7.0, -7.0]
    assert len(decoded) == 1


def test_fine_pixels_come_before_coarse_ones_however_many_slices_there_are() -> None:
    """As of a T2 of the whole spine beside the lumbar one, or of the body's axial slices."""

    def series(series_id: str, pixel_mm: float, slices: int) -> Series:
        planes = [
            SlicePlane.from_dicom((0, 0, 4.0 * z), (1, 0, 0, 0, 1, 0), (pixel_mm, pixel_mm), (8, 8))
            for z in range(slices)
        ]
        stack = tuple(Slice(plane, z, lambda: np.zeros((8, 8), np.float32)) for z, plane in enumerate(planes))
        return Series("1", series_id, SeriesKind.AXIAL_T2, (stack,))

    coarse, fine, finest = series("1", 1.2, 40), series("2", 0.7, 20), series("3", 0.5, 15)
    assert Study("1", (coarse, finest, fine)).of_kind(SeriesKind.AXIAL_T2) == (fine, finest, coarse)
