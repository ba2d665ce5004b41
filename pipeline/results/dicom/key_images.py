"""The slices with a Moderate or Severe finding, as a Key Object Selection (DICOM PS3.16 TID 2010)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset

from data_prep.vocabulary import TARGETS, Severity
from pipeline.prediction import StudyPrediction
from pipeline.results.dicom import codes
from pipeline.results.dicom.identity import identify, note, set_times
from pipeline.results.dicom.source import SourceStudy
from pipeline.results.dicom.structured_report import observer
from pipeline.results.words import flag_lines, target_words


def build_key_images(source: SourceStudy, prediction: StudyPrediction) -> Dataset | None:
    """The selection of one study, or None where nothing is worse than mild."""
    images, words = {}, []
    for target in TARGETS:
        grade, point = prediction.grades[target], prediction.found.point(target.condition, target.level)
        if grade.source == "prior" or grade.severity is Severity.NORMAL_MILD or point is None:
            continue
        image = source.image_of(point)
        if image is not None:
            images[image.sop_instance_uid] = image
            words.append(f"{target_words(target)}: {grade.severity.value}")
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


def has_key_images(record: Mapping[str, Any]) -> bool:
    """Whether a study gets a selection, from its record."""
    return any(
        target["source"] != "prior"
        and target["severity"] != Severity.NORMAL_MILD.value
        and target["point"] is not None
        and target["point"]["xy_px"] is not None
        for target in record["targets"]
    )
