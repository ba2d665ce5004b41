"""What a coded image says of itself, read before a decoder believes it.

Decoders trust the codestream, not the DICOM header, so a small file with a modest header could still fill the
memory.
"""

from __future__ import annotations

import struct

from data_prep.problems import Reason
from data_prep.read.dicom_limits import JPEG_2000, Refused

# A tile of a JPEG 2000 image costs the decoder some 6 KB before it is read; a slice has one.
_MAX_TILES = 4096
_JP2_SIGNATURE = b"\0\0\0\x0cjP  "
_HIERARCHICAL = 0xDE
_NO_FRAME_HEADER = (0xC4, 0xC8, 0xCC)


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
