"""Plain DICOM files read at one go: what nearly every file is, in a fraction of pydicom's time.

Plain is a little-endian file whose elements follow each other in order, whose values that are asked for are
short and of the kind that the dictionary gives them, and that ends with its pixel data. Nothing is refused
here: of whatever is not plain this module says None, and ``dicom_checks.parsed`` reads or refuses it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag

from data_prep.dicom_checks import (
    ENCAPSULATED,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    META_GROUP,
    PIXEL_GROUP,
    TRANSFER_SYNTAX_TAG,
    UNDEFINED_LENGTH,
    BoundedFile,
    ReadLimits,
)

_EXPLICIT = struct.Struct("<HH2sH").unpack_from
_IMPLICIT = struct.Struct("<HHI").unpack_from
_LENGTH = struct.Struct("<I").unpack_from
# PS3.5 section 7.1.2: whose lengths have four bytes behind two reserved ones, and the others.
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_ITEM, _END = (
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\xdd\xe0\0\0\0\0",
)  # of encapsulated pixel data (PS3.5 section A.4)
_PREAMBLE_BYTES = 132
_META_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
_CHARACTER_SET_TAG, _PIXEL_DATA_TAG = 0x00080005, 0x7FE00010
# What pydicom takes without a warning or an error; of the values only ASCII is plain.
_CHARACTER_SETS = (b"", b"ISO_IR 6", b"ISO_IR 100", b"ISO_IR 192")
_NUMBER: dict[str, type] = {"DS": float, "IS": int}
# pydicom reads an element with two or three reads.
_READS_OF_AN_ELEMENT = 4


@dataclass(frozen=True)
class PlainFile:
    """Values of a plain file by keyword.

    Attributes:
        values: those that were asked for and are there.
        syntax: transfer syntax.
        pixels_at: where its pixel data element begins, in bytes.
    """

    values: Mapping[str, Any]
    syntax: str
    pixels_at: int

    def get(self, keyword: str, default: Any = None) -> Any:
        """The value, a list for several; None or "" if empty, the default if it is not there."""
        return self.values.get(keyword, default)


def plain_file(content: bytes, keywords: Sequence[str], limits: ReadLimits) -> PlainFile | None:
    """The values of a file up to its pixel data; None if it is not plain.

    Args:
        content: of the file, from its beginning at least to the head of the pixel data.
        keywords: of what is asked for.
    """
    try:
        syntax, at = _file_meta(content, limits)
        values, pixels_at = _values(content, at, _wanted(tuple(keywords)), syntax, limits)
    except (struct.error, ValueError):
        return None
    return PlainFile(values, syntax, pixels_at)


def plain_frame(file: BoundedFile, plain: PlainFile, size: int) -> bytes | None:
    """The pixel data that a plain file ends with: the only fragment of encapsulated ones.

    Args:
        size: of the file, in bytes.

    Returns:
        None if anything else follows, or there are several fragments.
    """
    file.seek(plain.pixels_at)
    (length,) = _LENGTH(file.read(8 if plain.syntax == IMPLICIT_LITTLE else 12)[-4:])
    start = file.tell()
    if length != UNDEFINED_LENGTH:
        whole = start + length == size and plain.syntax not in ENCAPSULATED
        return file.read(length) if whole else None
    table = _item_length(file)
    if table not in (0, 4):  # offsets of frames: of none, or one
        return None
    file.seek(table, 1)
    length = _item_length(file)
    if length is None or file.tell() + length + len(_END) != size:
        return None
    frame = file.read(length)
    return frame if file.read(len(_END)) == _END else None


def _item_length(file: BoundedFile) -> int | None:
    """Bytes of the item that begins here (PS3.5 section 7.5.2); None if none does."""
    head = file.read(8)
    return _LENGTH(head, 4)[0] if head.startswith(_ITEM) and len(head) == 8 else None


def decoded_value(vr: str, value: bytes, *, little: bool = True) -> Any:
    """A value as pydicom gives it, a list for several. Raises ValueError for what is not plain."""
    if vr == "US":
        if len(value) != 2:
            raise ValueError("several numbers")
        return int.from_bytes(value, "little" if little else "big")
    if vr not in ("DS", "IS", "UI", "CS", "SH", "LO"):
        raise ValueError("another kind")
    texts = [text.strip(" \0") for text in value.decode("ascii").split("\\")]
    if texts == [""]:
        return ""
    numbers: list[Any] = [_NUMBER[vr](text) for text in texts] if vr in _NUMBER else texts
    return numbers[0] if len(numbers) == 1 else numbers


@cache
def _wanted(keywords: tuple[str, ...]) -> Mapping[int, tuple[str, str]]:
    """Keyword and kind of value (VR) by tag."""
    tags = {keyword: Tag(keyword) for keyword in keywords}
    return {int(tag): (keyword, dictionary_VR(tag)) for keyword, tag in tags.items()}


def _file_meta(content: bytes, limits: ReadLimits) -> tuple[str, int]:
    """Transfer syntax, and where the File Meta ends (PS3.10 section 7.1). Raises as ``_values``."""
    at = _PREAMBLE_BYTES
    if content[at - 4 : at] != b"DICM" or content[at : at + 8] != _META_LENGTH:
        raise ValueError("no File Meta, or none with a length")
    end = at + 12 + _LENGTH(content, at + 8)[0]
    if end > len(content):
        raise ValueError("cut")
    last, at, syntax = META_GROUP << 16, at + 12, ""
    while at < end:
        tag, _, start, length = _explicit_head(content, at)
        if not last < tag < (META_GROUP + 1) << 16 or length > limits.max_value_bytes:
            raise ValueError("out of order, or long")
        last, at = tag, start + length
        if tag == TRANSFER_SYNTAX_TAG:
            syntax = content[start:at].decode("ascii").rstrip("\0")
    if at != end or syntax not in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, *ENCAPSULATED):
        raise ValueError("a wrong length, or another transfer syntax")
    return syntax, at


def _values(
    content: bytes, at: int, wanted: Mapping[int, tuple[str, str]], syntax: str, limits: ReadLimits
) -> tuple[dict[str, Any], int]:
    """Values by keyword, and where the pixel data begin.

    Raises:
        ValueError, struct.error: not plain.
    """
    explicit = syntax != IMPLICIT_LITTLE
    if not explicit and content[at + 4 : at + 6].isalpha():
        raise ValueError("explicit after all")
    values: dict[str, Any] = {}
    last = (META_GROUP + 1) << 16
    for _ in range(limits.max_reads // _READS_OF_AN_ELEMENT):
        tag, vr, start, length = _explicit_head(content, at) if explicit else _implicit_head(content, at)
        if tag <= last:
            raise ValueError("out of order")
        if tag >> 16 >= PIXEL_GROUP:
            if tag != _PIXEL_DATA_TAG or vr not in ("", "OB", "OW"):
                raise ValueError("other pixels")
            return values, at
        last, at = tag, start + length
        if tag in wanted:
            keyword, own_vr = wanted[tag]
            if vr not in ("", own_vr) or length > limits.max_value_bytes or at > len(content):
                raise ValueError("of another kind, long, or cut")
            values[keyword] = decoded_value(own_vr, content[start:at])
        elif tag == _CHARACTER_SET_TAG and content[start:at].rstrip(b" ") not in _CHARACTER_SETS:
            raise ValueError("other characters")
    raise ValueError("many elements")


def _explicit_head(content: bytes, at: int) -> tuple[int, str, int, int]:
    """Tag, VR, where the value begins, its length in bytes (PS3.5 section 7.1.2)."""
    group, element, vr, length = _EXPLICIT(content, at)
    if vr in _SHORT_VRS:
        return group << 16 | element, vr.decode(), at + 8, length
    if vr not in _LONG_VRS:
        raise ValueError("no VR")
    return group << 16 | element, vr.decode(), at + 12, _LENGTH(content, at + 8)[0]


def _implicit_head(content: bytes, at: int) -> tuple[int, str, int, int]:
    """As ``_explicit_head``, without a VR (PS3.5 section 7.1.3)."""
    group, element, length = _IMPLICIT(content, at)
    return group << 16 | element, "", at + 8, length
