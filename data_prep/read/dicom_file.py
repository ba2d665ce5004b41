"""One DICOM file, read safely: the header first, pixels only when asked.

Every failure leaves this module as ``DicomRejected``: limits are checked before parsing and again before
decoding, and whatever the parser or a decoder raises is caught in one place. Messages never carry header
text, values, or a path beyond the file's own name.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError

from data_prep.problems import Reason
from data_prep.read.dicom_fast import Elements, decoded, plain_pixels
from data_prep.read.dicom_header import HEADER_KEYWORDS, header_of
from data_prep.read.dicom_limits import (
    DEFAULT_LIMITS,
    RLE,
    KnownErrors,
    ReadLimits,
    Refused,
    Stated,
    check_claims,
    checked_file,
    checked_pixels,
    finite_number,
    rejecting,
    whole_number,
)
from data_prep.read.dicom_parse import BoundedFile, parsed
from data_prep.read.dicom_pixels import breaks_off, check_codestream, ends_in_zeros, stored_values
from data_prep.read.enhanced import GROUP_KEYWORDS, Frame, frames_of, group_limits
from data_prep.read.slice_header import PixelPlace, SliceHeader

# pydicom quotes header values in warnings and log lines; they may name the patient.
logging.getLogger("pydicom").propagate = False

_CUT = "its pixels break off, and zeros follow, as an interrupted copy leaves them"
_KNOWN: KnownErrors = (
    (InvalidDicomError, Reason.NOT_DICOM, "not a DICOM file"),
    (EOFError, Reason.TRUNCATED, "the file ends too early"),
)
_JPEG_FAMILY = "1.2.840.10008.1.2.4."
# What the header says of the pixels; kept, so that the header of a plain file is parsed once.
_STATED_KEYWORDS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)
# What decoding looks at. Not the extended table of frame offsets: the frame that is checked must be the one
# that is decoded.
_PIXEL_KEYWORDS = (*_STATED_KEYWORDS, "FloatPixelData", "DoubleFloatPixelData", "PixelData")


def read_slices(path: Path, *, limits: ReadLimits = DEFAULT_LIMITS) -> tuple[SliceHeader, ...]:
    """Read the headers of all frames of a greyscale image; no pixel is decoded.

    Several frames, or a single one of an enhanced object, are described by functional groups.

    Raises:
        DicomRejected: for every failure, with the reason.
    """
    with rejecting(path, Reason.UNREADABLE, _KNOWN):
        status = checked_file(path, limits)
        with BoundedFile(path, limits) as file:
            dataset, syntax = parsed(
                file, (*HEADER_KEYWORDS, *_STATED_KEYWORDS), limits, stop_before_pixels=True
            )
            content = checked_pixels(file, dataset, syntax, status.st_size)
        elements = Elements(dataset)
        stated = {keyword: elements.get(keyword) for keyword in _STATED_KEYWORDS}
        place = PixelPlace(content, status.st_size, status.st_mtime_ns, stated)
        frames = _frames(path, elements, limits)
        check_claims(elements, limits, many_frames=bool(frames))
        if frames:
            return tuple(_frame_header(path, frame, syntax, place) for frame in frames)
        return (header_of(path, elements, syntax, place),)


def _frames(path: Path, elements: Elements, limits: ReadLimits) -> list[Frame]:
    """The frames of an enhanced object; none of a classic one, which says where it lies itself."""
    count = int(whole_number(elements, "NumberOfFrames", 1))
    if count < 2 and elements.get("ImagePositionPatient"):
        return []
    wide = group_limits(limits, count)
    with BoundedFile(path, wide) as file:
        dataset, syntax = parsed(file, GROUP_KEYWORDS, wide, stop_before_pixels=True)
    return frames_of(dataset, elements, syntax, count, wide)


def _frame_header(path: Path, frame: Frame, syntax: str, place: PixelPlace) -> SliceHeader:
    """The header of one frame: an image with a number and an identifier of its own."""
    stated = {**place.stated, **{key: frame.get(key) for key in ("RescaleSlope", "RescaleIntercept")}}
    header = header_of(path, frame, syntax, replace(place, stated=stated))
    several = int(place.stated.get("NumberOfFrames") or 1) > 1
    return replace(
        header,
        frame=frame.number if several else None,
        instance_number=frame.number + 1 if several else header.instance_number,
        sop_uid=f"{header.sop_uid}.{frame.number + 1}" if several and header.sop_uid else header.sop_uid,
    )


def read_pixels(header: SliceHeader) -> NDArray[np.float32]:
    """Decode one image: float32, shape ``header.plane.shape``, bright = high signal.

    RescaleSlope and RescaleIntercept are applied. MONOCHROME1 is turned round its own maximum, so that
    the darkest signal becomes 0.

    Raises:
        DicomRejected: for every failure, with the reason.
    """
    path, limits = header.path, DEFAULT_LIMITS
    with rejecting(path, Reason.BAD_PIXELS, _KNOWN):
        plain = _plain_signal(header, checked_file(path, limits))
        if plain is not None:
            return plain
        with BoundedFile(path, limits) as file:
            dataset, syntax = parsed(file, _PIXEL_KEYWORDS, limits, stop_before_pixels=False)
        elements = Elements(dataset)
        check_claims(elements, limits, many_frames=header.frame is not None)
        if (int(elements.get("Rows")), int(elements.get("Columns"))) != header.plane.shape:
            raise Refused(Reason.BAD_PIXELS, "the file changed after its header was read")
        if dataset.get("PixelData") and syntax.startswith(_JPEG_FAMILY):
            count = int(whole_number(elements, "NumberOfFrames", 1))
            streams = generate_frames(dataset.PixelData, number_of_frames=count)
            frame = next(islice(streams, header.frame or 0, None))
            check_codestream(frame, syntax, header.plane.shape)
            if ends_in_zeros(frame):
                raise Refused(Reason.TRUNCATED, _CUT)
        stated = header.pixels if header.pixels is not None and header.frame is not None else elements
        stored = _as_the_image_has_it(decoded(dataset, syntax, header.frame), elements)
        return _signal(stored, stated, header.plane.shape)


def _plain_signal(header: SliceHeader, status: os.stat_result) -> NDArray[np.float32] | None:
    """The image of a plain file whose header is known; None for any other."""
    place, shape = header.pixels, header.plane.shape
    if place is None or place.content is None or not place.is_of(status):
        return None
    first, length = place.content
    if header.frame is not None:
        size = 2 * shape[0] * shape[1]
        first, length, ends = first + header.frame * size, size, first + length
        if header.transfer_syntax == RLE or first + length > ends:
            return None
    with header.path.open("rb") as file:
        file.seek(first)
        stored = plain_pixels(place, file.read(length), header.transfer_syntax)
    if stored is not None and header.transfer_syntax != RLE and breaks_off(stored, first):
        raise Refused(Reason.TRUNCATED, _CUT)
    return None if stored is None else _signal(stored, place, shape)


def _as_the_image_has_it(stored: NDArray[Any], elements: Stated) -> NDArray[Any]:
    """Values of 16 bits that a decoder gave, where the header is wrong about them: see ``stored_values``."""
    if stored.dtype not in (np.int16, np.uint16) or stored.ndim != 2:
        return stored
    words = np.ascontiguousarray(stored).view(np.uint16)
    bits = int(whole_number(elements, "BitsStored", 16))
    return stored_values(words, min(max(bits, 1), 16), is_signed=stored.dtype == np.int16)


def _without_padding(stored: NDArray[Any], elements: Stated) -> NDArray[Any]:
    """Stored values, those of padding (PS3.3 section C.7.5.1.1.2) as dark as the darkest of the others."""
    value = _padding_value(elements.get("PixelPaddingValue"), stored.dtype)
    if value is None or stored.dtype.kind not in "iu":
        return stored
    limit = _padding_value(elements.get("PixelPaddingRangeLimit"), stored.dtype)
    low, high = sorted((value, value if limit is None else limit))
    padding = (stored >= low) & (stored <= high)
    if not padding.any() or padding.all():
        return stored
    inverted = str(elements.get("PhotometricInterpretation", "")).strip() == "MONOCHROME1"
    shown = stored[~padding]
    return np.where(padding, shown.max() if inverted else shown.min(), stored)


def _padding_value(value: Any, dtype: np.dtype[Any]) -> int | None:
    """The value as pixels have it: some writers give it the other sign."""
    try:
        number = int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)
    except (TypeError, ValueError):
        return None
    bits = 8 * dtype.itemsize
    if dtype.kind == "i" and number >= 1 << (bits - 1):
        return number - (1 << bits)
    return number + (1 << bits) if dtype.kind == "u" and number < 0 else number


def _signal(stored: NDArray[Any], elements: Stated, shape: tuple[int, int]) -> NDArray[np.float32]:
    if stored.shape != shape:
        raise Refused(Reason.BAD_PIXELS, f"decoded to {stored.shape}, but the header says {shape}")
    slope, intercept = finite_number(elements, "RescaleSlope"), finite_number(elements, "RescaleIntercept")
    signal = _without_padding(stored, elements).astype(np.float32)
    if slope:  # 0 would leave nothing of the image
        signal *= np.float32(slope)
    if intercept is not None:
        signal += np.float32(intercept)
    whole = stored.dtype.kind in "iu" and slope is None and intercept is None
    if not whole and not np.isfinite(signal).all():
        raise Refused(Reason.BAD_PIXELS, "pixel values are not finite")
    if str(elements.get("PhotometricInterpretation", "")).strip() == "MONOCHROME1":
        signal = signal.max() - signal
    return signal
