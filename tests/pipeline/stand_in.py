"""Small studies as DICOM files, and stages that need no weights: they read pixels, and nothing else."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from classifier.grade import Grade
from classifier.prior import level_prior
from data_prep.levels import (
    LevelPoint,
    PointSource,
    Sight,
    SpineFrame,
    SpineLevel,
    SpineLevels,
)
from data_prep.study import Study
from data_prep.vocabulary import CONDITIONS, LEVELS, TARGETS, SeriesKind, Target
from pipeline.grade import Pipeline
from pipeline.prediction import Provenance

KINDS = {"11": SeriesKind.SAGITTAL_T2, "12": SeriesKind.SAGITTAL_T1, "13": SeriesKind.AXIAL_T2}
CANARY = "CANARY^PATIENT"


def write_study(images: Path, study_id: str, kinds: dict[str, SeriesKind] | None = None) -> Path:
    """A study of small slices of noise in the RSNA layout; every text element names the canary patient."""
    for place, content in stand_in_files(study_id, kinds).items():
        (images / place).parent.mkdir(parents=True, exist_ok=True)
        (images / place).write_bytes(content)
    return images / study_id


def stand_in_files(study_id: str, kinds: dict[str, SeriesKind] | None = None) -> dict[Path, bytes]:
    """What ``write_study`` writes: study/series/number.dcm → content."""
    return {
        Path(study_id, series_id, f"{number}.dcm"): _file(
            kind, number, seed=int(study_id) + int(series_id) + number
        )
        for series_id, kind in (kinds or KINDS).items()
        for number in range(1, 6)
    }


def write_table(images: Path, study_ids: list[str]) -> None:
    """The series table beside the images folder."""
    with (images.parent / f"{images.name.split('_')[0]}_series_descriptions.csv").open(
        "w", newline=""
    ) as file:
        writer = csv.writer(file)
        writer.writerow(["study_id", "series_id", "series_description"])
        writer.writerows([s, series, kind.value] for s in study_ids for series, kind in KINDS.items())


def write_studies(images: Path, study_ids: Iterable[str], listed: Iterable[str] = ()) -> Path:
    """Studies with their table, which may list more of them; the folder of the images."""
    written = [write_study(images, study_id).name for study_id in study_ids]
    write_table(images, [*written, *listed])
    return images


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@cache
def _file(kind: SeriesKind, number: int, seed: int) -> bytes:
    with BytesIO() as stream:
        _slice(kind, number, seed).save_as(stream, enforce_file_format=True)
        return stream.getvalue()


def _slice(kind: SeriesKind, number: int, seed: int) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = f"1.2.{seed}"
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, f"1.2.{seed}"
    data.PatientName = data.PatientID = data.InstitutionName = data.StudyDescription = CANARY
    data.SeriesDescription = CANARY
    data.InstanceNumber = number
    data.Rows, data.Columns = 60, 40
    data.PixelSpacing = [3.0, 2.5]
    if kind is SeriesKind.AXIAL_T2:
        data.ImagePositionPatient = [-50, -90, 36 * (3 - number)]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    else:
        data.ImagePositionPatient = [8 * (number - 3), -50, 90]
        data.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = np.random.default_rng(seed).integers(0, 4096, (60, 40), dtype=np.uint16).tobytes()
    return data


class StraightSpine:
    """Finds a straight spine at the origin, whatever is there; L1/L2 is out of view."""

    def __init__(self) -> None:
        self.studies: list[str] = []

    def predict(self, study: Study) -> SpineLevels:
        self.studies.append(study.study_id)
        frame = SpineFrame(*np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]))
        levels = {
            level: SpineLevel(
                np.array([0.0, -15, 72 - 36 * level.index]),
                np.array([0.0, 5, 72 - 36 * level.index]),
                frame,
                confidence=0.9,
                uncertainty_mm=2.0,
            )
            for level in LEVELS[1:]
        }
        points = [self._point(study, Target(c, level)) for c in CONDITIONS for level in levels]
        return SpineLevels(study.study_id, levels, tuple(points), 0.875, ("11",), flags=("level_absent",))

    def _point(self, study: Study, target: Target) -> LevelPoint:
        side = target.condition.side.sign if target.condition.side else 0
        where = np.array([8.0 * side, 5.0, 72.0 - 36 * target.level.index])
        series = next(iter(study.of_kind(target.condition.series_kind)), None)
        if series is None:
            return LevelPoint(target.condition, target.level, where, PointSource.PREDICTED, 0.5, 5.0)
        item, _ = series.nearest(where)
        sight = Sight.of(series, item, where)
        return LevelPoint(target.condition, target.level, where, PointSource.SEEN, 0.9, 2.0, sight)


class BrightnessGrader:
    """Grades by how bright the slice is at the point; the prior where there is no point or no slice."""

    def grade(self, study: Study, levels: SpineLevels) -> dict[Target, Grade]:
        return {target: self._grade(study, levels, target) for target in TARGETS}

    def _grade(self, study: Study, levels: SpineLevels, target: Target) -> Grade:
        point = levels.point(target.condition, target.level)
        if point is None or point.sight is None:
            return Grade(level_prior(target), "prior", ("level_absent",))
        _, item = study.slice_at(point.sight)
        pixels = item.pixels()
        x, y = (round(value) for value in point.sight.xy_px)
        bright = float(pixels[y, x]) / 4096
        return Grade(np.array([1 - bright, bright / 2, bright / 2]), "seen")


class BrokenGrader:
    """Fails on one study, quoting what must not be quoted."""

    def __init__(self, study_id: str) -> None:
        self.study_id = study_id

    def grade(self, study: Study, levels: SpineLevels) -> dict[Target, Grade]:
        if study.study_id == self.study_id:
            raise RuntimeError(f"{CANARY} in /home/somebody/secret")
        return BrightnessGrader().grade(study, levels)


def stand_in_pipeline(**models: str) -> Pipeline:
    """A pipeline of stand-ins; ``models`` are its model hashes."""
    return Pipeline(StraightSpine(), BrightnessGrader(), Provenance(models={"stand-in": "0", **models}))
