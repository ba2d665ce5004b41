"""``lumbar classifier``: from phantoms to calibrated weights and figures, and clear refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from classifier.config import GraderName, default_config
from classifier.learn import expect
from classifier.learn.crop_cache import load_cache
from classifier.learn.teachers import Teachers
from data_prep.base.files import FolderInUse, locked_folder
from data_prep.base.manifest import write_manifest
from data_prep.partition import Part, part_of
from data_prep.phantom import write_dataset
from pipeline.commands.classifier import _next_step, app
from pipeline.commands.grading_steps import _note_models
from pipeline.commands.summaries import learned_from_all
from pipeline.model_facts import ModelFacts
from tests.command_line import lumbar as whole_line

TINY = {
    "network": {"backbone_channels": [8, 8, 8], "attention_heads": 2, "hidden_channels": 8},
    "training": {"epochs": 1, "batch_size_crops": 8, "bfloat16": False},
}


def lumbar(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_help_shows_an_example_and_loads_no_torch() -> None:
    for command in ("cut", "train", "teach", "calibrate", "expect", "rooms", "evaluate"):
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


def test_what_comes_after_a_calibration_is_what_works(tmp_path: Path) -> None:
    for name in ("spinal", "subarticular", "spinal_axial"):
        (tmp_path / f"{name}.safetensors").touch()
    assert _next_step(tmp_path) == "calibrate foraminal into it, too"
    (tmp_path / "foraminal.safetensors").touch()
    assert _next_step(tmp_path) == f"lumbar predict INPUT -o OUT --classifier-weights {tmp_path}"


def test_train_calibrate_and_evaluate_on_phantoms(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crops = tmp_path / "crops"
    assert lumbar("cut", "--phantoms", 1, "--seed", 200_421, "-o", crops)[0] == 0
    code, out, _ = lumbar("calibrate", run, "--validation", crops, "-o", tmp_path / "weights", "--json")
    assert code == 0 and set(json.loads(out)) == set(GraderName)
    for folder, told in ((run, True), (tmp_path / "weights", False)):
        facts = ModelFacts.read(classifier_weights=folder)
        assert set(facts.uncalibrated) == (set(GraderName) if told else set())
        _note_models(facts)
        assert ("not calibrated: spinal, foraminal" in " ".join(capsys.readouterr().err.split())) is told
    code, out, _ = lumbar(
        "evaluate", "--phantoms", 1, "--seed", 200_420, "--weights", tmp_path / "weights", "--json"
    )
    figures = json.loads(out)
    assert code == 0 and figures["n_targets"] == 25 and figures["oracle_score"]["score"] > 0
    code, _, err = lumbar("calibrate", run, "--validation", run / "crops", "-o", tmp_path / "weights")
    assert code == 1 and "phantoms that graders learn from" in " ".join(err.split())
    both = ("--grader", "foraminal", "--grader", "subarticular", "-o", tmp_path / "fresh")
    few = tmp_path / "few"
    assert lumbar("cut", "--phantoms", 1, "--seed", 200_421, "--grader", "foraminal", "-o", few)[0] == 0
    assert lumbar("calibrate", run, "--validation", few, *both)[0] == 1
    assert not list((tmp_path / "fresh").glob("*.safetensors"))
    alone = ("--grader", "spinal", "-o", tmp_path / "weights")
    code, _, err = lumbar("calibrate", run, "--validation", crops, *alone)
    assert code == 1 and "joined with another spinal one" in " ".join(err.split())
    own = ("--weights", tmp_path / "weights")
    told = whole_line("classifier", "evaluate", "--phantoms", 1, "--seed", 5, *own)
    assert told.exit_code == 0 and "seeds below 200000" in " ".join(told.stderr.split())
    stored = json.loads((tmp_path / "weights" / "spinal.json").read_text())
    assert stored["config"]["training"]["epochs"] == 1
    assert stored["metrics"]["validation"]["crops"] == sum(stored["metrics"]["validation"]["grades"]) == 5


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
    # Of patients, the share of the prior is fitted on that part, too.
    phantoms = tmp_path / "phantoms"
    assert lumbar("cut", "--phantoms", 1, "--seed", 200_421, "-o", phantoms)[0] == 0
    shifted = ("--shifted", run / "crops", "-o", tmp_path / "weights")
    code, _, err = lumbar("calibrate", run, "--validation", phantoms, *shifted)
    assert code == 1 and "no crop of the validation part for the grader spinal" in err

    (series, *_) = (data / "train_images").glob("*/*")
    (series / "notes.dcm").write_text("no image")
    for arguments in (("evaluate", data, "--weights", run), ("cut", data, "-o", tmp_path / "crops")):
        code, _, err = lumbar(*arguments)
        assert code == 3 and f"rejected [not_dicom] {series.parent.name}/{series.name}/notes.dcm" in err


def test_expectations_are_fitted_beside_graders(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, labels, weights = tmp_path / "data", tmp_path / "labels", tmp_path / "weights"
    write_dataset(data, studies=6, seed=2, size="small")
    shutil.copytree(run, weights)
    labels.mkdir()
    shutil.move(data / "train.csv", labels)
    table = pd.read_csv(labels / "train.csv", dtype=str)
    seen = [column for column in table if "spinal" in column or "foraminal" in column]
    table[["study_id", *seen]].reindex(columns=table.columns).to_csv(data / "train.csv", index=False)
    before = sorted(path.name for path in weights.iterdir())
    given = ("expect", data, "--weights", weights, "--labels", labels, "--part", "train")
    code, _, err = lumbar(*given)
    assert code == 1 and "too few" in " ".join(err.split())
    assert sorted(path.name for path in weights.iterdir()) == before
    monkeypatch.setattr(expect, "_FEWEST", 1)
    monkeypatch.setattr(expect, "_FOLDS", 2)
    code, out, _ = lumbar(*given, "--json")
    models = json.loads(out)["models"]
    assert code == 0 and models == json.loads((weights / "expected.json").read_text())["models"]
    # Recesses, which the data set has labels of elsewhere alone, are told of and tell nothing.
    assert "subarticular" in {model["group"] for model in models}
    assert all("subarticular" not in model["worse"]["weights"] for model in models)
    code, out, _ = lumbar("evaluate", data, "--weights", weights, "--json")
    assert code == 0 and json.loads(out)["n_not_graded"] == 0


def test_rooms_are_joined_with_the_evidence_of_graders(run: Path, tmp_path: Path) -> None:
    data, weights = tmp_path / "data", tmp_path / "weights"
    write_dataset(data, studies=5, seed=2, size="small")
    shutil.copytree(run, weights)
    given = ("rooms", data, "--weights", weights, "--part", "train")
    code, out, err = lumbar(*given, "--phantoms", 0, "--json")
    assert code == 0, err
    written = json.loads((weights / "rooms.json").read_text())
    assert json.loads(out) == written
    (figures,) = written["cross_validated"]
    assert figures["foramina"] == 10 * figures["studies"] >= 20
    assert written["joint"]["slope"][0] > written["joint"]["slope"][2]
    code, out, _ = lumbar(*given, "--phantoms", 2)
    assert code == 0 and "synthetic patients" in out
    assert len(json.loads((weights / "rooms.json").read_text())["cross_validated"]) == 2
    shutil.rmtree(data / "train_images")
    (data / "train_images").mkdir()
    code, _, err = lumbar(*given, "--phantoms", 0)
    assert code == 1 and "Traceback" not in err


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
    # As the final graders of lumbar train have it.
    described["metrics"]["held_out_studies"] = 0
    for stem in ("spinal", "spinal_2"):
        (tmp_path / "run" / f"{stem}.json").write_text(json.dumps(described))
    shutil.copyfile(tmp_path / "run" / "spinal.safetensors", tmp_path / "run" / "spinal_2.safetensors")
    write_manifest(tmp_path / "run")
    on = ("--start-from", tmp_path / "run")
    code, _, err = lumbar("train", "--crops", crops, *choice, *given, *on, "-o", tmp_path / "on")
    assert code == 0 and "begun with the first of its 2 members alone" in " ".join(err.split())
    assert learned_from_all(tmp_path / "on")
    phantoms = tmp_path / "phantoms"
    assert lumbar("cut", "--phantoms", 1, "--seed", 200_421, *choice, "-o", phantoms)[0] == 0
    code, _, err = lumbar("calibrate", tmp_path / "on", "--validation", phantoms)
    assert code == 0 and "calibrate them on other data alone" in " ".join(err.split())

    both = ("--grader", "spinal", "--grader", "foraminal", "--config", config)
    for first in (("train", *given, "--crops"), ("teach",)):
        code, _, err = lumbar(*first, crops, *both, "-o", tmp_path / "both")
        assert code == 1 and "no crop of the train part for the grader foraminal" in " ".join(err.split())
        assert "epoch 0" not in err, "told before the first one is trained"
    code, _, err = lumbar("train", "--crops", crops, *choice, "-o", tmp_path / "alone")
    assert code == 1 and "training.teaching is 0.7 and there are 0 files" in err
    assert "give what `classifier teach` wrote with --teachers" in err
    code, _, err = lumbar("train", "--crops", crops, *choice, "--teachers", config, "-o", tmp_path / "x")
    assert code == 1 and "not what `lumbar classifier teach` writes" in err


def test_teachers_of_other_crops_are_told(tmp_path: Path) -> None:
    data, few, crops = tmp_path / "data", tmp_path / "few", tmp_path / "crops"
    write_dataset(data, studies=3, seed=2, size="small")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(TINY | {"training": TINY["training"] | {"teaching": 0.7}}))
    choice = ("--grader", "spinal", "--config", config)
    assert lumbar("cut", data, *choice, "-o", crops)[0] == 0
    row_ids = load_cache(crops, GraderName.SPINAL, default_config(GraderName.SPINAL).crop).row_ids
    learned = [name for name in row_ids.tolist() if part_of(name.split("_")[0]) is Part.TRAIN]
    few.mkdir()
    for names, code, said in (
        (learned[:1], 0, f"'few/spinal.npz' graded 1 of {len(learned)} crops"),
        (["1_spinal_canal_stenosis_l1_l2"], 1, "'few/spinal.npz' graded none of these crops"),
    ):
        Teachers(GraderName.SPINAL, np.array(names), np.zeros((1, 3))).save(few / "spinal.npz")
        run = tmp_path / f"run{code}"
        found = lumbar("train", "--crops", crops, *choice, "--teachers", few / "spinal.npz", "-o", run)
        assert found[0] == code and said in " ".join(found[2].split())


def test_crops_of_studies_that_were_withdrawn_are_not_learned_from(tmp_path: Path) -> None:
    data, config = tmp_path / "data", tmp_path / "config.json"
    write_dataset(data, studies=2, seed=4, size="small")
    config.write_text(json.dumps(TINY))
    run = ("train", data, "--grader", "spinal", "--config", config, "-o", tmp_path / "run")
    assert lumbar(*run)[0] == 0
    labels = pd.read_csv(data / "train.csv", dtype=str)
    labels.iloc[:-1].to_csv(data / "train.csv", index=False)
    code, _, err = lumbar(*run)
    withdrawn = labels["study_id"].iloc[-1]
    assert code == 1 and f"lacks images, labels or points of ({withdrawn})" in " ".join(err.split())
    (tmp_path / "run" / "crops" / f"{withdrawn}.npz").unlink()
    assert lumbar(*run)[0] == 0
    points = pd.read_csv(data / "train_label_coordinates.csv", dtype=str)
    points.assign(x="9999").to_csv(data / "train_label_coordinates.csv", index=False)
    code, _, err = lumbar(
        "cut", data, "--grader", "spinal", "--config", config, "-o", tmp_path / "run" / "crops"
    )
    said = " ".join(err.split())
    assert code == 0 and "[outside_image] 25 x annotated point that is left out" in said
    assert "1 studies were cut anew" in said


def test_what_would_go_unused_or_count_twice_is_refused(run: Path, tmp_path: Path) -> None:
    code, _, err = lumbar("train", "--crops", run / "crops", "--phantoms", 1, "-o", tmp_path)
    assert code == 2 and "only one is learned from" in " ".join(err.replace("│", " ").split())
    other = Path(shutil.copytree(run, tmp_path / "other"))
    for arguments, said in (
        ((run, run, "-o", tmp_path / "weights"), "named twice"),
        ((run, other), "name a folder with --output that is none of them"),
        ((run, other, "-o", other), "name a folder with --output that is none of them"),
    ):
        code, _, err = lumbar("calibrate", *arguments, "--validation", run / "crops")
        assert code == 2 and said in " ".join(err.replace("│", " ").split())
    unused = ("--pretrained", run.parent / "config.json", "--config", run.parent / "config.json")
    new = ("--grader", "spinal", "-o", tmp_path / "run")
    code, _, err = lumbar("train", "--crops", run / "crops", *unused, *new)
    assert code == 0 and "the spinal grader begins at random" in " ".join(err.split())


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
