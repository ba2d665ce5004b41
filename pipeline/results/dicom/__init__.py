"""Results as DICOM objects: structured reports, a capture, overlays and key images of a study."""

from enum import StrEnum


class ResultObject(StrEnum):
    """An object that a study gets: see ``write.DicomResults``."""

    SR = "sr"
    COMPREHENSIVE_SR = "comprehensive"
    SC = "sc"
    GSPS = "gsps"
    KOS = "kos"
