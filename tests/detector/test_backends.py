"""Protects: ONNX Runtime sees what torch sees, whatever stands beside an image."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from data_prep.base.backend import Backend
from data_prep.base.manifest import DEFAULT_BUNDLE, Bundle, read_verified
from data_prep.levels import LevelPoint, SpineLevels
from data_prep.phantom import PhantomStudy, make_study
from data_prep.pixel_cache import PixelCache
from data_prep.study import Study
from detector import BUNDLED_WEIGHTS
from detector.learn.study_slices import phantom_slices
from detector.look.candidates import CandidateConfig
from detector.look.inference import SlicePredictor, _padded, decode_keypoints
from detector.look.network import EvidenceNetwork, converted_network, network_from_bytes
from detector.predict import LevelDetector
from detector.spec import SAGITTAL, SPECS, STRIDE, DetectorSpec

pytestmark = pytest.mark.usefixtures("really_computed")

REPORTING_SEEDS = (200_420, 200_421)


@pytest.fixture(scope="module")
def fast() -> LevelDetector:
    return LevelDetector.load_bundled(backend="onnx", threads=1)


@pytest.fixture(scope="module")
def reference() -> LevelDetector:
    return LevelDetector.load_bundled(backend="torch")


@pytest.fixture(scope="module")
def phantom() -> PhantomStudy:
    return make_study(REPORTING_SEEDS[0])


@pytest.fixture(scope="module")
def study(phantom: PhantomStudy) -> Study:
    return PixelCache(phantom.study).study


def by_target(levels: SpineLevels) -> dict[tuple[str, str], LevelPoint]:
    return {(point.condition.value, point.level.value): point for point in levels.points}


@pytest.mark.parametrize("seed", REPORTING_SEEDS)
def test_onnx_runtime_finds_what_torch_finds(
    fast: LevelDetector, reference: LevelDetector, seed: int
) -> None:
    study = PixelCache(make_study(seed).study).study
    found, expected = fast.predict(study), reference.predict(study)
    assert fast.sagittal.backend is Backend.ONNX and reference.sagittal.backend is Backend.TORCH
    assert found.flags == expected.flags
    assert found.numbering_confidence == pytest.approx(expected.numbering_confidence, abs=1e-3)
    points, references = by_target(found), by_target(expected)
    assert points.keys() == references.keys() and len(points) == 25
    for key, point in points.items():
        other = references[key]
        assert np.linalg.norm(point.xyz_mm - other.xyz_mm) < 0.05
        assert point.confidence == pytest.approx(other.confidence, abs=1e-3)
        assert (point.sight is None) == (other.sight is None)
        if point.sight is not None and other.sight is not None:
            assert replace(point.sight, xy_px=(0, 0)) == replace(other.sight, xy_px=(0, 0))
        assert point.source is other.source


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.kind.value)
def test_the_evidence_is_that_of_the_whole_network(spec: DetectorSpec) -> None:
    """Boxes and coarser grids left out, keypoints decoded by hand: the rest is what ultralytics gives."""
    model = network_from_bytes(
        spec, read_verified(BUNDLED_WEIGHTS[DEFAULT_BUNDLE], f"{spec.kind.value}.safetensors")
    )
    image = torch.rand(1, 1, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = model(image)[0][0].numpy()
        evidence = EvidenceNetwork(model)(image)[0].numpy()
    decoded = decode_keypoints(evidence, spec, (96, 64))
    rows = [
        i for i in range(len(decoded)) if i < len(spec.class_names) or (i - len(spec.class_names)) % 3 < 2
    ]
    np.testing.assert_allclose(decoded[rows], whole[4:][rows, : 96 // 8 * (64 // 8)], atol=1e-4)


@pytest.mark.parametrize("bundle", Bundle)
@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.kind.value)
def test_the_coarser_grids_of_a_bundled_detector_say_nothing(bundle: Bundle, spec: DetectorSpec) -> None:
    """They are not looked at: what they said would be lost."""
    content = read_verified(BUNDLED_WEIGHTS[bundle], f"{spec.kind.value}.safetensors")
    model = network_from_bytes(spec, content)
    slices = [item.image for item in phantom_slices(spec.kind, studies=1, seed=6)[:4]]
    noise = [np.random.default_rng(2).integers(0, 256, (256, 192), dtype=np.uint8)]
    finest, coarser = [], []
    for image in (*slices, *noise):
        canvas, _ = _padded(image)
        with torch.inference_mode():
            scores = model(torch.from_numpy(canvas)[None, None])[0][0, 4 : 4 + len(spec.class_names)]
        anchors = canvas.size // STRIDE**2
        finest.append(float(scores[:, :anchors].max()))
        coarser.append(float(scores[:, anchors:].max()))
    assert max(finest) > 0.5
    assert max(coarser) < CandidateConfig.min_score / 20


def test_graphs_of_earlier_versions_go_on_with_coarser_grids() -> None:
    rows, shape = len(SAGITTAL.class_names) + 3 * len(SAGITTAL.keypoints), (96, 64)
    anchors = [shape[0] * shape[1] // stride**2 for stride in (8, 16, 32)]
    evidence = np.random.default_rng(4).random((rows, sum(anchors)), dtype=np.float32)
    found = decode_keypoints(evidence, SAGITTAL, shape)
    assert found.shape == (rows, anchors[0])
    np.testing.assert_array_equal(found, decode_keypoints(evidence[:, : anchors[0]], SAGITTAL, shape))


@pytest.mark.parametrize("bundle", Bundle)
@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.kind.value)
def test_the_graph_of_a_bundled_detector_gives_what_torch_gives(bundle: Bundle, spec: DetectorSpec) -> None:
    folder = BUNDLED_WEIGHTS[bundle]
    reference, fast = (
        SlicePredictor.load(folder, spec, backend=backend, threads=1)
        for backend in (Backend.TORCH, Backend.ONNX)
    )
    images = [np.random.default_rng(1).integers(0, 256, (96, 130), dtype=np.uint8)]
    ((expected, _),), ((found, _),) = reference.predict(images), fast.predict(images)
    # Pixels of keypoints in single precision.
    np.testing.assert_allclose(found, expected, atol=3e-4, rtol=1e-5)


def test_a_graph_does_not_cut_an_image_in_two() -> None:
    content = read_verified(BUNDLED_WEIGHTS[DEFAULT_BUNDLE], f"{SAGITTAL.kind.value}.safetensors")
    nodes = onnx.load_from_string(converted_network(SAGITTAL, content)).graph.node
    shapes = {name for node in nodes if node.op_type == "Shape" for name in node.output}
    assert {node.input[0] for node in nodes if node.op_type == "Slice"} <= shapes
    # But where attention looks at half of the channels, and for its queries, keys and values.
    assert sum(node.op_type == "Split" for node in nodes) == 2


def test_the_result_of_an_image_does_not_depend_on_its_neighbours(fast: LevelDetector) -> None:
    images = [np.random.default_rng(i).integers(0, 255, (70 + i, 90), dtype=np.uint8) for i in range(3)]
    spread = SlicePredictor.load(BUNDLED_WEIGHTS[DEFAULT_BUNDLE], SAGITTAL, backend="onnx", threads=2)
    for image, (together, _), (other, _) in zip(
        images, fast.sagittal.predict(images), spread.predict(images, len(images)), strict=True
    ):
        alone = fast.sagittal.predict([image])[0][0]
        assert alone.tobytes() == together.tobytes() == other.tobytes()


def test_torch_is_not_imported() -> None:
    code = (
        "import sys\n"
        "from detector.predict import LevelDetector\n"
        "from classifier.predict import Grader\n"
        "LevelDetector.load_bundled(threads=1), Grader.load_bundled(threads=1)\n"
        "print([m for m in ('torch', 'ultralytics', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
