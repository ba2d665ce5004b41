"""Protects: a grader of several members averages their evidence, each from its own crops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from classifier.calibration import Calibration, JointCalibration, fit_joint_calibration
from classifier.config import GROUP_GRADERS, GraderConfig, GraderName
from classifier.learn.calibrate import _aligned, _members
from classifier.learn.crop_cache import CropCache
from classifier.learn.train import grade_cache
from classifier.model import GraderNetwork
from classifier.predict import Grader
from classifier.storage import load_grader, save_grader
from data_prep.levels import LevelPoint, SpineLevels
from data_prep.vocabulary import TARGETS, ConditionGroup, SeriesKind, Target
from tests.classifier.synthetic import all_points, disc_cache, textured_study, tiny_config, write_tiny

LEVELS = SpineLevels("7", points=all_points())


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_the_evidence_of_members_is_averaged(tmp_path: Path, backend: str) -> None:
    both, one, two = (tmp_path / name for name in ("both", "one", "two"))
    for name in GROUP_GRADERS:
        write_tiny(both, name, 1)
        write_tiny(one, name, 1)
        write_tiny(two, name, 2)
    write_tiny(both, GraderName.FORAMINAL, 2, member=2)
    grader = Grader.load(both, backend=backend, threads=1)
    assert {name: len(stored.members) for name, stored in grader.graders.items()} == {
        GraderName.SPINAL: 1,
        GraderName.FORAMINAL: 2,
        GraderName.SUBARTICULAR: 1,
    }
    logits = [
        np.log([grade.probabilities for grade in g.grade(textured_study(), LEVELS).values()])
        for g in (
            Grader.load(one, backend=backend, threads=1),
            Grader.load(two, backend=backend, threads=1),
            grader,
        )
    ]
    mean = np.exp((logits[0] + logits[1]) / 2)
    mean /= mean.sum(axis=1, keepdims=True)
    foramina = np.array([target.condition.group is ConditionGroup.FORAMINAL for target in TARGETS])
    np.testing.assert_allclose(np.exp(logits[2])[foramina], mean[foramina], atol=2e-3)
    np.testing.assert_allclose(np.exp(logits[2])[~foramina], np.exp(logits[0])[~foramina], atol=1e-6)


def test_a_grader_that_is_written_anew_has_no_members_of_an_earlier_one(tmp_path: Path) -> None:
    for member in (1, 2, 3):
        write_tiny(tmp_path, GraderName.SPINAL, member, member=member)
    write_tiny(tmp_path, GraderName.SPINAL_AXIAL, 4)
    assert len(load_grader(tmp_path, GraderName.SPINAL).members) == 3
    write_tiny(tmp_path, GraderName.SPINAL, 5)
    assert len(load_grader(tmp_path, GraderName.SPINAL).members) == 1
    assert sorted(path.stem for path in tmp_path.glob("*.safetensors")) == ["spinal", "spinal_axial"]


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_each_member_looks_at_its_own_crops(tmp_path: Path, backend: str) -> None:
    both, one, two = (tmp_path / name for name in ("both", "one", "two"))
    for name in GROUP_GRADERS:
        write_tiny(both, name, 1)
        write_tiny(one, name, 1)
        write_tiny(two, name, 2, size_px=48)
    write_tiny(both, GraderName.SPINAL, 2, member=2, size_px=48)
    logits = [
        np.log([grade.probabilities for grade in found.grade(textured_study(), LEVELS).values()])
        for found in (Grader.load(folder, backend=backend, threads=1) for folder in (one, two, both))
    ]
    mean = np.exp((logits[0] + logits[1]) / 2)
    mean /= mean.sum(axis=1, keepdims=True)
    canal = np.array([target.condition.group is ConditionGroup.SPINAL for target in TARGETS])
    assert np.abs(logits[0] - logits[1])[canal].max() > 0.05
    np.testing.assert_allclose(np.exp(logits[2])[canal], mean[canal], atol=2e-3)
    np.testing.assert_allclose(np.exp(logits[2])[~canal], np.exp(logits[0])[~canal], atol=1e-6)


def test_members_with_other_crops_are_calibrated_on_the_targets_that_both_see() -> None:
    def cache(targets: list[int]) -> CropCache:
        n = len(targets)
        return CropCache(
            crops=np.zeros((n, 1, 4, 4), np.uint8),
            valid=np.ones((n, 1), np.bool_),
            level=np.array(targets, np.int64),
            truth=np.full((n, 3), 1 / 3, np.float32),
            label=np.zeros(n, np.int64),
            log_prior=np.zeros((n, 3), np.float32),
            row_ids=np.array([TARGETS[target].row_id("7") for target in targets]),
        )

    first, second = _aligned([cache([0, 1, 2, 3]), cache([3, 4, 1])])
    assert first.row_ids.tolist() == second.row_ids.tolist()
    assert first.level.tolist() == second.level.tolist() == [1, 3]
    (alone,) = _aligned([cache([2, 0, 2])])  # as of a folder that is named twice
    assert alone.level.tolist() == [2, 0]
    with pytest.raises(ValueError, match="in common"):
        _aligned([cache([0]), cache([1])])


def test_joint_evidence_is_fitted_where_each_view_sees_a_part() -> None:
    generator = np.random.default_rng(0)
    prior = np.log(np.full((3000, 3), 1 / 3))
    first, second = generator.normal(size=(2, 3000, 3))
    p = np.exp(1.2 * first + 0.4 * second)
    p /= p.sum(axis=1, keepdims=True)
    label = np.array([generator.choice(3, p=row) for row in p])
    fitted = fit_joint_calibration(first, second, prior, np.eye(3)[label])
    assert fitted.weights == pytest.approx((1.2, 0.4), abs=0.12)
    assert JointCalibration.from_dict(fitted.to_dict()) == fitted
    np.testing.assert_allclose(fitted.probabilities(first, second, prior), p, atol=0.08)
    with pytest.raises(ValueError, match="weights must be 2"):
        JointCalibration((-0.1, 1.0))
    with pytest.raises(ValueError, match="of one shape"):
        fit_joint_calibration(first, second[:5], prior, np.eye(3)[label])


def test_a_joint_calibration_survives_the_disk(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL_AXIAL)
    config = replace(config, network=replace(config.network, slices_as="channels"))
    joint = JointCalibration((0.7, 0.3), (0.1, 0.0, -0.1))
    save_grader(tmp_path, config, GraderNetwork(config.network, config.crop), Calibration(), {}, joint)
    assert load_grader(tmp_path, GraderName.SPINAL_AXIAL).joint == joint


def test_the_evidence_of_a_run_counts_as_much_as_is_said(tmp_path: Path) -> None:
    config = tiny_config(GraderName.SPINAL)
    runs = [tmp_path / "one", tmp_path / "two"]
    for seed, run in enumerate(runs):
        write_tiny(run, GraderName.SPINAL, seed)
    before = [load_grader(run, GraderName.SPINAL).network for run in runs]
    members = _members(runs, GraderName.SPINAL, {runs[1]: 0.5})
    crops = disc_cache(config, 12, 0)
    one, two = (grade_cache(network, crops, config) for network in before)
    mean = np.mean([grade_cache(member.network, crops, config) for member in members], axis=0)
    np.testing.assert_allclose(mean, (2 * one + two) / 3, atol=1e-4)
    assert [member.metrics.get("evidence_times") for member in members] == [1.3333, 0.6667]
    equal = _members(runs, GraderName.SPINAL, {})
    assert all("evidence_times" not in member.metrics for member in equal)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_target_that_two_slices_show_gets_the_mean_of_both(tmp_path: Path, backend: str) -> None:
    for name in GROUP_GRADERS:
        write_tiny(tmp_path, name, 1)
    grader = Grader.load(tmp_path, backend=backend, threads=1)
    study = textured_study()
    first = next(p for p in LEVELS.points if p.condition.group is ConditionGroup.FORAMINAL)
    other = replace(first, xyz_mm=first.xyz_mm + np.array([0.0, 6.0, 6.0]), sight=None)

    def graded(point: LevelPoint) -> dict[Target, np.ndarray]:
        points = tuple(point if p is first else p for p in LEVELS.points)
        return {t: g.probabilities for t, g in grader.grade(study, SpineLevels("7", points=points)).items()}

    one, two = graded(first), graded(other)
    both = graded(replace(first, share=0.75, also=(replace(other, share=0.25),)))
    own = Target(first.condition, first.level)
    assert np.abs(one[own] - two[own]).max() > 1e-5
    np.testing.assert_allclose(both[own], 0.75 * one[own] + 0.25 * two[own], atol=1e-7)
    assert all(np.array_equal(both[target], one[target]) for target in TARGETS if target != own)


def test_a_slice_that_cannot_be_read_leaves_the_grade_to_the_others(tmp_path: Path) -> None:
    for name in GROUP_GRADERS:
        write_tiny(tmp_path, name, 1)
    grader = Grader.load(tmp_path, backend="torch", threads=1)
    first = next(p for p in LEVELS.points if p.condition.group is ConditionGroup.FORAMINAL)
    nowhere = replace(first, xyz_mm=first.xyz_mm + np.array([900.0, 0.0, 0.0]), sight=None, share=0.5)
    points = tuple(replace(first, share=0.5, also=(nowhere,)) if p is first else p for p in LEVELS.points)
    own = Target(first.condition, first.level)
    alone = grader.grade(textured_study(), LEVELS)[own]
    assert np.array_equal(
        grader.grade(textured_study(), SpineLevels("7", points=points))[own].probabilities,
        alone.probabilities,
    )


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_beside_the_best_slice_the_first_member_of_its_own_view_reads(tmp_path: Path, backend: str) -> None:
    """Neither the members after it, nor the grader that looks at the canal on axial slices."""
    for name in (*GROUP_GRADERS, GraderName.SPINAL_AXIAL):
        for folder in ("one", "two", "both"):
            write_tiny(tmp_path / folder, name, 2 if folder == "two" else 1)
    for name in (GraderName.FORAMINAL, GraderName.SPINAL):
        write_tiny(tmp_path / "both", name, 2, member=2)
    first, both = (Grader.load(tmp_path / name, backend=backend, threads=1) for name in ("one", "both"))
    study = textured_study()
    for group in (ConditionGroup.FORAMINAL, ConditionGroup.SPINAL):
        best = next(p for p in LEVELS.points if p.condition.group is group)
        other = replace(best, xyz_mm=best.xyz_mm + np.array([0.0, 6.0, 6.0]), sight=None, share=0.25)

        def graded(grader: Grader, point: LevelPoint, best: LevelPoint = best) -> np.ndarray:
            points = tuple(point if p is best else p for p in LEVELS.points)
            own = Target(best.condition, best.level)
            return grader.grade(study, SpineLevels("7", points=points))[own].probabilities

        expected = 0.75 * graded(both, best) + 0.25 * graded(first, other)
        assert np.abs(graded(both, other) - graded(first, other)).max() > 1e-3
        found = graded(both, replace(best, share=0.75, also=(other,)))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_joint_evidence_is_that_of_the_sagittal_view_first(tmp_path: Path) -> None:
    """And without a joint calibration the sagittal view alone counts where it shows the canal."""
    config = tiny_config(GraderName.SPINAL_AXIAL)
    axial = write_axial(tmp_path / "axial", config)
    canal = [target for target in TARGETS if target.condition.group is ConditionGroup.SPINAL]

    def graded(joint: JointCalibration | None, *, sagittal: bool = True) -> np.ndarray:
        folder = tmp_path / f"{joint}"
        for name in GROUP_GRADERS:
            write_tiny(folder, name, 1)
        save_grader(folder, config, axial, Calibration(), {}, joint)
        kinds = tuple(SeriesKind) if sagittal else (SeriesKind.SAGITTAL_T1, SeriesKind.AXIAL_T2)
        grades = Grader.load(folder, backend="torch").grade(textured_study(kinds=kinds), LEVELS)
        return np.array([grades[target].probabilities for target in canal])

    one, other = graded(None), graded(None, sagittal=False)
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_allclose(graded(JointCalibration((1.0, 0.0), (0.0, 0.0, 0.0))), one, atol=1e-6)
    np.testing.assert_allclose(graded(JointCalibration((0.0, 1.0), (0.0, 0.0, 0.0))), other, atol=1e-6)


def write_axial(folder: Path, config: GraderConfig) -> GraderNetwork:
    write_tiny(folder, GraderName.SPINAL_AXIAL, 4)
    return load_grader(folder, GraderName.SPINAL_AXIAL).network
