"""The structured report of a study (DICOM PS3.16 TID 1500), one measurement group per graded target.

Every group names level, side and site, the grade as a code and in words, its calibrated and unweighted
probabilities, the point on the image it was read from, and the algorithm. A target that was not graded says
so instead of giving a grade: the level prior knows nothing of the patient, and what is expected from other
grades of the level nothing that these do not say.
"""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    Comprehensive3DSR,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    ImageRegion,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dictionary

from classifier.measure.agreement import contradictions, target_of
from classifier.measure.quantities import NOT_MEASURED_WORDS
from data_prep.base.uids import derived_uid
from data_prep.vocabulary import CONDITIONS, LEVELS, Level, Target
from pipeline import __version__
from pipeline.prediction import StudyPrediction
from pipeline.results.dicom import ResultObject, codes, groups
from pipeline.results.dicom.identity import MANUFACTURER, NAME, finish, identify, models_digest, note
from pipeline.results.dicom.source import SourceImage, SourceStudy
from pipeline.results.words import (
    NUMBERING_IN_DOUBT,
    flag_lines,
    numbering_words,
    reading_words,
    rejection_lines,
    series_use_words,
    target_words,
)


def build_report(
    source: SourceStudy, prediction: StudyPrediction, kind: ResultObject = ResultObject.SR
) -> Dataset:
    """The report of one study; the same input gives the same bytes.

    Args:
        kind: Comprehensive 3D SR, as IHE AI Results wants it, or the older Comprehensive SR, which has no
            points outside images.

    Raises:
        ValueError: nothing of the study was graded.
    """
    if prediction.rejected:
        raise ValueError(f"study {prediction.study_id} was not graded: there is nothing to report")
    three_d = kind is ResultObject.SR
    content, images = _content(source, prediction, only_images=not three_d)
    # The library copies and searches the whole tree several times, which takes longer than all else.
    tree, content[0].ContentSequence = content[0].ContentSequence, []
    make = Comprehensive3DSR if three_d else ComprehensiveSR
    report = make(
        evidence=source.evidence(images),
        content=content,
        **identify("sr" if three_d else "sr88.33", source, prediction),
        manufacturer_model_name=NAME,
        software_versions=__version__,
        is_complete=True,
        is_final=False,
        record_evidence=False,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                designator=codes.PRIVATE_SCHEME,
                name="Private codes of lumbar, listed in its docs/dicom.md",
                version=codes.PRIVATE_VERSION,
            )
        ],
    )
    report.ContentSequence = tree
    finish(report, source, "stenosis grades")
    return report


def _content(
    source: SourceStudy, prediction: StudyPrediction, *, only_images: bool
) -> tuple[MeasurementReport, list[SourceImage]]:
    """The tree, and the images that it refers to, each once, in the order of the study."""
    algorithm = _algorithm(prediction)
    placed: list[PlanarROIMeasurementsAndQualitativeEvaluations] = []
    not_graded, unplaced, used = [], [], set()
    for target in (Target(condition, level) for level in LEVELS for condition in CONDITIONS):
        grade, point = prediction.grades[target], prediction.found.point(target.condition, target.level)
        if not grade.source.is_graded:
            not_graded.append((target, grade))
            continue
        region = None if point is None else groups.region_of(source, point, only_images=only_images)
        if point is None or region is None:
            unplaced.append((target, grade))
            continue
        measured = [item for item in prediction.measurements if target_of(item) == target]
        placed.append(groups.target_group(source, target, grade, point, region, algorithm, measured))
        if (image := source.image_of(point)) is not None:
            used.add(image.sop_instance_uid)
    for level in LEVELS:
        disc = _disc(source, prediction, level, algorithm)
        if disc is not None:
            placed.append(disc[0])
            used.add(disc[1].sop_instance_uid)
    images = [image for image in source.images.values() if image.sop_instance_uid in used]
    images = images or list(source.images.values())
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer(prediction)),
        procedure_reported=codes.PROCEDURE.code,
        # The library wants a group; it is taken out again.
        imaging_measurements=placed
        or [MeasurementsAndQualitativeEvaluations(tracking_identifier=groups.tracking(source, "none"))],
        title=codes.TITLE.code,
        referenced_images=source.evidence(images),
    )
    root = content[0].ContentSequence
    if not placed:
        root.pop()
    # TID 1500 is extensible: the note stands before the findings.
    findings = next((i for i, item in enumerate(root) if item.name.value == "126010"), len(root))
    root.insert(findings, groups.comment(note(prediction.provenance)))
    notes = [*_numbering(prediction, len(source.images)), *_doubts(prediction)]
    evaluations = groups.evaluations(not_graded, unplaced, notes)
    evaluations.ContentSequence.insert(0, _certainty(prediction))
    root.append(evaluations)
    if only_images:
        _name_sources(root)
    return content, images


