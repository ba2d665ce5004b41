"""One patient in several file formats: the same levels, the same grades."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nibabel", reason="needs the extra: pip install '.[nifti]'")

from data_prep.problems import DicomRejected
from data_prep.read.find import find_studies
from pipeline.grade import Pipeline
from pipeline.prediction import StudyPrediction
from pipeline.results.dicom.source import read_source
from tests.enhanced_files import make_enhanced
from tests.nifti_files import write_bids

# Affines are stored in float32: places differ by some 1e-5 mm.
TOLERANCE = 1e-3


def difference(a: StudyPrediction, b: StudyPrediction) -> float:
    return max(
        float(np.abs(grade.probabilities - b.grades[target].probabilities).max())
        for target, grade in a.grades.items()
    )


def graded_both_ways(
    study: Path, folder: Path, pipeline: Pipeline
) -> tuple[StudyPrediction, StudyPrediction]:
    """From DICOM, and from the NIfTI volumes that are made of it."""
    (entry,) = find_studies(study)
    subject = write_bids(entry.load(), folder)
    (dicom,), (nifti,) = pipeline.predict(study), pipeline.predict(subject)
    return dicom, nifti


def test_a_bids_folder_gives_the_grades_of_the_dicom_it_was_made_of(
    phantom_data: Path, tmp_path: Path, bundled_pipeline: Pipeline
) -> None:
    for number, study in enumerate(sorted((phantom_data / "train_images").iterdir())):
        dicom, nifti = graded_both_ways(study, tmp_path / str(number), bundled_pipeline)

        assert nifti.study_id == "sub-01"
        assert nifti.flags == dicom.flags
        assert not nifti.rejections
        assert difference(dicom, nifti) < TOLERANCE


def test_a_nifti_study_has_no_dicom_result_and_why_is_said(phantom_data: Path, tmp_path: Path) -> None:
    (entry,) = find_studies(min((phantom_data / "train_images").iterdir()))
    (nifti,) = find_studies(write_bids(entry.load(), tmp_path))

    with pytest.raises(DicomRejected, match="a NIfTI volume names no patient to file a result under"):
        read_source(nifti.load())


@pytest.mark.parametrize("study_id", ["4003253", "100206310"])
def test_so_it_is_with_real_studies(
    study_id: str, real_rsna: Path, tmp_path: Path, bundled_pipeline: Pipeline
) -> None:
    dicom, nifti = graded_both_ways(real_rsna / "train_images" / study_id, tmp_path, bundled_pipeline)

    assert difference(dicom, nifti) < TOLERANCE


@pytest.mark.parametrize("study_id", ["4003253", "100206310"])
def test_enhanced_objects_of_real_studies_give_the_grades_of_classic_ones(
    study_id: str, real_rsna: Path, tmp_path: Path, bundled_pipeline: Pipeline
) -> None:
    """One of them has two blocks of axial slices that lie differently."""
    images = tmp_path / "train_images" / study_id
    for path in (real_rsna / "train_images" / study_id).rglob("*.dcm"):
        place = images / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    table = "train_series_descriptions.csv"
    (tmp_path / table).write_bytes((real_rsna / table).read_bytes())
    for series in images.iterdir():
        make_enhanced(sorted(series.glob("*.dcm"), key=lambda path: int(path.stem)))
    (classic,) = bundled_pipeline.predict(real_rsna / "train_images" / study_id)

    (made,) = bundled_pipeline.predict(images)

    assert len(list(images.rglob("*.dcm"))) == len(list(images.iterdir()))
    assert not made.rejections
    assert difference(classic, made) < TOLERANCE
