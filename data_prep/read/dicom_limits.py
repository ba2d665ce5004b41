"""What a DICOM file may be before it is parsed, and may claim before it is decoded."""

from __future__ import annotations

import math
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pydicom.dataset import Dataset

from data_prep.problems import DicomRejected, Reason, Rejection

RLE = "1.2.840.10008.1.2.5"
IMPLICIT_LITTLE, EXPLICIT_LITTLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")  # lossless, any
_ENCAPSULATED = (
    RLE,
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended (12 bits)
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    *JPEG_2000,
)
# JPEG baseline and extended, JPEG-LS near-lossless, JPEG 2000 of any kind.
LOSSY_SYNTAXES = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91))
# Nothing else is read: Deflated above all, which grows without bound.
TRANSFER_SYNTAXES = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, BIG_ENDIAN, *_ENCAPSULATED)
PIXEL_GROUP = 0x7FE0
_PIXEL_DATA, _PLAIN_VRS = (PIXEL_GROUP, 0x0010), (b"OB", b"OW", b"UN")
_ITEM, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_UNDEFINED_LENGTH = 0xFFFFFFFF
_MAX_OFFSET_TABLE_BYTES = 64 * 1024


class Stated(Protocol):
    """Values of a parsed file by keyword."""

    def get(self, keyword: str, default: Any = None, /) -> Any: ...


@dataclass(frozen=True)
class ReadLimits:
    """What a file may claim before it is refused.

    Attributes:
        max_file_bytes: size on disk; checked before anything is parsed. A 1024² MR slice has 2 MiB.
        max_pixels: Rows × Columns × NumberOfFrames × SamplesPerPixel; checked before decoding.
        max_reads: of one pass over a file. Every element, item and fragment costs two or three, and up to
            0.1 ms and 700 bytes; a scanner's header needs a few hundred.
        max_value_bytes: of one value of the header that is looked at.
        max_voxels, max_side: of a volume in one file; checked before it is unpacked.
        sequences_wanted: the elements that are asked for are sequences.
    """

    max_file_bytes: int = 128 * 1024 * 1024
    max_pixels: int = 4096 * 4096
    max_reads: int = 20_000
    max_value_bytes: int = 64 * 1024
    max_voxels: int = 64 * 1024 * 1024
    max_side: int = 4096
    sequences_wanted: bool = False


DEFAULT_LIMITS = ReadLimits()


class Refused(Exception):
    """A reason and a message on their way to ``rejecting``, which knows the place."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# Kinds of errors, and what each of them means.
KnownErrors = tuple[tuple[type[Exception] | tuple[type[Exception], ...], Reason, str], ...]


@contextmanager
def rejecting(path: Path, otherwise: Reason, known: KnownErrors) -> Iterator[None]:
    """Turn whatever is raised inside into DicomRejected, which names the file alone.

    Fuzzed files made pydicom and its decoders raise AttributeError, ValueError, NotImplementedError,
    RuntimeError, RecursionError, TypeError, OSError, MemoryError and its own errors. Only our own messages
    are passed on: theirs quote header values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
        return
    except Refused as refused:
        reason, message = refused.reason, str(refused)
    except BaseException as error:
        # The RLE decoder is written in Rust; its panics are no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason, message = otherwise, f"cannot be read ({type(error).__name__})"
        for kinds, known_reason, meaning in known:
            if isinstance(error, kinds):
                reason, message = known_reason, meaning
    raise DicomRejected(Rejection.of(path, reason, message)) from None


