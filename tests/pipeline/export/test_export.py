"""ONNX files and their manifest: enough to get what torch gives, without this project."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipeline.commands.learning
import pipeline.export.bundle
from classifier.config import GROUP_GRADERS, GraderName
from classifier.predict import Grader
from classifier.storage import StoredGrader, load_grader, member_stem
from classifier.target_crops import reading_point, target_crop
from data_prep.base.manifest import (
    DEFAULT_BUNDLE,
    WeightsRejected,
    read_verified,
    verify_manifest,
    write_manifest,
)
from data_prep.crops import Crop
from data_prep.levels import SpineLevels
from data_prep.read.find import find_studies
from data_prep.study import Study
from data_prep.vocabulary import TARGETS, SeriesKind, Target
from detector.look.canonical import canonical_image
from detector.look.network import network_from_bytes
from detector.spec import AXIAL, FORAMEN, SAGITTAL, DetectorSpec
from pipeline.export.bundle import BUNDLED_DETECTORS, BUNDLED_GRADERS, export_weights, find_weights
from pipeline.grade import Pipeline
from tests.command_line import lumbar

DETECTORS, GRADERS = BUNDLED_DETECTORS[DEFAULT_BUNDLE], BUNDLED_GRADERS[DEFAULT_BUNDLE]

DOC = Path(__file__).resolve().parents[3] / "docs" / "onnx.md"
SEEN_BY = (
    (SAGITTAL, SeriesKind.SAGITTAL_T2),
    (AXIAL, SeriesKind.AXIAL_T2),
    (FORAMEN, SeriesKind.SAGITTAL_T1),
)

pytest.importorskip("onnx", reason="needs onnx: requirements-dev.txt")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: requirements-dev.txt")


def runtime_output(graph: bytes, inputs: dict[str, Any], output: str) -> np.ndarray:
    """What ONNX Runtime gives whoever has the file alone."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([output], inputs)[0])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled weights, exported by the command."""
    out = tmp_path_factory.mktemp("onnx")
    result = lumbar("export", "-o", out)
    assert result.exit_code == 0, result.output
    assert "largest difference from torch" in result.stdout
    return out


@pytest.fixture(scope="module")
def manifest(exported: Path) -> dict[str, Any]:
    return dict(json.loads((exported / "manifest.json").read_text()))


@pytest.fixture(scope="module")
def study(phantom_data: Path) -> Study:
    return find_studies(phantom_data)[0].load()


def test_the_manifest_has_every_file_and_what_it_was_made_from(
    exported: Path, manifest: dict[str, Any]
) -> None:
    names = {"sagittal", "axial", "foramen", "spinal_point", "spinal_axial"}
    names |= {
        f"{group}{member}" for group in ("spinal", "foraminal", "subarticular") for member in ("", "_2")
    } | {"subarticular_3"}
    assert set(verify_manifest(exported)) == {f"{name}.onnx" for name in names}
    assert set(manifest["models"]) == names == set(manifest["checked_with_onnxruntime"]["largest_difference"])
    for folder, stage in (
        (DETECTORS, "detector"),
        (GRADERS, "graders"),
    ):
        for name, digest in verify_manifest(folder).items():
            assert manifest["made_from"][f"{stage}/{name}"] == digest
    assert manifest["versions"].keys() >= {"lumbar", "torch", "onnx", "onnx_opset"}


def canonical_slices(study: Study, spec: DetectorSpec, kind: SeriesKind) -> list[np.ndarray]:
    (series, *_) = study.of_kind(kind)
    return [
        canonical_image(
            item.plane, item.pixels(), mm_per_px=spec.mm_per_px, max_side_px=spec.max_canvas_px
        ).image
        for item in series.slices
    ]


