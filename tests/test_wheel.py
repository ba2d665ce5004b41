"""The wheel of the Kaggle data set in an empty environment, as users install it: no torch, and it grades."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from email.parser import BytesParser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from classifier import BUNDLED_WEIGHTS as GRADERS
from data_prep.base.manifest import DEFAULT_BUNDLE, verify_manifest, write_manifest
from data_prep.phantom import write_dataset
from detector import BUNDLED_WEIGHTS as DETECTORS

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow

# The same package with windows, which ultralytics brings into the environment of the tests.
_STANDS_FOR = {"opencv-python-headless": "opencv-python"}


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder to upload, made of the bundled weights."""
    folder = tmp_path_factory.mktemp("kaggle")
    weights = folder / "weights"
    weights.mkdir()
    (weights / "detector").symlink_to(DETECTORS[DEFAULT_BUNDLE])
    (weights / "graders").symlink_to(GRADERS[DEFAULT_BUNDLE])
    command = [sys.executable, "notebooks/kaggle_dataset.py", "--weights", str(weights)]
    command += ["-o", str(folder / "made"), "--no-requirements"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    (folder / "said.txt").write_text(done.stdout)
    return folder / "made"


@pytest.fixture(scope="module")
def wheel(kaggle: Path) -> Path:
    (built,) = (kaggle / "wheels").glob("lumbar-*.whl")
    return built


def test_the_kaggle_data_set_holds_checked_weights_and_the_wheel(kaggle: Path, wheel: Path) -> None:
    for stage, bundled in (("detector", DETECTORS), ("graders", GRADERS)):
        assert verify_manifest(kaggle / "weights" / stage) == verify_manifest(bundled[DEFAULT_BUNDLE])
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "pipeline/training/templates/report.html" in names and "pipeline/cli.py" in names
    assert json.loads((kaggle / "dataset-metadata.json").read_text())["id"] == "OWNER/lumbar"
    assert "write your Kaggle name in place of OWNER" in (kaggle.parent / "said.txt").read_text()


def test_weights_that_lack_a_grader_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "detector").symlink_to(DETECTORS[DEFAULT_BUNDLE])
    graders = tmp_path / "weights" / "graders"
    graders.mkdir()
    shutil.copyfile(GRADERS[DEFAULT_BUNDLE] / "spinal.safetensors", graders / "spinal.safetensors")
    write_manifest(graders)
    command = [sys.executable, "notebooks/kaggle_dataset.py", "--weights", str(tmp_path / "weights")]
    command += ["-o", str(tmp_path / "made"), "--no-requirements"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "graders lacks foraminal, subarticular" in done.stderr
    assert not (tmp_path / "made" / "wheels").exists()


def test_weights_of_an_earlier_collection_never_stay(tmp_path: Path) -> None:
    """Without --weights the notebook grades with the bundled ones, if it finds no others."""
    earlier = tmp_path / "made" / "weights" / "graders"
    earlier.mkdir(parents=True)
    command = [sys.executable, "notebooks/kaggle_dataset.py", "-o", str(tmp_path / "made")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command.append("--no-requirements")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (
        done.returncode == 1 and "'made' holds weights of an earlier call: name a new folder" in done.stderr
    )
    assert not (tmp_path / "made" / "wheels").exists()


def test_its_description_is_one_that_an_index_takes(wheel: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", str(wheel)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout


def requirements_of(wheel: Path) -> set[str]:
    """What a plain install of a wheel brings along, by what is installed here: with requirements of these.

    A version that the wheel does not allow is an error; so is one that is missing.
    """
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        waiting = [
            (Requirement(text), frozenset[str]())
            for text in BytesParser().parsebytes(archive.read(name)).get_all("Requires-Dist", [])
        ]
    seen: dict[str, frozenset[str]] = {}
    while waiting:
        requirement, extras = waiting.pop()
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            continue
        name = canonicalize_name(requirement.name)
        name = _STANDS_FOR.get(name, name)
        here = metadata.distribution(name)
        assert requirement.specifier.contains(here.version, prereleases=True), (
            f"{requirement}: {here.version}"
        )
        wanted = seen.get(name, frozenset()) | requirement.extras
        if name not in seen or wanted != seen[name]:
            seen[name] = wanted
            waiting += [(Requirement(text), wanted) for text in here.requires or []]
    return set(seen)


def link_installed(names: set[str], site: Path) -> None:
    """Packages of this environment into another one's."""
    for name in names:
        here = metadata.distribution(name)
        assert here.files is not None
        tops = {file.parts[0] for file in here.files} - {"..", "__pycache__"}
        for top in tops:
            place, target = Path(str(here.locate_file(top))), site / top
            if not target.exists():
                target.symlink_to(place)


def test_it_grades_without_torch(wheel: Path, tmp_path: Path) -> None:
    """In an environment that holds what the wheel requires, and nothing else."""
    required = requirements_of(wheel)
    assert {"numpy", "pydicom", "onnxruntime"} <= required and not {"torch", "ultralytics"} & required
    venv.create(tmp_path / "env", symlinks=True)
    python = str(tmp_path / "env" / "bin" / "python")
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    link_installed(required, site)
    # The pip of this environment installs into that one; what is not imported need not be compiled.
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True)
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
