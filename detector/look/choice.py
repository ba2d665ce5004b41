"""Which sagittal series decide the levels, and which of their slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_prep.study import Series, Slice, Study, from_middle_mm, places_mm
from data_prep.vocabulary import SeriesKind

# Coordinates are often written with two decimals.
_TIE_MM = 0.05
# Slices of 3-D acquisitions lie 0.5 to 1 mm apart: five of them would show one side of the canal.
_APART_MM = 3.0
_SAGITTAL = SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1


def central_slices(series: Series, count: int, max_offset_mm: float) -> list[Slice]:
    """Up to ``count`` slices of the largest stack around its middle, none farther than ``max_offset_mm``.

    Of a stack of thin slices every second or third one, and so on: neighbours show the same.
    """
    stack = series.main_stack
    away = np.abs(from_middle_mm(stack))
    # Of an even number, two lie equally near: the first of them, whatever rounding says.
    order = np.argsort(away + _TIE_MM * np.arange(len(stack)), kind="stable")
    gap_mm = float(np.median(np.abs(np.diff(places_mm(stack))))) if len(stack) > 1 else _APART_MM
    step = max(1, int(_APART_MM / max(gap_mm, _TIE_MM)))
    order = order[(order - order[0]) % step == 0]
    chosen = [int(i) for i in order[:count] if away[i] <= max_offset_mm]
    return [stack[i] for i in sorted(chosen or [int(order[0])])]


def sagittal_series(study: Study) -> tuple[Series, ...]:
    """The series that decide the levels, the leading one first."""
    return deciding([item for kind in _SAGITTAL for item in study.of_kind(kind)])


def deciding(series: Sequence[Series]) -> tuple[Series, ...]:
    """Those of some sagittal series, the best of each kind first, that decide the levels."""
    t2, t1 = ([item for item in series if item.kind is kind] for kind in _SAGITTAL)
    return (*t2[:2], *t1[:1]) if t2 else tuple(t1[:2])
