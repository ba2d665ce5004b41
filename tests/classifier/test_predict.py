"""Grading a study: 25 valid grades whatever is missing, left equal to mirrored right, weights checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.config import GROUP_GRADERS, GraderName
from classifier.predict import Grader
from classifier.prior import level_prior
from classifier.storage import load_grader
from data_prep.base.manifest import WeightsRejected, write_manifest
from data_prep.levels import PointSource, SpineFrame, SpineLevel, SpineLevels
from data_prep.vocabulary import (
    TARGETS,
    Condition,
    Level,
    SeriesKind,
    Target,
)
from tests.classifier.synthetic import all_points, textured_study, write_tiny

pytestmark = pytest.mark.usefixtures("really_computed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained graders whose logits are large enough to differ between crops."""
    folder = tmp_path_factory.mktemp("weights")
    for seed, group in enumerate(GROUP_GRADERS):
        write_tiny(folder, group, seed)
    return folder


@pytest.fixture(scope="module")
def grader(folder: Path) -> Grader:
    return Grader.load(folder, backend="torch")


def test_every_target_gets_a_valid_grade(grader: Grader) -> None:
    points = list(all_points())
    points[7] = replace(points[7], source=PointSource.PREDICTED)
    grades = grader.grade(textured_study(), SpineLevels("7", points=tuple(points)))
    assert tuple(grades) == TARGETS
    assert all(grade.flags == () for grade in grades.values())
    sources = [grades[Target(point.condition, point.level)].source for point in points]
    assert sources == ["seen"] * 7 + ["predicted"] + ["seen"] * 17
    stacked = np.array([grade.probabilities for grade in grades.values()])
    assert np.allclose(stacked.sum(axis=1), 1) and len(np.unique(stacked.round(6), axis=0)) == 25


def test_what_cannot_be_seen_gets_the_level_prior_and_a_flag(grader: Grader) -> None:
    study = textured_study(kinds=(SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2))
    points = [point for point in all_points() if point.level is not Level.L1_L2]
    far = replace(points[0], xyz_mm=np.array([80.0, 0.0, 0.0]))
    outside = replace(points[1], xyz_mm=np.array([0.0, 400.0, 0.0]))
    grades = grader.grade(study, SpineLevels("7", points=(far, outside, *points[2:])))
    canal = Condition.SPINAL_CANAL_STENOSIS
    expected = {
        Target(canal, Level.L1_L2): ("level_absent",),
        Target(canal, Level.L2_L3): ("no_slice",),
        Target(canal, Level.L3_L4): ("no_slice",),
        Target(canal, Level.L4_L5): (),
        Target(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Level.L5_S1): ("no_series",),
        Target(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L5_S1): (),
    }
    for target, flags in expected.items():
        grade = grades[target]
        assert grade.flags == flags
        assert (grade.source == "prior") == bool(flags)
        if flags:
            assert np.allclose(grade.probabilities, level_prior(target))


def test_a_target_without_a_point_at_a_level_that_is_there_is_not_called_absent(grader: Grader) -> None:
    frame = SpineFrame(*np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]))
    found = {Level.L1_L2: SpineLevel(np.zeros(3), np.zeros(3), frame, 0.9, 1.0)}
    grades = grader.grade(textured_study(), SpineLevels("7", found))
    for target, grade in grades.items():
        assert grade.flags == (("no_point",) if target.level is Level.L1_L2 else ("level_absent",))


def test_nothing_found_gives_25_priors(grader: Grader) -> None:
    grades = grader.grade(textured_study(), SpineLevels("7"))
    assert len(grades) == 25 and {grade.flags for grade in grades.values()} == {("level_absent",)}


def test_mirrored_patient_gets_the_same_grades_on_the_other_side(grader: Grader) -> None:
    levels = SpineLevels("7", points=all_points())
    plain, mirrored = (grader.grade(textured_study(mirrored=flag), levels) for flag in (False, True))
    changes = []
    for target, grade in plain.items():
        if target.condition.side is not None:
            swapped = Condition.of(target.condition.group, target.condition.side.other)
            other = mirrored[Target(swapped, target.level)]
            log_p, log_other = np.log(grade.probabilities), np.log(other.probabilities)
            assert np.allclose(log_p, log_other, atol=2e-3)
            changes.append(np.abs(log_p - np.log(mirrored[target].probabilities)).max())
    assert np.median(changes) > 0.02


def test_same_study_gives_the_same_bytes(folder: Path) -> None:
    levels = SpineLevels("7", points=all_points())
    graded = [Grader.load(folder, backend="torch").grade(textured_study(), levels) for _ in range(2)]
    for target in TARGETS:
        assert graded[0][target].probabilities.tobytes() == graded[1][target].probabilities.tobytes()


def test_a_flipped_byte_in_the_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "foraminal.safetensors").read_bytes())
    content[-5] ^= 4
    (tmp_path / "foraminal.safetensors").write_bytes(content)
    with pytest.raises(WeightsRejected, match=r"foraminal\.safetensors' is not the released file"):
        Grader.load(tmp_path, backend="torch")


def test_a_pickle_in_place_of_weights_is_refused_even_with_a_manifest(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({"weights": [1, 2, 3]}, tmp_path / "spinal.safetensors")
    write_manifest(tmp_path)
    with pytest.raises(WeightsRejected, match="does not fit the network"):
        load_grader(tmp_path, GraderName.SPINAL)


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(WeightsRejected, match="make models"):
        Grader.load(tmp_path, backend="torch")
