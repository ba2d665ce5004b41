"""The detector's commands: what they write, what they say, how they end."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import detector.learn.sources
from data_prep.base.manifest import Bundle
from data_prep.levels import SpineLevels
from data_prep.partition import Part, part_of
from data_prep.phantom import write_dataset
from data_prep.study import Study
from detector import BUNDLED_WEIGHTS
from detector.predict import LevelDetector
from pipeline.cli import app as lumbar
from pipeline.commands.detector import app

runner = CliRunner()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_dataset(folder, studies=2, seed=200_420)
    return folder


def test_predict_writes_levels_in_the_form_of_the_coordinate_table(data: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, ["predict", str(data), "-o", str(tmp_path / "levels.csv")])
    assert result.exit_code == 0, result.output
    levels = pd.read_csv(tmp_path / "levels.csv")
    truth = pd.read_csv(data / "train_label_coordinates.csv")
    assert set(truth.columns) <= set(levels.columns)
    assert set(levels["study_id"]) == set(truth["study_id"])
    assert set(levels["condition"]) <= set(truth["condition"]) and len(levels) >= 40
    assert "numbering" in result.stderr


def test_a_folder_in_the_place_of_the_table_is_said_before_hours_of_work(data: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, ["predict", str(data), "-o", str(tmp_path)])
    said = " ".join(re.findall(r"[\w.-]+", result.stderr))  # lines are cut, and have a frame
    assert result.exit_code == 2 and "is a directory" in said


def test_evaluate_reports_figures_as_json_and_draws_the_worst(data: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, ["evaluate", str(data), "--json", "--pictures", str(tmp_path)])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["studies"] == 2
    assert figures["spinal"]["n"] == 10 and figures["foraminal"]["n"] == 20
    assert set(figures["numbering"]) >= {"wrong", "mean_confidence", "calibration_error"}
    assert len(list(tmp_path.glob("*.png"))) == 12


def test_a_bad_study_is_named_and_the_others_are_done(data: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", studies=2, seed=200_420)
    images = tmp_path / "data" / "train_images"
    for file in sorted(images.iterdir())[0].rglob("*.dcm"):
        file.write_text("not DICOM")
    result = runner.invoke(app, ["predict", str(images), "-o", str(tmp_path / "levels.csv")])
    assert result.exit_code == 3
    assert "[not_dicom]" in result.stderr
    assert pd.read_csv(tmp_path / "levels.csv")["study_id"].nunique() == 1
    result = runner.invoke(app, ["evaluate", str(tmp_path / "data"), "--json"])
    assert result.exit_code == 3 and json.loads(result.stdout)["studies"] == 1
    assert "[no_usable_series]" in result.stderr


def test_levels_are_those_that_are_graded_and_so_is_what_is_said(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T1 and T2 under each other's name, a black slice, a study that fails within the program."""
    t1, t2 = "Sagittal T1", "Sagittal T2/STIR"
    table = tmp_path / "exchanged.csv"
    text = (data / "train_series_descriptions.csv").read_text()
    table.write_text(text.replace(t1, "?").replace(t2, t1).replace("?", t2))
    first, second = sorted(path.name for path in (data / "train_images").iterdir())
    options = ("--series-table", table)
    detect = LevelDetector.predict

    def failing(self: LevelDetector, study: Study) -> SpineLevels:
        if study.study_id == second:
            raise RuntimeError("CANARY")
        return detect(self, study)

    monkeypatch.setattr(LevelDetector, "predict", failing)
    graded, alone = (
        runner.invoke(lumbar, list(map(str, (*words, data / "train_images", "-o", out, *options))))
        for words, out in (
            (("predict", "--no-pictures"), tmp_path / "out"),
            (("detector", "predict"), tmp_path / "levels.csv"),
        )
    )
    assert graded.exit_code == alone.exit_code == 3

    def said(stderr: str) -> list[str]:
        return sorted(line for line in stderr.splitlines() if line.startswith(("rejected", "doubtful")))

    assert said(alone.stderr) == said(graded.stderr)
    assert f"rejected [internal_failure] {second}: detection failed (RuntimeError)" in alone.stderr
    assert "CANARY" not in alone.stderr and alone.stderr.count("[series_kind_disagrees]") == 4
    studies = json.loads((tmp_path / "out" / "predictions.json").read_text())["studies"]
    points = [row["point"] for row in studies[0]["targets"] if row["point"] and row["point"]["series_id"]]
    wanted = {(one["series_id"], *one["xy_px"]) for one in points}
    rows = pd.read_csv(tmp_path / "levels.csv", dtype={"study_id": str, "series_id": str})
    assert set(rows["study_id"]) == {first} and len(wanted) >= 20
    assert set(rows[["series_id", "x", "y"]].itertuples(index=False, name=None)) == wanted


