"""Protects: T1 and T2 change places where their images say so clearly, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.geometry import SlicePlane
from data_prep.levels import SpineFrame, SpineLevel, SpineLevels
from data_prep.problems import Reason
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import LEVELS, SeriesKind
from detector.spine.contrast import kinds_as_seen

T1, T2 = SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2
FRAME = SpineFrame(up=np.array([0.0, 0, 1]), left=np.array([1.0, 0, 0]), back=np.array([0.0, 1, 0]))


def series(kind: SeriesKind, fluid_over_vertebra: float, intercept: float = 0.0) -> Series:
    """A sagittal slice: vertebrae of one brightness before a canal of another; zero lies at ``intercept``."""
    plane = SlicePlane.from_dicom((0, -60, 10), (0, 1, 0, 0, 0, -1), (1, 1), (180, 100))
    pixels = np.full((180, 100), 100, np.float32)
    pixels[:, 50:] = 100 * fluid_over_vertebra
    pixels[0, 0] = 0
    pixels += np.float32(intercept)
    return Series("1", kind.value, kind, ((Slice(plane, 1, lambda: pixels),),), "table")


def levels() -> SpineLevels:
    at = {level: np.array([0.0, 0.0, -33.0 * level.index]) for level in LEVELS}
    found = {level: SpineLevel(canal - [0, 30.0, 0], canal, FRAME, 1.0, 2.0) for level, canal in at.items()}
    return SpineLevels("1", found)


@pytest.mark.parametrize(
    ("t1", "t2", "are_exchanged"),
    [
        (0.6, 2.0, False),
        (2.0, 0.6, True),
        # Nearly alike: which is which is not told by so little.
        (0.8, 0.7, False),
        # Fluid is bright on both, as of two T2, or of a T1 that ends beside the canal.
        (2.4, 1.2, False),
    ],
)
def test_series_change_places_where_fluid_says_so_clearly(t1: float, t2: float, are_exchanged: bool) -> None:
    study = Study("1", (series(T1, t1), series(T2, t2)))
    seen = kinds_as_seen(study, levels())
    if are_exchanged:
        assert [item.kind for item in seen.series] == [T2, T1]
        assert [item.reason for item in seen.rejections] == [Reason.KIND_DISAGREES] * 2
    else:
        assert seen is study


@pytest.mark.parametrize("intercept", [0.0, -1000.0, -50.0])
def test_a_rescale_intercept_makes_no_fluid_dark_or_bright(intercept: float) -> None:
    named = Study("1", (series(T1, 0.6, intercept), series(T2, 2.0, intercept)))
    exchanged = Study("1", (series(T1, 2.0, intercept), series(T2, 0.6, intercept)))
    assert kinds_as_seen(named, levels()) is named
    assert [item.kind for item in kinds_as_seen(exchanged, levels()).series] == [T2, T1]
