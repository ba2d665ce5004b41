"""One DICOM file, read safely: the header first, pixels only when asked.

Every failure leaves this module as ``DicomRejected``: limits are checked before parsing and again before
decoding, and whatever the parser or a decoder raises is caught in one place. Messages never carry header
text, values, or a path beyond the file's own name.
"""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError

from data_prep.geometry import SlicePlane
from data_prep.names import input_label
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.dicom_codestream import check_codestream
from data_prep.read.dicom_fast import Elements, decoded, pixel_content, plain_pixels
from data_prep.read.dicom_limits import (
    DEFAULT_LIMITS,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    LOSSY_SYNTAXES,
    BoundedFile,
    ReadLimits,
    Refused,
    check_claims,
    check_pixel_element,
    checked_size,
    finite_number,
    parsed,
    whole_number,
)
from data_prep.read.dicom_limits import Elements as Stated
from data_prep.read.enhanced import GROUP_KEYWORDS, Frame, frames_of, group_limits

# pydicom quotes header values in warnings and log lines; they may name the patient.
logging.getLogger("pydicom").propagate = False

_JPEG_FAMILY = "1.2.840.10008.1.2.4."
_CONTRAST_AMOUNTS = ("ContrastBolusVolume", "ContrastBolusTotalDose")
_DATE_KEYWORDS = ("StudyDate", "SeriesDate", "AcquisitionDate")
_HEADER_KEYWORDS = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    *_DATE_KEYWORDS,
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "BodyPartExamined",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "InstanceNumber",
    "SeriesDescription",
    "ProtocolName",
    "SequenceName",
    "ScanningSequence",
    "EchoPulseSequence",
    "InversionRecovery",
    "ScanOptions",
    "ContrastBolusAgent",
    *_CONTRAST_AMOUNTS,
    "SeriesNumber",
    "AcquisitionTime",
    "SeriesTime",
    "AcquisitionNumber",
    "ImageType",
    "LossyImageCompression",
    "RepetitionTime",
    "EchoTime",
    "EchoNumbers",
    "InversionTime",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
)
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
# Scanners put the isocentre at 0 and have pixels of 0.1 to 10 mm. One file far beyond would move the middle
# of its series, where the levels are looked for, out of the body.
_MAX_DISTANCE_MM = 10_000.0
_MIN_SPACING_MM, _MAX_SPACING_MM = 0.01, 100.0
_FEW_BITS = 8
_NAME_SEPARATORS = re.compile(rb"[\0\s,^=]+")
_NO_CONTRAST = ("", "NONE", "NO", "N", "NO CONTRAST", "WITHOUT", "OHNE")


@dataclass(frozen=True, eq=False)
class PixelPlace:
    """Where the pixel data of a file are, and what its header says of them.

    Attributes:
        start: first byte of the element.
        size, modified_ns: of the file when it was read; another one is parsed anew.
        stated: values by keyword; none that names a patient.
    """

    start: int
    size: int
    modified_ns: int
    stated: Mapping[str, Any]

    def get(self, keyword: str, default: Any = None, /) -> Any:
        """What the header states; as ``Elements``."""
        return self.stated.get(keyword, default)

    def is_of(self, path: Path) -> bool:
        """Whether the file is still the one whose header was read."""
        status = path.stat()
        return (status.st_size, status.st_mtime_ns) == (self.size, self.modified_ns)


