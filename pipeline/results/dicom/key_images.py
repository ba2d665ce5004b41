"""The slices with a Moderate or Severe finding, as a Key Object Selection (DICOM PS3.16 TID 2010)."""

from __future__ import annotations

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset

from data_prep.levels import LevelPoint
from data_prep.vocabulary import TARGETS, Severity, Target
from pipeline.prediction import StudyPrediction
from pipeline.results.dicom import codes
from pipeline.results.dicom.identity import identify, note, set_times
from pipeline.results.dicom.source import SourceStudy
from pipeline.results.dicom.structured_report import observer
from pipeline.results.words import flag_lines, target_words


def build_key_images(source: SourceStudy, prediction: StudyPrediction) -> Dataset | None:
    """The selection of one study, or None where nothing is worse than mild."""
    images, words = {}, []
    for target, point in key_points(prediction).items():
        image = source.image_of(point)
        if image is not None:
            images[image.sop_instance_uid] = image
            words.append(f"{target_words(target)}: {prediction.grades[target].severity.value}")
    if not images:
        return None
    evidence = source.evidence(images.values())
    selection: Dataset = KeyObjectSelectionDocument(
        evidence=evidence,
        content=KeyObjectSelection(
            document_title=codes.KEY_IMAGES.code,
            referenced_objects=evidence,
            observer_device_context=observer(prediction),
            description="; ".join([*flag_lines(prediction.flags), *words, note(prediction.provenance)]),
        ),
        **identify("ko", source, prediction),
    )
    source.fill(selection)
    selection.SeriesDescription = "lumbar key images - not a medical device"
    set_times(selection, source)
    return selection


def key_points(prediction: StudyPrediction) -> dict[Target, LevelPoint]:
    """Points on slices of what is graded Moderate or Severe; a study without any gets no selection."""
    found = {}
    for target in TARGETS:
        grade, point = prediction.grades[target], prediction.found.point(target.condition, target.level)
        is_worse = grade.source != "prior" and grade.severity is not Severity.NORMAL_MILD
        if is_worse and point is not None and point.sight is not None:
            found[target] = point
    return found
