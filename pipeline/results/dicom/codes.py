"""Every code of the structured report, with where it comes from.

Standard codes are those of pydicom's dictionary, which is made from DICOM PS3.16; the tests look every one
of them up there. What that dictionary does not have is not guessed: it gets a private code of the scheme
``99LUMBAR``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydicom.sr.coding import Code

from classifier.measure.quantities import Quantity
from data_prep.vocabulary import ConditionGroup, Level, Severity, Side, Target
from pipeline.results.words import target_words

PRIVATE_SCHEME: Final = "99LUMBAR"
PRIVATE_VERSION: Final = "1"

_CID = "DICOM PS3.16 "
_NO_CODE = "private: no such concept in pydicom's dictionary of PS3.16"


@dataclass(frozen=True)
class CodeEntry:
    """A code, what it is used for and its source."""

    code: Code
    use: str
    source: str


def _private(value: str, meaning: str, use: str, why: str = _NO_CODE) -> CodeEntry:
    return CodeEntry(Code(value, PRIVATE_SCHEME, meaning), use, why)


def _standard(scheme: str, value: str, meaning: str, use: str, source: str) -> CodeEntry:
    return CodeEntry(Code(value, scheme, meaning), use, _CID + source)


LEVEL_CODES: Final = {
    Level.L1_L2: _standard("SCT", "243920003", "Level of L1/L2 intervertebral disc", "level", "CID 1000"),
    Level.L2_L3: _standard("SCT", "243921004", "Level of L2/L3 intervertebral disc", "level", "CID 1000"),
    Level.L3_L4: _standard("SCT", "243922006", "Level of L3/L4 intervertebral disc", "level", "CID 1000"),
    Level.L4_L5: _standard("SCT", "243923001", "Level of L4/L5 intervertebral disc", "level", "CID 1000"),
    Level.L5_S1: _standard("SCT", "243927000", "Level of L5/S1 intervertebral disc", "level", "CID 1000"),
}
SITE_CODES: Final = {
    ConditionGroup.SPINAL: _standard("SCT", "61853006", "Vertebral canal", "finding site", "CID 6115"),
    # Not SCT 280734009, vertebral foramen: that is the hole in one vertebra that the canal runs through.
    ConditionGroup.FORAMINAL: _private("NEURAL_FORAMEN", "Neural (intervertebral) foramen", "finding site"),
    ConditionGroup.SUBARTICULAR: _private(
        "LATERAL_RECESS", "Lateral recess (subarticular zone)", "finding site"
    ),
}
SIDE_CODES: Final = {
    Side.LEFT: _standard("SCT", "7771000", "Left", "the patient's side", "CID 244"),
    Side.RIGHT: _standard("SCT", "24028007", "Right", "the patient's side", "CID 244"),
}
SEVERITY_CODES: Final = {
    Severity.NORMAL_MILD: _private(
        "NORMAL_MILD", "Normal/Mild", "grade", "private: one grade of the RSNA scale is two of SNOMED CT"
    ),
    Severity.MODERATE: _standard("SCT", "6736007", "Moderate", "grade", "CID 3716"),
    Severity.SEVERE: _standard("SCT", "24484000", "Severe", "grade", "CID 3716"),
}

TITLE: Final = _standard("DCM", "126000", "Imaging Measurement Report", "title", "CID 7021, TID 1500")
PROCEDURE: Final = _standard(
    "LN", "25056-3", "MRI unspecified body region", "procedure reported", "CID 100, TID 1500"
)
FINDING: Final = _standard("SCT", "415582006", "Stenosis", "finding", "CID 3810")
SEVERITY: Final = _standard("SCT", "246112005", "Severity", "name of the grade", "SNOMED CT dictionary")
NOT_EVALUATED: Final = _standard("SCT", "373121007", "Not Evaluated", "grade: there is none", "CID 3703")
PROBABILITY: Final = _standard("DCM", "122157", "Probability", "name of a probability", "Annex D")
UNCERTAIN: Final = _standard("SCT", "64957009", "Uncertain", "numbering is flagged", "SNOMED CT dictionary")
NOT_FLAGGED: Final = _private("NOT_FLAGGED", "Not flagged as uncertain", "numbering is not flagged")
PERCENT: Final = _standard("UCUM", "%", "Percent", "unit of a probability", "CID 7181")
COMMENT: Final = _standard("DCM", "121106", "Comment", "notes and flags", "CID 12101")
NUMBERING: Final = _private("NUMBERING", "Numbering of the lumbar levels", "finding")
POINT_SEEN: Final = _private("POINT_SEEN", "Point seen by a detector", "method")
POINT_PREDICTED: Final = _private("POINT_PREDICTED", "Point placed by geometry", "method")
ORIGINAL_SOURCE: Final = _standard(
    "DCM", "111040", "Original Source", "image of a point, `--sr comprehensive`", "Annex D"
)
QUALITATIVE: Final = CodeEntry(
    Code("C0034375", "UMLS", "Qualitative Evaluations"),
    "what has no place on an image",
    _CID + "TID 1500, row 10",
)
KEY_IMAGES: Final = _standard("DCM", "113000", "Of Interest", "title of the key object selection", "CID 7010")

UNCERTAINTY: Final = _standard(
    "SCT", "371884006", "+/-, range of measurement uncertainty", "one standard deviation", "CID 225"
)
USUAL_LOW: Final = _standard("SCT", "385524004", "Normal Range Lower Limit", "lowest usual value", "CID 223")
USUAL_HIGH: Final = _standard(
    "SCT", "371933006", "Normal Range Upper Limit", "highest usual value", "CID 223"
)
UNITS: Final = {
    "mm": _standard("UCUM", "mm", "mm", "unit", "CID 7181"),
    "mm2": _standard("UCUM", "mm2", "square millimeter", "unit", "CID 7181"),
    "deg": _standard("UCUM", "deg", "Degree", "unit", "CID 7183"),
    "1": _standard("UCUM", "1", "no units", "unit", "CID 7181"),
    "%": PERCENT,
}
QUANTITY_CODES: Final = {
    quantity: _private(f"M_{quantity.value}".upper()[:16], words, "measurement")
    for quantity, words in {
        Quantity.CANAL_DEPTH: "Dural sac, front to back",
        Quantity.SAC_AREA: "Dural sac, cross-sectional area",
        Quantity.CSF_SHARE: "CSF at the disc, share of that beside the vertebrae",
        Quantity.DISC_HEIGHT: "Disc height",
        Quantity.DISC_HEIGHT_INDEX: "Disc height index",
        Quantity.FORAMEN_HEIGHT: "Foramen, height",
        Quantity.FORAMEN_WIDTH: "Foramen, width",
        Quantity.FORAMEN_DIFFERENCE: "Foramen height, right minus left",
        Quantity.SLIP: "Slip of the vertebra above, to the front",
        Quantity.LORDOSIS: "Lordosis, L1 lower to S1 upper endplate",
    }.items()
}
DISC: Final = _private("DISC", "Intervertebral disc", "finding of a group of measurements")

_PLACES: Final = {
    ConditionGroup.SPINAL: "CAN",
    ConditionGroup.FORAMINAL: "FOR",
    ConditionGroup.SUBARTICULAR: "REC",
}
_GRADES: Final = {Severity.NORMAL_MILD: "NM", Severity.MODERATE: "MOD", Severity.SEVERE: "SEV"}


def grade_probability(target: Target, severity: Severity) -> Code:
    """Name of the probability of a grade at a target, ``L4/L5 left foramen: Severe, probability``.

    One code says all, because many viewers show the name of a number and nothing else; level, side, site and
    grade stand beside it as codes of their own. Value: ``P_L4L5_FOR_L_SEV``.
    """
    condition = target.condition
    side = condition.side.value[0].upper() if condition.side else None
    level = target.level.label.replace("/", "")
    parts = ("P", level, _PLACES[condition.group], side, _GRADES[severity])
    value = "_".join(part for part in parts if part)
    return Code(value, PRIVATE_SCHEME, f"{target_words(target)}: {severity.value}, probability")
