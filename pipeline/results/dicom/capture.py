"""The montage of a study as a Secondary Capture Image (DICOM PS3.3 section A.8.1), RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from highdicom.sc import SCImage
from PIL import Image
from pydicom.dataset import Dataset

from pipeline import __version__
from pipeline.prediction import StudyPrediction
from pipeline.results.dicom.identity import NAME, identify, note, set_times
from pipeline.results.dicom.source import SourceStudy


def build_capture(source: SourceStudy, prediction: StudyPrediction, picture: Path) -> Dataset:
    """The capture of one study; the same input gives the same bytes.

    Args:
        picture: PNG that ``draw_montage`` wrote.
    """
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    capture: Dataset = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        study_instance_uid=source.study_instance_uid,
        **identify("sc", source, prediction),
        manufacturer_model_name=NAME,
        software_versions=__version__,
        series_description="lumbar montage - not a medical device",
    )
    source.fill(capture)
    # Many images on one page have no one orientation (Type 2C: empty); the lumbar spine is no paired organ.
    capture.PatientOrientation, capture.BodyPartExamined = None, "LSPINE"
    capture.ConversionType = "WSD"
    # The page shows the identifier of the study.
    capture.BurnedInAnnotation = "YES"
    capture.ImageComments = note(prediction.provenance)
    capture.DateOfSecondaryCapture, capture.TimeOfSecondaryCapture = source.content_date, source.content_time
    set_times(capture, source)
    return capture