@pytest.mark.parametrize(("spec", "kind"), SEEN_BY)
def test_a_detector_gives_what_torch_gives_on_the_slices_of_a_study(
    exported: Path,
    manifest: dict[str, Any],
    study: Study,
    spec: DetectorSpec,
    kind: SeriesKind,
) -> None:
    described = manifest["models"][spec.kind.value]
    want = described["preprocessing"]
    assert (want["mm_per_px"], kind.value in want["series"]) == (spec.mm_per_px, True)
    images = canonical_slices(study, spec, kind)
    multiple = want["padding"]["multiple_px"]
    height, width = (-(-side // multiple) * multiple for side in images[0].shape)
    top, left = (height - images[0].shape[0]) // 2, (width - images[0].shape[1]) // 2
    padded = np.zeros((len(images), 1, height, width), np.float32)
    for place, image in zip(padded, images, strict=True):
        place[0, top : top + image.shape[0], left : left + image.shape[1]] = image / np.float32(255)
    found = runtime_output((exported / described["file"]).read_bytes(), {"images": padded}, "predictions")

    network = network_from_bytes(spec, read_verified(DETECTORS, f"{spec.kind.value}.safetensors"))
    with torch.inference_mode():
        expected = network(torch.from_numpy(padded))[0].numpy()
    assert len(found) == len(images) > 3
    assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-3
    assert found.shape[1] == len(described["outputs"][0]["rows"])
    scores = [row for row in described["outputs"][0]["rows"] if row.startswith("score ")]
    assert [score.removeprefix("score ") for score in scores] == list(spec.class_names)


def crops_for(member: StoredGrader, study: Study, levels: SpineLevels, targets: list[Target]) -> list[Crop]:
    found = []
    for target in targets:
        point = reading_point(GraderName(target.condition.group.value), levels, target)
        assert point is not None
        crop = target_crop(study, point, member.config.crop)
        assert isinstance(crop, Crop)
        found.append(crop)
    return found


def test_graders_and_the_manifests_calibration_give_the_grades_of_the_pipeline(
    exported: Path, manifest: dict[str, Any], study: Study, bundled_pipeline: Pipeline
) -> None:
    grader = bundled_pipeline.grader
    assert isinstance(grader, Grader)
    levels = bundled_pipeline.detector.predict(study)
    # One slice a foramen: where several show it alike, the pipeline averages what each of them gives.
    levels = replace(levels, points=tuple(replace(point, also=(), share=1.0) for point in levels.points))
    # Without axial slices, which would join in for the canal.
    sagittal = replace(
        study, series=tuple(item for item in study.series if item.kind is not SeriesKind.AXIAL_T2)
    )
    for name in GROUP_GRADERS:
        expected = grader.grade(sagittal if name is GraderName.SPINAL else study, levels)
        stored = grader.graders[name]
        targets = [target for target in TARGETS if target.condition.group is name.group]
        each = []
        for number, member in enumerate(stored.members, start=1):
            described = manifest["models"][member_stem(name, number)]
            assert (described["member"], described["members"]) == (number, len(stored.members))
            assert described["conditions"] == sorted(
                {target.condition.value for target in targets}, key=described["conditions"].index
            )
            crops = crops_for(member, study, levels, targets)
            assert described["preprocessing"]["size_mm"] == member.config.crop.size_mm
            inputs = {
                "pixels": np.stack([crop.pixels for crop in crops]),
                "valid": np.stack([crop.valid for crop in crops]),
                "level": np.array([target.level.index for target in targets]),
            }
            each.append(runtime_output((exported / described["file"]).read_bytes(), inputs, "logits"))
        logits = np.mean(each, axis=0).astype(float)
        calibration = described["calibration"]
        prior = np.array([list(described["level_prior"][target.level.value].values()) for target in targets])
        p = np.exp(logits / calibration["temperature"] + calibration["bias"]) * prior
        share = calibration["prior_share"]
        p = (1 - share) * p / p.sum(axis=1, keepdims=True) + share * prior
        assert np.abs(p - [expected[target].probabilities for target in targets]).max() < 1e-5


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished ``lumbar train`` run, as far as its weights go."""
    weights = tmp_path / "run" / "weights"
    weights.mkdir(parents=True)
    (weights / "detector").symlink_to(DETECTORS)
    (weights / "graders").symlink_to(GRADERS)
    return tmp_path / "run"


def test_weights_are_found_in_a_run_in_its_weights_and_in_a_stage(run_folder: Path, tmp_path: Path) -> None:
    weights = run_folder / "weights"
    both = find_weights(run_folder)
    assert both == {"detector": weights / "detector", "graders": weights / "graders"}
    assert find_weights(weights) == both
    assert find_weights(weights / "detector") == {"detector": weights / "detector"}
    assert find_weights(weights / "graders") == {"graders": weights / "graders"}
    assert find_weights(None)["detector"] == DETECTORS
    with pytest.raises(WeightsRejected, match="finished"):
        find_weights(tmp_path)
    refused = lumbar("export", tmp_path, "-o", tmp_path / "out")
    assert refused.exit_code == 1 and "no weights in" in refused.stderr


def test_how_both_canal_graders_are_joined_is_in_the_manifest(manifest: dict[str, Any]) -> None:
    joint = load_grader(GRADERS, GraderName.SPINAL_AXIAL).joint
    assert joint is not None
    assert manifest["models"]["spinal_axial"]["joined"].items() >= joint.to_dict().items()
    assert not any("joined" in manifest["models"][name] for name in GROUP_GRADERS)


def test_a_folder_of_weights_is_not_exported_into(tmp_path: Path) -> None:
    weights = Path(shutil.copytree(GRADERS, tmp_path / "graders"))
    before = {path.name: path.read_bytes() for path in weights.iterdir()}
    refused = lumbar("export", weights, "-o", weights)
    assert refused.exit_code == 1 and "'graders' has a manifest.json of something else" in refused.stderr
    assert {path.name: path.read_bytes() for path in weights.iterdir()} == before


def test_a_folder_of_one_grader_is_exported_as_it_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(GRADERS / f"subarticular{suffix}", run / f"subarticular{suffix}")
    write_manifest(run)
    assert list(export_weights(find_weights(run), tmp_path / "out")["models"]) == ["subarticular"]
    (run / "subarticular.safetensors").unlink()
    with pytest.raises(WeightsRejected, match="is missing"):
        export_weights({"graders": run}, tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").exists()


def test_a_graph_that_differs_leaves_no_manifest(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    earlier = {"format": pipeline.export.bundle.FORMAT, "files": {"spinal_2.onnx": "0", "../mine.onnx": "0"}}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(earlier))
    for name in ("out/spinal_2.onnx", "mine.onnx"):
        (tmp_path / name).write_bytes(b"of an earlier export")
    monkeypatch.setattr(pipeline.export.bundle, "TOLERANCE", 0.0)
    with pytest.raises(pipeline.export.bundle.ExportFailed, match="spinal: ONNX Runtime differs from torch"):
        export_weights(find_weights(run_folder / "weights" / "graders"), tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / "spinal_2.onnx").exists() and (tmp_path / "mine.onnx").exists()


def test_without_onnx_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.commands.learning, "find_spec", lambda _: None)
    result = lumbar("export", "-o", tmp_path / "out")
    assert result.exit_code == 2 and "lumbar[export]" in result.stderr


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as file:
        yield from csv.DictReader(file)


def test_the_example_of_the_docs_runs_without_this_project(exported: Path, phantom_data: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", DOC.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert not re.search(r"import (data_prep|detector|classifier|pipeline)|from (data_prep|pipeline)", code)
    row = next(
        row
        for row in rows_of(phantom_data / "train_series_descriptions.csv")
        if row["series_description"] == SeriesKind.SAGITTAL_T2.value
    )
    series = phantom_data / "train_images" / row["study_id"] / row["series_id"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(exported), str(series)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # The points lie where the data set says, within a centimetre.
    truth = [
        (item["level"], float(item["x"]), float(item["y"]))
        for item in rows_of(phantom_data / "train_label_coordinates.csv")
        if item["series_id"] == row["series_id"] and item["condition"] == "Spinal Canal Stenosis"
    ]
    assert len(truth) == 5
    for level, x, y in truth:
        found = re.search(rf"{level}: canal at column (\d+), row (\d+)", done.stdout)
        assert found is not None
        assert abs(int(found[1]) - x) < 12 and abs(int(found[2]) - y) < 12, level
    shares = [float(line.rsplit(": ", 1)[1]) for line in done.stdout.splitlines()[-3:]]
    assert sum(shares) == pytest.approx(1, abs=0.002)
