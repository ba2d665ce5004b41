"""A DICOM file, parsed within limits: where it begins, its transfer syntax, the elements asked for."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator, read_dataset
from pydicom.tag import BaseTag, Tag

from data_prep.problems import Reason
from data_prep.read.dicom_limits import (
    BIG_ENDIAN,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PIXEL_GROUP,
    TRANSFER_SYNTAXES,
    ReadLimits,
    Refused,
)

_META_GROUP, _STORAGE_CLASS, _TRANSFER_SYNTAX = 0x0002, 0x00020002, 0x00020010
# pydicom looks every term up while it parses, at any depth. Its tag in both byte orders.
_CHARACTER_SET, _CHARACTER_SET_TAGS = 0x00080005, (b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")
_MAX_CHARACTER_SET_BYTES = 128
_PREFIX = b"DICM"
_LOOKED_AT_BYTES = 160
# Most headers lie in these. They hold so few elements and terms that no reads need be counted.
_HEAD_BYTES = 16 * 1024
_LONG_READ_BYTES = 1024 * 1024
_PIXEL_TAGS = {0x7FE00008, 0x7FE00009, 0x7FE00010}  # float, double and stored values
_PIXEL_VRS = (None, "OB", "OW", "OF", "OD", "UN")  # None: implicit


class BoundedFile(io.BufferedReader):
    """A file that may be read only so often: what bounds the time and memory that parsing it takes.

    pydicom makes an object of every item of a sequence, wanted or not: 8 MB of empty items took 50 s and
    640 MB.

    Raises:
        Refused: from ``read``: beyond ``ReadLimits.max_reads``; for a list of character sets that is too
            long; for a read without a size, which only the inflation of a deflated file needs.
    """

    def __init__(self, source: Path | io.BytesIO, limits: ReadLimits) -> None:
        super().__init__(io.FileIO(source) if isinstance(source, Path) else source, _HEAD_BYTES)
        self._limits, self._reads, self._character_set_follows = limits, 0, False
        self._size = self.seek(0, io.SEEK_END)
        self.seek(0)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._size

    @property
    def name(self) -> str:
        """Empty: pydicom asks for it, and bytes in memory have none."""
        return ""

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > self._limits.max_reads:
            message = f"more elements than {self._limits.max_reads} reads can take in"
            raise Refused(Reason.TOO_LARGE, message)
        if size is None or size < 0:
            raise Refused(Reason.TRANSFER_SYNTAX, "a deflated file is never inflated")
        if self._character_set_follows and size > _MAX_CHARACTER_SET_BYTES:
            raise Refused(Reason.TOO_LARGE, "the list of character sets is too long")
        if size > _LONG_READ_BYTES:  # a length of 4 GB would be allocated before it is found too long
            size = min(size, max(0, self._size - self.tell()))
        data = super().read(size)
        if size == 8:  # the head of an element; its value, or first a longer length, follows
            self._character_set_follows = data[:4] in _CHARACTER_SET_TAGS
        return data


def dataset_start(start: bytes, size: int) -> int | None:
    """Where the first element of a DICOM file is; None if it is none.

    Args:
        start: its first bytes, 160 at least if it has as many.
    """
    if start[128:132] == _PREFIX:
        return 132
    # As some archives export, and as a network sends: PS3.10 asks for preamble and prefix, many do not.
    if start[:4] == _PREFIX and _begins_like_dataset(start[4:], size):
        return 4
    return next((at for at in (0, 128) if _begins_like_dataset(start[at:], size)), None)


def _begins_like_dataset(start: bytes, size: int) -> bool:
    """Whether bytes look like the first element of a data set without preamble.

    That is File Meta (group 2), or group 8 up to SOPInstanceUID, with a known VR or a length that fits.
    """
    if len(start) < 16:
        return False
    if _is_big_endian(start):
        return True
    group, element = struct.unpack("<HH", start[:4])
    if group not in (0x0002, 0x0008) or element > 0x0018:
        return False
    if _is_vr(start[4:6]):
        return True
    length = struct.unpack("<I", start[4:8])[0]
    return bool(group == 0x0008 and length <= min(1024, size))


def _is_big_endian(start: bytes) -> bool:
    group, element = struct.unpack(">HH", start[:4])
    return bool(group == 0x0008 and element <= 0x0018 and _is_vr(start[4:6]))


def _is_vr(raw: bytes) -> bool:
    return raw in (b"UL", b"UI", b"CS", b"OB", b"SH", b"DA", b"TM", b"LO", b"PN", b"DT")


def _file_meta(file: BinaryIO, size: int, limits: ReadLimits) -> tuple[dict[int, Any], str]:
    """Values of the File Meta by tag, and its syntax, which is on the list; ``size`` is that of the file."""
    start = file.read(_LOOKED_AT_BYTES)
    if not start:
        raise Refused(Reason.NOT_DICOM, "the file is empty")
    at = dataset_start(start, size)
    if at is None:
        raise Refused(Reason.NOT_DICOM, "not a DICOM file: neither preamble nor a data set")
    file.seek(at)
    if at != 132 and start[at : at + 2] != b"\x02\x00":
        if _is_big_endian(start[at:]):
            return {}, BIG_ENDIAN
        return {}, EXPLICIT_LITTLE if _is_vr(start[at + 4 : at + 6]) else IMPLICIT_LITTLE

    def ends(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag >> 16 != _META_GROUP:
            return True
        if length > limits.max_value_bytes:
            raise Refused(
                Reason.TOO_LARGE, f"the File Meta has a value of more than {limits.max_value_bytes} bytes"
            )
        return False

    elements = data_element_generator(file, False, True, stop_when=ends)
    values = {int(element.tag): element.value for element in elements}
    syntax = _text(values.get(_TRANSFER_SYNTAX))
    if syntax not in TRANSFER_SYNTAXES:
        shown = syntax[:64] if all(c.isdigit() or c == "." for c in syntax) else "?"
        raise Refused(Reason.TRANSFER_SYNTAX, f"transfer syntax {shown or 'missing'} is not supported")
    return values, syntax


def _text(value: Any) -> str:
    return value.decode("ascii", "replace").strip("\0 ") if isinstance(value, bytes) else ""


def storage_class(file: BoundedFile, limits: ReadLimits) -> str:
    """MediaStorageSOPClassUID, "" where it is missing. Raises Refused."""
    file.seek(0)
    values, _ = _file_meta(file, file.size, limits)
    return _text(values.get(_STORAGE_CLASS))


def parsed(
    file: BoundedFile, keywords: Sequence[str], limits: ReadLimits, *, stop_before_pixels: bool
) -> tuple[Dataset, str]:
    """The elements of a file that are asked for, as they are, and its transfer syntax.

    The file, given at its beginning, is left at its pixel data, or behind them.

    Raises:
        Refused: no DICOM file, a transfer syntax that is not read, or something beyond the limits.
    """
    if not stop_before_pixels:
        return _parsed(file, file.size, keywords, limits, None)
    return _parsed_head(file, keywords, limits) or _parsed(
        file, file.size, keywords, limits, lambda tag, *_: tag in _PIXEL_TAGS
    )


def _parsed_head(
    file: BoundedFile, keywords: Sequence[str], limits: ReadLimits
) -> tuple[Dataset, str] | None:
    """The same of a file whose pixel data begin within its first bytes; None of any other."""
    if limits.max_reads < _HEAD_BYTES:
        return None
    source, has_pixels = io.BytesIO(file.peek()), False

    def ends(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal has_pixels
        has_pixels = tag in _PIXEL_TAGS
        return has_pixels or (length > _MAX_CHARACTER_SET_BYTES and tag == _CHARACTER_SET)

    try:
        found = _parsed(source, file.size, keywords, limits, ends)
    except Exception:  # whoever parses the whole file says what is wrong
        return None
    if not has_pixels:
        return None
    file.seek(source.tell())
    return found


def _parsed(
    file: BinaryIO,
    size: int,
    keywords: Sequence[str],
    limits: ReadLimits,
    stop_when: Callable[[BaseTag, str | None, int], bool] | None,
) -> tuple[Dataset, str]:
    _, syntax = _file_meta(file, size, limits)
    dataset = read_dataset(
        file,
        is_implicit_VR=syntax == IMPLICIT_LITTLE,
        is_little_endian=syntax != BIG_ENDIAN,
        stop_when=stop_when,
        specific_tags=_tags(tuple(keywords)),
    )
    _check_values(dataset, limits)
    return dataset, syntax


@cache
def _tags(keywords: tuple[str, ...]) -> list[BaseTag | int]:
    # Numbers are compared in a fraction of a BaseTag's time.
    return [int(Tag(keyword)) for keyword in ("SpecificCharacterSet", *keywords)]


def _check_values(dataset: Dataset, limits: ReadLimits) -> None:
    """Refuse values that are too long or of an impossible kind, before anything splits or converts them.

    A sequence of 8 MB where Rows should be took 45 s.
    """
    element: Any
    for tag, element in dataset.items():
        if element.VR == "SQ" and not limits.sequences_wanted:
            raise Refused(Reason.UNREADABLE, f"({tag >> 16:04x},{tag & 0xFFFF:04x}) must not be a sequence")
        if tag >> 16 == PIXEL_GROUP:
            if element.VR not in _PIXEL_VRS:
                raise Refused(Reason.BAD_PIXELS, "the pixel data are text or numbers, not bytes")
            continue
        if isinstance(element, RawDataElement) and len(element.value or b"") > limits.max_value_bytes:
            message = f"({tag >> 16:04x},{tag & 0xFFFF:04x}) has more than {limits.max_value_bytes} bytes"
            raise Refused(Reason.TOO_LARGE, message)
