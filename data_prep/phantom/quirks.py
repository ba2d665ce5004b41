"""Of real data sets: their oddities (docs/phantom.md, "Quirks"), and the complete headers of an archive.

The RSNA files are bare.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.uid import MRImageStorage

from data_prep.base.uids import derived_uid
from data_prep.phantom.plan import SeriesPlan
from data_prep.synthetic import QuirkMode
from data_prep.vocabulary import TARGETS, SeriesKind, Target

# No day on which anybody was examined: every synthetic study has it.
_STUDY_DATE, _STUDY_TIME = "20000101", "120000"


@dataclass(frozen=True)
class _Rates:
    missing: float
    repeated: float
    renumbered: float
    mixed_shapes: float
    inverted: float
    empty_label: float
    unlocated: float
    misplaced: float


# Real: counts over 1,975 studies (49,375 labels, docs/phantom.md); how many series have gaps, mixed shapes
# or MONOCHROME1 is not stated there: set by eye. All: everything is seen within about ten studies.
_RATES: dict[QuirkMode, _Rates] = {
    "none": _Rates(0, 0, 0, 0, 0, 0, 0, 0),
    "real": _Rates(3 / 1975, 7 / 1975, 0.05, 0.02, 0.02, 572 / 49375, 5 / 49375, 13 / 49375),
    "all": _Rates(0.2, 0.35, 0.5, 0.3, 0.3, 0.08, 0.04, 0.04),
}


@dataclass(frozen=True)
class Quirks:
    """What is odd about one written study.

    Attributes:
        missing: a kind of series that was not made, or is not there.
        repeated: a kind of which there are two.
        renumbered: instance numbers start high and have gaps.
        mixed_shapes: one slice of each series is smaller than the others.
        inverted: MONOCHROME1, bright tissue has low values.
        empty_labels: targets without a label; unlocated: without a point; misplaced: whose point is a
            placeholder near (5, 5).
    """

    missing: SeriesKind | None
    repeated: SeriesKind | None
    renumbered: bool
    mixed_shapes: bool
    inverted: bool
    empty_labels: frozenset[Target]
    unlocated: frozenset[Target]
    misplaced: frozenset[Target]


def draw_quirks(seed: int, mode: QuirkMode) -> Quirks:
    """Draw the oddities of the study ``seed``."""
    rng = np.random.default_rng([seed, 7])
    rates = _RATES[mode]
    missing, repeated, renumbered, mixed, inverted = rng.random(5)
    kinds = list(SeriesKind)
    which, twice = kinds[rng.integers(3)], (SeriesKind.SAGITTAL_T1, SeriesKind.AXIAL_T2)[rng.integers(2)]

    def some(rate: float) -> frozenset[Target]:
        return frozenset(target for target in TARGETS if rng.random() < rate)

    return Quirks(
        missing=which if missing < rates.missing else None,
        repeated=twice if repeated < rates.repeated else None,
        renumbered=bool(renumbered < rates.renumbered),
        mixed_shapes=bool(mixed < rates.mixed_shapes),
        inverted=bool(inverted < rates.inverted),
        empty_labels=some(rates.empty_label),
        unlocated=some(rates.unlocated),
        misplaced=some(rates.misplaced),
    )


def renumber(numbers: tuple[int, ...], rng: np.random.Generator) -> dict[int, int]:
    """New instance numbers in the same order: they start anywhere up to 5000 and leave gaps."""
    start = int(rng.choice([1, 17, 101, 1001, 5000]))
    steps = np.cumsum(rng.choice([1, 1, 1, 2, 5], size=len(numbers)))
    return {old: start + int(step) for old, step in zip(sorted(numbers), steps, strict=True)}


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