@dataclass(frozen=True, eq=False)
class SliceHeader:
    """What the header of one image says.

    Attributes:
        path: the file.
        plane: pixel grid in patient space.
        instance_number: InstanceNumber, or None.
        study_uid, series_uid, sop_uid: identifiers, "" where missing. They need not be valid UIDs.
        transfer_syntax: UID from the File Meta.
        patient_id, birth_date, study_date: to tell patients and examinations apart only: never written
            anywhere. Of the name a digest is enough. The date is that of series or acquisition where the
            study has none.
        frame_uid: FrameOfReferenceUID.
        description, protocol, sequence_name: SeriesDescription, ProtocolName and SequenceName, for typing a
            series only: free text that is never written anywhere.
        body_part: BodyPartExamined, upper case; a hint, never written anywhere.
        image_type, scanning_sequence, scan_options: upper-case code strings.
        has_contrast: a contrast agent is named.
        acquired: seconds of the day, else SeriesNumber; 0 if nothing says.
        is_lossy: compressed with loss, or in 8 bits, where scanners write 12 and more.
        acquisition_number, echo_number: AcquisitionNumber and EchoNumbers, or None.
        repetition_time_ms, echo_time_ms, inversion_time_ms: or None.
        frame: which one of several in the file, from 0; None where it holds one.
        pixels: where they are in the file, to decode them without parsing it again.
        reader: reads the pixels of what is no DICOM file.
    """

    path: Path = field(repr=False)
    plane: SlicePlane
    instance_number: int | None = None
    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""
    transfer_syntax: str = ""
    patient_id: str = field(default="", repr=False)
    patient_name_digest: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    study_date: str = field(default="", repr=False)
    frame_uid: str = ""
    description: str = field(default="", repr=False)
    protocol: str = field(default="", repr=False)
    sequence_name: str = field(default="", repr=False)
    body_part: str = field(default="", repr=False)
    image_type: tuple[str, ...] = ()
    scanning_sequence: tuple[str, ...] = ()
    scan_options: tuple[str, ...] = ()
    has_contrast: bool = False
    acquired: float = 0.0
    is_lossy: bool = False
    acquisition_number: int | None = None
    echo_number: int | None = None
    repetition_time_ms: float | None = None
    echo_time_ms: float | None = None
    inversion_time_ms: float | None = None
    frame: int | None = None
    pixels: PixelPlace | None = field(default=None, repr=False)
    reader: Callable[[], NDArray[np.float32]] | None = field(default=None, repr=False)


def read_slice(
    path: Path, *, limits: ReadLimits = DEFAULT_LIMITS, study_id: str = "", series_id: str = ""
) -> SliceHeader:
    """Read the header of one single-frame greyscale image; see ``read_slices``."""
    first, *others = read_slices(path, limits=limits, study_id=study_id, series_id=series_id)
    if others:
        message = f"{len(others) + 1} frames in one file"
        raise DicomRejected(
            Rejection.of(path, Reason.MULTI_FRAME, message, study_id=study_id, series_id=series_id)
        )
    return first


def read_slices(
    path: Path, *, limits: ReadLimits = DEFAULT_LIMITS, study_id: str = "", series_id: str = ""
) -> tuple[SliceHeader, ...]:
    """Read the headers of all frames of a greyscale image; no pixel is decoded.

    Several frames, or a single one of an enhanced object, are described by functional groups.
    ``study_id`` and ``series_id`` only name the place in a rejection.

    Raises:
        DicomRejected: for every failure, with the reason.
    """
    with _rejecting(path, study_id, series_id, Reason.UNREADABLE):
        size = checked_size(path, limits)
        with BoundedFile(path, limits) as file:
            dataset, syntax = parsed(
                file, (*_HEADER_KEYWORDS, *_STATED_KEYWORDS), limits, stop_before_pixels=True
            )
            start = file.tell()
            check_pixel_element(file, dataset, syntax, size)
        elements = Elements(dataset)
        stated = {keyword: elements.get(keyword) for keyword in _STATED_KEYWORDS}
        place = PixelPlace(start, size, path.stat().st_mtime_ns, stated)
        frames = _frames(path, elements, limits)
        check_claims(elements, limits, many_frames=bool(frames))
        if frames:
            return tuple(_frame_header(path, frame, syntax, place) for frame in frames)
        return (replace(_header(path, elements, _plane(elements), syntax), pixels=place),)


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
    header = _header(path, frame, _plane(frame), syntax)
    stated = {**place.stated, **{key: frame.get(key) for key in ("RescaleSlope", "RescaleIntercept")}}
    several = int(place.stated.get("NumberOfFrames") or 1) > 1
    return replace(
        header,
        pixels=replace(place, stated=stated),
        frame=frame.number if several else None,
        instance_number=frame.number + 1 if several else header.instance_number,
        sop_uid=f"{header.sop_uid}.{frame.number + 1}" if several and header.sop_uid else header.sop_uid,
    )


