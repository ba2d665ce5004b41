"""Results as DICOM objects: structured reports, a capture, overlays and key images of a study."""

from enum import StrEnum


class ResultObject(StrEnum):
    """An object that a study gets.

    A structured report (Comprehensive 3D SR); one more for viewers that know only Comprehensive SR; the
    montage as a secondary capture; a presentation state per series with points; a key object selection where
    something is Moderate or Severe.
    """

    SR = "sr"
    COMPREHENSIVE_SR = "comprehensive"
    SC = "sc"
    GSPS = "gsps"
    KOS = "kos"

    @property
    def folder(self) -> str:
        """Where it goes below the output folder."""
        return "sr-comprehensive" if self is ResultObject.COMPREHENSIVE_SR else self.value
