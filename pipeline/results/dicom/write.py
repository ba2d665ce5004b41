"""SR and SC of a graded study as files."""

from __future__ import annotations

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
from pipeline.results.dicom.capture import build_capture
from pipeline.results.dicom.source import read_source
from pipeline.results.dicom.structured_report import build_report
from pipeline.results.pictures.montage import draw_montage


@dataclass(frozen=True)
class DicomResults:
    """Which DICOM objects a study gets.

    Attributes:
        report: a structured report, ``sr/{study}.dcm``.
        capture: the montage as a secondary capture, ``sc/{study}.dcm``.
    """

    report: bool = True
    capture: bool = True

    def paths(self, study_id: str, folder: Path) -> tuple[Path, ...]:
        """The files of a study."""
        kinds = [kind for kind, wanted in (("sr", self.report), ("sc", self.capture)) if wanted]
        return tuple(folder / kind / f"{safe_id(study_id)}.dcm" for kind in kinds)

    def are_there(self, record: dict[str, Any], folder: Path) -> bool:
        """Whether the files of a study that was done before are there, or it was refused that it has any."""
        refused = any(row["reason"] == Reason.NO_RESULT.value for row in record["rejections"])
        done = all(path.is_file() for path in self.paths(record["study_id"], folder))
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
            for path, dataset in zip(self.paths(prediction.study_id, folder), objects, strict=True):
                write_object(dataset, path)
        except DicomRejected as refused:
            return refused.rejection
        except Exception as error:  # grades are worth more than their report
            if is_disk_error(error):
                raise
            message = f"no DICOM result: it cannot be made ({type(error).__name__})"
            return Rejection(Reason.NO_RESULT, message, prediction.study_id)
        return None

    def build(
        self, study: Study, prediction: StudyPrediction, picture: Path | None = None
    ) -> tuple[Dataset, ...]:
        """The objects in memory, SR before SC.

        Raises:
            DicomRejected: the images name no one patient and study; see ``read_source``.
        """
        source = read_source(study)
        objects = [build_report(source, prediction)] if self.report else []
        if self.capture:
            with TemporaryDirectory() as folder:
                if picture is None or not picture.is_file():
                    picture = Path(folder) / "montage.png"
                    draw_montage(study, prediction, picture)
                objects.append(build_capture(source, prediction, picture))
        return tuple(objects)


def write_object(dataset: Dataset, path: Path) -> None:
    """Write a DICOM file (PS3.10) so that a killed run leaves none or a whole one."""
    with atomic_write(path, binary=True) as stream:
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
