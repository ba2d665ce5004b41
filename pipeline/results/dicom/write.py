"""The DICOM objects of a graded study as files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from data_prep.base.files import atomic_write, is_disk_error
from data_prep.names import safe_id
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Study
from pipeline.prediction import StudyPrediction
from pipeline.results.dicom import ResultObject
from pipeline.results.dicom.capture import build_capture
from pipeline.results.dicom.key_images import build_key_images, has_key_images
from pipeline.results.dicom.presentation import build_presentations, presented_series
from pipeline.results.dicom.source import read_source
from pipeline.results.dicom.structured_report import ReportKind, build_report
from pipeline.results.pictures.montage import draw_montage


@dataclass(frozen=True)
class DicomResults:
    """Which DICOM objects a study gets.

    Attributes:
        report: a structured report, Comprehensive 3D SR, ``sr/{study}.dcm``.
        comprehensive: one more for viewers that know only Comprehensive SR, ``sr-comprehensive/{study}.dcm``.
        capture: the montage as a secondary capture, ``sc/{study}.dcm``.
        presentations: a presentation state per series with points, ``gsps/{study}/{series}.dcm``.
        key_images: a key object selection where something is Moderate or Severe, ``kos/{study}.dcm``.
    """

    report: bool = True
    capture: bool = True
    comprehensive: bool = False
    presentations: bool = False
    key_images: bool = False

    @classmethod
    def of(cls, objects: Collection[ResultObject]) -> DicomResults:
        """Those that are listed."""
        return cls(
            report=ResultObject.SR in objects,
            comprehensive=ResultObject.COMPREHENSIVE_SR in objects,
            capture=ResultObject.SC in objects,
            presentations=ResultObject.GSPS in objects,
            key_images=ResultObject.KOS in objects,
        )

    @property
    def folders(self) -> frozenset[str]:
        """Names of the folders that they go to."""
        wanted = {
            "sr": self.report,
            "sr-comprehensive": self.comprehensive,
            "sc": self.capture,
            "gsps": self.presentations,
            "kos": self.key_images,
        }
        return frozenset(name for name, is_wanted in wanted.items() if is_wanted)

    def paths(self, record: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
        """The files of a study, from its record (``StudyPrediction.to_dict``)."""
        name = safe_id(record["study_id"])
        wanted = [
            ("sr", self.report),
            ("sr-comprehensive", self.comprehensive),
            ("sc", self.capture),
            ("kos", self.key_images and has_key_images(record)),
        ]
        single = [folder / kind / f"{name}.dcm" for kind, is_wanted in wanted if is_wanted]
        series = presented_series(record) if self.presentations else []
        return (*single, *(folder / "gsps" / name / f"{safe_id(item)}.dcm" for item in series))

    def are_there(self, record: dict[str, Any], folder: Path) -> bool:
        """Whether the files of a study that was done before are there, or it was refused that it has any."""
        refused = any(row["reason"] == Reason.NO_RESULT.value for row in record["rejections"])
        done = all(path.is_file() for path in self.paths(record, folder))
        return done or refused or bool(record["rejected"])

    def write(
        self, study: Study | None, prediction: StudyPrediction, folder: Path, picture: Path | None = None
    ) -> Rejection | None:
        """Write what is wanted; a study that was not graded gets nothing.

        Args:
            study: that was graded, with its files.
            prediction: of the study.
            folder: to write into.
            picture: the montage, if it is drawn already.

        Returns:
            Why there is no result, or None.
        """
        if study is None or prediction.rejected:
            return None
        try:
            objects = self.build(study, prediction, picture)
            for path, dataset in zip(self.paths(prediction.to_dict(), folder), objects, strict=True):
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
        kinds = [(ReportKind.COMPREHENSIVE_3D, self.report), (ReportKind.COMPREHENSIVE, self.comprehensive)]
        objects = [build_report(source, prediction, kind) for kind, wanted in kinds if wanted]
        if self.capture:
            with TemporaryDirectory() as folder:
                if picture is None or not picture.is_file():
                    picture = Path(folder) / "montage.png"
                    draw_montage(study, prediction, picture)
                objects.append(build_capture(source, prediction, picture))
        if self.key_images and (selection := build_key_images(source, prediction)) is not None:
            objects.append(selection)
        if self.presentations:
            states = build_presentations(source, prediction, study)
            objects += [states[series] for series in presented_series(prediction.to_dict())]
        return tuple(objects)


def write_object(dataset: Dataset, path: Path) -> None:
    """Write a DICOM file (PS3.10) so that a killed run leaves none or a whole one."""
    with atomic_write(path, binary=True) as stream:
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