def _disc(
    source: SourceStudy,
    prediction: StudyPrediction,
    level: Level,
    algorithm: AlgorithmIdentification,
) -> tuple[PlanarROIMeasurementsAndQualitativeEvaluations, SourceImage] | None:
    """The group of a disc and the image it lies on, or None where nothing was measured there."""
    measured = [
        item
        for item in prediction.measurements
        if item.level is level and target_of(item) is None and item.series_id is not None
    ]
    found = prediction.found.levels.get(level)
    if not measured or found is None:
        return None
    first = measured[0]
    image = source.images.get((str(first.series_id), int(first.instance_number or 0)))
    if image is None:
        return None
    region = ImageRegion(
        graphic_type="POINT",
        graphic_data=image.plane.to_px(found.disc_mm)[None] + 0.5,
        source_image=groups.reference_to(image),
    )
    return groups.disc_group(source, level, region, image, algorithm, measured), image


def _doubts(prediction: StudyPrediction) -> list[str]:
    """Grades that their measurements contradict, and what was measured on no single image, in words.

    Of these the whole spine's, and of a level's what is not usual.
    """
    found = contradictions(prediction.grades, prediction.measurements)
    doubts = [f"to be checked first: {target_words(item.target)} {item.words}" for item in found]
    said = [
        f"{'' if item.level is None else f'{item.level.label}: '}{item.kind.words}: {item.words}"
        for item in prediction.measurements
        if item.level is None or (item.series_id is None and item.verdict in ("low", "high"))
    ]
    return [*doubts, *said, *([NOT_MEASURED_WORDS] if prediction.measurements else [])]


def observer(prediction: StudyPrediction) -> ObserverContext:
    """This program, as the device that looked at the images."""
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


def _algorithm(prediction: StudyPrediction) -> AlgorithmIdentification:
    """Name, version and one hash of all weights."""
    digest = models_digest(prediction.provenance.models)
    return AlgorithmIdentification(name=NAME, version=__version__, parameters=[f"models sha256 {digest}"])


def _certainty(prediction: StudyPrediction) -> CodeContentItem:
    """Whether the numbering, on which everything else stands, is flagged."""
    doubted = bool(NUMBERING_IN_DOUBT & set(prediction.flags))
    return CodeContentItem(
        name=codes.NUMBERING.code,
        value=(codes.UNCERTAIN if doubted else codes.NOT_FLAGGED).code,
        relationship_type=RelationshipTypeValues.CONTAINS,
    )


def _numbering(prediction: StudyPrediction, images: int) -> list[str]:
    """How sure the numbering is, flags, series, what was not used, and the hash of every weights file."""
    levels = prediction.found
    numbering = numbering_words(levels.numbering_confidence, prediction.flags)
    found = f"{len(levels.levels)} of {len(LEVELS)} levels found, {numbering}; {images} images were there"
    flags = flag_lines(prediction.flags)
    flags += [reading_words(shift, share) for shift, share in levels.other_readings.items()]
    models = [f"{name} sha256 {digest}" for name, digest in sorted(prediction.provenance.models.items())]
    series = [
        f"series {row.series_id}: {row.seen_as or 'not read'}, {series_use_words(row.used_for, row.ignored)}"
        for row in prediction.series
    ]
    return [found, *flags, *series, *rejection_lines(prediction.rejections), *models]


def _name_sources(items: list[Dataset]) -> None:
    """Call the image of a point by the older name, which viewers of the older kind look for."""
    for item in items:
        if item.ValueType == "IMAGE" and item.RelationshipType == "SELECTED FROM":
            name = item.ConceptNameCodeSequence[0]
            code = codes.ORIGINAL_SOURCE.code
            name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = (
                code.value,
                code.scheme_designator,
                code.meaning,
            )
        _name_sources(item.get("ContentSequence", []))
