"""The measurement groups of a report: one per graded target, at its point on the image (TID 1410).

Made so that viewers show a finding in words. OHIF and others show the names and values of numbers, a finding
site and, after loading, the first comment; they fail on a group without a place. So every group has a point,
its first number is called ``L4/L5 left foramen: Severe, probability``, its first comment and its tracking
identifier say the same without the number, and what has no place is no group (``evaluations``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    CoordinatesForMeasurement,
    FindingSite,
    ImageRegion,
    ImageRegion3D,
    Measurement,
    NumContentItem,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset

from classifier.grade import Grade
from classifier.measure.quantities import Measured
from data_prep.base.uids import derived_uid
from data_prep.levels import LevelPoint, PointSource
from data_prep.vocabulary import SEVERITIES, Level, Severity, Target
from pipeline.results.dicom import codes
from pipeline.results.dicom.source import SourceImage, SourceStudy
from pipeline.results.words import share_words, target_words

_PERCENT_DECIMALS = 4
Region = ImageRegion | ImageRegion3D


def finding_words(target: Target, grade: Grade) -> str:
    """What a viewer shows of a target: ``L4/L5 left foramen: Severe (83%)``."""
    return f"{target_words(target)}: {grade.severity.value} ({share_words(float(grade.probabilities.max()))})"


def reference_to(image: SourceImage) -> SourceImageForRegion:
    """The image that a point lies on, or the frame where it is one of several."""
    frames = None if image.frame is None else [image.frame]
    return SourceImageForRegion(image.sop_class_uid, image.sop_instance_uid, frames)


def region_of(source: SourceStudy, point: LevelPoint, *, only_images: bool) -> Region | None:
    """The point on the image that shows it, else in the patient, or None where that is not allowed.

    PS3.3 section C.18.6.1.1: (0, 0) is the corner of the first pixel, so its centre is (0.5, 0.5). A point
    that no slice shows is given in the frame of reference of the first image.
    """
    image = source.image_of(point)
    if image is not None and point.sight is not None:
        return ImageRegion(
            graphic_type="POINT",
            graphic_data=np.array([point.sight.xy_px]) + 0.5,
            source_image=reference_to(image),
        )
    if only_images:
        return None
    frame = next(iter(source.images.values())).frame_of_reference_uid
    return ImageRegion3D(graphic_type="POINT", graphic_data=point.xyz_mm[None], frame_of_reference_uid=frame)


def target_group(
    source: SourceStudy,
    target: Target,
    grade: Grade,
    point: LevelPoint,
    region: Region,
    algorithm: AlgorithmIdentification,
    measured: Sequence[Measured] = (),
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """Finding, site, grade, probabilities and measurements of one graded target, at its point."""
    seen = point.source is PointSource.SEEN
    group = PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_region=region,
        tracking_identifier=tracking(source, target_words(target)),
        finding_type=codes.FINDING.code,
        method=(codes.POINT_SEEN if seen else codes.POINT_PREDICTED).code,
        algorithm_id=algorithm,
        finding_sites=[finding_site(target)],
        measurements=[_probability(target, grade), *map(measurement, measured)],
        qualitative_evaluations=[
            QualitativeEvaluation(name=codes.SEVERITY.code, value=codes.SEVERITY_CODES[grade.severity].code)
        ],
    )
    image = source.image_of(point)
    if image is not None and isinstance(region, ImageRegion):
        _place_numbers(group, region, image)
    notes = (finding_words(target, grade), *grade.flags)
    group[0].ContentSequence.extend(comment(note) for note in notes)
    return group


def finding_site(target: Target) -> FindingSite:
    """Structure, side of the patient and level."""
    side = target.condition.side
    return FindingSite(
        anatomic_location=codes.SITE_CODES[target.condition.group].code,
        laterality=None if side is None else codes.SIDE_CODES[side].code,
        topographical_modifier=codes.LEVEL_CODES[target.level].code,
    )


def _probability(target: Target, grade: Grade) -> Measurement:
    """The probability of the grade, its name in words; those of the other grades are its properties."""
    shares = dict(zip(SEVERITIES, grade.probabilities, strict=True))
    main = Measurement(
        name=codes.grade_probability(target, grade.severity),
        value=_percent(shares[grade.severity]),
        unit=codes.PERCENT.code,
    )
    others = [_other_probability(s, shares[s]) for s in SEVERITIES if s is not grade.severity]
    main[0].ContentSequence = ContentSequence([_severity(grade.severity), *others])
    return main


def _other_probability(severity: Severity, share: float) -> NumContentItem:
    item = _property(codes.PROBABILITY, _percent(share), codes.PERCENT)
    item.ContentSequence = ContentSequence([_severity(severity)])
    return item


def _property(name: codes.CodeEntry, value: float, unit: codes.CodeEntry) -> NumContentItem:
    """A number that belongs to another."""
    return NumContentItem(
        name=name.code,
        value=value,
        unit=unit.code,
        relationship_type=RelationshipTypeValues.HAS_PROPERTIES,
    )


def measurement(item: Measured) -> Measurement:
    """A measured quantity with its uncertainty and what is usual (PS3.16 TID 300, 310, 312)."""
    low, high = item.usual
    name, unit = codes.QUANTITY_CODES[item.quantity], codes.UNITS[item.kind.ucum]
    found = Measurement(name=name.code, value=round(item.value, 3), unit=unit.code)
    told = ((codes.UNCERTAINTY, item.uncertainty), (codes.USUAL_LOW, low), (codes.USUAL_HIGH, high))
    found[0].ContentSequence = ContentSequence(
        [_property(name, round(value, 3), unit) for name, value in told if value is not None]
    )
    return found


def disc_group(
    source: SourceStudy,
    level: Level,
    region: ImageRegion,
    image: SourceImage,
    algorithm: AlgorithmIdentification,
    measured: Sequence[Measured],
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """What was measured at a disc, which has no grade, at its centre."""
    words = f"{level.label} disc"
    group = PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_region=region,
        tracking_identifier=tracking(source, words),
        finding_type=codes.DISC.code,
        algorithm_id=algorithm,
        finding_sites=[FindingSite(anatomic_location=codes.LEVEL_CODES[level].code)],
        measurements=[measurement(item) for item in measured],
    )
    _place_numbers(group, region, image)
    figures = ", ".join(f"{item.kind.short} {item.words}" for item in measured)
    group[0].ContentSequence.append(comment(f"{words}: {figures}"))
    return group


def _severity(severity: Severity) -> CodeContentItem:
    return CodeContentItem(
        name=codes.SEVERITY.code,
        value=codes.SEVERITY_CODES[severity].code,
        relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
    )


def _percent(share: float) -> float:
    return round(100 * float(share), _PERCENT_DECIMALS)


def _place_numbers(group: Sequence[Dataset], region: ImageRegion, image: SourceImage) -> None:
    """Give the first number the point, too: viewers look for it there (TID 320 in TID 300)."""
    number = next(item for item in group[0].ContentSequence if item.ValueType == "NUM")
    number.ContentSequence.append(
        CoordinatesForMeasurement(
            graphic_type=region.graphic_type,
            graphic_data=region.value,
            source_image=reference_to(image),
        )
    )


def evaluations(
    not_graded: Sequence[tuple[Target, Grade]], unplaced: Sequence[tuple[Target, Grade]], notes: Sequence[str]
) -> ContainerContentItem:
    """What has no place on an image: the numbering, targets that were not graded, grades without a slice."""
    found = ContainerContentItem(
        name=codes.QUALITATIVE.code, relationship_type=RelationshipTypeValues.CONTAINS
    )
    items: list[ContentItem] = [comment(note) for note in notes]
    for target, grade in (*unplaced, *not_graded):
        graded = grade.source.is_graded
        value = codes.SEVERITY_CODES[grade.severity] if graded else codes.NOT_EVALUATED
        item = CodeContentItem(
            name=codes.SEVERITY.code,
            value=value.code,
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
        item.ContentSequence = ContentSequence([finding_site(target)])
        words = finding_words(target, grade) if graded else f"{target_words(target)}: not graded"
        why = f" ({', '.join(grade.flags)})" if grade.flags else ""
        items += [item, comment(words + why)]
    found.ContentSequence = ContentSequence(items)
    return found


def tracking(source: SourceStudy, words: str) -> TrackingIdentifier:
    """The same finding of the same study has the same identifier, whatever model looks at it."""
    return TrackingIdentifier(uid=derived_uid("finding", source.study_instance_uid, words), identifier=words)


def comment(text: str) -> TextContentItem:
    """A note in words."""
    return TextContentItem(
        name=codes.COMMENT.code, value=text, relationship_type=RelationshipTypeValues.CONTAINS
    )
