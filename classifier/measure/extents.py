"""Where a tissue begins and ends in the rows of a strip, from its shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray

# A share below and above this is none and all.
_NONE, _ALL = 0.1, 0.9
# Columns over which the middle of a run is looked for.
_WIDE: Final = 5
# Standard deviation of the logistic distribution in units of its scale, which the sum of s (1 - s) is.
_LOGISTIC_SD: Final = 1.81


@dataclass(frozen=True, eq=False)
class Extent:
    """One run of a tissue in each row of a strip.

    Attributes:
        first_mm, last_mm: (rows,) where it begins and ends; what is shared counts in part.
        spread_mm: (rows,) how wide its two borders are: mean of their standard deviations.
        peak: (rows,) its largest share.
        shares: (rows, columns) of the run alone: falling from its middle to both sides.
    """

    first_mm: FloatArray
    last_mm: FloatArray
    spread_mm: FloatArray
    peak: FloatArray
    shares: FloatArray

    @property
    def thickness_mm(self) -> FloatArray:
        """(rows,)"""
        return self.last_mm - self.first_mm


def extent_of(shares: NDArray[np.float32], across_mm: FloatArray, usual_mm: float) -> Extent:
    """The run nearest to the line.

    Args:
        shares: (rows, columns).
        across_mm: (columns,) distance from the line, in equal steps.
        usual_mm: a run is usually that near: of several it is the one with most weight.
    """
    step = float(across_mm[1] - across_mm[0])
    # What is nearly all or nearly none is all or none: else the doubt of many pixels adds up to millimetres.
    values = np.clip((shares.astype(np.float64) - _NONE) / (_ALL - _NONE), 0.0, 1.0)
    near = values * np.exp(-0.5 * (across_mm / usual_mm) ** 2)
    # The middle of what is there, not its highest pixel.
    sums = np.cumsum(np.pad(near, ((0, 0), (_WIDE // 2 + 1, _WIDE // 2))), axis=1)
    middle = (sums[:, _WIDE:] - sums[:, :-_WIDE]).argmax(axis=1)
    columns = np.arange(len(across_mm))
    after = np.where(columns >= middle[:, None], values, np.inf)
    before = np.where(columns <= middle[:, None], values, np.inf)[:, ::-1]
    after, before = np.minimum.accumulate(after, axis=1), np.minimum.accumulate(before, axis=1)[:, ::-1]
    run = np.where(columns >= middle[:, None], after, before)
    half = 0.5 * run[np.arange(len(run)), middle] * step
    first = across_mm[middle] - (np.where(columns < middle[:, None], run, 0.0).sum(axis=1) * step + half)
    last = across_mm[middle] + (np.where(columns > middle[:, None], run, 0.0).sum(axis=1) * step + half)
    spread = 0.5 * _LOGISTIC_SD * (run * (1.0 - run)).sum(axis=1) * step
    return Extent(first, last, spread, run.max(axis=1, initial=0.0), run)
