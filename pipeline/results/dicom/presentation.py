"""Overlays for viewers that know no structured report: a Grayscale Softcopy Presentation State per series.

DICOM PS3.3 section A.33.1: points, level names and grades as graphics and text on the slices that show them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from highdicom.pr import (
    AnnotationUnitsValues,
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GraphicTypeValues,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextObject,
)
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from data_prep.base.uids import derived_uid
from data_prep.crops import percentiles
from data_prep.levels import LevelPoint
from data_prep.problems import DicomRejected
from data_prep.study import Series, Study
from data_prep.vocabulary import Target
from pipeline import __version__
from pipeline.prediction import StudyPrediction
from pipeline.results.dicom.identity import NAME, finish, identify
from pipeline.results.dicom.source import SourceImage, SourceStudy
from pipeline.results.words import target_words

LABEL = "LUMBAR"
# Lines in pixels at a monitor of the usual size: a ring that leaves the structure to be seen.
_RING_MM = 3.0
_CHARACTER_MM = 2.6
_BOX_HEIGHT_MM = 6.0


def build_presentations(source: SourceStudy, prediction: StudyPrediction, study: Study) -> dict[str, Dataset]:
    """Series id → presentation state, of every series that shows a point; the same input, the same bytes."""
    identity = identify("pr", source, prediction)
    found = {}
    for number, (series, points) in enumerate(_points_of_series(study, prediction).items(), 1):
        images = [(source.images[series.series_id, item.instance_number]) for item in series.slices]
        headers = {str(header.SOPInstanceUID): header for header in source.evidence(images)}
        for header in headers.values():
            # The library takes every enhanced image for one of many frames, with headers to look into.
            header.SOPClassUID = MRImageStorage
        layer = GraphicLayer(LABEL, order=1, description="Levels and stenosis grades of lumbar")
        window = _window(series, points, images)
        own_uid = derived_uid("presentation", identity["sop_instance_uid"], series.series_id)
        state: Dataset = GrayscaleSoftcopyPresentationState(
            referenced_images=list(headers.values()),
            **identity | {"sop_instance_uid": own_uid, "instance_number": number},
            manufacturer_model_name=NAME,
            software_versions=__version__,
            device_serial_number=__version__,
            content_label=LABEL,
            content_description=f"Levels and grades, {series.kind.value if series.kind else 'series'}",
            graphic_layers=[layer],
            graphic_annotations=_annotations(source, prediction, points, headers, layer),
            voi_lut_transformations=[window] if window is not None else None,
        )
        finish(state, source, "overlays", has_content_time=False)
        _name_classes(state, {image.sop_instance_uid: image.sop_class_uid for image in images})
        state.ContentCreatorName = f"{NAME}^software"
        state.BodyPartExamined = "LSPINE"
        state.GraphicLayerSequence[0].GraphicLayerRecommendedDisplayGrayscaleValue = 0xFFFF
        state.PresentationCreationDate, state.PresentationCreationTime = (
            source.content_date,
            source.content_time,
        )
        found[series.series_id] = state
    return found


def _points_of_series(study: Study, prediction: StudyPrediction) -> dict[Series, list[LevelPoint]]:
    points = prediction.found.points
    found = {series: [point for point in points if point.is_on(series)] for series in study.series}
    return {series: there for series, there in found.items() if there}


def _name_classes(dataset: Dataset, classes: Mapping[str, str]) -> None:
    """Give every reference to an image the SOP class that the image has."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                if "ReferencedSOPInstanceUID" in item:
                    item.ReferencedSOPClassUID = classes[item.ReferencedSOPInstanceUID]
                _name_classes(item, classes)


def presented_series(prediction: StudyPrediction) -> list[str]:
    """Ids of the series that get a presentation state."""
    return sorted({point.sight.series_id for point in prediction.found.points if point.sight is not None})


