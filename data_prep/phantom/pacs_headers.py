"""Complete headers for synthetic images that go to an archive; the RSNA files are bare."""

from __future__ import annotations

from pydicom.dataset import FileDataset
from pydicom.uid import MRImageStorage

from data_prep.base.uids import derived_uid
from data_prep.phantom.plan import SeriesPlan
from data_prep.vocabulary import SeriesKind

# No day on which anybody was examined: every synthetic study has it.
_STUDY_DATE, _STUDY_TIME = "20000101", "120000"


def complete_headers(dataset: FileDataset, study_id: str, plan: SeriesPlan, number: int) -> None:
    """Give one slice what the MR Image IOD requires (PS3.3 section A.4), with valid UIDs.

    Args:
        dataset: what the bare writer made; changed in place.
        study_id, number: whose UIDs are derived, so that the same study always has the same ones.
    """
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = derived_uid("phantom", study_id, plan.series_id, str(number))
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID = derived_uid("phantom", study_id)
    dataset.SeriesInstanceUID = derived_uid("phantom", study_id, plan.series_id)
    # A scanner gives one frame of reference to all series of an examination.
    dataset.FrameOfReferenceUID = derived_uid("phantom", study_id, "frame")
    dataset.PositionReferenceIndicator = None
    dataset.PatientName, dataset.PatientID = f"Phantom^{study_id}", f"PHANTOM-{study_id}"
    dataset.PatientBirthDate, dataset.PatientSex = None, None
    dataset.StudyDate, dataset.StudyTime = _STUDY_DATE, _STUDY_TIME
    dataset.ReferringPhysicianName, dataset.AccessionNumber = None, None
    dataset.StudyID = study_id[:16]
    dataset.SeriesNumber = list(SeriesKind).index(plan.kind) + 1
    dataset.Modality, dataset.Manufacturer = "MR", "lumbar phantom"
    dataset.BodyPartExamined = "LSPINE"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    inverted = plan.contrast.ti_ms is not None
    dataset.ScanningSequence = ["SE", "IR"] if inverted else "SE"
    dataset.SequenceVariant, dataset.ScanOptions, dataset.MRAcquisitionType = "NONE", None, "2D"
    dataset.RepetitionTime = f"{plan.contrast.tr_ms:.6g}"
    dataset.EchoTime = f"{plan.contrast.te_ms:.6g}"
    dataset.EchoTrainLength = None
    if inverted:
        dataset.InversionTime = f"{plan.contrast.ti_ms:.6g}"
    dataset.MagneticFieldStrength = f"{plan.contrast.field_t:.2g}"
