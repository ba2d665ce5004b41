"""What a DICOM file may be before it is parsed, and may claim before it is decoded."""

from __future__ import annotations

import math
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info

from data_prep.study_types import Reason

RLE = "1.2.840.10008.1.2.5"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")  # lossless, any
_ENCAPSULATED = (
    RLE,
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended (12 bits)
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    *_JPEG_2000,
)
# Nothing else is read: Deflated above all, which grows without bound.
TRANSFER_SYNTAXES = (*_NATIVE, *_ENCAPSULATED)
_EXPLICIT_BIG = _NATIVE[2]
_PIXEL_GROUP = 0x7FE0
_ITEM, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True)
class ReadLimits:
    """What a file may claim before it is refused.

    Attributes:
        max_file_bytes: size on disk; checked before anything is parsed. A 1024² MR slice has 2 MiB.
        max_pixels: Rows × Columns × NumberOfFrames × SamplesPerPixel; checked before decoding.
    """

    max_file_bytes: int = 128 * 1024 * 1024
    max_pixels: int = 4096 * 4096


DEFAULT_LIMITS = ReadLimits()


class Refused(Exception):
    """A reason and a message on their way to ``_rejecting``, which knows the place."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def checked_size(path: Path, limits: ReadLimits) -> int:
    """Bytes of a regular file within the limit."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Refused(Reason.NOT_DICOM, "not a regular file")
    if status.st_size > limits.max_file_bytes:
        raise Refused(Reason.TOO_LARGE, f"{status.st_size} bytes; the limit is {limits.max_file_bytes} bytes")
    return status.st_size


def transfer_syntax_of(path: Path, file: BinaryIO) -> str:
    """Read the File Meta alone and return its transfer syntax if it is on the list."""
    start = file.read(132)
    if not start:
        raise Refused(Reason.NOT_DICOM, "the file is empty")
    if start[128:] != b"DICM":
        raise Refused(Reason.NOT_DICOM, "not a DICOM file: the preamble is missing")
    syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
    if syntax not in TRANSFER_SYNTAXES:
        shown = syntax[:64] if all(c.isdigit() or c == "." for c in syntax) else "?"
        raise Refused(Reason.TRANSFER_SYNTAX, f"transfer syntax {shown or 'missing'} is not supported")
    return syntax


def check_claims(dataset: Dataset, limits: ReadLimits) -> None:
    """Refuse what is no single greyscale frame within the limits."""
    rows, columns = (whole_number(dataset, keyword, 0) for keyword in ("Rows", "Columns"))
    frames, samples = (whole_number(dataset, keyword, 1) for keyword in ("NumberOfFrames", "SamplesPerPixel"))
    if min(rows, columns, frames, samples) < 1:
        raise Refused(Reason.NO_PIXELS, "no image: Rows or Columns is missing or zero")
    if rows * columns * frames * samples > limits.max_pixels:
        raise Refused(
            Reason.TOO_LARGE,
            f"claims {rows} x {columns} x {frames} frames x {samples} samples;"
            f" the limit is {limits.max_pixels} values",
        )
    if frames > 1:
        raise Refused(Reason.MULTI_FRAME, f"{frames} frames in one file are not supported")
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2")).strip()
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused(Reason.BAD_PIXELS, "not a greyscale image")


def check_pixel_element(file: BinaryIO, dataset: Dataset, syntax: str, size: int) -> None:
    """Refuse a file without pixel data, or one that ends before they do (PS3.5 sections 7.1 and A.4)."""
    start = file.tell()
    raw = file.read(12)
    order = ">" if syntax == _EXPLICIT_BIG else "<"
    if len(raw) < 8 or struct.unpack(f"{order}H", raw[:2])[0] != _PIXEL_GROUP:
        if start > size or 0 < len(raw) < 8 or _has_short_value(dataset):
            raise Refused(Reason.TRUNCATED, "the file ends within its header")
        raise Refused(Reason.NO_PIXELS, "the file holds no pixel data")
    # Explicit elements name their VR here; some writers use implicit ones whatever the syntax says.
    at = 8 if raw[4:6].isalpha() else 4
    if len(raw) < at + 4:
        raise Refused(Reason.TRUNCATED, "the file ends at its pixel data")
    length = struct.unpack(f"{order}I", raw[at : at + 4])[0]
    file.seek(start + at + 4)
    if length == _UNDEFINED_LENGTH:
        complete = _items_are_complete(file, size)
    else:
        complete = start + at + 4 + length <= size
    if not complete:
        raise Refused(Reason.TRUNCATED, "the file ends within its pixel data")


def _has_short_value(dataset: Dataset) -> bool:
    """Whether an element holds fewer bytes than its length says, as the last one of a cut file does."""
    for tag in dataset.keys():  # noqa: SIM118 (iterating a Dataset would decode its values)
        element: Any = dataset.get_item(tag)
        value, length = getattr(element, "value", None), getattr(element, "length", None)
        if isinstance(value, bytes) and isinstance(length, int) and len(value) < length < _UNDEFINED_LENGTH:
            return True
    return False


def _items_are_complete(file: BinaryIO, size: int) -> bool:
    """Walk the items of encapsulated pixel data; a missing end mark after a whole item is forgiven."""
    items = 0
    while len(raw := file.read(8)) == 8:
        group, element, length = struct.unpack("<HHI", raw)
        if (group, element) == _SEQUENCE_END:
            break
        if (group, element) != _ITEM or file.tell() + length > size:
            return False
        file.seek(length, 1)
        items += 1
    return items >= 2


def whole_number(dataset: Dataset, keyword: str, default: Any) -> Any:
    """An int, or the default for an element that is missing or empty. Raises ValueError for other text."""
    value = dataset.get(keyword)
    return default if value is None or value == "" else int(value)


def finite_number(dataset: Dataset, keyword: str) -> float | None:
    """A finite float, or None for an element that is missing, empty or no number."""
    try:
        number = float(dataset.get(keyword))
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def check_codestream(frame: bytes, syntax: str, shape: tuple[int, int]) -> None:
    """Refuse a JPEG or JPEG 2000 frame that decodes to another size than the header claims.

    Decoders trust the codestream, so a small file with a modest header could still fill the memory.
    """
    coded = _jpeg2000_shape(frame) if syntax in _JPEG_2000 else _jpeg_shape(frame)
    if coded != shape:
        found = "no image" if coded is None else f"{coded[0]} x {coded[1]}"
        raise Refused(Reason.BAD_PIXELS, f"the coded image holds {found}, the header {shape[0]} x {shape[1]}")


def _jpeg2000_shape(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) from the SIZ marker (ISO 15444-1 A.5.1), which follows the start of codestream."""
    start = frame.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(frame) < start + 24:
        return None
    width, height, left, top = struct.unpack(">4I", frame[start + 8 : start + 24])
    return height - top, width - left


def _jpeg_shape(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) from the first frame header (SOF; ITU-T T.81 B.2.2, JPEG-LS T.87 C.2.2)."""
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack(">2H", frame[at + 5 : at + 9])
            return rows, columns
        at += 2 + struct.unpack(">H", frame[at + 2 : at + 4])[0]
    return None
