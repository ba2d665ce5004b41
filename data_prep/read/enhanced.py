"""Enhanced MR: geometry and times of every frame, from the functional groups (PS3.3 section C.7.6.16).

A frame says what is its own in an item of the per-frame groups; what all have in common stands in the
shared ones. The sequences are parsed within the bounds of every other file: so many reads, and no inner
sequence longer than a scanner writes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence
from pydicom.tag import Tag

from data_prep.problems import Reason
from data_prep.read.dicom_limits import BIG_ENDIAN, IMPLICIT_LITTLE, ReadLimits, Refused
from data_prep.read.dicom_parse import BoundedFile

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
GROUP_KEYWORDS = (SHARED, PER_FRAME)
MAX_FRAMES = 2000
_READS_PER_FRAME = 400
_MAX_READS = 120_000
_MAX_INNER_BYTES = 4096
_MAX_GROUPS_BYTES = 32 * 1024 * 1024
# keyword of the header → (sequence, keyword) in a functional group.
_PLACES: Mapping[str, tuple[str, str]] = {
    "ImagePositionPatient": ("PlanePositionSequence", "ImagePositionPatient"),
    "ImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "SpacingBetweenSlices": ("PixelMeasuresSequence", "SpacingBetweenSlices"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "ImageType": ("MRImageFrameTypeSequence", "FrameType"),
    "RescaleSlope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "RescaleIntercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
    "SequenceName": ("MRImageFrameTypeSequence", "AcquisitionContrast"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "InStackPositionNumber": ("FrameContentSequence", "InStackPositionNumber"),
    "StackID": ("FrameContentSequence", "StackID"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
}
_SEQUENCES = frozenset(Tag(sequence) for sequence, _ in _PLACES.values())


@dataclass(frozen=True)
class Frame:
    """Values of one frame by the keywords of an image with one frame; what it does not say, the file may.

    Attributes:
        number: from 0.
        own: of its functional groups.
        file: of the file.
    """

    number: int
    own: Mapping[str, Any]
    file: Any

    def get(self, keyword: str, default: Any = None, /) -> Any:
        """As ``Elements``."""
        value = self.own.get(keyword)
        return self.file.get(keyword, default) if value is None else value

    def raw(self, keyword: str) -> bytes:
        """As ``Elements``."""
        found: bytes = self.file.raw(keyword)
        return found


def group_limits(limits: ReadLimits, frames: int) -> ReadLimits:
    """Limits of a file with so many frames: each may cost some hundred reads more."""
    if frames > MAX_FRAMES:
        raise Refused(Reason.TOO_LARGE, f"{frames} frames; the limit is {MAX_FRAMES}")
    reads = min(max(_MAX_READS, limits.max_reads), limits.max_reads + _READS_PER_FRAME * frames)
    return replace(limits, max_reads=reads, max_value_bytes=_MAX_GROUPS_BYTES, sequences_wanted=True)


def frames_of(dataset: Dataset, elements: Any, syntax: str, frames: int, limits: ReadLimits) -> list[Frame]:
    """The frames of a file whose functional groups were read; none if it has none.

    Args:
        dataset: with the two sequences as they are in the file.
        limits: of ``group_limits``.

    Raises:
        Refused: the groups are not those of so many frames, or larger than a scanner writes.
    """
    shared, per_frame = (_items(dataset, keyword, syntax, limits) for keyword in GROUP_KEYWORDS)
    if not per_frame:
        return []
    if len(per_frame) != frames:
        message = f"{frames} frames, but functional groups of {len(per_frame)}"
        raise Refused(Reason.BAD_GEOMETRY, message)
    common = _values(shared[0]) if shared else {}
    return [Frame(number, {**common, **_values(item)}, elements) for number, item in enumerate(per_frame)]


def _items(dataset: Dataset, keyword: str, syntax: str, limits: ReadLimits) -> list[Dataset]:
    tag = Tag(keyword)
    if tag not in dataset:
        return []
    raw: Any = dataset.get_item(tag)
    if isinstance(raw, RawDataElement):
        content = raw.value or b""
        with BoundedFile(io.BytesIO(content), limits) as file:
            implicit, little = syntax == IMPLICIT_LITTLE, syntax != BIG_ENDIAN
            return list(read_sequence(file, implicit, little, len(content), "iso8859"))
    return list(raw.value or ())


def _values(group: Dataset) -> dict[str, Any]:
    for tag in group.keys():  # noqa: SIM118 (iterating a Dataset would decode its values)
        inner: Any = group.get_item(tag)
        value = getattr(inner, "value", None)
        if tag in _SEQUENCES and isinstance(value, bytes) and len(value) > _MAX_INNER_BYTES:
            raise Refused(Reason.TOO_LARGE, "a functional group is longer than any scanner writes")
    found = {}
    for keyword, (sequence, name) in _PLACES.items():
        items = group.get(sequence) if Tag(sequence) in group else None
        if items:
            value = items[0].get(name)
            if value is not None:
                found[keyword] = _plain(value, only_first=keyword.endswith("Time"))
    return found


def _plain(value: Any, *, only_first: bool) -> Any:
    """A list for several values, or the first of them."""
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return value
    values = list(value)
    return (values[0] if values else None) if only_first else values
