"""The wheel in an empty environment, as users install it: no torch, and it grades."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from data_prep.phantom import write_dataset

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data_prep", "detector", "classifier", "pipeline")
FILES = ("pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the source tree and nothing old is taken from it."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / "src" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copyfile(ROOT / name, folder / "src" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", str(folder / "dist"), str(folder / "src")], check=True)
    (built,) = (folder / "dist").glob("*.whl")
    return built


def test_its_description_is_one_that_an_index_takes(wheel: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", str(wheel)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.timeout(3600)
def test_it_grades_without_torch(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env")
    python = str(tmp_path / "env" / "bin" / "python")
    # The pip of this environment installs into that one; what is not imported need not be compiled.
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
    done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs a package index: the wheel's requirements cannot be installed")
    write_dataset(tmp_path / "data", studies=1, seed=5, size="small")

    command = [python, "-m", "pipeline", "predict", str(tmp_path / "data"), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    (study,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["studies"]
    assert sum(row["source"] == "seen" for row in study["targets"]) >= 20
    refused = subprocess.run(
        [python, "-m", "pipeline", "train", str(tmp_path / "data"), "-o", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert refused.returncode == 1
    assert "pip install 'lumbar[train]'" in refused.stderr
