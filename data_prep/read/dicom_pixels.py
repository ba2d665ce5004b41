"""Pixel data that are not what the header says: other bits, a coded image of another size, no end.

Decoders trust the codestream, not the header, so a small file with a modest header could still fill the
memory. An interrupted copy, or a disk after a power cut, leaves zeros in place of the end of an image.

BitsStored and PixelRepresentation are lost or guessed by converters: the image then seems to use bits that it
must not, or to reach from one end of its values to the other. A wrong reading folds grey values back, so that
fluid turns black where it is brightest; it shows as steps from pixel to pixel that no image has.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.problems import Reason
from data_prep.read.dicom_limits import JPEG_2000, Refused

# Beside the reading as stated, of one without its jumps.
_SMOOTHER, _FEWER_JUMPS = 0.5, 0.25
# Many folds make steps of the usual size, but grey values that fill the range. The bits above then hold more
# values than two drawings make.
_AS_SMOOTH, _LESS_ROUGH = (1.05, 2.0), 0.5
_MOST_OF_DRAWINGS = 4
# Small negative values that are read without their sign lie at the upper end.
_NEARLY_ALL, _FEW_BITS = 0.98, 8
# Disks and networks hand on whole blocks.
_BLOCK_BYTES = 512
# A border begins with a row; a copy breaks off within one, where the row above has an image.
_LEAST_PIXELS, _FEW_PIXELS, _LEAST_SHARE, _ALIKE = 32, 4, 0.3, 0.8
# Distortion correction leaves curved black borders, about as broad at either end of an image.
_BORDER_SHARE = 1 / 32
# Behind a codestream lies one byte at most (PS3.5 section 8.2).
_END_MARK, _LEAST_ZEROS = b"\xff\xd9", 16
# A tile of a JPEG 2000 image costs the decoder some 6 KB before it is read; a slice has one.
_MAX_TILES = 4096
_JP2_SIGNATURE = b"\0\0\0\x0cjP  "
_HIERARCHICAL = 0xDE
_NO_FRAME_HEADER = (0xC4, 0xC8, 0xCC)


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


def check_codestream(frame: bytes, syntax: str, shape: tuple[int, int]) -> None:
    """Refuse a JPEG, JPEG-LS or JPEG 2000 frame that is no grey image of the size that the header claims.

    Raises:
        Refused: ``bad_pixels``.
    """
    coded = _jpeg2000_size(frame) if syntax in JPEG_2000 else _jpeg_size(frame)
    if coded is None or coded[:2] != shape:
        found = "no image" if coded is None else f"{coded[0]} x {coded[1]}"
        raise Refused(Reason.BAD_PIXELS, f"the coded image holds {found}, the header {shape[0]} x {shape[1]}")
    if coded[2] != 1:
        raise Refused(Reason.BAD_PIXELS, f"the coded image has {coded[2]} components")


def _jpeg2000_size(frame: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, components) from the SIZ marker (ISO 15444-1 A.5.1), behind the start of codestream."""
    start = _codestream_start(frame)
    if frame[start : start + 4] != b"\xff\x4f\xff\x51" or len(frame) < start + 42:
        return None
    right, bottom, left, top, tile_width, tile_height = struct.unpack(">6I", frame[start + 8 : start + 32])
    width, height = right - left, bottom - top
    if min(width, height, tile_width, tile_height) < 1:
        return None
    if -(-right // tile_width) * -(-bottom // tile_height) > _MAX_TILES:
        raise Refused(Reason.BAD_PIXELS, f"the coded image has more than {_MAX_TILES} tiles")
    components: int = struct.unpack(">H", frame[start + 40 : start + 42])[0]
    return height, width, components


def _codestream_start(frame: bytes) -> int:
    """Where the codestream begins: at once, or in the box ``jp2c`` of a JP2 file (ISO 15444-1 I.4)."""
    if not frame.startswith(_JP2_SIGNATURE):
        return 0
    at = 0
    while at + 8 <= len(frame):
        length, kind = struct.unpack(">I4s", frame[at : at + 8])
        if kind == b"jp2c":
            return at + (16 if length == 1 else 8)
        if length < 8:  # the last box, or one of more than 4 GB
            break
        at += length
    return len(frame)


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, components) from the first frame header (SOF; ITU-T T.81 B.2.2, JPEG-LS T.87 C.2.2)."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == _HIERARCHICAL:  # its frames have sizes of their own
            return None
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_HEADER):
            rows, columns, components = struct.unpack(">2HB", frame[at + 5 : at + 10])
            return rows, columns, components
        at += 2 + struct.unpack(">H", frame[at + 2 : at + 4])[0]
    return None
