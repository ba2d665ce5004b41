"""From images and tables alone to a submission: both stages trained, calibrated, and used by ``predict``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from data_prep.base.manifest import read_manifest
from data_prep.partition import Part, part_of
from data_prep.phantom import write_dataset
from data_prep.vocabulary import ConditionGroup
from pipeline.cli import app
from pipeline.results.submission import read_submission, validate_submission

pytestmark = pytest.mark.usefixtures("training_imported", "small_views")

TINY_GRADERS = {
    "network": {"backbone_channels": [8, 8, 8], "attention_heads": 2, "hidden_channels": 8},
    "training": {"epochs": 1, "batch_size_crops": 4, "bfloat16": False},
}


def lumbar(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One study of the part that is learned from, and one of the part that calibrates."""
    write_dataset(tmp_path / "data", studies=2, seed=4, size="small")
    parts = [part_of(path.name) for path in sorted((tmp_path / "data" / "train_images").iterdir())]
    assert parts == [Part.TRAIN, Part.VALIDATION]
    return tmp_path / "data"


def test_weights_trained_on_a_data_set_grade_its_studies(data: Path, tmp_path: Path) -> None:
    run, crops, out = tmp_path / "run", tmp_path / "crops", tmp_path / "out"
    detector, graders = tmp_path / "detector", tmp_path / "graders"
    for kind in ("sagittal", "axial"):
        short = ("--epochs", 1, "--samples-per-epoch", 8, "--threads", 1)
        lumbar("detector", "train", data, "-o", run / kind, "--kind", kind, *short)
    lumbar("detector", "bundle", run / "sagittal", run / "axial", "-o", detector)

    config = tmp_path / "config.json"
    config.write_text(json.dumps(TINY_GRADERS))
    lumbar("classifier", "cut", data, "-o", crops)
    lumbar("classifier", "train", "--crops", crops, "--config", config, "-o", run / "graders")
    lumbar("classifier", "calibrate", run / "graders", "--validation", crops, "-o", graders)

    weights = ("--detector-weights", detector, "--classifier-weights", graders)
    lumbar("predict", data, "-o", out, "--no-pictures", *weights)
    predictions = json.loads((out / "predictions.json").read_text())
    studies = sorted(path.name for path in (data / "train_images").iterdir())
    assert [study["study_id"] for study in predictions["studies"]] == studies
    validate_submission(read_submission(out / "submission.csv"), studies)
    # It was these weights that were used.
    expected = {f"detector/{name}": digest for name, digest in read_manifest(detector).items()}
    expected |= {f"classifier/{name}": digest for name, digest in read_manifest(graders).items()}
    assert predictions["provenance"]["models"] == expected
    assert {f"classifier/{group.value}.safetensors" for group in ConditionGroup} < set(expected)

    figures = json.loads(lumbar("score", out / "submission.csv", data / "train.csv", "--json").stdout)
    assert 0 < figures["score"] < 10
