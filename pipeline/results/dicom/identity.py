"""Who made a result and which identifiers it gets: the same study and models give the same object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from pydicom.dataset import Dataset

from data_prep.base.uids import derived_uid
from data_prep.read.own import MANUFACTURER as MANUFACTURER
from pipeline import __version__
from pipeline.prediction import Provenance, StudyPrediction
from pipeline.results.dicom.source import SourceStudy
from pipeline.results.words import NOT_A_DEVICE

NAME: Final = "lumbar"
SERIES_NUMBERS: Final = {"sr": 9001, "sc": 9002, "sr88.33": 9003, "ko": 9004, "pr": 9005}


def note(provenance: Provenance) -> str:
    """What every result says of itself."""
    return f"{NOT_A_DEVICE} {provenance.learned_from} Do not use for a decision about a patient."


def identify(kind: str, source: SourceStudy, prediction: StudyPrediction) -> dict[str, Any]:
    """Who a result object of a prediction is, as highdicom wants to be told.

    Its series is of study, kind of result and models: a series per model version. The object itself is of the
    source images and everything that was predicted, too: one with other content is another object.
    """
    maker = [kind, source.study_instance_uid, __version__, models_digest(prediction.provenance.models)]
    images = sorted(image.sop_instance_uid for image in source.images.values())
    content = json.dumps(prediction.to_dict(), sort_keys=True)
    return {
        "series_instance_uid": derived_uid("result series", *maker),
        "series_number": SERIES_NUMBERS[kind],
        "sop_instance_uid": derived_uid("result", *maker, *images, content),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
    }


def models_digest(models: Mapping[str, str]) -> str:
    """One SHA-256 for all weights: over ``name=sha256`` lines in the order of the names."""
    lines = "".join(f"{name}={digest}\n" for name, digest in sorted(models.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def finish(dataset: Dataset, source: SourceStudy, what: str, *, has_content_time: bool = True) -> None:
    """Whose a result is, what its series is called, and the study's time in place of the clock's."""
    source.fill(dataset)
    dataset.SeriesDescription = f"lumbar {what} - not a medical device"
    for prefix in ("Content", "InstanceCreation") if has_content_time else ("InstanceCreation",):
        setattr(dataset, f"{prefix}Date", source.content_date)
        setattr(dataset, f"{prefix}Time", source.content_time)
    for equipment in dataset.get("ContributingEquipmentSequence", ()):
        del equipment.ContributionDateTime