def checked_file(path: Path, limits: ReadLimits) -> os.stat_result:
    """What the system says of a regular file, which has no more bytes than the limit."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Refused(Reason.NOT_DICOM, "not a regular file")
    if status.st_size > limits.max_file_bytes:
        raise Refused(Reason.TOO_LARGE, f"{status.st_size} bytes; the limit is {limits.max_file_bytes} bytes")
    return status


def check_claims(elements: Stated, limits: ReadLimits, *, many_frames: bool = False) -> None:
    """Refuse what is no greyscale image within the limits; of several frames only if ``many_frames``."""
    rows, columns = (whole_number(elements, keyword, 0) for keyword in ("Rows", "Columns"))
    frames, samples = (
        whole_number(elements, keyword, 1) for keyword in ("NumberOfFrames", "SamplesPerPixel")
    )
    if min(rows, columns, frames, samples) < 1:
        raise Refused(Reason.NO_PIXELS, "no image: Rows or Columns is missing or zero")
    # Frames are decoded one by one.
    most = limits.max_voxels if many_frames else limits.max_pixels
    if rows * columns * frames * samples > most or rows * columns * samples > limits.max_pixels:
        raise Refused(
            Reason.TOO_LARGE,
            f"claims {rows} x {columns} x {frames} frames x {samples} samples; the limit is {most} values",
        )
    if frames > 1 and not many_frames:
        raise Refused(Reason.MULTI_FRAME, f"{frames} frames in one file are not supported")
    photometric = str(elements.get("PhotometricInterpretation", "MONOCHROME2")).strip()
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused(Reason.BAD_PIXELS, "not a greyscale image")


def checked_pixels(file: BinaryIO, dataset: Dataset, syntax: str, size: int) -> tuple[int, int] | None:
    """Refuse a file without pixel data, or one that ends before they do (PS3.5 sections 7.1 and A.4).

    Returns:
        First byte and length of plain pixel data: of the value, or of the only fragment; None of others.
    """
    start = file.tell()
    raw = file.read(12)
    order = ">" if syntax == BIG_ENDIAN else "<"
    if len(raw) < 8 or struct.unpack(f"{order}H", raw[:2])[0] != PIXEL_GROUP:
        if start > size or 0 < len(raw) < 8 or _has_short_value(dataset):
            raise Refused(Reason.TRUNCATED, "the file ends within its header")
        raise Refused(Reason.NO_PIXELS, "the file holds no pixel data")
    # Explicit elements name their VR here; some writers use implicit ones whatever the syntax says.
    at = 8 if raw[4:6].isalpha() else 4
    if len(raw) < at + 4:
        raise Refused(Reason.TRUNCATED, "the file ends at its pixel data")
    length = struct.unpack(f"{order}I", raw[at : at + 4])[0]
    file.seek(start + at + 4)
    items = [(start + at + 4, length)]
    if length == _UNDEFINED_LENGTH:
        items = _complete_items(file, size)[1:]
    elif start + at + 4 + length > size:
        raise _ends_within_pixels()
    is_stored = struct.unpack(f"{order}HH", raw[:4]) == _PIXEL_DATA and (at == 4 or raw[4:6] in _PLAIN_VRS)
    is_plain = is_stored and len(items) == 1 and (length == _UNDEFINED_LENGTH) == (syntax == RLE)
    return items[0] if is_plain else None


def _has_short_value(dataset: Dataset) -> bool:
    """Whether an element holds fewer bytes than its length says, as the last one of a cut file does."""
    for tag in dataset.keys():  # noqa: SIM118 (iterating a Dataset would decode its values)
        element: Any = dataset.get_item(tag)
        value, length = getattr(element, "value", None), getattr(element, "length", None)
        if isinstance(value, bytes) and isinstance(length, int) and len(value) < length < _UNDEFINED_LENGTH:
            return True
    return False


def _complete_items(file: BinaryIO, size: int) -> list[tuple[int, int]]:
    """First byte and length of each item of encapsulated pixel data, the table of offsets first.

    A missing end mark after a whole item is forgiven.
    """
    items: list[tuple[int, int]] = []
    while len(raw := file.read(8)) == 8:
        group, element, length = struct.unpack("<HHI", raw)
        if (group, element) == _SEQUENCE_END:
            break
        start = file.tell()
        if (group, element) != _ITEM or start + length > size:
            raise _ends_within_pixels()
        if not items and length > _MAX_OFFSET_TABLE_BYTES:  # one frame needs four bytes or none
            raise Refused(Reason.BAD_PIXELS, "the table of frame offsets is too long for one frame")
        file.seek(start + length)
        items.append((start, length))
    if len(items) < 2:
        raise _ends_within_pixels()
    return items


def _ends_within_pixels() -> Refused:
    return Refused(Reason.TRUNCATED, "the file ends within its pixel data")


def whole_number(elements: Stated, keyword: str, default: Any) -> Any:
    """An int, or the default for an element that is missing or empty. Raises ValueError for other text."""
    value = elements.get(keyword)
    return default if value is None or value == "" else int(value)


def finite_number(elements: Stated, keyword: str) -> float | None:
    """A finite float, or None for an element that is missing, empty or no number."""
    try:
        number = float(elements.get(keyword))
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
