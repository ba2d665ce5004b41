"""``lumbar doctor``, ``lumbar info``, devices, and what is said where an extra is missing."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import classifier
import pipeline.cli
from data_prep.base.backend import BackendUnusable
from data_prep.base.manifest import DEFAULT_BUNDLE
from data_prep.problems import LumbarError, Reason
from pipeline.cli import app
from pipeline.extras import EXTRAS, what_is_missing
from pipeline.model_facts import resolve_device

ROOT = Path(__file__).resolve().parents[2]


def test_doctor_grades_a_patient_and_says_so() -> None:
    done = CliRunner().invoke(app, ["doctor", "--json"])

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["can_grade"]
    assert {model["state"] for model in found["models"].values()} == {"verified"}
    assert all(model["run_without_torch"] for model in found["models"].values())
    assert found["backends"]["onnx"] == "works"
    assert found["self_test"]["state"] == "passed"


def test_doctor_refuses_damaged_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(classifier.BUNDLED_WEIGHTS, DEFAULT_BUNDLE, tmp_path)

    done = CliRunner().invoke(app, ["doctor", "--no-self-test"])

    assert done.exit_code == 1
    assert "studies cannot be graded here" in done.stdout


def test_info_lists_every_command_reason_and_flag() -> None:
    done = CliRunner().invoke(app, ["info", "--json"])

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    names = {command["name"] for command in found["commands"]}
    assert {"predict", "serve", "doctor", "info", "detector train", "classifier evaluate"} <= names
    predict = next(command for command in found["commands"] if command["name"] == "predict")
    assert any("--bids" in parameter["options"] for parameter in predict["parameters"])
    assert {item["name"] for item in found["reasons"]} == {reason.value for reason in Reason}
    assert len(found["targets"]["conditions"]) * len(found["targets"]["levels"]) == 25


@pytest.mark.usefixtures("stand_in")
def test_info_names_every_file_and_folder_that_predict_writes(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    objects = ["--sr", "comprehensive", "--sc", "--gsps", "--kos"]
    done = CliRunner().invoke(app, ["predict", str(images), "-o", str(out), *objects, "--bids"])
    assert done.exit_code in (0, 3), done.output
    written = {path.name + "/" * path.is_dir() for path in out.iterdir() if not path.name.startswith(".")}

    found = json.loads(CliRunner().invoke(app, ["info", "--json"]).stdout)["outputs"]

    assert {"submission.csv", "targets.csv", "refused.csv", "index.html", "sr-comprehensive/"} <= written
    assert written <= set(found)


def test_info_is_for_people_too() -> None:
    done = CliRunner().invoke(app, ["info"])

    assert done.exit_code == 0
    assert "NIfTI" in done.stdout


def test_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert {extra.name for extra in EXTRAS} == set(project["optional-dependencies"]) - {"all"}


@pytest.mark.parametrize(
    ("module", "extra"),
    [("torch", "train"), ("uvicorn", "app"), ("pynetdicom", "serve"), ("highdicom", "dicom")],
)
def test_a_missing_extra_is_named(
    module: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(pipeline.cli, "app", lambda **_: __import__(module))
    with pytest.raises(SystemExit) as ended:
        pipeline.cli.main()
    assert ended.value.code == 1
    assert f"pip install 'lumbar[{extra}]'" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "extra"), [("demo", "demo"), ("score", "train"), ("predict", "demo")])
def test_of_several_extras_that_of_the_command_is_named(command: str, extra: str) -> None:
    assert f"'lumbar[{extra}]'" in str(what_is_missing("pandas.core", command))


def test_other_missing_modules_are_not_explained_away() -> None:
    assert what_is_missing("numpy") is None
    assert what_is_missing(None) is None


@pytest.mark.parametrize("text", ["cuda:99", "gpu", "rocm"])
def test_a_device_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(LumbarError, match=re.escape(text)):
        resolve_device(text)


def test_the_processor_needs_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.model_facts.find_spec", lambda name: None)

    assert resolve_device("cpu") == resolve_device("auto") == "cpu"
    with pytest.raises(BackendUnusable, match=r"lumbar\[train\]"):
        resolve_device("cuda")


def test_predict_refuses_a_missing_device_before_it_reads(phantom_data: Path, tmp_path: Path) -> None:
    arguments = ["predict", str(phantom_data), "-o", str(tmp_path / "out"), "--device", "cuda:99"]
    done = CliRunner().invoke(app, arguments)

    assert done.exit_code == 1
    assert "cuda:99" in done.stderr
