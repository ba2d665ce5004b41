"""The ablation runs for seconds, goes on where it was, and compares with its baseline."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablation_detector, ablation_graders
from benchmarks.ablation_graders import rows_of, run, seen_by
from classifier.config import GraderName, default_config
from classifier.learn.crop_cache import load_cache

FORAMINAL = GraderName.FORAMINAL
TINY = {
    "network": {"backbone_channels": [8, 8, 8], "attention_heads": 2, "hidden_channels": 8},
    "training": {"epochs": 1, "batch_size_crops": 8, "bfloat16": False},
}


def test_rows_make_sense_for_their_group(tmp_path: Path) -> None:
    names = {group: [row.name for row in rows_of(group, None, "x")] for group in GraderName}
    assert "no mirroring" not in names[GraderName.SPINAL]
    assert "any-severe term" not in names[FORAMINAL] and names[FORAMINAL][0] == "baseline"
    assert [row.name for row in rows_of(FORAMINAL, tmp_path, "x")][-2:] == ["x, from scratch", "pretrained"]


def test_two_rows_are_trained_judged_and_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small phantoms: every third is of full size.
    monkeypatch.setattr(ablation_graders, "FIRST_CHOOSING_SEED", 120_001)

    def rows() -> list[dict[str, object]]:
        only = frozenset({"mean pooling", "no mirroring"})
        return run(
            FORAMINAL, tmp_path / "work", tmp_path, studies=1, judging_studies=2, changes=TINY, only=only
        )

    first = rows()
    assert [row["row"] for row in first] == ["baseline", "no mirroring", "mean pooling"]
    assert first[0]["saved"] == 0 and first[2]["loss"] != first[0]["loss"]
    assert all(float(str(row["low"])) <= float(str(row["loss"])) <= float(str(row["high"])) for row in first)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(ablation_graders, "train_grader", never)
    assert rows() == first
    with (tmp_path / "ablation_foraminal.csv").open() as stream:
        assert [row["row"] for row in csv.DictReader(stream)] == [row["row"] for row in first]
    assert (tmp_path / "ablation_foraminal.png").read_bytes().startswith(b"\x89PNG")

    config = default_config(FORAMINAL)
    cache = load_cache(tmp_path / "work" / "crops-train-foraminal", FORAMINAL, config.crop)
    flipped = seen_by(cache, mirrored=False)
    right = np.array(["right" in str(row_id) for row_id in cache.row_ids])
    assert np.array_equal(flipped.crops[~right], cache.crops[~right])
    assert np.array_equal(flipped.crops[right][:, ::-1], cache.crops[right])


def test_a_row_of_the_detectors_learns_from_the_slices_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[int] = []

    def train(config: object, sources: list, choosing: list, folder: Path, **_: object) -> None:
        learned.extend(len(slices) for _, slices in sources)
        folder.mkdir(parents=True)

    monkeypatch.setattr(ablation_detector, "train_detector", train)
    row = ablation_detector.Row("one phantom, alone", external=False, phantoms=1)
    folder = ablation_detector.trained(row, tmp_path, tmp_path / "runs", epochs=1, samples=1, jobs=1)
    assert folder.name == "one-phantom-alone" and len(learned) == 1 and learned[0] > 0
