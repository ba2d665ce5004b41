"""What can go wrong and be said: errors, reasons with advice, and what of an input was rejected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from data_prep.names import input_label


class LumbarError(Exception):
    """Something that whoever uses the program can mend. The text says what, in words without a traceback.

    Attributes:
        advice: what to do about it, one sentence; empty when the text says it.
        rejections: smaller things that led to it.
    """

    advice: str = ""
    rejections: tuple[Rejection, ...] = ()


class Reason(StrEnum):
    """Why a file, a series or a study was rejected, or what a reader should be warned of."""

    NOT_DICOM = "not_dicom"
    TRUNCATED = "truncated"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    MULTI_FRAME = "multi_frame_not_supported"
    TRANSFER_SYNTAX = "transfer_syntax_not_supported"
    MISSING_GEOMETRY = "missing_geometry"
    BAD_GEOMETRY = "bad_geometry"
    NO_PIXELS = "no_pixels"
    BAD_PIXELS = "bad_pixels"
    DUPLICATE = "duplicate_instance"
    DUPLICATE_STUDY = "duplicate_study"
    MISPLACED = "misplaced_file"
    OTHER_PATIENT = "other_patient"
    OTHER_STUDY = "other_study"
    IDENTIFIERS = "identifiers_disagree"
    NOT_TOLD_APART = "patients_not_told_apart"
    ONE_PLACE = "images_not_told_apart"
    STUDY_DIVIDED = "study_divided"
    OTHER_FORMAT = "other_format"
    OTHER_MODALITY = "other_modality"
    LISTED_FILES = "listed_files_missing"
    LISTED_ONLY = "listed_series_missing"
    SLICES_MISSING = "slices_missing"
    LOCALISER = "localiser"
    UNKNOWN_KIND = "series_kind_unknown"
    KIND_DISAGREES = "series_kind_disagrees"
    NO_SLICES = "no_readable_slices"
    NO_SERIES = "no_usable_series"
    NO_IMAGES = "no_images"
    BAD_ARCHIVE = "bad_archive"
    ARCHIVE_TOO_LARGE = "archive_too_large"
    NESTED_ARCHIVE = "nested_archive"
    ENCRYPTED = "encrypted_member"
    LINK = "link_ignored"
    FAILED = "internal_failure"
    WORKER_DIED = "worker_died"
    NO_RESULT = "dicom_result_refused"


ADVICE: Final[dict[Reason, str]] = {
    Reason.NOT_DICOM: "export the file again as DICOM, or take it out of the folder",
    Reason.TRUNCATED: "copy or export the file again: its end is missing",
    Reason.UNREADABLE: "export the file again, and check that it may be read",
    Reason.TOO_LARGE: "leave the file out, or export single-frame slices",
    Reason.MULTI_FRAME: "export the series as one file per slice",
    Reason.TRANSFER_SYNTAX: "export uncompressed, or with RLE, JPEG or JPEG 2000",
    Reason.MISSING_GEOMETRY: "export with position, orientation and pixel spacing, as the scanner wrote them",
    Reason.BAD_GEOMETRY: "export the original slices, not reformatted or edited ones",
    Reason.NO_PIXELS: "take the file out of the folder: it holds no image",
    Reason.BAD_PIXELS: "export the slice again; neighbouring slices were used meanwhile",
    Reason.DUPLICATE: "nothing, if the slice was copied; the first one was used",
    Reason.DUPLICATE_STUDY: "keep one copy of the study",
    Reason.MISPLACED: "put the file into the folder of its series",
    Reason.OTHER_PATIENT: "put each patient into a folder of their own, and grade both again",
    Reason.OTHER_STUDY: "put each examination into a folder of its own, and grade both again",
    Reason.IDENTIFIERS: "find out whose images these are, and put each patient into a folder of their own",
    Reason.NOT_TOLD_APART: "put each patient into a folder of their own: nothing else tells them apart",
    Reason.ONE_PLACE: "export each series into a folder of its own",
    Reason.STUDY_DIVIDED: "export the examination with one StudyInstanceUID, or into a folder of its own",
    Reason.OTHER_FORMAT: "give the DICOM images it was made from",
    Reason.OTHER_MODALITY: "nothing: MR alone is graded",
    Reason.LISTED_FILES: "copy the whole disc or folder again: images are missing",
    Reason.LISTED_ONLY: "add the folder of the series, or take its line out of the series table",
    Reason.SLICES_MISSING: "export the series again, whole: these slices were done without",
    Reason.LOCALISER: "nothing: localisers and scouts are not graded",
    Reason.UNKNOWN_KIND: "name what the series shows with --series-table",
    Reason.KIND_DISAGREES: "compare its images with its name and its line of the series table",
    Reason.NO_SLICES: "see the files named for this series",
    Reason.NO_SERIES: "see the files and series named for this study",
    Reason.NO_IMAGES: "give a folder or zip that holds DICOM files: one study, or many",
    Reason.BAD_ARCHIVE: "make the zip again, or give the folder itself",
    Reason.ARCHIVE_TOO_LARGE: "unpack the archive yourself and give the folder",
    Reason.NESTED_ARCHIVE: "unpack the inner archive and give the folder",
    Reason.ENCRYPTED: "unpack the archive yourself and give the folder",
    Reason.LINK: "put the file itself in the place of the link",
    Reason.NO_RESULT: "mend the attribute that is named in the images; the grades themselves were written",
    Reason.WORKER_DIED: "start the run again with fewer --jobs, if memory ran out: this alone is redone",
    Reason.FAILED: "please report it with the message above; the other studies are not affected",
}


_STANDING: Final[dict[Reason, str]] = {
    Reason.SLICES_MISSING: "missing",
    Reason.LISTED_FILES: "missing",
    Reason.KIND_DISAGREES: "doubtful",
    Reason.STUDY_DIVIDED: "doubtful",
}
# Copies of images of a series.
_NAMED_ONE_BY_ONE = 3


@dataclass(frozen=True)
class Rejection:
    """One thing that was not used, and why.

    Attributes:
        reason: code for programs.
        message: one sentence for people; no patient data, no path above the study folder.
        study_id, series_id, file: where; empty when the thing is larger than that. ``file`` is a bare name.
    """

    reason: Reason
    message: str
    study_id: str = ""
    series_id: str = ""
    file: str = ""

    @classmethod
    def of(
        cls, path: Path, reason: Reason, message: str, *, study_id: str = "", series_id: str = ""
    ) -> Rejection:
        """The rejection of a file or folder of the input, the one way in which its name is said.

        Args:
            path: of it only the last part is used, and that as ``input_label`` has it: it may name a patient.
            message: one sentence that does not name it again.
        """
        return cls(reason, message, study_id, series_id, input_label(path.name))

    @classmethod
    def from_record(cls, record: Mapping[str, str]) -> Rejection:
        """What ``dataclasses.asdict`` made of one. Raises KeyError, TypeError or ValueError: it is none."""
        rest = {name: record[name] for name in ("message", "study_id", "series_id", "file")}
        return cls(Reason(record["reason"]), **rest)

    @property
    def standing(self) -> str:
        """``missing``: images are; ``doubtful``: what is named was used all the same; else ``rejected``."""
        return _STANDING.get(self.reason, "rejected")

    @property
    def place(self) -> str:
        return "/".join(part for part in (self.study_id, self.series_id, self.file) if part)

    def __str__(self) -> str:
        return f"[{self.reason.value}] {self.place or 'input'}: {self.message}"


def counted(rejections: Iterable[Rejection]) -> list[tuple[Rejection, int]]:
    """Rejections in their order, and how many more each stands for.

    Of many copies of images of a series the first stands for all; a damaged file is always named.
    """
    alike: dict[Rejection, list[Rejection]] = {}
    for item in rejections:
        alike.setdefault(replace(item, file=""), []).append(item)
    found: list[tuple[Rejection, int]] = []
    for group in alike.values():
        few = len(group) <= _NAMED_ONE_BY_ONE or group[0].reason is not Reason.DUPLICATE
        found += [(item, 0) for item in group] if few else [(group[0], len(group) - 1)]
    return found


class DicomRejected(LumbarError):
    """A file, series or study cannot be used.

    Attributes:
        rejection: why.
        rejections: the smaller rejections that led to it (files and series of a rejected study).
    """

    def __init__(self, rejection: Rejection, rejections: tuple[Rejection, ...] = ()) -> None:
        super().__init__(str(rejection))
        self.rejection = rejection
        self.rejections = rejections
        self.advice = ADVICE[rejection.reason]

    def __reduce__(self) -> tuple[type[DicomRejected], tuple[Rejection, tuple[Rejection, ...]]]:
        """Survive the way back from a worker process, which Exception by itself does not."""
        return type(self), (self.rejection, self.rejections)