def _annotations(
    source: SourceStudy,
    prediction: StudyPrediction,
    points: Sequence[LevelPoint],
    headers: Mapping[str, Dataset],
    layer: GraphicLayer,
) -> list[GraphicAnnotation]:
    """One annotation for every image, or frame of one, with points."""
    by_image: dict[SourceImage, list[LevelPoint]] = {}
    for point in points:
        image = source.image_of(point)
        if image is not None:
            by_image.setdefault(image, []).append(point)
    found = []
    for image, there in by_image.items():
        annotation = GraphicAnnotation(
            referenced_images=[headers[image.sop_instance_uid]],
            graphic_layer=layer,
            graphic_objects=[_ring(point, image) for point in there],
            text_objects=[
                *(_label(point, image, prediction) for point in there),
                *_flags(image, prediction),
            ],
        )
        if image.frame is not None:
            annotation.ReferencedImageSequence[0].ReferencedFrameNumber = image.frame
        found.append(annotation)
    return found


def _at(point: LevelPoint) -> np.ndarray:
    """(column, row) as PS3.3 section C.10.5.1.2 counts: the centre of the first pixel is (1, 1)."""
    assert point.sight is not None
    return np.array(point.sight.xy_px, dtype=np.float64) + 1.0


def _ring(point: LevelPoint, image: SourceImage) -> GraphicObject:
    centre = _at(point)
    edge = centre + [_RING_MM / image.plane.spacing_mm[0], 0.0]
    return GraphicObject(
        GraphicTypeValues.CIRCLE,
        np.stack([centre, edge]),
        AnnotationUnitsValues.PIXEL,
        tracking_id=f"{point.level.label} {point.condition.value}",
        tracking_uid=derived_uid("ring", image.sop_instance_uid, point.level.value, point.condition.value),
    )


def _label(point: LevelPoint, image: SourceImage, prediction: StudyPrediction) -> TextObject:
    """The name of a target and its grade, beside the ring and inside the image."""
    target = Target(point.condition, point.level)
    grade = prediction.grades[target]
    graded = grade.source.is_graded
    words = f"{target_words(target)}: {grade.severity.value if graded else 'not graded'}"
    column, row = (float(value) for value in _at(point))
    across, down = image.plane.spacing_mm
    rows, columns = image.plane.shape
    width, height = _CHARACTER_MM * len(words) / across, _BOX_HEIGHT_MM / down
    gap = (_RING_MM + 1.0) / across
    side = point.condition.side
    on_left = side is not None and side.sign < 0
    left = column - gap - width if on_left else column + gap
    left = min(max(left, 1.0), max(columns - width, 1.0))
    top = min(max(row - height / 2, 1.0), max(rows - height, 1.0))
    return TextObject(
        words,
        AnnotationUnitsValues.PIXEL,
        bounding_box=(left, top, min(left + width, float(columns)), min(top + height, float(rows))),
        text_justification="RIGHT" if on_left else "LEFT",
        anchor_point=(column, row),
        anchor_point_visible=False,
    )


def _flags(image: SourceImage, prediction: StudyPrediction) -> list[TextObject]:
    """What a reader should know of the whole study, in a corner of an image; nothing without a flag."""
    if not prediction.flags:
        return []
    across, down = image.plane.spacing_mm
    words = f"flags: {', '.join(prediction.flags)}"
    right, bottom = float(image.plane.shape[1]), min(_BOX_HEIGHT_MM / down + 1.0, float(image.plane.shape[0]))
    box = (1.0, 1.0, min(_CHARACTER_MM * len(words) / across + 1.0, right), bottom)
    return [TextObject(words, AnnotationUnitsValues.PIXEL, bounding_box=box, text_justification="LEFT")]


def _window(
    series: Series, points: Sequence[LevelPoint], images: Sequence[SourceImage]
) -> SoftcopyVOILUTTransformation | None:
    """A window for images whose headers have none: without one, viewers show them nearly black."""
    if any(image.has_look for image in images):
        return None
    for number in {point.sight.instance_number for point in points if point.sight is not None}:
        try:
            pixels = series.by_instance(number).pixels()
        except (DicomRejected, KeyError):
            continue
        low, high = percentiles(pixels, (1.0, 99.5))
        if high > low:
            return SoftcopyVOILUTTransformation(
                window_center=round((low + high) / 2, 1), window_width=round(high - low + 1, 1)
            )
    return None
