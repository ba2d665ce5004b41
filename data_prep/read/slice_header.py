"""What the header of one image says, whatever file it came from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import SlicePlane


@dataclass(frozen=True, eq=False)
class PixelPlace:
    """Where the pixel data of a file are, and what its header says of them.

    Attributes:
        content: first byte and length of plain pixel data: of the value, or of the only fragment; None of
            others.
        size, modified_ns: of the file when it was read; another one is parsed anew.
        stated: values by keyword; none that names a patient.
    """

    content: tuple[int, int] | None
    size: int
    modified_ns: int
    stated: Mapping[str, Any]

    def get(self, keyword: str, default: Any = None, /) -> Any:
        """What the header states; as ``Elements``."""
        return self.stated.get(keyword, default)

    def is_of(self, status: os.stat_result) -> bool:
        """Whether the file is still the one whose header was read."""
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
            anywhere. Of the name digests are enough: of its letters, and of other scripts beside them.
            The date is that of series or acquisition where the study has none.
        frame_uid: FrameOfReferenceUID.
        description, protocol, sequence_name: SeriesDescription, ProtocolName and SequenceName, for typing a
            series only: free text that is never written anywhere.
        body_part: BodyPartExamined, upper case; a hint, never written anywhere.
        image_type, scanning_sequence, scan_options: upper-case code strings.
        has_contrast: a contrast agent is named.
        is_capture: a secondary capture: a picture of what was on a screen, or made by another program.
        b_value: of a diffusion image, s/mm²; 0 of others.
        acquired: seconds, of the day where no date is said, else SeriesNumber; 0 if nothing says.
        is_lossy: compressed with loss, or in 8 bits, where scanners write 12 and more.
        acquisition_number, echo_number: AcquisitionNumber and EchoNumbers, or None.
        temporal_position: which of several times that the same slices were acquired, or None.
        repetition_time_ms, echo_time_ms, inversion_time_ms: or None.
        spacing_mm, thickness_mm: SpacingBetweenSlices and SliceThickness, or None.
        images_stated, slices_stated: how many images and slices the series has, as the header says, or None.
        stack_position: InStackPositionNumber, 10,000 more for each further StackID, or None.
        concatenation: of an object in parts ConcatenationUID, number of the part, and of all parts.
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
    patient_script_digest: str = field(default="", repr=False)
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
    is_capture: bool = False
    b_value: float = 0.0
    acquired: float = 0.0
    is_lossy: bool = False
    acquisition_number: int | None = None
    temporal_position: int | None = None
    echo_number: int | None = None
    repetition_time_ms: float | None = None
    echo_time_ms: float | None = None
    inversion_time_ms: float | None = None
    spacing_mm: float | None = None
    thickness_mm: float | None = None
    images_stated: int | None = None
    slices_stated: int | None = None
    stack_position: int | None = None
    concatenation: tuple[str, int, int] | None = None
    frame: int | None = None
    pixels: PixelPlace | None = field(default=None, repr=False)
    reader: Callable[[], NDArray[np.float32]] | None = field(default=None, repr=False)

    @cached_property
    def place(self) -> tuple[float, ...]:
        """Where the image lies, rounded: its first pixel to .1 mm and its direction to .01."""
        origin, normal = self.plane.origin_mm.tolist(), self.plane.normal.tolist()
        # As np.round, without its detours.
        return (*(round(10 * at) / 10 for at in origin), *(round(100 * at) / 100 for at in normal))
