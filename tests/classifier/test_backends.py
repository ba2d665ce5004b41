"""Protects: a grader gives the same probabilities whatever library runs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from scipy.special import softmax

from classifier import BUNDLED_WEIGHTS
from classifier.calibration import JointCalibration
from classifier.config import GraderName
from classifier.grade import Grade
from classifier.predict import Grader
from classifier.prior import level_prior
from classifier.storage import compiled_grader, converted_grader, graders_of, member_stem, read_grader
from data_prep.base.graph import is_of
from data_prep.base.manifest import Bundle, WeightsRejected, write_manifest
from data_prep.levels import SpineLevels
from data_prep.vocabulary import TARGETS, ConditionGroup, Flag, SeriesKind
from tests.classifier.synthetic import all_points, textured_study, write_tiny

pytestmark = pytest.mark.usefixtures("really_computed")

SPINAL = GraderName.SPINAL
LEVELS = SpineLevels("7", points=all_points())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graders that look at slices one by one and as channels, and one of the canal on axial slices."""
    folder = tmp_path_factory.mktemp("weights")
    for seed, name in enumerate(GraderName):
        joint = JointCalibration((0.5, 0.5)) if name is GraderName.SPINAL_AXIAL else None
        write_tiny(folder, name, seed, channels=name is not SPINAL, joint=joint)
    return folder


@pytest.fixture(scope="module")
def fast(folder: Path) -> Grader:
    return Grader.load(folder, backend="onnx", threads=1)


def test_grades_agree(folder: Path, fast: Grader) -> None:
    reference = Grader.load(folder, backend="torch")
    found, expected = (
        np.array([grade.probabilities for grade in grader.grade(textured_study(), LEVELS).values()])
        for grader in (fast, reference)
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.ptp(found, axis=0).max() > 0.05


BUNDLED = [
    pytest.param(folder, name, number, id=f"{bundle}-{member_stem(name, number + 1)}")
    for bundle, folder in BUNDLED_WEIGHTS.items()
    for name in graders_of(folder)
    for number in range(len(read_grader(folder, name).members))
]


@pytest.mark.parametrize(("folder", "name", "number"), BUNDLED)
def test_the_graph_of_a_bundled_grader_gives_what_torch_gives(
    folder: Path, name: GraderName, number: int
) -> None:
    member = read_grader(folder, name).members[number]
    crop, random = member.config.crop, np.random.default_rng(number)
    pixels = random.random((4, crop.slices, crop.size_px, crop.size_px), dtype=np.float32)
    valid = random.random((4, crop.slices)) < 0.7
    valid[:, crop.slices // 2] = True
    inputs = pixels, valid, np.array([0, 2, 3, 4])
    assert member.graph is not None and is_of(member.graph, member.weights)

    (found,) = compiled_grader(member, threads=1)([inputs])

    with torch.inference_mode():
        expected = member.network(*map(torch.from_numpy, inputs)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.05


def test_a_graph_pads_an_image_within_its_convolutions() -> None:
    member = read_grader(BUNDLED_WEIGHTS[Bundle.RESEARCH], GraderName.FORAMINAL)
    assert any(type(module).__name__ == "Conv2dSame" for module in member.network.modules())

    nodes = onnx.load_from_string(converted_grader(member)).graph.node

    assert "Pad" not in {node.op_type for node in nodes}


def test_the_canal_is_graded_from_both_views_and_from_either(fast: Grader) -> None:
    study = textured_study()
    canal = [target for target in TARGETS if target.condition.group is ConditionGroup.SPINAL]

    def grades(*kinds: SeriesKind) -> list[Grade]:
        shown = replace(study, series=tuple(series for series in study.series if series.kind in kinds))
        found = fast.grade(shown, LEVELS)
        return [found[target] for target in canal]

    both = grades(SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2)
    sagittal, axial = grades(SeriesKind.SAGITTAL_T2), grades(SeriesKind.AXIAL_T2)
    assert {grade.flags for grade in axial} == {(Flag.AXIAL_ONLY,)}
    assert {grade.flags for grade in (*both, *sagittal)} == {()}
    assert {grade.source for grade in grades(SeriesKind.SAGITTAL_T1)} == {"prior"}
    logs = [np.log([grade.probabilities for grade in found]) for found in (both, sagittal, axial)]
    prior = np.log([level_prior(target) for target in canal])
    mean = softmax((logs[1] - prior + logs[2] - prior) / 2 + prior, axis=1)
    np.testing.assert_allclose(np.exp(logs[0]), mean, atol=1e-3)


def test_threads_do_not_change_a_byte(folder: Path, fast: Grader) -> None:
    again = Grader.load(folder, backend="onnx", threads=2)
    one, two = (grader.grade(textured_study(), LEVELS) for grader in (fast, again))
    for target in TARGETS:
        assert one[target].probabilities.tobytes() == two[target].probabilities.tobytes()


def test_weights_of_another_network_are_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    hidden = read_grader(folder, SPINAL).config.network.hidden_channels
    described = (tmp_path / "spinal.json").read_text()
    changed = described.replace(f'"hidden_channels": {hidden}', f'"hidden_channels": {hidden + 4}')
    assert changed != described
    (tmp_path / "spinal.json").write_text(changed)
    write_manifest(tmp_path)
    with pytest.raises(WeightsRejected, match="does not fit the network"):
        Grader.load(tmp_path, backend="onnx", threads=1)
