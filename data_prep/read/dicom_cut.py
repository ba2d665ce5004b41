"""Images whose end never arrived: an interrupted copy, or a disk after a power cut, leaves zeros instead."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Disks and networks hand on whole blocks.
_BLOCK_BYTES = 512
# A border begins with a row; a copy breaks off within one, where the row above has an image.
_LEAST_PIXELS, _FEW_PIXELS, _LEAST_SHARE, _ALIKE = 32, 4, 0.3, 0.8
# Distortion correction leaves curved black borders, about as broad at either end of an image.
_BORDER_SHARE = 1 / 32
# Behind a codestream lies one byte at most (PS3.5 section 8.2).
_END_MARK, _LEAST_ZEROS = b"\xff\xd9", 16


def breaks_off(stored: NDArray[Any], first_byte: int) -> bool:
    """Whether an image stops in the middle of a row, at the end of a block, and whole rows of zeros follow.

    Args:
        stored: (rows, columns) of 16 bits, as they are in the file.
        first_byte: where they begin in the file.
    """
    is_empty = ~np.asarray(stored.any(axis=1))
    at_top, at_bottom = (int(np.argmin(rows)) for rows in (is_empty, is_empty[::-1]))
    if at_bottom <= at_top + _BORDER_SHARE * len(is_empty):
        is_empty[len(is_empty) - at_bottom :] = False
    starts = np.flatnonzero(is_empty[2:] & ~is_empty[1:-1] & ~is_empty[:-2]) + 2
    return any(_breaks_off_above(stored, int(start), first_byte) for start in starts)


def _breaks_off_above(stored: NDArray[Any], start: int, first_byte: int) -> bool:
    """Whether the last row before zeros stops where the row above it goes on."""
    above, last = (stored[row] != 0 for row in (start - 2, start - 1))
    shown = int(np.flatnonzero(last)[-1]) + 1
    # The last values before the end of a block may have been zero, too.
    byte = first_byte + 2 * ((start - 1) * len(last) + shown)
    at = shown + (-byte % _BLOCK_BYTES) // 2
    if int(above[shown:at].sum()) > _FEW_PIXELS:
        return False
    goes_on, before = int(above[at:].sum()), int(above[:at].sum())
    return (
        at < len(last)
        and goes_on >= max(_LEAST_PIXELS, _LEAST_SHARE * (len(last) - at))
        and int(last[:at].sum()) >= _ALIKE * before
    )


def ends_in_zeros(codestream: bytes) -> bool:
    """Whether zeros stand where a JPEG, JPEG-LS or JPEG 2000 codestream has its end mark."""
    shown = codestream.rstrip(b"\0")
    return len(codestream) - len(shown) >= _LEAST_ZEROS and not shown.endswith(_END_MARK)
