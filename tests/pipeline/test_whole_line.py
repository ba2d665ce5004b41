"""The promise of the project: the bundled weights grade a synthetic patient and the real studies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_prep.vocabulary import LEVELS, Condition, Level, Target
from pipeline.cli import app
from pipeline.commands.demo import _row
from pipeline.results.submission import read_submission, validate_submission


def test_the_demo_makes_a_patient_grades_it_and_shows_truth_beside_prediction(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "truth beside prediction" in result.stdout
    study = json.loads((tmp_path / "predictions.json").read_text())["studies"][0]
    assert not study["rejected"]
    validate_submission(read_submission(tmp_path / "submission.csv"), [study["study_id"]])
    assert (tmp_path / "pictures" / f"{study['study_id']}.png").is_file()
    assert (tmp_path / "phantom" / "oracle.csv").is_file()


@pytest.mark.parametrize("study_id", ["4003253", "100206310"])
def test_a_real_study_is_graded_with_all_levels_found(real_rsna: Path, tmp_path: Path, study_id: str) -> None:
    images = real_rsna / "train_images" / study_id
    result = CliRunner().invoke(app, ["predict", str(images), "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    validate_submission(read_submission(tmp_path / "submission.csv"), [study_id])
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    (study,) = predictions["studies"]
    assert [name for name, found in study["levels"].items() if found] == [level.value for level in LEVELS]
    assert {target["source"] for target in study["targets"]} <= {"seen", "predicted"}
    assert any(name.startswith("detector/") for name in predictions["provenance"]["models"])
    assert any(name.startswith("classifier/") for name in predictions["provenance"]["models"])


def test_the_demo_gives_no_grade_to_what_was_not_graded() -> None:
    target = Target(Condition.SPINAL_CANAL_STENOSIS, Level.L1_L2)
    shares = {"normal_mild": 0.9, "moderate": 0.08, "severe": 0.02}
    for source, said in (("seen", ["Normal/Mild", "90%", "differs"]), ("prior", ["not graded", "", ""])):
        found = {"severity": "Normal/Mild", "probabilities": shares, "source": source}
        row = _row(target, {target.column: "Severe"}, {target.column: found})
        assert [row["prediction"], row["probability"], row[""]] == said
