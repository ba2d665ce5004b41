"""The DICOM objects of a graded study as files; a capture and key images are made here.

The montage is a Secondary Capture Image (PS3.3 section A.8.1), RGB; the slices with a Moderate or Severe
finding are a Key Object Selection (PS3.16 TID 2010).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sc import SCImage
from PIL import Image
from pydicom.dataset import Dataset

from data_prep.base.files import atomic_write, is_disk_error
from data_prep.levels import LevelPoint
from data_prep.names import safe_id
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Study
from data_prep.vocabulary import TARGETS, Severity, Target
from pipeline import __version__
from pipeline.prediction import StudyPrediction
from pipeline.results.dicom import ResultObject, codes
from pipeline.results.dicom.identity import NAME, finish, identify, note
from pipeline.results.dicom.presentation import build_presentations, presented_series
from pipeline.results.dicom.source import SourceStudy, read_source
from pipeline.results.dicom.structured_report import build_report, observer
from pipeline.results.pictures.montage import draw_montage
from pipeline.results.words import flag_lines, target_words

# One file a study, in the order in which they are made; of presentation states there is one a series.
_ONE_A_STUDY = (ResultObject.SR, ResultObject.COMPREHENSIVE_SR, ResultObject.SC, ResultObject.KOS)
# Names in the marker of a finished study.
_IN_MARKER = {
    "report": ResultObject.SR,
    "comprehensive": ResultObject.COMPREHENSIVE_SR,
    "capture": ResultObject.SC,
    "presentations": ResultObject.GSPS,
    "key_images": ResultObject.KOS,
}


@dataclass(frozen=True)
class DicomResults:
    """The DICOM objects that a study gets: ``{folder}/{study}.dcm``, and ``gsps/{study}/{series}.dcm``."""

    objects: Collection[ResultObject]

    @property
    def marker(self) -> dict[str, bool]:
        """Which they are, for the marker of a finished study."""
        return {name: item in self.objects for name, item in _IN_MARKER.items()}

    @property
    def folders(self) -> frozenset[str]:
        """Names of the folders that they go to."""
        return frozenset(item.folder for item in self.objects)

    def paths(self, prediction: StudyPrediction, folder: Path) -> tuple[Path, ...]:
        """The files of a study."""
        name = safe_id(prediction.study_id)
        single = [
            folder / item.folder / f"{name}.dcm"
            for item in _ONE_A_STUDY
            if item in self.objects and (item is not ResultObject.KOS or key_points(prediction))
        ]
        series = presented_series(prediction) if ResultObject.GSPS in self.objects else []
        return (*single, *(folder / "gsps" / name / f"{safe_id(item)}.dcm" for item in series))

    def are_there(self, prediction: StudyPrediction, folder: Path) -> bool:
        """Whether the files of a study that was done before are there, or it was refused that it has any."""
        refused = any(item.reason is Reason.NO_RESULT for item in prediction.rejections)
        done = all(path.is_file() for path in self.paths(prediction, folder))
        return done or refused or prediction.rejected

    def write(
        self, study: Study | None, prediction: StudyPrediction, folder: Path, picture: Path | None = None
    ) -> Rejection | None:
        """Write what is wanted; a study that was not graded gets nothing.

        Args:
            picture: the montage, if it is drawn already.

        Returns:
            Why there is no result, or None.
        """
        if study is None or prediction.rejected:
            return None
        try:
            objects = self.build(study, prediction, picture)
            for path, dataset in zip(self.paths(prediction, folder), objects, strict=True):
                write_object(dataset, path)
        except DicomRejected as refused:
            return refused.rejection
        except Exception as error:  # grades are worth more than their report
            if is_disk_error(error):
                raise
            message = f"no DICOM result: it cannot be made ({type(error).__name__})"
            # Nothing of the study is refused: another run may make it.
            return Rejection(Reason.FAILED, message, prediction.study_id)
        return None

    def build(
        self, study: Study, prediction: StudyPrediction, picture: Path | None = None
    ) -> tuple[Dataset, ...]:
        """The objects in memory, in the order of ``paths``.

        Raises:
            DicomRejected: the images name no one patient and study; see ``read_source``.
        """
        source = read_source(study)
        reports = (ResultObject.SR, ResultObject.COMPREHENSIVE_SR)
        objects = [build_report(source, prediction, kind) for kind in reports if kind in self.objects]
        if ResultObject.SC in self.objects:
            with TemporaryDirectory() as folder:
                if picture is None or not picture.is_file():
                    picture = Path(folder) / "montage.png"
                    draw_montage(study, prediction, picture)
                objects.append(build_capture(source, prediction, picture))
        selection = build_key_images(source, prediction) if ResultObject.KOS in self.objects else None
        if selection is not None:
            objects.append(selection)
        if ResultObject.GSPS in self.objects:
            states = build_presentations(source, prediction, study)
            objects += [states[series] for series in presented_series(prediction)]
        return tuple(objects)


def write_object(dataset: Dataset, path: Path) -> None:
    """Write a DICOM file (PS3.10) so that a killed run leaves none or a whole one."""
    with atomic_write(path, binary=True) as stream:
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)


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
    finish(selection, source, "key images")
    return selection


def key_points(prediction: StudyPrediction) -> dict[Target, LevelPoint]:
    """Points on slices of what is graded Moderate or Severe; a study without any gets no selection."""
    found = {}
    for target in TARGETS:
        grade, point = prediction.grades[target], prediction.found.point(target.condition, target.level)
        is_worse = grade.source.is_graded and grade.severity is not Severity.NORMAL_MILD
        if is_worse and point is not None and point.sight is not None:
            found[target] = point
    return found


def build_capture(source: SourceStudy, prediction: StudyPrediction, picture: Path) -> Dataset:
    """The capture of one study; the same input gives the same bytes.

    Args:
        picture: PNG that ``draw_montage`` wrote.
    """
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    capture: Dataset = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        study_instance_uid=source.study_instance_uid,
        **identify("sc", source, prediction),
        manufacturer_model_name=NAME,
        software_versions=__version__,
    )
    finish(capture, source, "montage")
    # Many images on one page have no one orientation (Type 2C: empty); the lumbar spine is no paired organ.
    capture.PatientOrientation, capture.BodyPartExamined = None, "LSPINE"
    capture.ConversionType = "WSD"
    # The page shows the identifier of the study.
    capture.BurnedInAnnotation = "YES"
    capture.ImageComments = note(prediction.provenance)
    capture.DateOfSecondaryCapture, capture.TimeOfSecondaryCapture = source.content_date, source.content_time
    return capture