def test_evaluate_says_nothing_of_the_numbering_of_axial_slices_alone(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    kinds = pd.read_csv(data / "train_series_descriptions.csv", dtype=str)
    for row in kinds[kinds["series_description"] != "Axial T2"].itertuples():
        shutil.rmtree(tmp_path / "data" / "train_images" / row.study_id / row.series_id)

    told = runner.invoke(app, ["evaluate", str(tmp_path / "data")])
    figures = json.loads(runner.invoke(app, ["evaluate", str(tmp_path / "data"), "--json"]).stdout)

    assert "subarticular" in told.stdout and "numbering: not looked at" in told.stdout
    assert figures["subarticular"]["n"] == 20 and figures["numbering"]["studies"] == 0


def test_evaluate_names_what_it_leaves_out(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    table = tmp_path / "data" / "train_label_coordinates.csv"
    points = pd.read_csv(table, dtype=str)
    first, second = sorted(set(points["study_id"]))
    canal = points["condition"] == "Spinal Canal Stenosis"
    points.loc[canal & (points["study_id"] == second), "instance_number"] = "999"
    points[points["study_id"] == second].to_csv(table, index=False)
    result = runner.invoke(lumbar, ["detector", "evaluate", str(tmp_path / "data"), "--json"])
    said = " ".join(result.stderr.split())
    assert f"[left_out] 1 x study without points ({first})" in said
    assert "[instance_not_found] 5 x annotated point that is left out" in said


def test_nothing_to_do_ends_with_1_and_a_reason(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    result = runner.invoke(lumbar, ["detector", "predict", str(empty), "-o", str(tmp_path / "levels.csv")])
    assert result.exit_code == 1 and "[no_images]" in result.stderr
    result = runner.invoke(lumbar, ["detector", "train", "-o", str(tmp_path / "run")])
    assert result.exit_code == 1 and "no labelled slice" in result.stderr
    result = runner.invoke(lumbar, ["detector", "evaluate"])
    assert result.exit_code == 1 and "give DATA" in result.stderr


def test_a_bundle_says_what_it_keeps_and_drops_a_numbering_of_other_detectors(tmp_path: Path) -> None:
    out, run = tmp_path / "out", tmp_path / "run"
    shutil.copytree(BUNDLED_WEIGHTS[Bundle.OPEN], out)
    run.mkdir()
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(out / f"sagittal{suffix}", run / f"sagittal{suffix}")
    result = runner.invoke(lumbar, ["detector", "bundle", str(run), str(out), "-o", str(tmp_path / "new")])
    assert result.exit_code == 1 and "both hold sagittal" in result.stderr
    result = runner.invoke(lumbar, ["detector", "bundle", str(run), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "kept of what out/ held before: axial, foramen" in " ".join(result.stderr.split())
    assert (out / "numbering.json").is_file()  # the same detector
    with (BUNDLED_WEIGHTS[Bundle.RESEARCH] / "sagittal.safetensors").open("rb") as other:
        (run / "sagittal.safetensors").write_bytes(other.read())
    result = runner.invoke(lumbar, ["detector", "bundle", str(run), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "removed the numbering" in result.stderr and not (out / "numbering.json").exists()
    assert "numbering.json" not in json.loads((out / "manifest.json").read_text())["files"]


def test_external_slices_cannot_train_the_axial_detector(tmp_path: Path) -> None:
    arguments = ["train", "--kind", "axial", "--external", str(tmp_path), "-o", str(tmp_path / "run")]
    result = runner.invoke(lumbar, ["detector", *arguments])
    assert result.exit_code == 1 and "leave --external and --slices out" in " ".join(result.stderr.split())


def test_what_a_training_cannot_begin_with_is_refused_before_anything_is_read(
    tmp_path: Path,
) -> None:
    arguments = [
        "detector",
        "train",
        str(tmp_path),
        "-o",
        str(tmp_path / "run"),
        "--start-from",
        str(tmp_path),
    ]
    result = runner.invoke(lumbar, arguments)
    assert result.exit_code == 1 and "--start-from wants research, open or a run" in result.stderr
    assert "reading slices" not in result.stderr


@pytest.mark.usefixtures("training_imported", "small_views")
def test_a_run_is_no_weights_folder_and_where_nothing_is_found_nothing_is_numbered(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Patients that other tests have rendered: 5, and for choosing 200,420 to 200,423.
    monkeypatch.setattr(detector.learn.sources, "FIRST_CHOOSING_SEED", 200_415)
    run, weights = tmp_path / "run", tmp_path / "weights"
    small = ["--epochs", "1", "--samples-per-epoch", "1", "--batch-size", "1", "--threads", "1"]
    phantoms = ["--phantoms", "1", "--seed", "5", "--jobs", "1"]
    result = runner.invoke(lumbar, ["detector", "train", *phantoms, "-o", str(run), *small])
    assert result.exit_code == 0, result.output
    assert f"next: lumbar detector bundle {run}" in " ".join(result.stderr.split())
    result = runner.invoke(lumbar, ["detector", "evaluate", str(data), "--weights", str(run)])
    assert result.exit_code == 1 and "lumbar detector bundle" in result.stderr
    result = runner.invoke(lumbar, ["detector", "bundle", str(run), "-o", str(weights)])
    assert result.exit_code == 0 and f"{weights} holds sagittal" in result.stderr
    result = runner.invoke(lumbar, ["detector", "evaluate", str(data), "--weights", str(weights)])
    assert result.exit_code == 0
    assert "no spine was found in 2 of 2 studies" in result.stdout and "numbering" not in result.stdout


def test_a_second_look_is_trained_bundled_and_used(data: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", studies=4, seed=200_420)
    arguments = ["--group", "foraminal", "--epochs", "1", "--threads", "1", "--jobs", "1"]
    run = tmp_path / "run"
    result = runner.invoke(app, ["train-points", str(tmp_path / "data"), "-o", str(run), *arguments])
    assert result.exit_code == 0, result.output
    described = json.loads((run / "foraminal_point.json").read_text())
    assert described["crops"] % 10 == 0 and described["crops"] > 0
    weights = tmp_path / "weights"
    shutil.copytree(BUNDLED_WEIGHTS[Bundle.OPEN], weights)
    result = runner.invoke(app, ["bundle", str(run), "-o", str(weights)])
    assert result.exit_code == 0, result.output
    errors = {}
    for name, folder in (("with", weights), ("without", BUNDLED_WEIGHTS[Bundle.OPEN])):
        result = runner.invoke(app, ["evaluate", str(data), "--json", "--weights", str(folder)])
        assert result.exit_code == 0, result.output
        errors[name] = json.loads(result.stdout)
    assert errors["with"]["foraminal"] != errors["without"]["foraminal"]
    assert errors["with"]["spinal"] == errors["without"]["spinal"]


def test_evaluate_takes_a_part_of_the_studies(data: Path) -> None:
    studies = {}
    for part in Part:
        result = runner.invoke(app, ["evaluate", str(data), "--json", "--part", part.value])
        studies[part] = json.loads(result.stdout)["studies"] if result.exit_code == 0 else 0
        if result.exit_code:
            assert f"no study of the {part} part" in str(result.exception)
    ids = pd.read_csv(data / "train.csv")["study_id"].astype(str)
    assert studies == {part: sum(part_of(name) is part for name in ids) for part in Part}
    result = runner.invoke(app, ["evaluate", str(data), "--part", "report"])
    assert result.exit_code == 2
