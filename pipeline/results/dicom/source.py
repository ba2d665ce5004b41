"""What a result object takes from the images of its study: identifiers, the patient, the study.

The only place of the program that reads who the patient is. The values go into SR and SC objects, because an
archive files by them, and nowhere else: not into logs, messages, JSON or file names.

What the images lack is substituted (see docs/dicom.md): identifiers that are no valid UIDs by UIDs derived
from them, attributes that may be empty by nothing. What would file a result under the wrong patient is
refused.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import MRImageStorage
from pydicom.valuerep import DSfloat

from data_prep.base.uids import derived_uid, is_usable_uid
from data_prep.geometry import SlicePlane
from data_prep.levels import LevelPoint
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.dicom_limits import DEFAULT_LIMITS
from data_prep.read.dicom_parse import BoundedFile, parsed, storage_class
from data_prep.read.nifti_sidecar import is_nifti
from data_prep.study import Slice, Study

# Content date and time of a study that has none: results must not depend on the clock.
NO_DATE: Final = "19700101"
NO_TIME: Final = "000000"

# Largest number of characters (PS3.5 table 6.2-1) of what is copied, and which characters.
_TEXT = r"[^\\\x00-\x1f\x7f]*"
_DATE = r"((18|19|20|21)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01]))?"
_TIME = r"(([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?)?"
_COPIED: Final[dict[str, tuple[int, str]]] = {
    "PatientName": (324, _TEXT),
    "PatientID": (64, _TEXT),
    "IssuerOfPatientID": (64, _TEXT),
    "PatientBirthDate": (8, _DATE),
    "PatientSex": (1, r"[MFO]?"),
    "StudyDate": (8, _DATE),
    "StudyTime": (13, _TIME),
    "AccessionNumber": (16, _TEXT),
    "StudyID": (16, _TEXT),
    "ReferringPhysicianName": (324, _TEXT),
    "StudyDescription": (64, _TEXT),
}
_OPTIONAL: Final = ("IssuerOfPatientID", "StudyDescription")
# Images that differ in one of these are not of one patient, or not of one study.
_SAME_IN_ALL: Final = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate")
_SHOWN: Final = (
    "PhotometricInterpretation",
    "WindowCenter",
    "WindowWidth",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
)
_READ: Final = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "SliceThickness",
    *_SHOWN,
    *_COPIED,
)


@dataclass(frozen=True, eq=False)
class SourceImage:
    """One image that results refer to; every identifier is a valid UID.

    Attributes:
        plane: its pixel grid in the patient.
        frame: its number in an image of several frames, from 1; None in one of one.
        thickness_mm: None where the header does not say.
        shown: how it is to be shown: window, rescaling, MONOCHROME1 or 2; what the header says and is valid.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    plane: SlicePlane = field(repr=False)
    frame: int | None = None
    thickness_mm: float | None = None
    shown: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def has_look(self) -> bool:
        """Whether the header says with which window to show it, or that small values are bright."""
        return "WindowCenter" in self.shown or self.shown.get("PhotometricInterpretation") == "MONOCHROME1"

    def header(self) -> Dataset:
        """What an image library or a presentation state quotes of it (PS3.16 TID 1602, TID 1604)."""
        found, plane = Dataset(), self.plane
        found.SOPClassUID, found.SOPInstanceUID = self.sop_class_uid, self.sop_instance_uid
        found.SeriesInstanceUID = self.series_instance_uid
        found.FrameOfReferenceUID = self.frame_of_reference_uid
        found.Rows, found.Columns = plane.shape
        found.SamplesPerPixel = 1
        # Without a thickness there are no cross-sectional descriptors, of which it is one; nor for an image
        # of many frames, which has no one place.
        is_placed = self.thickness_mm is not None and self.frame is None
        found.Modality = "MR" if is_placed else "OT"
        found.PixelSpacing = [_decimal(value) for value in reversed(plane.spacing_mm)]
        found.ImagePositionPatient = [_decimal(value) for value in plane.origin_mm]
        found.ImageOrientationPatient = [_decimal(value) for value in (*plane.x_axis, *plane.y_axis)]
        if self.thickness_mm is not None:
            found.SliceThickness = _decimal(self.thickness_mm)
        for keyword, value in self.shown.items():
            setattr(found, keyword, value)
        return found


