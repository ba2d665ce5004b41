"""``lumbar classifier``: from phantoms to calibrated weights and figures, and clear refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from classifier.config import GraderName
from data_prep.base.files import FolderInUse, locked_folder
from data_prep.phantom import write_dataset
from pipeline.commands.classifier import app
from tests.command_line import lumbar as whole_line

TINY = {
    "network": {"backbone_channels": [8, 8, 8], "attention_heads": 2, "hidden_channels": 8},
    "training": {"epochs": 1, "batch_size_crops": 8, "bfloat16": False},
}


def lumbar(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_help_shows_an_example_and_loads_no_torch() -> None:
    for command in ("cut", "train", "teach", "calibrate", "evaluate"):
        code, out, _ = lumbar(command, "--help")
        assert code == 0 and f"lumbar classifier {command}" in out
    check = "import sys, pipeline.commands.classifier; sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `train` writes: tiny graders of one synthetic study."""
    folder = tmp_path_factory.mktemp("graders")
    (folder / "config.json").write_text(json.dumps(TINY))
    arguments = ("--phantoms", 1, "--seed", 5, "--enriched", "--config", folder / "config.json")
    assert lumbar("train", *arguments, "-o", folder / "run")[0] == 0
    return folder / "run"


def test_train_calibrate_and_evaluate_on_phantoms(run: Path, tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    assert lumbar("cut", "--phantoms", 1, "--seed", 200_421, "-o", crops)[0] == 0
    code, out, _ = lumbar("calibrate", run, "--validation", crops, "-o", tmp_path / "weights", "--json")
    assert code == 0 and set(json.loads(out)) == set(GraderName)
    code, out, _ = lumbar(
        "evaluate", "--phantoms", 1, "--seed", 200_420, "--weights", tmp_path / "weights", "--json"
    )
    figures = json.loads(out)
    assert code == 0 and figures["n_targets"] == 25 and figures["oracle_score"]["score"] > 0
    code, _, err = lumbar("calibrate", run, "--validation", run / "crops", "-o", tmp_path / "weights")
    assert code == 1 and "phantoms that graders learn from" in " ".join(err.split())
    alone = ("--grader", "spinal", "-o", tmp_path / "weights")
    code, _, err = lumbar("calibrate", run, "--validation", crops, *alone)
    assert code == 1 and "joined with another spinal one" in " ".join(err.split())
    own = ("--weights", tmp_path / "weights")
    told = whole_line("classifier", "evaluate", "--phantoms", 1, "--seed", 5, *own)
    assert told.exit_code == 0 and "seeds below 200000" in " ".join(told.stderr.split())
    stored = json.loads((tmp_path / "weights" / "spinal.json").read_text())
    assert stored["config"]["training"]["epochs"] == 1
    assert stored["metrics"]["validation"]["crops"] == 5


def test_what_is_learned_from_is_not_watched(run: Path, tmp_path: Path) -> None:
    crops = ("--crops", run / "crops", "--validation", run / "crops", "--grader", "spinal")
    code, _, err = lumbar("train", *crops, "--config", run.parent / "config.json", "-o", tmp_path / "run")
    assert code == 1 and "1 studies are learned from and watched" in " ".join(err.split())


def test_two_runs_never_write_into_one_folder(run: Path, tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    with locked_folder(run), locked_folder(crops):
        for arguments in (
            ("cut", "--phantoms", 1, "--seed", 5, "-o", crops),
            ("train", "--crops", run / "crops", "-o", run),
            ("teach", run / "crops", "-o", run),
            ("calibrate", run, "--validation", run / "crops"),
        ):
            result = CliRunner().invoke(app, [str(argument) for argument in arguments])
            assert isinstance(result.exception, FolderInUse), arguments


def test_train_and_evaluate_on_a_folder_in_the_rsna_layout(tmp_path: Path) -> None:
    data, run, config = tmp_path / "data", tmp_path / "run", tmp_path / "config.json"
    write_dataset(data, studies=1, seed=4, size="small")  # of the part that is learned from
    config.write_text(json.dumps(TINY))
    assert lumbar("train", data, "--config", config, "-o", run)[0] == 0
    code, out, _ = lumbar("evaluate", data, "--weights", run, "--json")
    figures = json.loads(out)
    assert code == 0 and figures["n_targets"] == 25 and figures["flags"] == {}
    assert figures["oracle_score"] is None and figures["n_not_graded"] == 0
    code, _, err = lumbar("calibrate", run, "--validation", run / "crops")
    assert code == 1 and "no crop of the validation part for the grader spinal" in err

    (series, *_) = (data / "train_images").glob("*/*")
    (series / "notes.dcm").write_text("no image")
    for arguments in (("evaluate", data, "--weights", run), ("cut", data, "-o", tmp_path / "crops")):
        code, _, err = lumbar(*arguments)
        assert code == 3 and f"rejected [not_dicom] {series.parent.name}/{series.name}/notes.dcm" in err


def test_graders_learn_from_teachers(tmp_path: Path) -> None:
    data, crops, teachers = tmp_path / "data", tmp_path / "crops", tmp_path / "teachers"
    write_dataset(data, studies=3, seed=2, size="small")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(TINY | {"training": TINY["training"] | {"teaching": 0.7, "blend": 0.3}}))
    choice = ("--grader", "spinal", "--config", config)
    assert lumbar("cut", data, *choice, "-o", crops)[0] == 0
    code, _, err = lumbar("teach", crops, *choice, "--folds", 2, "-o", teachers)
    assert code == 0 and "--teachers" in err and (teachers / "spinal.npz").is_file()
    given = ("--teachers", teachers / "spinal.npz")
    assert lumbar("train", "--crops", crops, *choice, *given, "-o", tmp_path / "run")[0] == 0
    described = json.loads((tmp_path / "run" / "spinal.json").read_text())
    assert described["metrics"]["teachers"] == 1 and described["config"]["training"]["teaching"] == 0.7
    on = ("--start-from", tmp_path / "run")
    assert lumbar("train", "--crops", crops, *choice, *given, *on, "-o", tmp_path / "on")[0] == 0

    code, _, err = lumbar("train", "--crops", crops, *choice, "-o", tmp_path / "alone")
    assert code == 1 and "training.teaching is 0.7 and there are 0 files" in err
    assert "give what `classifier teach` wrote with --teachers" in err
    code, _, err = lumbar("train", "--crops", crops, *choice, "--teachers", config, "-o", tmp_path / "x")
    assert code == 1 and "not what `lumbar classifier teach` writes" in err


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    assert lumbar("train", "-o", tmp_path)[0] == 2
    code, _, err = lumbar("train", "--phantoms", 5, "--seed", 99_999, "-o", tmp_path)
    assert code == 2 and "100,000" in err
    code, _, err = lumbar("evaluate", "--phantoms", 1, "--weights", tmp_path)
    assert code == 1 and "make models" in err
    config = tmp_path / "config.json"
    config.write_text('{"training": {"epoch": 1}}')
    code, _, err = lumbar("train", "--crops", tmp_path, "--config", config, "-o", tmp_path)
    assert code == 1 and "training.epoch" in err
    config.write_text("[1]")
    code, _, err = lumbar("train", "--crops", tmp_path, "--config", config, "-o", tmp_path)
    assert code == 1 and "configuration" in err
    assert lumbar("train", "--phantoms", 1, "--grader", "hip", "-o", tmp_path)[0] == 2
    for weight in ("half", f"{tmp_path}=much", f"{tmp_path}=0", "elsewhere=1"):
        code, _, err = lumbar("calibrate", tmp_path, "--validation", tmp_path, "--weigh", weight)
        assert code == 2 and "--weigh" in err, weight


def test_evaluate_on_the_real_studies(real_rsna: Path, run: Path) -> None:
    code, out, _ = lumbar("evaluate", real_rsna, "--weights", run, "--json")
    assert code == 0
    figures = json.loads(out)
    assert figures["n_studies"] == 2 and figures["n_targets"] >= 45
    assert pytest.approx(sum(part["n"] for part in figures["groups"].values())) == figures["n_targets"]
