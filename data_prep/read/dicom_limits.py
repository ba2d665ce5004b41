"""What a DICOM file may be before it is parsed, and may claim before it is decoded."""

from __future__ import annotations

import io
import math
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import data_element_generator, read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from data_prep.problems import Reason

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
_PIXEL_GROUP = 0x7FE0
_PIXEL_TAGS = {0x7FE00008, 0x7FE00009, 0x7FE00010}  # float, double and stored values
_PIXEL_VRS = (None, "OB", "OW", "OF", "OD", "UN")  # None: implicit
_ITEM, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_UNDEFINED_LENGTH = 0xFFFFFFFF
_META_GROUP, _TRANSFER_SYNTAX_TAG = 0x0002, BaseTag(0x00020010)
# (0008,0005) in both byte orders. pydicom looks every term up while it parses, at any depth.
_CHARACTER_SET_TAGS = (b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")
_MAX_CHARACTER_SET_BYTES = 128
_PREFIX = b"DICM"
_LOOKED_AT_BYTES = 160
_LONG_READ_BYTES = 1024 * 1024
_MAX_OFFSET_TABLE_BYTES = 64 * 1024


class Elements(Protocol):
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
    """A reason and a message on their way to ``_rejecting``, which knows the place."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BoundedFile(io.BufferedReader):
    """A file that may be read only so often: what bounds the time and memory that parsing it takes.

    pydicom makes an object of every item of a sequence, wanted or not: 8 MB of empty items took 50 s and
    640 MB.

    Raises:
        Refused: from ``read``: beyond ``ReadLimits.max_reads``; for a list of character sets that is too
            long; for a read without a size, which only the inflation of a deflated file needs.
    """

    def __init__(self, source: Path | io.BytesIO, limits: ReadLimits) -> None:
        super().__init__(io.FileIO(source) if isinstance(source, Path) else source)
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
        size: of the file.
    """
    if start[128:132] == _PREFIX:
        return 132
    # As some archives export, and as a network sends: PS3.10 asks for preamble and prefix, many do not.
    if start[:4] == _PREFIX and begins_like_dataset(start[4:], size):
        return 4
    return next((at for at in (0, 128) if begins_like_dataset(start[at:], size)), None)


def begins_like_dataset(start: bytes, size: int) -> bool:
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


def checked_size(path: Path, limits: ReadLimits) -> int:
    """Bytes of a regular file within the limit."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Refused(Reason.NOT_DICOM, "not a regular file")
    if status.st_size > limits.max_file_bytes:
        raise Refused(Reason.TOO_LARGE, f"{status.st_size} bytes; the limit is {limits.max_file_bytes} bytes")
    return status.st_size


def _file_meta(file: BoundedFile, limits: ReadLimits) -> tuple[FileMetaDataset, str]:
    """Read the File Meta alone; it, and its transfer syntax, which is on the list."""
    start = file.read(_LOOKED_AT_BYTES)
    if not start:
        raise Refused(Reason.NOT_DICOM, "the file is empty")
    at = dataset_start(start, file.size)
    if at is None:
        raise Refused(Reason.NOT_DICOM, "not a DICOM file: neither preamble nor a data set")
    file.seek(at)
    if at != 132 and start[at : at + 2] != b"\x02\x00":
        if _is_big_endian(start[at:]):
            return FileMetaDataset(), BIG_ENDIAN
        return FileMetaDataset(), EXPLICIT_LITTLE if _is_vr(start[at + 4 : at + 6]) else IMPLICIT_LITTLE

    def ends(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag >> 16 != _META_GROUP:
            return True
        # pydicom converts the first of these values as soon as it has read them, whatever they are.
        if length > limits.max_value_bytes:
            raise Refused(
                Reason.TOO_LARGE, f"the File Meta has a value of more than {limits.max_value_bytes} bytes"
            )
        return False

    elements = {element.tag: element for element in data_element_generator(file, False, True, stop_when=ends)}
    written = getattr(elements.get(_TRANSFER_SYNTAX_TAG), "value", None)
    syntax = written.decode("ascii", "replace").strip("\0 ") if isinstance(written, bytes) else ""
    if syntax not in TRANSFER_SYNTAXES:
        shown = syntax[:64] if all(c.isdigit() or c == "." for c in syntax) else "?"
        raise Refused(Reason.TRANSFER_SYNTAX, f"transfer syntax {shown or 'missing'} is not supported")
    return FileMetaDataset(elements), syntax


def parsed(
    file: BoundedFile, keywords: Sequence[str], limits: ReadLimits, *, stop_before_pixels: bool
) -> tuple[Dataset, str]:
    """The elements of a file that are asked for, as they are, and its transfer syntax.

    The file is left at its pixel data, or behind them.

    Raises:
        Refused: no DICOM file, a transfer syntax that is not read, or something beyond the limits.
    """
    meta, syntax = _file_meta(file, limits)
    dataset = read_dataset(
        file,
        is_implicit_VR=syntax == IMPLICIT_LITTLE,
        is_little_endian=syntax != BIG_ENDIAN,
        stop_when=_is_pixel_data if stop_before_pixels else None,
        specific_tags=_tags(tuple(keywords)),
    )
    _check_values(dataset, limits)
    if "TransferSyntaxUID" not in meta:
        meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta = meta
    return dataset, syntax


@cache
def _tags(keywords: tuple[str, ...]) -> list[BaseTag | int]:
    return [Tag(keyword) for keyword in ("SpecificCharacterSet", *keywords)]


def _is_pixel_data(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag in _PIXEL_TAGS


def _check_values(dataset: Dataset, limits: ReadLimits) -> None:
    """Refuse values that are too long or of an impossible kind, before anything splits or converts them.

    A sequence of 8 MB where Rows should be took 45 s.
    """
    for tag in dataset.keys():  # noqa: SIM118 (iterating a Dataset would decode its values)
        element: Any = dataset.get_item(tag)
        if element.VR == "SQ" and not limits.sequences_wanted:
            raise Refused(Reason.UNREADABLE, f"({tag >> 16:04x},{tag & 0xFFFF:04x}) must not be a sequence")
        if tag >> 16 == _PIXEL_GROUP:
            if element.VR not in _PIXEL_VRS:
                raise Refused(Reason.BAD_PIXELS, "the pixel data are text or numbers, not bytes")
            continue
        if isinstance(element, RawDataElement) and len(element.value or b"") > limits.max_value_bytes:
            message = f"({tag >> 16:04x},{tag & 0xFFFF:04x}) has more than {limits.max_value_bytes} bytes"
            raise Refused(Reason.TOO_LARGE, message)


def check_claims(elements: Elements, limits: ReadLimits, *, many_frames: bool = False) -> None:
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


def check_pixel_element(file: BinaryIO, dataset: Dataset, syntax: str, size: int) -> None:
    """Refuse a file without pixel data, or one that ends before they do (PS3.5 sections 7.1 and A.4)."""
    start = file.tell()
    raw = file.read(12)
    order = ">" if syntax == BIG_ENDIAN else "<"
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
        if items == 0 and length > _MAX_OFFSET_TABLE_BYTES:  # one frame needs four bytes or none
            raise Refused(Reason.BAD_PIXELS, "the table of frame offsets is too long for one frame")
        file.seek(length, 1)
        items += 1
    return items >= 2


def whole_number(elements: Elements, keyword: str, default: Any) -> Any:
    """An int, or the default for an element that is missing or empty. Raises ValueError for other text."""
    value = elements.get(keyword)
    return default if value is None or value == "" else int(value)


def finite_number(elements: Elements, keyword: str) -> float | None:
    """A finite float, or None for an element that is missing, empty or no number."""
    try:
        number = float(elements.get(keyword))
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