def read_pixels(
    header: SliceHeader, *, limits: ReadLimits = DEFAULT_LIMITS, study_id: str = "", series_id: str = ""
) -> NDArray[np.float32]:
    """Decode one image: float32, shape ``header.plane.shape``, bright = high signal.

    RescaleSlope and RescaleIntercept are applied. MONOCHROME1 is turned round its own maximum, so that
    the darkest signal becomes 0.

    Raises:
        DicomRejected: for every failure, with the reason.
    """
    path = header.path
    with _rejecting(path, study_id, series_id, Reason.BAD_PIXELS):
        checked_size(path, limits)
        plain = _plain_signal(header, limits)
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
            check_codestream(next(islice(streams, header.frame or 0, None)), syntax, header.plane.shape)
        stated = header.pixels if header.pixels is not None and header.frame is not None else elements
        return _signal(decoded(dataset, syntax, header.frame), stated, header.plane.shape)


def _plain_signal(header: SliceHeader, limits: ReadLimits) -> NDArray[np.float32] | None:
    """The image of a plain file whose header is known; None for any other."""
    place = header.pixels
    if place is None or not place.is_of(header.path):
        return None
    with BoundedFile(header.path, limits) as file:
        content = pixel_content(file, place.start, header.transfer_syntax)
    if header.frame is not None:
        content = _native_frame(header.frame, content, header)
    stored = plain_pixels(place, content, header.transfer_syntax)
    return None if stored is None else _signal(stored, place, header.plane.shape)


def _native_frame(number: int, content: bytes | None, header: SliceHeader) -> bytes | None:
    """The bytes of one frame of uncompressed pixels of 16 bits; None of others."""
    rows, columns = header.plane.shape
    size = rows * columns * 2
    if content is None or header.transfer_syntax not in (IMPLICIT_LITTLE, EXPLICIT_LITTLE):
        return None
    return content[number * size : (number + 1) * size]


