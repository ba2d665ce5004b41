"""Finds the border of the dural sac in a strip around a point: filters, softmax regression, the best path.

The filters are the principal components of small patches, with a threshold; on their answers around a pixel,
softmax regression gives its score for being the border in its row, to which the usual place of the border is
added (``training.py``). The softmax of a row says where the border is and how sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from classifier.measure.strips import Strip
from data_prep.geometry import FloatArray

WEIGHTS: Final = "borders.safetensors"
# Distance of the places around a pixel at which the filters are looked at.
DILATION: Final = 2
# Largest step of a border from one row to the next, in columns, and what a step of one costs.
_MAX_STEP: Final = 3
_STEP_COST: Final = 0.35

RealArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Border:
    """One border.

    Attributes:
        across_mm: (rows,) where it crosses each row.
        spread_mm: (rows,) how sure: standard deviation of the softmax around there.
        sharpness: (rows,) share of the softmax within 1.5 mm of the border.
    """

    across_mm: FloatArray
    spread_mm: FloatArray
    sharpness: FloatArray


def find_border(strip: Strip, values: RealArray) -> Border:
    """The border of the sac on an axial slice.

    Args:
        values: (rows, columns) that ``Strip.read`` gave.
    """
    weights = _weights()
    score = border_scores(weights, values)
    place = weights["sac.place"][0]
    off = (strip.across_mm - place[:, :1]) / place[:, 1:]
    return _border(score - 0.5 * off**2, strip)


def border_scores(weights: dict[str, RealArray], values: RealArray) -> RealArray:
    """(rows, columns) scores for being the border."""
    kernel, bias = weights["sac.filter"], weights["sac.threshold"]
    answers = np.maximum(_convolved(values[None], kernel, 1) + bias[:, None, None], 0.0)
    return _convolved(answers, weights["sac.regression"], DILATION)[0]


def _convolved(values: RealArray, kernel: RealArray, dilation: int) -> RealArray:
    """As a convolution: the first row follows the last, and columns at the edge are repeated."""
    if len(values) == 1:
        windows = around(values, kernel.shape[2:], dilation)
        return np.tensordot(kernel, windows, axes=((1, 2, 3), (0, 3, 4)))
    # Every place of the kernel looks at all channels at once; what it sees is then moved and added. To write
    # out the windows of many channels takes longer.
    rows, columns = values.shape[1:]
    padded = _padded(values, kernel.shape[2:], dilation)
    seen = np.tensordot(kernel, padded, axes=(1, 0))
    found = np.zeros((len(kernel), rows, columns), dtype=np.float32)
    for i in range(kernel.shape[2]):
        for j in range(kernel.shape[3]):
            top, left = dilation * i, dilation * j
            found += seen[:, i, j, top : top + rows, left : left + columns]
    return found


def _padded(values: RealArray, shape: Sequence[int], dilation: int) -> RealArray:
    # As np.pad, without its detours.
    above, before = (dilation * (side // 2) for side in shape)
    rows, columns = values.shape[1:]
    row, column = np.arange(-above, rows + above) % rows, np.arange(-before, columns + before)
    return values[:, row[:, None], column.clip(0, columns - 1)]


def around(values: RealArray, shape: Sequence[int], dilation: int) -> RealArray:
    """(channels, rows, columns, *shape): what lies around every pixel of ``values``."""
    high, wide = shape
    padded = _padded(values, shape, dilation)
    size = ((high - 1) * dilation + 1, (wide - 1) * dilation + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(1, 2))
    return windows[..., ::dilation, ::dilation]


def _border(score: RealArray, strip: Strip) -> Border:
    """The path with the highest sum of scores that does not jump, refined within a pixel and a half."""
    shares = np.exp(score - score.max(axis=1, keepdims=True)).astype(np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    path = _best_path(np.log(shares + 1e-6))
    across = strip.across_mm
    near = np.abs(across[None] - across[path][:, None]) <= 1.0 + 1e-9
    weight = np.where(near, shares, 0.0) + 1e-12 * near
    place = (weight * across).sum(axis=1) / weight.sum(axis=1)
    off = across[None] - place[:, None]
    spread = np.sqrt((shares * off**2).sum(axis=1))
    sharp = np.where(np.abs(off) <= 1.5, shares, 0.0).sum(axis=1)
    return Border(place, spread, sharp)


def _best_path(score: FloatArray) -> NDArray[np.intp]:
    """Column of each row (Viterbi); the round path is run twice, so that its ends meet."""
    rows = np.concatenate([score, score])
    count, columns = rows.shape
    options = np.empty((count, 2 * _MAX_STEP + 1, columns))
    costs = (_STEP_COST * np.abs(np.arange(-_MAX_STEP, _MAX_STEP + 1)))[:, None]
    padded = np.full(columns + 2 * _MAX_STEP, -np.inf)
    best = padded[_MAX_STEP:-_MAX_STEP]
    best[:] = rows[0]
    reached = np.lib.stride_tricks.sliding_window_view(padded, columns)  # by step and column
    for row in range(1, count):
        np.subtract(reached, costs, out=options[row])
        np.maximum.reduce(options[row], axis=0, out=best)
        best += rows[row]
    came = (np.arange(columns) + options[1:].argmax(axis=1) - _MAX_STEP).tolist()
    backwards = [int(best.argmax())]
    for before in reversed(came):
        backwards.append(before[backwards[-1]])
    path, half = np.array(backwards[::-1]), len(score) // 2
    return np.roll(path[half : half + len(score)], half)


@cache
def _weights() -> dict[str, RealArray]:
    content = files("classifier.measure").joinpath(WEIGHTS).read_bytes()
    return {name: np.asarray(value, dtype=np.float32) for name, value in cast(Any, load(content)).items()}
