"""What can go wrong and be said: errors, reasons with advice, and what of an input was rejected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

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
    """Why a file, a series or a study was rejected, or what a reader should be warned of.

    Attributes:
        advice: what to do about it.
        standing: ``missing``: images are; ``doubtful``: what is named was used all the same; or ``rejected``.
    """

    advice: str
    standing: str

    def __new__(cls, code: str, advice: str = "", standing: str = "rejected") -> Reason:
        reason = str.__new__(cls, code)
        reason._value_, reason.advice, reason.standing = code, advice, standing
        return reason

    NOT_DICOM = "not_dicom", "export the file again as DICOM, or take it out of the folder"
    TRUNCATED = "truncated", "copy or export the file again: its end is missing"
    UNREADABLE = "unreadable", "export the file again, and check that it may be read"
    TOO_LARGE = "too_large", "leave the file out, or export single-frame slices"
    MULTI_FRAME = (
        "multi_frame_not_supported",
        "export the series as one file per slice, or each NIfTI volume as a file of its own",
    )
    TRANSFER_SYNTAX = "transfer_syntax_not_supported", "export uncompressed, or with RLE, JPEG or JPEG 2000"
    MISSING_GEOMETRY = (
        "missing_geometry",
        "export with position, orientation and pixel spacing, as the scanner wrote them",
    )
    BAD_GEOMETRY = "bad_geometry", "export the original slices, not reformatted or edited ones"
    NO_PIXELS = "no_pixels", "take the file out of the folder: it holds no image"
    BAD_PIXELS = "bad_pixels", "export the slice again; neighbouring slices were used meanwhile"
    DUPLICATE = "duplicate_instance", "nothing, if the slice was copied; the first one was used"
    DUPLICATE_STUDY = "duplicate_study", "keep one copy of the study"
    MISPLACED = "misplaced_file", "put the file into the folder of its series"
    OTHER_PATIENT = "other_patient", "put each patient into a folder of their own, and grade both again"
    OTHER_STUDY = "other_study", "put each examination into a folder of its own, and grade both again"
    IDENTIFIERS = (
        "identifiers_disagree",
        "find out whose images these are, and put each patient into a folder of their own",
    )
    NOT_TOLD_APART = (
        "patients_not_told_apart",
        "put each patient into a folder of their own: nothing else tells them apart",
    )
    ONE_PLACE = "images_not_told_apart", "export each series into a folder of its own"
    STUDY_DIVIDED = (
        "study_divided",
        "export the examination with one StudyInstanceUID, or into a folder of its own",
        "doubtful",
    )
    OTHER_FORMAT = "other_format", "give the DICOM images it was made from"
    OTHER_MODALITY = "other_modality", "nothing: MR alone is graded"
    LISTED_FILES = (
        "listed_files_missing",
        "copy the whole disc or folder again: images are missing",
        "missing",
    )
    LISTED_ONLY = (
        "listed_series_missing",
        "add the folder of the series, or take its line out of the series table",
    )
    SLICES_MISSING = (
        "slices_missing",
        "export the series again, whole: these slices were done without",
        "missing",
    )
    IMAGE_REFUSED = (
        "image_refused",
        "look for the status in the log of whoever sends, mend these images there, and send them again",
        "missing",
    )
    LOCALISER = "localiser", "nothing: localisers and scouts are not graded"
    UNKNOWN_KIND = "series_kind_unknown", "name what the series shows with --series-table"
    KIND_DISAGREES = (
        "series_kind_disagrees",
        "compare its images with its name and its line of the series table",
        "doubtful",
    )
    POSITIONS_DOUBTFUL = (
        "positions_doubtful",
        "export the original images: a program has computed the positions of these",
        "doubtful",
    )
    NO_SLICES = "no_readable_slices", "see the files named for this series"
    NO_SERIES = "no_usable_series", "see the files and series named for this study"
    NO_IMAGES = "no_images", "give a folder or zip that holds DICOM files: one study, or many"
    BAD_ARCHIVE = "bad_archive", "make the zip again, or give the folder itself"
    ARCHIVE_TOO_LARGE = "archive_too_large", "unpack the archive yourself and give the folder"
    NESTED_ARCHIVE = "nested_archive", "unpack the inner archive and give the folder"
    ENCRYPTED = "encrypted_member", "unpack the archive yourself and give the folder"
    LINK = "link_ignored", "put the file itself in the place of the link"
    FAILED = "internal_failure", "please report it with the message above; the other studies are not affected"
    WORKER_DIED = (
        "worker_died",
        "start the run again with fewer --jobs, if memory ran out: this alone is redone",
    )
    NO_RESULT = (
        "dicom_result_refused",
        "where an attribute is named, mend it in the images; the grades themselves were written",
    )


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
        """That of its reason."""
        return self.reason.standing

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
        self.advice = rejection.reason.advice

    def __reduce__(self) -> tuple[type[DicomRejected], tuple[Rejection, tuple[Rejection, ...]]]:
        """Survive the way back from a worker process, which Exception by itself does not."""
        return type(self), (self.rejection, self.rejections)