def _decimal(value: float) -> DSfloat:
    """As a decimal string (PS3.5, VR DS) of at most 16 characters."""
    return DSfloat(round(float(value), 6) + 0.0, auto_format=True)


@dataclass(frozen=True, eq=False)
class SourceStudy:
    """The study that results belong to.

    Attributes:
        study_instance_uid: valid.
        attributes: patient and study modules; empty text where the images say nothing. Not for logs.
        images: (series id, instance number) → image, in the order of the study.
    """

    study_instance_uid: str
    attributes: Mapping[str, str] = field(repr=False)
    images: Mapping[tuple[str, int], SourceImage] = field(repr=False)

    @property
    def content_date(self) -> str:
        """The day of the study; 1970-01-01 when it is not known."""
        return self.attributes["StudyDate"] or NO_DATE

    @property
    def content_time(self) -> str:
        """The time of the study; midnight when it, or its day, is not known."""
        return (self.attributes["StudyDate"] and self.attributes["StudyTime"]) or NO_TIME

    def image_of(self, point: LevelPoint) -> SourceImage | None:
        """The image that shows a point, or None."""
        sight = point.sight
        return None if sight is None else self.images.get((sight.series_id, sight.instance_number))

    def fill(self, dataset: Dataset) -> None:
        """Write patient and study modules into a result, in UTF-8."""
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.StudyInstanceUID = self.study_instance_uid
        for keyword, value in self.attributes.items():
            if value or keyword not in _OPTIONAL:
                setattr(dataset, keyword, value or None)

    def evidence(self, images: Iterable[SourceImage]) -> list[Dataset]:
        """Images as data sets with what a result quotes of them; one for all frames of a file."""
        found = []
        for image in {image.sop_instance_uid: image for image in images}.values():
            dataset = image.header()
            self.fill(dataset)
            found.append(dataset)
        return found


def read_source(study: Study) -> SourceStudy:
    """Read identifiers, patient and study of every image of a study.

    Raises:
        DicomRejected: ``dicom_result_refused``, naming the attribute: an image is NIfTI or cannot be read
            any more, PatientID is no valid value, or images name different patients or studies.
    """
    slices = {
        (series.series_id, item.instance_number): item for series in study.series for item in series.slices
    }
    if not slices:
        raise _refused(study.study_id, "the study has no image that a result could refer to")
    if any(item.path is not None and is_nifti(item.path) for item in slices.values()):
        raise _refused(study.study_id, "a NIfTI volume names no patient to file a result under")
    read: dict[Path, dict[str, str]] = {}
    headers = {key: _values_of(study.study_id, key, item.path, read) for key, item in slices.items()}
    for keyword in ("StudyInstanceUID", *_SAME_IN_ALL):
        if len({_compared(keyword, values[keyword]) for values in headers.values()} - {""}) > 1:
            raise _refused(study.study_id, f"{keyword} differs between the images of the study")
    attributes = {keyword: _first(keyword, headers.values(), study.study_id) for keyword in _COPIED}
    written = next(filter(None, (values["StudyInstanceUID"] for values in headers.values())), "")
    study_uid = (
        written if is_usable_uid(written, rooted=True) else derived_uid("study", written or study.study_id)
    )
    counts = Counter(values["SOPInstanceUID"] for values in read.values())
    images = {key: _image((study.study_id, *key), item, headers[key], counts) for key, item in slices.items()}
    return SourceStudy(study_uid, attributes, images)


