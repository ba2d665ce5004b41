"""A draft of the text that a radiologist would dictate, level by level, from grades and measurements.

The order and the words are those of the usual structured templates for the lumbar spine: disc, canal, lateral
recesses, foramina. What was not graded is said to be not assessed, and nothing is called normal unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from classifier.measure.agreement import contradictions
from classifier.measure.quantities import NOT_MEASURED, Measured, Quantity
from data_prep.vocabulary import LEVELS, Condition, ConditionGroup, Level, Severity, Side, Target
from pipeline.prediction import StudyPrediction
from pipeline.results.words import NOT_A_DEVICE, flag_words, numbering_words

HEADING: Final = (
    "DRAFT OF RESEARCH SOFTWARE - NOT A MEDICAL REPORT. To be checked and changed by a radiologist."
)
_GRADE_WORDS: Final = {
    Severity.NORMAL_MILD: "No more than mild",
    Severity.MODERATE: "Moderate",
    Severity.SEVERE: "Severe",
}
_PAIRED: Final = {
    ConditionGroup.SUBARTICULAR: "lateral recess stenosis",
    ConditionGroup.FORAMINAL: "neural foraminal narrowing",
}
# Beyond the uncertainty: a slip that is not surely one is not worth a sentence.
_LISTHESIS_MM: Final = 3.0


def usual_words(item: Measured) -> str:
    """What is usual: ``10.0 mm and more``, ``26 to 74°``; empty where nothing is known to be."""
    low, high = item.usual
    kind = item.kind
    shown = [None if value is None else kind.figure(value) for value in (low, high)]
    if shown[0] is not None and shown[1] is not None:
        return kind.with_unit(f"{shown[0]} to {shown[1]}")
    if shown[0] is not None:
        return f"{kind.with_unit(shown[0])} and more"
    return "" if shown[1] is None else f"{kind.with_unit(shown[1])} and less"


def draft_text(prediction: StudyPrediction) -> str:
    """The draft of one study; plain text, lines of sentences."""
    levels = prediction.found
    lines = [HEADING, "", "MRI OF THE LUMBAR SPINE", "", "FINDINGS"]
    lines.append(
        f"Levels are counted up from the last well-formed disc, called L5/S1 "
        f"({len(levels.levels)} of {len(LEVELS)} found, "
        f"{numbering_words(levels.numbering_confidence, prediction.flags)})."
    )
    lines += [flag_words(flag) for flag in prediction.flags]
    lines += [
        f"Lordosis {item.words}, lower endplate of L1 to upper endplate of S1."
        for item in prediction.measurements
        if item.quantity is Quantity.LORDOSIS
    ]
    for level in LEVELS:
        lines.append(f"{level.label}: {' '.join(_level(prediction, level, level in levels.levels))}")
    lines += ["", "IMPRESSION", *_impression(prediction)]
    doubts = contradictions(prediction.grades, prediction.measurements)
    if doubts:
        lines += ["", "TO BE CHECKED FIRST"]
        lines += [f"{d.target.level.label} {_place(d.target.condition)}: {d.words}." for d in doubts]
    lines += ["", f"{NOT_A_DEVICE} {prediction.provenance.learned_from}"]
    return "\n".join(lines) + "\n"


def _level(prediction: StudyPrediction, level: Level, is_found: bool) -> list[str]:
    """Sentences of one level."""
    if not is_found:
        return ["not in the images."]
    sentences = _disc(prediction.measurements, level)
    canal = Target(Condition.SPINAL_CANAL_STENOSIS, level)
    sentences.append(_canal(prediction, canal))
    for group in _PAIRED:
        sentences += _pair(prediction, group, level)
    return sentences


def _disc(measured: Sequence[Measured], level: Level) -> list[str]:
    sentences = []
    height = _of(measured, Quantity.DISC_HEIGHT, level)
    if height is not None:
        usual = height.usual[0]
        is_low = usual is not None and height.value + height.uncertainty < usual
        low = ", low for its level" if is_low else ""
        sentences.append(f"Disc height {height.words}{low}.")
    slip = _of(measured, Quantity.SLIP, level)
    if slip is not None and abs(slip.value) - slip.uncertainty > _LISTHESIS_MM:
        way = "forwards" if slip.value > 0 else "backwards"
        sentences.append(
            f"The vertebra above stands {abs(slip.value):.1f} ± {slip.uncertainty:.1f} mm {way}."
        )
    if height is not None and (Quantity.SLIP, level) in NOT_MEASURED:
        sentences.append("Slip not measured.")
    return sentences


def _canal(prediction: StudyPrediction, target: Target) -> str:
    measured = prediction.measurements
    found = [
        _of(measured, quantity, target.level)
        for quantity in (Quantity.CANAL_DEPTH, Quantity.SAC_AREA, Quantity.CSF_SHARE)
    ]
    beside = _bracketed(", ".join(f"{item.kind.short} {item.words}" for item in found if item is not None))
    grade = prediction.grades[target]
    if not grade.source.is_graded:
        return f"Central canal not assessed{beside}."
    return f"{_GRADE_WORDS[grade.severity]} central canal stenosis{beside}."


def _pair(prediction: StudyPrediction, group: ConditionGroup, level: Level) -> list[str]:
    """One sentence for both sides where they agree, else one for each; right before left."""
    what = _PAIRED[group]
    sides = (Side.RIGHT, Side.LEFT)
    said = []
    for side in sides:
        grade = prediction.grades[Target(Condition.of(group, side), level)]
        said.append(grade.severity if grade.source.is_graded else None)
    if said[0] is said[1] is None:
        return [f"{what.capitalize()} not assessed."]
    heights = ["", ""]
    if group is ConditionGroup.FORAMINAL:
        found = (_of(prediction.measurements, Quantity.FORAMEN_HEIGHT, level, side) for side in sides)
        heights = ["" if item is None else f"height {item.words}" for item in found]
    if said[0] == said[1] and said[0] is not None:
        both = [f"{side} {height}" for side, height in zip(sides, heights, strict=True) if height]
        return [f"{_GRADE_WORDS[said[0]]} {what} on both sides{_bracketed(', '.join(both))}."]
    return [
        f"{side.capitalize()} {what} not assessed."
        if severity is None
        else f"{_GRADE_WORDS[severity]} {what} on the {side}{_bracketed(height)}."
        for side, severity, height in zip(sides, said, heights, strict=True)
    ]


def _bracketed(words: str) -> str:
    return f" ({words})" if words else ""


def _impression(prediction: StudyPrediction) -> list[str]:
    """The worst first; that nothing is worse than mild, where all was seen."""
    lines = []
    for severity in (Severity.SEVERE, Severity.MODERATE):
        places = [
            f"{target.level.label} {_place(target.condition)}"
            for target, grade in sorted(prediction.grades.items(), key=lambda pair: pair[0].level.index)
            if grade.source.is_graded and grade.severity is severity
        ]
        if places:
            lines.append(f"{severity.value}: {', '.join(places)}.")
    missing = sum(not grade.source.is_graded for grade in prediction.grades.values())
    if not lines and missing < len(prediction.grades):
        lines.append("No stenosis that is more than mild where it was assessed.")
    if missing:
        lines.append(f"{missing} of {len(prediction.grades)} places not assessed.")
    return lines


def _place(condition: Condition) -> str:
    names = {"spinal": "central canal", "foraminal": "neural foramen", "subarticular": "lateral recess"}
    return " ".join(filter(None, (condition.side, names[condition.group.value])))


def _of(
    measured: Sequence[Measured], quantity: Quantity, level: Level, side: Side | None = None
) -> Measured | None:
    for item in measured:
        if (item.quantity, item.level, item.side) == (quantity, level, side):
            return item
    return None
