"""Which of 16 bits hold an image, where its header cannot be right.

BitsStored and PixelRepresentation are lost or guessed by converters: the image then seems to use bits that it
must not, or to reach from one end of its values to the other. A wrong reading folds grey values back, so that
fluid turns black where it is brightest; it shows as steps from pixel to pixel that no image has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Beside the reading as stated, of one without its jumps.
_SMOOTHER, _FEWER_JUMPS = 0.5, 0.25
# Many folds make steps of the usual size, but grey values that fill the range. The bits above then hold more
# values than two drawings make.
_AS_SMOOTH, _LESS_ROUGH = (1.05, 2.0), 0.5
_MOST_OF_DRAWINGS = 4
# Small negative values that are read without their sign lie at the upper end.
_NEARLY_ALL, _FEW_BITS = 0.98, 8


def stored_values(words: NDArray[np.uint16], stored: int, *, is_signed: bool) -> NDArray[Any]:
    """The grey values in words of 16 bits, as the header has them unless the image shows that it is wrong.

    Unused high bits may hold anything (PS3.5 section 8.1.1), drawings above all: they count only where the
    image continues in them.

    Args:
        words: (rows, columns).
        stored: BitsStored, 1 to 16.
        is_signed: PixelRepresentation.

    Returns:
        (rows, columns) of int16 or uint16.
    """
    most = int(words.max(initial=0))
    # No bit above, no sign, and far from the end of the range: nothing to ask, as of nearly every image.
    if most < (1 << (stored - 1) if is_signed else _NEARLY_ALL * (1 << stored)):
        return words.view(np.int16) if is_signed else words
    values = _read(words, stored, is_signed)
    if stored < 16 and _goes_on_above(words.view(values.dtype), values, stored):
        return stored_values(words, 16, is_signed=is_signed)
    low, high = int(values.min()), int(values.max())
    if is_signed and low < 0 and high - low > 1 << (stored - 1):
        other = _read(words, stored, False)
        fewer = _jumps(other, stored) <= _FEWER_JUMPS * _jumps(values, stored)
        return other if fewer and _steps(other) < _steps(values) else values
    if not is_signed and stored > _FEW_BITS and high >= _NEARLY_ALL * (1 << stored):
        other = _read(words, stored, True)
        return other if _steps(other) < _SMOOTHER * _steps(values) else values
    return values


def _read(words: NDArray[np.uint16], stored: int, is_signed: bool) -> NDArray[Any]:
    array: NDArray[Any] = words.view(np.int16) if is_signed else words
    if unused := 16 - stored:
        array = array << unused
        array >>= unused
    return array


def _goes_on_above(whole: NDArray[Any], values: NDArray[Any], stored: int) -> bool:
    """Whether the bits above those that are stored continue the image; a sign need not be in all of them."""
    words = whole.view(np.uint16)
    if not ((words >> stored != 0) & (whole != values)).any():
        return False
    long, short = _steps(whole), _steps(values)
    if long <= short:
        return True
    rough, smooth = (_step_beside_spread(array) for array in (values, whole))
    is_counting = len(np.unique(words >> stored)) > _MOST_OF_DRAWINGS
    return smooth < _LESS_ROUGH * rough and long <= _AS_SMOOTH[is_counting] * short


def _steps(values: NDArray[Any]) -> int:
    """The sum of all steps from pixel to pixel."""
    wide = values.astype(np.int32)
    return int(sum(np.abs(np.diff(wide, axis=axis)).sum(dtype=np.int64) for axis in (0, 1)))


def _jumps(values: NDArray[Any], stored: int) -> int:
    """How many steps are longer than half of what so many bits can hold."""
    wide, longest = values.astype(np.int32), 1 << (stored - 1)
    return int(sum((np.abs(np.diff(wide, axis=axis)) > longest).sum() for axis in (0, 1)))


def _step_beside_spread(values: NDArray[Any]) -> float:
    return _steps(values) / (2 * values.size * max(float(values.std()), 1e-9))
