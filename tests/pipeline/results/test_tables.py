"""The tables of a run, read as others read them: a row per target, a row per thing that was not used."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from data_prep.problems import Reason, Rejection
from pipeline.cli import app
from pipeline.results.tables import REFUSED_COLUMNS, TARGET_COLUMNS, write_refused, write_targets

IDENTIFIERS = {"study_id": str, "series_id": str}


@pytest.fixture(scope="module")
def graded(phantom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run over a good study and one without a readable file."""
    folder = tmp_path_factory.mktemp("tables")
    good, bad = sorted((phantom_data / "train_images").iterdir())[:2]
    for study in (good, bad):
        shutil.copytree(study, folder / "in" / study.name)
    for file in (folder / "in" / bad.name).rglob("*.dcm"):
        file.write_text("not DICOM")
    arguments = ["predict", str(folder / "in"), "-o", str(folder / "out"), "--no-report", "--no-pictures"]
    assert CliRunner().invoke(app, [*arguments, "--threads", "1"]).exit_code == 3
    return folder / "out"


def test_every_target_has_a_row_with_what_the_record_says(graded: Path) -> None:
    table = pd.read_csv(graded / "targets.csv", dtype=IDENTIFIERS)
    content = json.loads((graded / "predictions.json").read_text())
    studies = content["studies"]
    assert set(table["learned_from"]) == {content["provenance"]["learned_from"]}
    assert tuple(table.columns) == TARGET_COLUMNS and len(table) == 50
    assert set(table["row_id"]) == set(pd.read_csv(graded / "submission.csv")["row_id"])

    record = next(study for study in studies if not study["rejected"])
    rows = table[~table["study_rejected"]].to_dict("records")
    kinds = {row["series_id"]: row["seen_as"] for row in record["series"]}
    for row, target in zip(rows, record["targets"], strict=True):
        assert (row["condition"], row["level"]) == (target["condition"], target["level"])
        assert row["grade"] == target["severity"]
        assert row["probability"] == max(row["normal_mild"], row["moderate"], row["severe"])
        assert [row["x_mm"], row["y_mm"], row["z_mm"]] == target["point"]["xyz_mm"]
        assert [row["column_px"], row["row_px"]] == target["point"]["xy_px"]
        assert row["series_kind"] == kinds[row["series_id"]]
    depth = {m["level"]: m["value"] for m in record["measurements"] if m["quantity"] == "canal_depth"}
    assert depth and all(row["canal_depth_mm"] == depth.get(row["level"]) for row in rows)
    of_side = {
        (m["level"], m["side"]): m["value"]
        for m in record["measurements"]
        if m["quantity"] == "foramen_height"
    }
    assert {side for _, side in of_side} == {"left", "right"}
    for row in rows:
        height = row["foramen_height_mm"]
        assert (
            height == of_side[row["level"], row["side"]]
            if row["side"] in ("left", "right")
            else np.isnan(height)
        )


def test_what_a_measurement_contradicts_is_told_of_its_target_alone(graded: Path, tmp_path: Path) -> None:
    studies = json.loads((graded / "predictions.json").read_text())["studies"]
    record = next(study for study in studies if not study["rejected"])
    place = {"condition": "spinal_canal_stenosis", "level": "l4_l5"}
    record["contradictions"] = [{**place, "severity": "Severe", "quantity": "canal_depth"}]
    write_targets([record], tmp_path / "targets.csv", learned_from="")
    told = pd.read_csv(tmp_path / "targets.csv").dropna(subset="contradicted_by")
    assert told[["condition", "level", "contradicted_by"]].to_numpy().tolist() == [
        [*place.values(), "canal_depth"]
    ]


def test_a_refused_study_has_rows_without_grades_and_its_reasons(graded: Path) -> None:
    table = pd.read_csv(graded / "targets.csv", dtype=IDENTIFIERS)
    refused = table[table["study_rejected"]]
    assert len(refused) == 25 and refused[["grade", "probability", "x_mm", "series_id"]].isna().all(axis=None)
    assert (refused["source"] == "prior").all() and (refused["reasons"] == "study_rejected").all()
    assert refused["study_refusals"].str.contains("not_dicom").all()
    why = pd.read_csv(graded / "refused.csv", dtype=IDENTIFIERS)
    assert set(why["reason"]) >= {"not_dicom"} and (why["what_to_do"] != "").all()
    assert set(why["study_id"]) == set(refused["study_id"])


def test_a_cell_is_no_formula(tmp_path: Path) -> None:
    write_refused([Rejection(Reason.NOT_DICOM, "=1+1", study_id="@a")], tmp_path / "refused.csv")
    (row,) = pd.read_csv(tmp_path / "refused.csv", keep_default_na=False).to_dict("records")
    assert tuple(row) == REFUSED_COLUMNS and row["what_to_do"] == Reason.NOT_DICOM.advice
    assert row["message"] == "'=1+1" and row["study_id"] == "'@a"


def test_every_column_is_explained() -> None:
    text = Path("docs/formats.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`([a-z0-9_]+)`", text.partition("## Tables")[2].partition("## ")[0]))
    columns = {column for column in TARGET_COLUMNS if not column.endswith("_sd")}
    assert columns | set(REFUSED_COLUMNS) <= explained
