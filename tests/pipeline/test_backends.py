"""Protects: `lumbar predict` gives the same grades on every backend, names it, and never mixes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data_prep.vocabulary import TARGETS
from pipeline.cli import app
from pipeline.prediction import probabilities_in

pytestmark = pytest.mark.usefixtures("really_computed")


def predict(data: Path, out: Path, *options: str) -> dict[str, object]:
    study = sorted((data / "train_images").iterdir())[0]
    arguments = ["predict", str(study), "-o", str(out), "--no-report", "--no-pictures", *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads((out / "predictions.json").read_text())
    return found


def test_grades_of_torch_and_onnx_agree_and_are_not_taken_for_each_other(
    phantom_data: Path, tmp_path: Path
) -> None:
    grades = {}
    for backend in ("onnx", "torch"):
        # Into one folder: the second run must not resume the first.
        found = predict(phantom_data, tmp_path, "--backend", backend, "--threads", "1")
        assert found["provenance"]["configuration"]["backend"] == backend  # type: ignore[index]
        p = probabilities_in(found["studies"][0])  # type: ignore[index]
        grades[backend] = np.array([p[target] for target in TARGETS])
    np.testing.assert_allclose(grades["onnx"], grades["torch"], atol=1e-3)
    assert not np.array_equal(grades["onnx"], grades["torch"])


def test_threads_do_not_change_a_byte(phantom_data: Path, tmp_path: Path) -> None:
    for threads in ("1", "2"):
        predict(phantom_data, tmp_path / threads, "--threads", threads)
    for name in ("submission.csv", "predictions.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_an_unknown_backend_is_a_usage_error(phantom_data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["predict", str(phantom_data), "-o", str(tmp_path), "--backend", "rocm"])
    assert result.exit_code == 2