def _values_of(
    study_id: str, key: tuple[str, int], path: Path | None, read: dict[Path, dict[str, str]]
) -> dict[str, str]:
    """What the file of a slice says, "" where it says nothing; ``read``: what was read before, by file."""
    where = f"image {key[1]} of series {key[0]}"
    if path is None:
        raise _refused(study_id, f"{where} is no file")
    if path in read:
        return read[path]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote values
            with BoundedFile(path, DEFAULT_LIMITS) as file:
                dataset, _ = parsed(file, _READ, DEFAULT_LIMITS, stop_before_pixels=True)
                values = {keyword: _text_of(dataset.get(keyword)).strip() for keyword in _READ}
                values["SOPClassUID"] = values["SOPClassUID"] or storage_class(file, DEFAULT_LIMITS)
    except Exception as error:
        # From None: the cause may quote the header.
        raise _refused(study_id, f"{where} cannot be read again ({type(error).__name__})") from None
    read[path] = values
    return values


def _text_of(value: object) -> str:
    """As it stands in the file: several values are parted by a backslash, and so are no valid one."""
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value or "")


def _image(
    place: tuple[str, str, int], item: Slice, values: Mapping[str, str], counts: Counter[str]
) -> SourceImage:
    """Keep each valid identifier; derive the others from what is written there, or from the place.

    A SOPInstanceUID that several images have says nothing about which one is meant: all get another.
    """
    study_id, series_id, number = place
    instance, series = values["SOPInstanceUID"], values["SeriesInstanceUID"]
    frame, sop_class = values["FrameOfReferenceUID"], values["SOPClassUID"]
    if counts[instance] > 1 or not instance:
        own = () if item.frame is not None else (str(number),)
        instance = derived_uid("instance", instance, study_id, series_id, *own)
    elif not is_usable_uid(instance, rooted=True):
        instance = derived_uid("instance", instance)
    if not is_usable_uid(series, rooted=True):
        series = derived_uid("series", series or f"{study_id}/{series_id}")
    if not is_usable_uid(frame, rooted=True):
        frame = derived_uid("frame", frame or f"{study_id}/{series_id}")
    return SourceImage(
        sop_class if is_usable_uid(sop_class, rooted=True) else MRImageStorage,
        instance,
        series,
        frame,
        item.plane,
        item.frame,
        thickness if (thickness := _number(values["SliceThickness"])) and 0.0 < thickness < 1000.0 else None,
        _shown(values),
    )


def _shown(values: Mapping[str, str]) -> dict[str, str]:
    """Of how an image is to be shown, what is valid: a window needs both its values, a rescaling, too."""
    found = {}
    if values["PhotometricInterpretation"] in ("MONOCHROME1", "MONOCHROME2"):
        found["PhotometricInterpretation"] = values["PhotometricInterpretation"]
    width = _number(values["WindowWidth"])
    for first, second in (("WindowCenter", "WindowWidth"), ("RescaleSlope", "RescaleIntercept")):
        if _number(values[first]) is not None and _number(values[second]) is not None:
            found |= {first: values[first], second: values[second]}
    if "WindowWidth" in found and (width is None or width < 1):
        del found["WindowCenter"], found["WindowWidth"]
    if "RescaleSlope" in found:
        found["RescaleType"] = values["RescaleType"] or "US"
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _first(keyword: str, headers: Iterable[Mapping[str, str]], study_id: str) -> str:
    """The first valid value that is not empty; "" without one."""
    longest, pattern = _COPIED[keyword]
    values: Sequence[str] = list(filter(None, (header[keyword] for header in headers)))
    for value in values:
        if len(value) <= longest and re.fullmatch(pattern, value):
            return value
    if values and keyword == "PatientID":
        raise _refused(study_id, "PatientID is no valid value: a result could not be filed under the patient")
    return ""


def _compared(keyword: str, value: str) -> str:
    """Names are the same in any case, and with or without empty components at their end."""
    return value.rstrip("^ ").upper() if keyword == "PatientName" else value


def _refused(study_id: str, message: str) -> DicomRejected:
    return DicomRejected(Rejection(Reason.NO_RESULT, f"no DICOM result: {message}", study_id))
