"""What a person can do about something that was rejected: one sentence for every reason code."""

from __future__ import annotations

from typing import Final

from data_prep.study import Reason

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
    Reason.LOCALISER: "nothing: localisers and scouts are not graded",
    Reason.UNKNOWN_KIND: "name what the series shows with --series-table",
    Reason.NO_SLICES: "see the files named for this series",
    Reason.NO_SERIES: "see the files and series named for this study",
    Reason.NO_IMAGES: "give a folder or zip that holds DICOM files: one study, or many",
    Reason.BAD_ARCHIVE: "make the zip again, or give the folder itself",
    Reason.ARCHIVE_TOO_LARGE: "unpack the archive yourself and give the folder",
    Reason.NESTED_ARCHIVE: "unpack the inner archive and give the folder",
    Reason.ENCRYPTED: "unpack the archive yourself and give the folder",
    Reason.LINK: "put the file itself into the archive",
    Reason.NO_RESULT: "mend the attribute that is named in the images; the grades themselves were written",
    Reason.WORKER_DIED: "start the run again with fewer --jobs, if memory ran out: this alone is redone",
    Reason.FAILED: "please report it with the message above; the other studies are not affected",
}
