"""Protects: a grader of several members averages their evidence, and is refused where they do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.calibration import Calibration, JointCalibration, fit_joint_calibration
from classifier.config import GROUP_GRADERS, GraderName
from classifier.model import GraderNetwork
from classifier.predict import Grader
from classifier.storage import load_grader, save_grader
from data_prep.base.manifest import WeightsRejected
from data_prep.study import SpineLevels
from data_prep.vocabulary import TARGETS, ConditionGroup
from tests.classifier.synthetic import all_points, textured_study, tiny_config

LEVELS = SpineLevels("7", points=all_points())


def write(folder: Path, name: GraderName, seed: int, *, member: int = 1, size_px: int = 32) -> None:
    torch.manual_seed(seed)
    config = tiny_config(name, size_px=size_px)
    network = GraderNetwork(config.network, config.crop)
    torch.nn.init.normal_(network.head[-1].weight, std=2.0)
    save_grader(folder, config, network, Calibration(), {}, member=member)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_the_evidence_of_members_is_averaged(tmp_path: Path, backend: str) -> None:
    both, one, two = (tmp_path / name for name in ("both", "one", "two"))
    for name in GROUP_GRADERS:
        write(both, name, 1)
        write(one, name, 1)
        write(two, name, 2)
    write(both, GraderName.FORAMINAL, 2, member=2)
    grader = Grader.load(both, backend=backend, threads=1)
    assert set(grader.hashes) == {
        "spinal.safetensors",
        "foraminal.safetensors",
        "foraminal_2.safetensors",
        "subarticular.safetensors",
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


def test_members_look_at_the_same_crops(tmp_path: Path) -> None:
    write(tmp_path, GraderName.SPINAL, 1)
    write(tmp_path, GraderName.SPINAL, 2, member=2, size_px=48)
    with pytest.raises(WeightsRejected, match="looks at other crops"):
        load_grader(tmp_path, GraderName.SPINAL)


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