@contextmanager
def _rejecting(path: Path, study_id: str, series_id: str, otherwise: Reason) -> Iterator[None]:
    """Turn whatever is raised inside into DicomRejected.

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
    except InvalidDicomError:
        reason, message = Reason.NOT_DICOM, "not a DICOM file"
    except EOFError:
        reason, message = Reason.TRUNCATED, "the file ends too early"
    except BaseException as error:
        # The RLE decoder is written in Rust; its panics are no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason, message = otherwise, f"cannot be read ({type(error).__name__})"
    raise DicomRejected(Rejection(reason, message, study_id, series_id, input_label(path.name))) from None


def _plane(elements: Stated) -> SlicePlane:
    parts = []
    for keyword, length in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        value = elements.get(keyword)
        if value is None or value == "":
            raise Refused(Reason.MISSING_GEOMETRY, f"{keyword} is missing")
        try:
            numbers = [float(number) for number in value]
        except (TypeError, ValueError):
            raise Refused(Reason.BAD_GEOMETRY, f"{keyword} does not hold numbers") from None
        if len(numbers) != length:
            raise Refused(
                Reason.BAD_GEOMETRY, f"{keyword} must hold {length} numbers, but holds {len(numbers)}"
            )
        parts.append(numbers)
    position, orientation, spacing = parts
    if any(abs(number) > _MAX_DISTANCE_MM for number in position):
        raise Refused(
            Reason.BAD_GEOMETRY, f"the image lies farther than {_MAX_DISTANCE_MM:g} mm from the isocentre"
        )
    if any(not _MIN_SPACING_MM <= number <= _MAX_SPACING_MM for number in spacing):
        message = f"PixelSpacing must be {_MIN_SPACING_MM:g} to {_MAX_SPACING_MM:g} mm"
        raise Refused(Reason.BAD_GEOMETRY, message)
    try:
        return SlicePlane.from_dicom(
            position, orientation, spacing, (int(elements.get("Rows")), int(elements.get("Columns")))
        )
    except ValueError as error:
        raise Refused(Reason.BAD_GEOMETRY, str(error)) from None


def _header(path: Path, elements: Elements | Frame, plane: SlicePlane, syntax: str) -> SliceHeader:
    def text(keyword: str) -> str:
        try:
            value = elements.get(keyword)
        except Exception:  # an odd text must not lose the image; pydicom raises whatever it likes
            return ""
        return " ".join(map(str, value)) if isinstance(value, list) else str(value or "").strip()

    return SliceHeader(
        path=path,
        plane=plane,
        instance_number=whole_number(elements, "InstanceNumber", None),
        study_uid=str(elements.get("StudyInstanceUID") or "").strip(),
        series_uid=str(elements.get("SeriesInstanceUID") or "").strip(),
        sop_uid=str(elements.get("SOPInstanceUID") or "").strip(),
        transfer_syntax=syntax,
        patient_id=text("PatientID"),
        patient_name_digest=name_digest(elements.raw("PatientName")),
        birth_date=text("PatientBirthDate"),
        study_date=next(filter(None, map(text, _DATE_KEYWORDS)), ""),
        frame_uid=text("FrameOfReferenceUID"),
        description=text("SeriesDescription"),
        protocol=text("ProtocolName"),
        sequence_name=text("SequenceName"),
        body_part=text("BodyPartExamined").upper(),
        image_type=_codes(elements, "ImageType"),
        scanning_sequence=_codes(elements, "ScanningSequence") or _enhanced_sequence(elements),
        scan_options=_codes(elements, "ScanOptions"),
        has_contrast=text("ContrastBolusAgent").upper() not in _NO_CONTRAST
        or any((finite_number(elements, keyword) or 0) > 0 for keyword in _CONTRAST_AMOUNTS),
        acquired=_acquired(text("AcquisitionTime") or text("SeriesTime"), text("SeriesNumber")),
        is_lossy=_is_lossy(elements, syntax),
        acquisition_number=_whole_or_none(elements, "AcquisitionNumber"),
        echo_number=_whole_or_none(elements, "EchoNumbers"),
        repetition_time_ms=finite_number(elements, "RepetitionTime"),
        echo_time_ms=finite_number(elements, "EchoTime"),
        inversion_time_ms=finite_number(elements, "InversionTime"),
    )


def _acquired(time: str, number: str) -> float:
    match = re.fullmatch(r"(\d\d)(\d\d)(\d\d(?:\.\d+)?)?", time.replace(":", ""))
    if match:
        hours, minutes, seconds = match.groups(default="0")
        return 3600 * float(hours) + 60 * float(minutes) + float(seconds)
    return float(number) if re.fullmatch(r"\d{1,9}", number) else 0.0


def _is_lossy(elements: Stated, syntax: str) -> bool:
    """Whether grey values were lost. A syntax that allows a loss is taken for one, unless that is denied."""
    said = str(elements.get("LossyImageCompression") or "").strip()
    few_bits = (_whole_or_none(elements, "BitsStored") or 16) <= _FEW_BITS
    return said == "01" or few_bits or (syntax in LOSSY_SYNTAXES and said != "00")


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


def _enhanced_sequence(elements: Stated) -> tuple[str, ...]:
    """ScanningSequence as enhanced objects say it."""
    pulses = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}
    found = pulses.get(str(elements.get("EchoPulseSequence") or "").strip().upper(), ())
    return (*found, "IR") if str(elements.get("InversionRecovery") or "").strip().upper() == "YES" else found


def name_digest(raw: bytes) -> str:
    """By which two names are told apart, however their components are separated; "" for no name."""
    name = _NAME_SEPARATORS.sub(b"^", raw.upper()).strip(b"^")
    return hashlib.sha256(name).hexdigest()[:16] if name else ""


def _whole_or_none(elements: Stated, keyword: str) -> int | None:
    try:
        found = whole_number(elements, keyword, None)
    except (TypeError, ValueError):
        return None
    return None if found is None else int(found)


def _signal(stored: NDArray[Any], elements: Stated, shape: tuple[int, int]) -> NDArray[np.float32]:
    if stored.shape != shape:
        raise Refused(Reason.BAD_PIXELS, f"decoded to {stored.shape}, but the header says {shape}")
    slope, intercept = finite_number(elements, "RescaleSlope"), finite_number(elements, "RescaleIntercept")
    signal = _without_padding(stored, elements).astype(np.float32)
    if slope is not None:
        signal *= np.float32(slope)
    if intercept is not None:
        signal += np.float32(intercept)
    whole = stored.dtype.kind in "iu" and slope is None and intercept is None
    if not whole and not np.isfinite(signal).all():
        raise Refused(Reason.BAD_PIXELS, "pixel values are not finite")
    if str(elements.get("PhotometricInterpretation", "")).strip() == "MONOCHROME1":
        signal = signal.max() - signal
    return signal


def _codes(elements: Elements | Frame, keyword: str) -> tuple[str, ...]:
    value = elements.get(keyword) or ()
    return tuple(str(code).upper() for code in ([value] if isinstance(value, str) else value))
