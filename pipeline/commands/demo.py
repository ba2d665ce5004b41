"""The demonstration: one synthetic patient, whose truth is known, through the whole line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Final

from data_prep.phantom import write_dataset
from data_prep.vocabulary import CONDITIONS, LEVELS, GradeSource, Severity, Target
from pipeline.results.words import place_words

# Real matrix sizes: what the graders were trained for, and what a reader expects to see.
DEMO_SIZE: Final = "full"


def make_demo_study(folder: Path, seed: int) -> Path:
    """Make one synthetic study in the RSNA layout.

    Returns:
        The study's folder: the data set may hold those of earlier seeds too.
    """
    write_dataset(folder, studies=1, seed=seed, size=DEMO_SIZE, jobs=1)
    return folder / "train_images" / _labels(folder)["study_id"]


def truth_beside_prediction(folder: Path, predictions: Path) -> list[dict[str, str]]:
    """One row per target: level, place, truth, predicted severity and its probability.

    Args:
        folder: what ``make_demo_study`` wrote.
        predictions: ``predictions.json`` of the same study.
    """
    truth = _labels(folder)
    study = json.loads(predictions.read_text(encoding="utf-8"))["studies"][0]
    predicted = {f"{row['condition']}_{row['level']}": row for row in study["targets"]}
    return [_row(Target(condition, level), truth, predicted) for level in LEVELS for condition in CONDITIONS]


def _labels(folder: Path) -> dict[str, str]:
    """The one row of ``train.csv``."""
    with (folder / "train.csv").open(newline="", encoding="utf-8") as stream:
        return next(csv.DictReader(stream))


def _row(target: Target, truth: dict[str, str], predicted: dict[str, dict[str, Any]]) -> dict[str, str]:
    found = predicted[target.column]
    severity = Severity(found["severity"])
    true = truth[target.column]
    is_graded = GradeSource(found["source"]).is_graded
    return {
        "level": target.level.label,
        "place": place_words(target.condition),
        "truth": true or "no label",
        "prediction": severity.value if is_graded else "not graded",
        "probability": f"{found['probabilities'][severity.column]:.0%}" if is_graded else "",
        "": "" if true in (severity.value, "") or not is_graded else "differs",
    }
