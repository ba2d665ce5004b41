"""What the elements of a DICOM file say of an image and its place in the patient, as a ``SliceHeader``."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path

from pydicom.charset import convert_encodings, decode_bytes

from data_prep.geometry import SlicePlane
from data_prep.problems import Reason
from data_prep.read.dicom_fast import Elements
from data_prep.read.dicom_limits import LOSSY_SYNTAXES, Refused, Stated, finite_number, whole_number
from data_prep.read.enhanced import Frame
from data_prep.read.slice_header import PixelPlace, SliceHeader

_CONTRAST_AMOUNTS = ("ContrastBolusVolume", "ContrastBolusTotalDose")
_IMAGES_STATED = ("ImagesInAcquisition", "NumberOfSeriesRelatedInstances")
_CONCATENATION = ("ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber")
_DATE_KEYWORDS = ("StudyDate", "SeriesDate", "AcquisitionDate")
_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_MR_CLASSES = tuple(f"{_STORAGE}4{more}" for more in ("", ".1", ".3", ".4"))
_OTHER_MODALITIES = re.compile(
    "AR|BDUS|BI|BMD|CR|CT|DG|DX|ECG|ES|GM|HC|IO|IVOCT|IVUS|KO|LS|MG|NM|OCT|OPT?|PR|PT|PX|REG|RF|RG"
    "|RTDOSE|RTIMAGE|RTPLAN|RTSTRUCT|SEG|SM|SR|TG|US|XA|XC"
)
HEADER_KEYWORDS = (
    "Modality",
    "SOPClassUID",
    "SpecificCharacterSet",
    "DiffusionBValue",
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
    "ContrastBolusStartTime",
    *_CONTRAST_AMOUNTS,
    "SeriesNumber",
    "AcquisitionTime",
    "SeriesTime",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "ImageType",
    "LossyImageCompression",
    "RepetitionTime",
    "EchoTime",
    "EchoNumbers",
    "InversionTime",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "SliceThickness",
    *_IMAGES_STATED,
    "NumberOfSlices",
    "InStackPositionNumber",
    "StackID",
    *_CONCATENATION,
)
# Scanners put the isocentre at 0 and have pixels of 0.1 to 10 mm. One file far beyond would move the middle
# of its series, where the levels are looked for, out of the body.
_MAX_DISTANCE_MM = 10_000.0
_MIN_SPACING_MM, _MAX_SPACING_MM = 0.01, 100.0
_FEW_BITS = 8
_NAME_SEPARATORS = re.compile(r"[\0\s,^]+")
_NO_CONTRAST = ("", "NONE", "NO", "N", "NO CONTRAST", "WITHOUT", "OHNE")


def header_of(path: Path, elements: Elements | Frame, syntax: str, place: PixelPlace) -> SliceHeader:
    """What a file, or one frame of it, says of its image. Raises Refused."""

    def text(keyword: str) -> str:
        try:
            value = elements.get(keyword)
        except Exception:  # an odd text must not lose the image; pydicom raises whatever it likes
            return ""
        return " ".join(map(str, value)) if isinstance(value, list) else str(value or "").strip()

    sop_class = text("SOPClassUID")
    _refuse_other_modality(text("Modality").upper(), sop_class)
    letters, script = name_digests(elements.raw("PatientName"), elements.raw("SpecificCharacterSet"))
    return SliceHeader(
        path=path,
        plane=_plane(elements),
        instance_number=whole_number(elements, "InstanceNumber", None),
        study_uid=str(elements.get("StudyInstanceUID") or "").strip(),
        series_uid=str(elements.get("SeriesInstanceUID") or "").strip(),
        sop_uid=str(elements.get("SOPInstanceUID") or "").strip(),
        transfer_syntax=syntax,
        patient_id=text("PatientID"),
        patient_name_digest=letters,
        patient_script_digest=script,
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
        or bool(text("ContrastBolusStartTime"))
        or any((finite_number(elements, keyword) or 0) > 0 for keyword in _CONTRAST_AMOUNTS),
        is_capture=_is_of(sop_class, _CAPTURES),
        b_value=finite_number(elements, "DiffusionBValue") or 0.0,
        acquired=_acquired(
            text("AcquisitionDate") or text("SeriesDate"),
            text("AcquisitionTime") or text("SeriesTime"),
            text("SeriesNumber"),
        ),
        is_lossy=_is_lossy(elements, syntax),
        acquisition_number=_whole_or_none(elements, "AcquisitionNumber"),
        temporal_position=_whole_or_none(elements, "TemporalPositionIdentifier"),
        echo_number=_whole_or_none(elements, "EchoNumbers"),
        repetition_time_ms=finite_number(elements, "RepetitionTime"),
        echo_time_ms=finite_number(elements, "EchoTime"),
        inversion_time_ms=finite_number(elements, "InversionTime"),
        spacing_mm=abs(finite_number(elements, "SpacingBetweenSlices") or 0.0) or None,
        thickness_mm=abs(finite_number(elements, "SliceThickness") or 0.0) or None,
        images_stated=max(_whole_or_none(elements, keyword) or 0 for keyword in _IMAGES_STATED) or None,
        slices_stated=_whole_or_none(elements, "NumberOfSlices"),
        stack_position=_stack_position(elements, text("StackID")),
        concatenation=_concatenation(elements),
        pixels=place,
    )


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


def _refuse_other_modality(modality: str, sop_class: str) -> None:
    """Refuse what is no MR image by its modality, or, where that is missing, by its storage class."""
    if _OTHER_MODALITIES.fullmatch(modality):
        raise Refused(Reason.OTHER_MODALITY, f"object of modality {modality}")
    known = sop_class.startswith(_STORAGE) and not _is_of(sop_class, _CAPTURES)
    if not modality and known and sop_class not in _MR_CLASSES:
        raise Refused(Reason.OTHER_MODALITY, "image of another modality")


def _is_of(sop_class: str, family: str) -> bool:
    return sop_class == family or sop_class.startswith(f"{family}.")


def _acquired(date: str, time: str, number: str) -> float:
    """A number of seconds that grows past midnight, too; those of the day where no date is said."""
    day = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", date, re.ASCII)
    days = 372 * int(day[1]) + 31 * int(day[2]) + int(day[3]) if day else 0
    match = re.fullmatch(r"(\d\d)(\d\d)(\d\d(?:\.\d+)?)?", time.replace(":", ""))
    if match:
        hours, minutes, seconds = match.groups(default="0")
        return 86_400.0 * days + 3600 * float(hours) + 60 * float(minutes) + float(seconds)
    return float(number) if re.fullmatch(r"\d{1,9}", number) else 0.0


def _is_lossy(elements: Stated, syntax: str) -> bool:
    """Whether grey values were lost. A syntax that allows a loss is taken for one, unless that is denied."""
    said = str(elements.get("LossyImageCompression") or "").strip()
    few_bits = (_whole_or_none(elements, "BitsStored") or 16) <= _FEW_BITS
    return said == "01" or few_bits or (syntax in LOSSY_SYNTAXES and said != "00")


def _enhanced_sequence(elements: Stated) -> tuple[str, ...]:
    """ScanningSequence as enhanced objects say it."""
    pulses = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}
    found = pulses.get(str(elements.get("EchoPulseSequence") or "").strip().upper(), ())
    return (*found, "IR") if str(elements.get("InversionRecovery") or "").strip().upper() == "YES" else found


def name_digests(raw: bytes, charset: bytes = b"") -> tuple[str, str]:
    """By which two names are told apart, however they are encoded and their components separated.

    Args:
        raw: PatientName as it is in the file.
        charset: SpecificCharacterSet as it is in the file.

    Returns:
        Digests of the name in Latin letters, without accents, and of the other scripts beside it; a name in
        another script alone is the first. "" for no name.
    """
    text = raw.decode("ascii") if raw.isascii() and b"\x1b" not in raw else _decoded_name(raw, charset)
    folded = unicodedata.normalize("NFKD", text.upper())
    groups = "".join(char for char in folded if not unicodedata.combining(char)).split("=")
    latin = _digest("^".join(group for group in groups if group.isascii()))
    other = _digest("^".join(group for group in groups if not group.isascii()))
    return (latin, other) if latin else (other, "")


def _decoded_name(raw: bytes, charset: bytes) -> str:
    """The name as its character set has it; where that cannot be, as UTF-8, else as Latin-1."""
    terms = [term.strip() for term in charset.decode("ascii", "replace").strip("\0 ").split("\\")]
    try:
        if not any(terms):
            return raw.decode("utf-8")
        name = decode_bytes(raw, convert_encodings(terms), set(b"^="))
        # Two names of which only the wrong letters are left would be one.
        return raw.decode("latin-1") if "\ufffd" in name else name
    except Exception:  # pydicom raises whatever it likes
        return raw.decode("latin-1")


def _digest(name: str) -> str:
    name = _NAME_SEPARATORS.sub("^", name).strip("^")
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16] if name else ""


def _whole_or_none(elements: Stated, keyword: str) -> int | None:
    try:
        found = whole_number(elements, keyword, None)
    except (TypeError, ValueError):
        return None
    return None if found is None else int(found)


def _stack_position(elements: Stated, stack: str) -> int | None:
    place = _whole_or_none(elements, "InStackPositionNumber")
    number = int(stack) if re.fullmatch(r"[1-9]\d{0,3}", stack, re.ASCII) else 1
    return None if place is None else place + 10_000 * (number - 1)


def _concatenation(elements: Stated) -> tuple[str, int, int] | None:
    uid, *numbers = _CONCATENATION
    part, parts = (_whole_or_none(elements, keyword) for keyword in numbers)
    return (str(elements.get(uid) or ""), part, parts) if part and parts else None


def _codes(elements: Elements | Frame, keyword: str) -> tuple[str, ...]:
    value = elements.get(keyword) or ()
    return tuple(str(code).upper() for code in ([value] if isinstance(value, str) else value))
