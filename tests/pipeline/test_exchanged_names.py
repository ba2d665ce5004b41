"""Protects: sagittal T1 and T2 under each other's name are read as what they are, and that is said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.phantom import make_study, write_dataset
from data_prep.problems import Reason
from data_prep.study import Series, Slice
from data_prep.vocabulary import ConditionGroup, SeriesKind
from pipeline.grade import Pipeline
from tests.command_line import lumbar

SEED = 523_001
T1, T2 = SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in the RSNA layout, whose headers tell no times: only the table says what a series is."""
    folder = tmp_path_factory.mktemp("exchanged")
    write_dataset(folder, studies=1, seed=SEED)
    return folder


def graded(dataset: Path, table: Path, out: Path) -> tuple[int, Mapping[str, Any]]:
    arguments = ("--series-table", table, "-o", out, "--no-pictures")
    done = lumbar("predict", dataset / "train_images", *arguments)
    (study,) = json.loads((out / "predictions.json").read_text())["studies"]
    return done.exit_code, study


def test_a_table_with_t1_and_t2_exchanged_gives_the_same_grades(dataset: Path, tmp_path: Path) -> None:
    right = dataset / "train_series_descriptions.csv"
    exchanged = tmp_path / "exchanged.csv"
    text = right.read_text()
    exchanged.write_text(text.replace(T1.value, "?").replace(T2.value, T1.value).replace("?", T2.value))
    assert exchanged.read_text() != text
    (code, study), (other_code, other) = (
        graded(dataset, table, tmp_path / table.stem) for table in (right, exchanged)
    )
    assert "is doubtful" in (tmp_path / "exchanged/reports" / other["study_id"] / "report.html").read_text()
    assert (code, other_code) == (0, 3)
    assert other["targets"] == study["targets"]
    assert other["levels"] == study["levels"]
    said = {item["series_id"]: item["message"] for item in other["rejections"]}
    kinds = dict(line.split(",")[1:3] for line in text.splitlines()[1:])
    for series_id, kind in kinds.items():
        if kind in (T1.value, T2.value):
            assert said.pop(series_id).endswith(f"taken for {kind}")
    assert not said
    assert not [item for item in study["rejections"] if item["reason"] == Reason.KIND_DISAGREES]
    assert "series_kind_doubtful" in other["flags"] and "series_kind_guessed" not in other["flags"]
    assert "series_kind_doubtful" not in study["flags"]


@pytest.mark.parametrize(("shown", "called", "seed"), [(T1, T2, SEED), (T2, T1, SEED), (T1, T2, 200_420)])
def test_one_series_alone_under_the_other_name_is_told(
    shown: SeriesKind, called: SeriesKind, seed: int, bundled_pipeline: Pipeline
) -> None:
    """Of the last one the discs tell, which are brighter, too: over the vertebrae the canal is at .61."""
    study = make_study(seed).study
    alone = [item for item in study.series if item.kind not in (T1, T2) or item.kind is shown]
    named = [replace(item, kind=called) if item.kind is shown else item for item in alone]
    for series, is_told in ((alone, False), (named, True)):
        prediction = bundled_pipeline.predict_study(replace(study, series=tuple(series)))
        reasons = [item.reason for item in prediction.rejections]
        assert reasons == [Reason.KIND_DISAGREES] * is_told
        assert ("series_kind_doubtful" in prediction.flags) is is_told


@pytest.mark.parametrize("source", ["header", "assumed"])
def test_axial_images_with_dark_fluid_are_told(source: str, bundled_pipeline: Pipeline) -> None:
    """Of an axial series that nothing names, T2 is a guess, which such images contradict: it is not used."""
    study = make_study(SEED).study

    def negative(item: Slice) -> Slice:
        return replace(item, read_pixels=lambda: item.pixels().max() - item.pixels())

    def dark(series: Series) -> Series:
        return replace(series.changed(negative), kind_source=source)

    series = tuple(dark(item) if item.kind is SeriesKind.AXIAL_T2 else item for item in study.series)
    prediction = bundled_pipeline.predict_study(replace(study, series=series))
    (said,) = prediction.rejections
    is_left_out = source == "assumed"
    assert said.reason == (Reason.UNKNOWN_KIND if is_left_out else Reason.KIND_DISAGREES)
    assert ("series_kind_doubtful" in prediction.flags) is not is_left_out
    assert ("no_axial_t2" in prediction.flags) is is_left_out
    recesses = [g for t, g in prediction.grades.items() if t.condition.group is ConditionGroup.SUBARTICULAR]
    assert all(grade.source.is_graded is not is_left_out for grade in recesses)
