"""The structured report of a study: Comprehensive 3D SR, TID 1500 (DICOM PS3.16), one group per target.

Every group names level, side and site, the grade as a code, its three calibrated and unweighted
probabilities, the point on the image it was read from, and the algorithm. A target that was not graded says
so instead of giving a grade: the level prior knows nothing of the patient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageRegion,
    ImageRegion3D,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dictionary

from classifier.grade import Grade
from data_prep.base.uids import derived_uid
from data_prep.study import LevelPoint, PointSource, SpineLevels
from data_prep.vocabulary import CONDITIONS, LEVELS, SEVERITIES, Target
from pipeline import __version__
from pipeline.prediction import StudyPrediction
from pipeline.results.dicom import codes
from pipeline.results.dicom.identity import (
    MANUFACTURER,
    NAME,
    NOTE,
    identify,
    models_digest,
    set_times,
)
from pipeline.results.dicom.source import SourceStudy

_DECIMALS = 6
# No reading of an image is certain.
_MOST_CERTAIN_PERCENT = 99.9
_PLACES = {"spinal": "canal", "foraminal": "foramen", "subarticular": "recess"}
_Group = MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations


def build_report(source: SourceStudy, prediction: StudyPrediction) -> Dataset:
    """The report of one study; the same input gives the same bytes.

    Raises:
        ValueError: nothing of the study was graded.
    """
    if prediction.rejected:
        raise ValueError(f"study {prediction.study_id} was not graded: there is nothing to report")
    identity = identify("sr", source, prediction)
    levels = prediction.levels or SpineLevels(prediction.study_id)
    groups: list[_Group] = [_numbering(source, prediction, levels)]
    for level in LEVELS:
        for condition in CONDITIONS:
            target = Target(condition, level)
            grade, point = prediction.grades[target], levels.point(condition, level)
            groups.append(_group(source, prediction, target, grade, point))
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(prediction)),
        procedure_reported=codes.PROCEDURE.code,
        imaging_measurements=groups,
        title=codes.TITLE.code,
    )
    # TID 1500 is extensible: the note stands before the findings.
    content[0].ContentSequence.insert(len(content[0].ContentSequence) - 1, _comment(NOTE))
    report = Comprehensive3DSR(
        evidence=source.evidence(),
        content=content,
        series_instance_uid=identity.series_instance_uid,
        series_number=identity.series_number,
        sop_instance_uid=identity.sop_instance_uid,
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=NAME,
        software_versions=__version__,
        series_description="lumbar stenosis grades - not a medical device",
        is_complete=True,
        is_final=False,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                designator=codes.PRIVATE_SCHEME,
                name="Private codes of lumbar, listed in its docs/dicom.md",
                version=codes.PRIVATE_VERSION,
            )
        ],
    )
    source.fill(report)
    set_times(report, source)
    return report


def _observer(prediction: StudyPrediction) -> ObserverContext:
    models = models_digest(prediction.provenance.models)
    return ObserverContext(
        observer_type=dictionary.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", __version__, models),
            name=NAME,
            manufacturer_name=MANUFACTURER,
            model_name=f"{NAME} {__version__}",
        ),
    )


def _algorithm(prediction: StudyPrediction, *, every_model: bool = False) -> AlgorithmIdentification:
    """Name, version and the hash of all weights; once per report, that of every file."""
    models = prediction.provenance.models
    parameters = [f"models sha256 {models_digest(models)}"]
    if every_model:
        parameters += [f"{name} sha256 {digest}" for name, digest in sorted(models.items())]
    return AlgorithmIdentification(name=NAME, version=__version__, parameters=parameters)


def _numbering(
    source: SourceStudy, prediction: StudyPrediction, levels: SpineLevels
) -> MeasurementsAndQualitativeEvaluations:
    """How sure the numbering is, on which everything else stands; the flags of the study."""
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(source, "numbering"),
        finding_type=codes.NUMBERING.code,
        algorithm_id=_algorithm(prediction, every_model=True),
        measurements=[
            Measurement(
                name=codes.CERTAINTY.code,
                value=min(round(100 * levels.numbering_confidence, 1), _MOST_CERTAIN_PERCENT),
                unit=codes.PERCENT.code,
            )
        ],
    )
    group[0].ContentSequence.append(_comment(f"{len(levels.levels)} of {len(LEVELS)} levels found"))
    if prediction.flags:
        group[0].ContentSequence.append(_comment(f"flags: {', '.join(prediction.flags)}"))
    return group


def _group(
    source: SourceStudy,
    prediction: StudyPrediction,
    target: Target,
    grade: Grade,
    point: LevelPoint | None,
) -> _Group:
    """Finding, site, grade and probabilities of one target, at its point where it has one."""
    graded = grade.source != "prior"
    region = None if point is None else _region(source, point)
    value = codes.SEVERITY_CODES[grade.severity] if graded else codes.NOT_EVALUATED
    side = target.condition.side
    common: dict[str, Any] = {
        "tracking_identifier": _tracking(source, _words(target)),
        "finding_type": codes.FINDING.code,
        "method": _method(point).code,
        "algorithm_id": _algorithm(prediction),
        "finding_sites": [
            FindingSite(
                anatomic_location=codes.SITE_CODES[target.condition.group].code,
                laterality=None if side is None else codes.SIDE_CODES[side].code,
                topographical_modifier=codes.LEVEL_CODES[target.level].code,
            )
        ],
        "measurements": _probabilities(grade) if graded else None,
        "qualitative_evaluations": [QualitativeEvaluation(name=codes.SEVERITY.code, value=value.code)],
    }
    group: _Group
    if region is None:
        group = MeasurementsAndQualitativeEvaluations(**common)
    else:
        group = PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **common)
    notes = list(grade.flags)
    if not graded:
        notes.append("not graded: the target cannot be seen in the images")
    group[0].ContentSequence.extend(_comment(note) for note in notes)
    return group


def _words(target: Target) -> str:
    place = _PLACES[target.condition.group.value]
    return " ".join(filter(None, (target.level.label, target.condition.side, place)))


def _tracking(source: SourceStudy, words: str) -> TrackingIdentifier:
    """The same finding of the same study has the same identifier, whatever model looks at it."""
    uid = derived_uid("finding", source.study_instance_uid, words)
    return TrackingIdentifier(uid=uid, identifier=words)


def _method(point: LevelPoint | None) -> codes.CodeEntry:
    if point is None:
        return codes.POINT_NONE
    return codes.POINT_SEEN if point.source is PointSource.SEEN else codes.POINT_PREDICTED


def _region(source: SourceStudy, point: LevelPoint) -> ImageRegion | ImageRegion3D:
    """The point on the image that shows it, else in the patient.

    PS3.3 section C.18.6.1.1: (0, 0) is the corner of the first pixel, so its centre is (0.5, 0.5). A point
    that no slice shows is given in the frame of reference of the first image.
    """
    image = source.image_of(point)
    if image is not None and point.xy_px is not None:
        return ImageRegion(
            graphic_type="POINT",
            graphic_data=np.array([point.xy_px]) + 0.5,
            source_image=SourceImageForRegion(image.sop_class_uid, image.sop_instance_uid),
        )
    frame = next(iter(source.images.values())).frame_of_reference_uid
    return ImageRegion3D(graphic_type="POINT", graphic_data=point.xyz_mm[None], frame_of_reference_uid=frame)


def _probabilities(grade: Grade) -> list[Measurement]:
    """Calibrated, unweighted; each names its severity in a concept modifier."""
    found = []
    for severity, p in zip(SEVERITIES, grade.probabilities, strict=True):
        item = Measurement(
            name=codes.PROBABILITY.code, value=round(float(p), _DECIMALS), unit=codes.NO_UNITS.code
        )
        modifier = CodeContentItem(
            name=codes.SEVERITY.code,
            value=codes.SEVERITY_CODES[severity].code,
            relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
        if "ContentSequence" in item[0]:
            item[0].ContentSequence.insert(0, modifier)
        else:
            item[0].ContentSequence = [modifier]
        found.append(item)
    return found


def _comment(text: str) -> TextContentItem:
    return TextContentItem(
        name=codes.COMMENT.code, value=text, relationship_type=RelationshipTypeValues.CONTAINS
    )
