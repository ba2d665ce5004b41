"""Weights that are not the released ones are refused before they are loaded; nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import pytest
import safetensors.torch
from typer.testing import CliRunner

import classifier.storage
import detector.predict
from classifier.predict import Grader
from data_prep.base.manifest import DEFAULT_BUNDLE, WeightsRejected, write_manifest
from detector.predict import LevelDetector
from pipeline.cli import app
from tests.pipeline.stand_in import write_study

BUNDLES = {
    "detector": detector.BUNDLED_WEIGHTS[DEFAULT_BUNDLE],
    "classifier": classifier.BUNDLED_WEIGHTS[DEFAULT_BUNDLE],
}
LOADERS = {"detector": LevelDetector.load, "classifier": Grader.load}
FIRST_FILE = {"detector": "sagittal.safetensors", "classifier": "spinal.safetensors"}


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """SHA-256 of everything that is given to a loader of tensors."""
    digests: list[str] = []
    original = safetensors.torch.load

    def load(content: bytes) -> object:
        digests.append(hashlib.sha256(content).hexdigest())
        return original(content)

    parse = classifier.storage.deserialize

    def deserialize(content: bytes) -> object:
        digests.append(hashlib.sha256(content).hexdigest())
        return parse(content)

    monkeypatch.setattr(safetensors.torch, "load", load)
    monkeypatch.setattr(classifier.storage, "deserialize", deserialize)
    return digests


@pytest.mark.parametrize("stage", BUNDLES)
def test_a_flipped_byte_in_any_file_is_refused_before_it_is_loaded(
    stage: str, tmp_path: Path, loaded: list[str]
) -> None:
    folder = Path(shutil.copytree(BUNDLES[stage], tmp_path / "weights"))
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert len(listed) >= 4
    # What the loader of a stage reads; Pipeline.load checks all that is listed.
    read = {"numbering.json"} if stage == "detector" else {n for n in listed if n.endswith(".json")}
    read |= {name for name in listed if name.endswith(".safetensors")}
    for name in sorted(read):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 3] ^= 0x10
        (folder / name).write_bytes(content)
        with pytest.raises(WeightsRejected, match="not the released file"):
            LOADERS[stage](folder, backend="torch")
        assert hashlib.sha256(content).hexdigest() not in loaded
        shutil.copy(BUNDLES[stage] / name, folder / name)
    LOADERS[stage](folder, backend="torch")
    assert loaded and set(loaded) <= set(listed.values())


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (_touch, (str(self.marker),))


def _touch(marker: str) -> None:
    Path(marker).write_text("executed")


@pytest.mark.parametrize("stage", BUNDLES)
def test_a_malicious_pickle_is_never_executed(stage: str, tmp_path: Path) -> None:
    """Neither under the released manifest nor under one that lists it."""
    marker = tmp_path / "marker"
    pickled = pickle.dumps(Evil(marker))
    pickle.loads(pickled)
    assert marker.exists()
    marker.unlink()
    folder = Path(shutil.copytree(BUNDLES[stage], tmp_path / "weights"))
    (folder / FIRST_FILE[stage]).write_bytes(pickled)
    with pytest.raises(WeightsRejected, match="not the released file"):
        LOADERS[stage](folder)
    write_manifest(folder)
    with pytest.raises(WeightsRejected, match="does not fit"):
        LOADERS[stage](folder)
    assert not marker.exists()


def test_the_command_line_says_which_file_and_what_to_do(tmp_path: Path) -> None:
    study = write_study(tmp_path / "test_images", "501")
    folder = Path(shutil.copytree(BUNDLES["detector"], tmp_path / "weights"))
    content = bytearray((folder / "sagittal.safetensors").read_bytes())
    content[-1] ^= 1  # "!" would be what the research detector ends with
    (folder / "sagittal.safetensors").write_bytes(content)
    options = ["-o", str(tmp_path / "out"), "--detector-weights", str(folder)]
    result = CliRunner().invoke(app, ["predict", str(study), *options])
    assert result.exit_code == 1
    assert "'weights/sagittal.safetensors' is not the released file" in result.stderr
    assert "make models" in result.stderr
    assert not (tmp_path / "out" / "submission.csv").exists()
