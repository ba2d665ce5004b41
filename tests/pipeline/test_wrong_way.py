"""Protects: series whose images lie another way round than their headers say are named, and not graded on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep.vocabulary import ConditionGroup, SeriesKind
from pipeline.grade import Pipeline
from pipeline.prediction import StudyPrediction
from tests.hostile.quirks import clinic, wrong_way
from tests.hostile.quirks.stored import Quirk, change_study

T1, T2, AXIAL = SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2
RECESSES, FORAMINA = ConditionGroup.SUBARTICULAR, ConditionGroup.FORAMINAL
BOTH, TURNED, DOUBTFUL = {"series_turned", "sides_doubtful"}, {"series_turned"}, {"sides_doubtful"}
# What is changed, the series that is not used, and the flags.
WRONG: dict[str, tuple[Quirk, SeriesKind | None, set[str]]] = {
    "axial images mirrored": (wrong_way.flipped(AXIAL, "mirrored"), AXIAL, BOTH),
    "axial images upended": (wrong_way.flipped(AXIAL, "upended"), AXIAL, TURNED),
    "axial images by half a turn": (wrong_way.flipped(AXIAL, "half a turn"), AXIAL, TURNED),
    "axial images in reverse": (wrong_way.reversed_order(AXIAL), AXIAL, TURNED),
    "T1 in reverse": (wrong_way.reversed_order(T1), T1, TURNED),
    "T2 in reverse": (wrong_way.reversed_order(T2), T2, TURNED),
    "T1 transposed": (wrong_way.transposed(T1), T1, TURNED),
    "all in reverse": (wrong_way.reversed_order(T1, T2, AXIAL), AXIAL, BOTH),
    "mirrored, and no T1": (
        wrong_way.without(T1, wrong_way.flipped(AXIAL, "mirrored")),
        None,
        DOUBTFUL,
    ),
}


def graded(
    data: Path, study_id: str, quirk: Quirk, out: Path, pipeline: Pipeline
) -> tuple[StudyPrediction, set[str]]:
    """The study with a quirk, written as DICOM files; and its flags of the way round."""
    (found,) = pipeline.predict(change_study(data, study_id, quirk, out))
    return found, BOTH & set(found.flags)


def check(found: StudyPrediction, aside: SeriesKind | None) -> None:
    """The series of one kind alone are not used, and what is read on them is not graded."""
    ignored = {row.seen_as for row in found.series if row.ignored == "turned"}
    assert ignored == ({aside.value} if aside is not None else set())
    group = {AXIAL: RECESSES, T1: FORAMINA}.get(aside) if aside is not None else None
    for target, grade in found.grades.items():
        if target.condition.group is group:
            assert grade.source == "expected" and grade.flags == ("no_series",)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_synthetic_patient(
    wrong: str, phantom_data: Path, tmp_path: Path, bundled_pipeline: Pipeline
) -> None:
    quirk, aside, flags = WRONG[wrong]
    study_id = sorted((phantom_data / "train_images").iterdir())[0].name
    found, said = graded(phantom_data, study_id, quirk, tmp_path, bundled_pipeline)
    assert said == flags
    check(found, aside)


@pytest.mark.parametrize("study_id", ["4003253", "100206310"])
@pytest.mark.parametrize(
    "wrong",
    [
        "axial images upended",
        "axial images by half a turn",
        "axial images in reverse",
        "T1 in reverse",
        "T1 transposed",
    ],
)
def test_a_real_patient(
    study_id: str, wrong: str, real_rsna: Path, tmp_path: Path, bundled_pipeline: Pipeline
) -> None:
    quirk, aside, flags = WRONG[wrong]
    found, said = graded(real_rsna, study_id, quirk, tmp_path, bundled_pipeline)
    assert said == flags
    check(found, aside)


@pytest.mark.parametrize("study_id", ["4003253", "100206310"])
def test_left_and_right_of_a_real_patient(
    study_id: str, real_rsna: Path, tmp_path: Path, bundled_pipeline: Pipeline
) -> None:
    """The fat of one is suppressed in T2: its T1 alone tells that the axial images are mirrored."""
    found, said = graded(
        real_rsna, study_id, wrong_way.flipped(AXIAL, "mirrored"), tmp_path, bundled_pipeline
    )
    outvoted = study_id == "4003253"
    assert said == (BOTH if outvoted else DOUBTFUL)
    check(found, AXIAL if outvoted else None)


@pytest.mark.parametrize("quirk", [lambda study, _: study, clinic.moved_axials(33.0)], ids=["right", "moved"])
@pytest.mark.parametrize("study_id", ["4003253", "100206310"])
def test_a_real_patient_who_lies_right_or_moved(
    study_id: str, quirk: Quirk, real_rsna: Path, tmp_path: Path, bundled_pipeline: Pipeline
) -> None:
    found, said = graded(real_rsna, study_id, quirk, tmp_path, bundled_pipeline)
    assert not said
    check(found, None)


def test_what_is_not_used_changes_nothing_else(
    phantom_data: Path, tmp_path: Path, bundled_pipeline: Pipeline
) -> None:
    """As if the axial series were not there."""
    study_id = sorted((phantom_data / "train_images").iterdir())[0].name
    quirk = wrong_way.flipped(AXIAL, "upended")
    found, _ = graded(phantom_data, study_id, quirk, tmp_path / "turned", bundled_pipeline)
    absent = wrong_way.without(AXIAL, lambda study, _: study)
    alone, said = graded(phantom_data, study_id, absent, tmp_path / "absent", bundled_pipeline)
    assert not said and "no_axial_t2" in found.flags
    assert set(found.flags) - TURNED == set(alone.flags)
    for target, grade in alone.grades.items():
        assert np.array_equal(found.grades[target].probabilities, grade.probabilities)


def test_images_that_cannot_be_decoded_are_left_out(
    phantom_data: Path, tmp_path: Path, bundled_pipeline: Pipeline
) -> None:
    """One axial image and one lateral one of T2 are cut off."""
    study_id = sorted((phantom_data / "train_images").iterdir())[0].name
    data = tmp_path / "data"
    shutil.copytree(
        change_study(phantom_data, study_id, wrong_way.flipped(AXIAL, "upended"), tmp_path / "a"), data
    )
    for series in sorted((data / "train_images" / study_id).iterdir()):
        path = sorted(series.iterdir())[1]
        path.write_bytes(path.read_bytes()[:-200])
    (found,) = bundled_pipeline.predict(data)
    assert set(found.flags) & BOTH == TURNED
