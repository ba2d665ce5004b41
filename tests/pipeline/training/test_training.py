"""``lumbar train``: folds by study, jobs done once, a killed run goes on, nothing judged on what it saw."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import detector.learn.train
import pipeline.training.grading
import pipeline.training.run
from classifier.calibration import Calibration
from classifier.config import GraderName
from classifier.metric import score as official_score
from classifier.storage import load_grader
from data_prep.base.graph import is_of
from data_prep.base.manifest import read_manifest
from data_prep.levels import (
    LevelPoint,
    PointSource,
    Sight,
    SpineLevels,
)
from data_prep.rsna.annotations import PointRules
from data_prep.vocabulary import LEVELS, TARGETS, Condition, ConditionGroup, Severity
from pipeline.cli import app
from pipeline.grade import Pipeline
from pipeline.results.submission import build_submission, read_submission, validate_submission
from pipeline.training import detecting
from pipeline.training.calibrating import calibrate, study_numbers
from pipeline.training.cards import with_interval
from pipeline.training.data import assign_folds, read_training_data, share_of_severe, without_severe
from pipeline.training.detecting import read_points, save_points
from pipeline.training.grading import OutOfFold, cleaned, find_doubts
from pipeline.training.plan import FULL, LAPTOP, CleaningPlan, TrainPlan, load_plan
from pipeline.training.ranks import RankFailed, Ranks, RunInUse
from pipeline.training.stages import Job, Stages, seconds_of
from tests.classifier.synthetic import disc_cache, tiny_config

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("training_imported")

TINY: dict[str, Any] = {
    "choosing_slices": 4,
    "resamples": 20,
    "detectors": {"epochs": 1, "samples_per_epoch": 4, "batch_size_slices": 4, "point_epochs": 1},
    "graders": {
        "start": "scratch",
        "changes": {
            "network": {"backbone_channels": [8, 8, 8], "attention_heads": 2, "hidden_channels": 8},
            "training": {"epochs": 1, "batch_size_crops": 8, "bfloat16": False},
        },
    },
}


@pytest.mark.usefixtures("small_views")
def test_a_killed_training_goes_on_and_ends_with_weights_that_grade(
    phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its first stage and failed in its second one, with another configuration of that."""
    # What is drawn of a detector's training is looked at in detector/learn/test_train.py.
    monkeypatch.setattr(detector.learn.train, "draw_training", lambda *_: None)
    run, config = tmp_path / "run", tmp_path / "config.json"
    config.write_text(json.dumps(TINY))
    arguments = ["train", str(phantom_data), "-o", str(run), "--preset", "laptop", "--folds", "2"]
    arguments += ["--config", str(config), "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if "slices/part0of1:" in line:
            process.kill()
            break
    process.wait()
    assert process.returncode == -9, seen
    assert not (run / "report.html").exists()

    trained: list[str] = []

    def one_grader(*given: Any, **named: Any) -> None:
        if trained:
            raise MemoryError
        trained.append("fold0/graders/spinal")
        train_one_grader(*given, **named)

    train_one_grader = pipeline.training.grading.train_one
    with monkeypatch.context() as failing:
        failing.setattr(pipeline.training.grading, "train_one", one_grader)
        failed = CliRunner().invoke(app, arguments)
    assert failed.exit_code != 0 and trained
    assert "slices/part0of1: done before" in failed.stderr
    assert "fold0/detector/sagittal: done before" not in failed.stderr

    # Softened labels: two passes of the graders, nothing else again.
    config.write_text(json.dumps(TINY | {"cleaning": {"noise": "soften", "noise_below": 0.2}}))
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert "fold0/detector/sagittal: done before" in done.stderr
    assert "crops/found-part0of1: done before" in done.stderr and "labels in doubt: spinal" in done.stderr
    figures = json.loads(done.stdout)
    assert figures == json.loads((run / "report.json").read_text())

    studies = sorted(path.name for path in (phantom_data / "train_images").iterdir())
    submission = read_submission(run / "oof_submission.csv")
    validate_submission(submission, studies)
    official = official_score(submission, pd.read_csv(phantom_data / "train.csv", dtype=str)).to_dict()
    assert figures["score"]["out_of_fold"]["score"]["value"] == pytest.approx(official["score"], abs=1e-6)
    folds = json.loads((run / "folds.json").read_text())
    assert sorted(folds) == studies and set(folds.values()) == {0, 1}
    # Neither stage of a fold has seen the study that it is judged on.
    for study, fold in folds.items():
        described = json.loads((run / f"fold{fold}" / "detector" / "sagittal" / "sagittal.json").read_text())
        assert study not in described["sources"][0]["patients"]
        metrics = json.loads((run / f"fold{fold}" / "graders" / "spinal" / "spinal.json").read_text())[
            "metrics"
        ]
        assert metrics["train_studies"] == 1 and metrics["held_out_studies"] == 1
    assert figures["detection"]["spinal"]["n"] == 10

    page = (run / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "http" not in page.replace("http-equiv", "")
    weights = run / "weights"
    loaded = Pipeline.load(
        detector_weights=weights / "detector", classifier_weights=weights / "graders", backend="torch"
    )
    expected = {f"detector/{n}": d for n, d in read_manifest(weights / "detector").items()}
    expected |= {f"classifier/{n}": d for n, d in read_manifest(weights / "graders").items()}
    assert loaded.provenance.models == expected
    for card in ("detector/detectors.md", "graders/graders.md"):
        text = (weights / card).read_text()
        assert "2 studies, 50 labels" in text and "Not a medical device" in text
    assert "](reliability.png)" in text and (weights / "graders" / "reliability.png").is_file()

    # All members of a bundle, each with the graph that runs without torch and without a conversion.
    trained = {path.stem: path for path in weights.glob("*/*.safetensors")}
    assert set(trained) == {
        *("sagittal", "axial", "foramen", "spinal_point", "foraminal_point"),
        *("spinal", "foraminal", "subarticular", "spinal_axial"),
    }
    for path in trained.values():
        assert is_of(path.with_suffix(".graph").read_bytes(), path.read_bytes())
    axial = load_grader(weights / "graders", GraderName.SPINAL_AXIAL)
    assert axial.joint is not None and axial.joint.to_dict() == figures["joint_canal"]
    assert figures["ungraded"] == {"spinal": 0, "foraminal": 0, "subarticular": 0}

    # Once more: nothing is trained again.
    monkeypatch.setattr(pipeline.training.run, "finish", lambda *_: figures)
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.output
    assert "fold1/graders-first/spinal: done before" in again.stderr and " epoch " not in again.stderr
    assert (
        "weights" in again.stdout
        and f"next        lumbar predict INPUT -o OUT --models {run}" in again.stdout
    )


def test_what_cannot_be_trained_is_said(phantom_data: Path, tmp_path: Path) -> None:
    def train(*more: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["train", str(phantom_data), "-o", str(tmp_path / "run"), *more])
        return done.exit_code, done.stderr

    code, text = train("--device", "tpu")
    assert code == 1 and "unknown device 'tpu'" in text
    config = tmp_path / "config.json"
    config.write_text('{"graders": {"epochs": 3}}')
    code, text = train("--config", str(config))
    assert code == 1 and "graders.epochs" in text
    config.write_text('{"cleaning": {"noise": "maybe"}}')
    code, text = train("--config", str(config))
    assert code == 1 and "off, drop, soften" in text
    code, text = train("--folds", "5", "--preset", "laptop", "--device", "cpu")
    assert code == 1 and "5 folds need at least 5 studies" in text
    assert train("--folds", "1")[0] == 2

    # Before anything is trained.
    small = ("--folds", "2", "--device", "cpu", "--config", str(config))
    config.write_text('{"graders": {"changes": {"network": {"hidden_channels": 8}}}}')
    code, text = train("--preset", "laptop", *small)
    assert code == 1 and "spinal grader to begin with is of another network" in " ".join(text.split())
    config.write_text("{}")
    code, text = train("--pretrained", str(config), *small)
    assert code == 1 and "pretrained weights need a timm backbone" in " ".join(text.split())
    assert "epoch" not in text and not (tmp_path / "run" / "fold0").exists()


def test_points_that_are_left_out_are_said(phantom_data: Path, tmp_path: Path) -> None:
    """Those that lie on no image, and those that the rules take."""
    data = tmp_path / "data"
    data.mkdir()
    for path in phantom_data.iterdir():
        (data / path.name).symlink_to(path)
    table = pd.read_csv(phantom_data / "train_label_coordinates.csv", dtype=str)
    (data / "train_label_coordinates.csv").unlink()
    foramina = table["condition"].str.contains("Foraminal")
    table.loc[foramina, "instance_number"] = "999"
    canal = table["condition"].str.contains("Canal")
    table.loc[canal, "y"] = (300 - table.loc[canal, "y"].astype(float)).astype(str)
    table.to_csv(data / "train_label_coordinates.csv", index=False)
    entries = read_training_data(data, tmp_path / "cache", PointRules())
    assert entries.points_taken["level_order"] == 10
    arguments = ["train", str(data), "-o", str(tmp_path / "run"), "--folds", "5", "--device", "cpu"]
    refused = CliRunner().invoke(app, [*arguments, "--preset", "laptop"])
    assert "that the cleaning takes: level_order 10" in " ".join(refused.stderr.split())
    for entry in entries.entries:
        entries.cache.add(entry)
    problems = detecting.cut_slices(entries, entries.study_ids, tmp_path / "slices")
    assert len(problems) == foramina.sum() == 20
    assert all(text.startswith("instance_not_found") for text in problems)


def labels_of(studies: int, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    names = [severity.value for severity in Severity]
    rows = []
    for study in range(studies):
        ill = generator.random() < 0.2
        p = (0.5, 0.2, 0.3) if ill else (0.9, 0.09, 0.01)
        rows.append({"study_id": str(study)} | {t.column: names[generator.choice(3, p=p)] for t in TARGETS})
    return pd.DataFrame(rows)


def test_folds_hold_whole_studies_and_as_many_severe_ones() -> None:
    labels = labels_of(100)
    ids = labels["study_id"].tolist()
    folds = assign_folds(labels, ids, 5, seed=0)
    assert list(folds) == ids and folds == assign_folds(labels, ids, 5, seed=0)
    table = share_of_severe(labels, folds)
    assert all(15 <= row["studies"] <= 25 for row in table.values())
    severe = [row["severe spinal"] for row in table.values()]
    assert max(severe) < 1.7 * min(severe)
    assert set(assign_folds(labels_of(2), ["0", "1"], 2, seed=0).values()) == {0, 1}
    assert without_severe(labels, folds) == []
    columns = [column for column in labels if "foraminal" in column]
    labels[columns] = labels[columns].replace("Severe", "Moderate")
    assert without_severe(labels, folds) == [f"severe foraminal of fold {fold}" for fold in range(5)]


def test_a_job_is_done_once_and_again_when_its_inputs_change(tmp_path: Path) -> None:
    calls: list[str] = []

    def work(folder: Path) -> None:
        calls.append(folder.name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"left-{len(calls)}").touch()

    with Stages(tmp_path, Ranks(), lambda _: None) as stages:
        stages.do([Job("a/one", "1", work), Job("a/two", "1", work)])
        stages.do([Job("a/one", "1", work), Job("a/two", "2", work)])
        assert calls == ["one", "two", "two"]
        # Files of another configuration are gone; those of the same one would have stayed for resuming.
        assert sorted(path.name for path in (tmp_path / "a" / "two").glob("left-*")) == ["left-3"]
        assert set(seconds_of(tmp_path)) == {"a/one", "a/two"}
        with pytest.raises(RunInUse, match="another training"):
            Stages(tmp_path, Ranks(), lambda _: None)
    with Stages(tmp_path, Ranks(), lambda _: None):
        pass


def test_an_interrupted_job_finds_what_it_left(tmp_path: Path) -> None:
    found: list[bool] = []

    def work(folder: Path) -> None:
        found.append((folder / "checkpoint").exists())
        (folder / "checkpoint").touch()
        if len(found) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Stages(tmp_path, Ranks(), lambda _: None) as stages:
        stages.do([Job("job", "1", work)])
    with Stages(tmp_path, Ranks(), lambda _: None) as stages:
        stages.do([Job("job", "1", work)])
    assert found == [False, True]


def test_processes_share_the_work_and_torchruns_variables_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    items = list(range(7))
    shares = [list(Ranks(rank, 3).mine(items)) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items and shares[0] == [0, 3, 6]
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    ranks = Ranks.taken_from_environment()
    assert (ranks.rank, ranks.world, ranks.local_rank) == (1, 2, 1) and "RANK" not in os.environ
    assert Ranks.taken_from_environment() == Ranks()

    def failed() -> None:
        raise RankFailed("rank 1 failed")

    with pytest.raises(RankFailed):
        replace(ranks, check=failed).wait([1], lambda _: False)
    with pytest.raises(ValueError, match="rank must lie"):
        Ranks(2, 2)


def out_of_fold(n: int, seed: int) -> OutOfFold:
    """Logits that are too sure by a factor of three; five levels per study."""
    generator = np.random.default_rng(seed)
    evidence = generator.normal(0, 1.5, (n, 3))
    log_prior = np.log(np.tile([0.7, 0.2, 0.1], (n, 1)))
    p = Calibration().probabilities(evidence, log_prior)
    label = np.array([generator.choice(3, p=row) for row in p])
    rows = [f"{k // 5}_spinal_canal_stenosis_{LEVELS[k % 5].value}" for k in range(n)]
    return OutOfFold(np.array(rows), 3 * evidence, log_prior, label, (np.arange(n) // 5) % 3)


def test_calibration_is_fitted_on_the_other_folds() -> None:
    oof = {ConditionGroup.SPINAL: out_of_fold(900, 0)}
    found = calibrate(oof)
    assert found.final[ConditionGroup.SPINAL].temperature == pytest.approx(3, rel=0.25)
    assert set(found.pulls) == {0, 1, 2}
    # Labels of a fold do not change what its own rows get.
    mine = oof[ConditionGroup.SPINAL].fold == 0
    flipped = replace(oof[ConditionGroup.SPINAL], label=np.where(mine, 2, oof[ConditionGroup.SPINAL].label))
    other = calibrate({ConditionGroup.SPINAL: flipped})
    assert np.allclose(other.p[ConditionGroup.SPINAL][mine], found.p[ConditionGroup.SPINAL][mine])
    assert not np.allclose(other.p[ConditionGroup.SPINAL][~mine], found.p[ConditionGroup.SPINAL][~mine])
    assert len(np.unique(study_numbers(flipped))) == 180


def test_both_views_of_the_canal_are_joined_as_the_other_folds_advise() -> None:
    sagittal = out_of_fold(900, 0)
    generator = np.random.default_rng(1)
    # The axial grader sees half of the targets, in another order, and knows there what the label is.
    chosen = generator.permutation(900)[:450]
    evidence = generator.normal(0, 1, (450, 3)) + 3 * np.eye(3)[sagittal.label[chosen]]
    axial = OutOfFold(
        sagittal.row_ids[chosen],
        evidence,
        sagittal.log_prior[chosen],
        sagittal.label[chosen],
        sagittal.fold[chosen],
    )
    oof = {GraderName.SPINAL: sagittal, GraderName.SPINAL_AXIAL: axial}
    alone, found = calibrate({GraderName.SPINAL: sagittal}), calibrate(oof)
    assert alone.joint is None and found.joint is not None and found.joint.weights[1] > 0.5
    p, before = found.p[GraderName.SPINAL], alone.p[GraderName.SPINAL]
    both = np.isin(np.arange(900), chosen)
    assert np.array_equal(p[~both], before[~both])
    rows = np.flatnonzero(both)
    gain = np.log(p[rows, sagittal.label[rows]]) - np.log(before[rows, sagittal.label[rows]])
    assert gain.mean() > 0.1
    # Labels of a fold do not change what its own rows get.
    mine = sagittal.fold == 0
    flipped = {name: replace(one, label=np.where(one.fold == 0, 2, one.label)) for name, one in oof.items()}
    other = calibrate(flipped).p[GraderName.SPINAL]
    assert np.allclose(other[mine], p[mine]) and not np.allclose(other[~mine], p[~mine])


def test_labels_in_doubt_are_dropped_or_softened() -> None:
    oof = out_of_fold(60, 1)
    p = np.full((60, 3), 0.32)
    p[7] = [0.98, 0.01, 0.01]
    oof = replace(oof, label=np.full(60, 2))
    plan = CleaningPlan(noise="drop")
    doubts = find_doubts(p, oof, plan)
    assert list(doubts) == [str(oof.row_ids[7])]
    cache = replace(disc_cache(tiny_config(ConditionGroup.SPINAL), 60, 0), row_ids=oof.row_ids)
    assert len(cleaned(cache, doubts, plan)) == 59
    softer = cleaned(cache, doubts, replace(plan, noise="soften", soften_share=0.5))
    assert np.allclose(softer.truth[7], 0.5 * cache.truth[7] + 0.5 * p[7], atol=1e-6)
    assert np.array_equal(np.delete(softer.truth, 7, 0), np.delete(cache.truth, 7, 0))
    assert cleaned(cache, doubts, replace(plan, noise="off")) is cache


def test_points_come_back_from_the_disk(tmp_path: Path) -> None:
    point = LevelPoint(
        Condition.LEFT_SUBARTICULAR_STENOSIS,
        LEVELS[3],
        np.array([1.0, 2.0, 3.0]),
        PointSource.SEEN,
        confidence=0.5,
        sight=Sight("9", 4, (10.5, 20.0)),
    )
    levels = SpineLevels("1", points=(point,), numbering_confidence=0.75, flags=("few_slices",))
    save_points(tmp_path / "1.json", levels)
    back = read_points(tmp_path / "1.json")
    assert back.flags == levels.flags and back.numbering_confidence == 0.75
    assert np.array_equal(back.points[0].xyz_mm, point.xyz_mm)
    assert vars(back.points[0]) | {"xyz_mm": 0} == vars(point) | {"xyz_mm": 0}


def test_plans_are_presets_with_changes(tmp_path: Path) -> None:
    path = tmp_path / "changes.json"
    path.write_text('{"cleaning": {"points": {"displaced": false}}, "graders": {"start": "bundled"}}')
    plan = load_plan("full", path, {"folds": 4, "seed": None})
    assert (plan.folds, plan.seed, plan.cleaning.points.displaced) == (4, 0, False)
    assert plan.cleaning.noise == FULL.cleaning.noise == "soften" and LAPTOP.cleaning.noise == "off"
    path.write_text('{"graders": {"changes": {"training": {"epochs": 2}, "crop": {"slices": 3}}}}')
    spinal = load_plan("laptop", path, {}).graders.config(ConditionGroup.SPINAL)
    assert (spinal.training.epochs, spinal.crop.slices) == (2, 3)
    path.write_text('{"graders": {"changes": "epochs"}}')
    with pytest.raises(ValueError):
        load_plan("full", path, {})
    path.write_text("[1]")
    with pytest.raises(ValueError, match="JSON object"):
        load_plan("full", path, {})
    with pytest.raises(ValueError, match="start must be one of"):
        load_plan("full", None, {"detectors": {"start": "elsewhere"}})
    config = TrainPlan(graders=replace(FULL.graders, changes_by_group={"spinal": {"crop": {"slices": 7}}}))
    assert config.graders.config(ConditionGroup.SPINAL).crop.slices == 7
    assert config.graders.config(ConditionGroup.FORAMINAL).crop.slices == 5


def test_a_submission_is_pulled_in_its_canal_rows_alone() -> None:
    p = {"1": {target: np.array([0.6, 0.25, 0.15]) for target in TARGETS}}
    plain, pulled = build_submission(p), build_submission(p, any_severe_pull=1.0)
    changed = (plain["severe"] - pulled["severe"]).abs() > 1e-9
    assert changed.sum() == 1 and "spinal" in plain.loc[changed, "row_id"].iloc[0]
    validate_submission(pulled, ["1"])
    assert with_interval({"value": 0.5, "interval": [0.4, 0.6]}, 2) == "0.50 (0.40 to 0.60)"
    assert with_interval(None) == "–" == with_interval({"value": None, "interval": None})


def test_who_goes_on_with_another_version_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    plan = tmp_path / "plan.json"
    for revision in (pipeline.training.run.git_revision(), "0000000"):
        pipeline.training.run._tell_of_revision(plan, said.append)
        plan.write_text(json.dumps({"git_revision": revision}))
    assert said == []
    pipeline.training.run._tell_of_revision(plan, said.append)
    assert said == ["note: an earlier version (0000000) began this run; what it finished is kept"]
