"""Protects: a series of another part of the patient passes for no lumbar one; missing slices are named."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from data_prep.phantom import make_study
from data_prep.study import Slice, Study
from data_prep.vocabulary import ConditionGroup, SeriesKind
from pipeline.grade import Pipeline
from pipeline.prediction import StudyPrediction
from tests.command_line import lumbar
from tests.detector.spine.test_region import elsewhere
from tests.pipeline.stand_in import write_study

SEED = 5
KINDS = {
    SeriesKind.SAGITTAL_T1: ("no_sagittal_t1", ConditionGroup.FORAMINAL),
    SeriesKind.AXIAL_T2: ("no_axial_t2", ConditionGroup.SUBARTICULAR),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_shows_the_neck_is_no_lumbar_series(kind: SeriesKind, bundled_pipeline: Pipeline) -> None:
    study = make_study(SEED, size="small").study
    series = tuple(elsewhere(item, item.series_id) if item.kind is kind else item for item in study.series)
    prediction = bundled_pipeline.predict_study(Study("1", series))
    flag, group = KINDS[kind]
    assert flag in prediction.flags
    graded = {
        target.condition.group
        for target, grade in prediction.grades.items()
        if grade.source in ("seen", "predicted")
    }
    assert graded == set(ConditionGroup) - {group}


@cache
def graded_alone(seed: int, pipeline: Pipeline) -> StudyPrediction:
    """A patient whose series show all levels."""
    return pipeline.predict_study(make_study(seed, view="whole").study)


def with_a_cut_series(seed: int, kind: SeriesKind, *, cut_first: bool) -> Study:
    """The same patient with another series of a kind, whose field of view lacks levels."""
    whole, cut = (make_study(seed, view=view).study for view in ("whole", "cut"))
    (usual,), (lacking,) = whole.of_kind(kind), cut.of_kind(kind)
    others = [item for item in whole.series if item is not usual]
    ids = ("1", "2") if cut_first else ("2", "1")
    both = (replace(lacking, series_id=ids[0]), replace(usual, series_id=ids[1]), *others)
    return replace(whole, series=both)


@pytest.mark.parametrize("seed", [208_000, 208_006], ids=["below the lumbar spine", "above the sacrum"])
@pytest.mark.parametrize("first", [True, False])
def test_a_t2_of_all_levels_leads_beside_one_that_lacks_some(
    seed: int, first: bool, bundled_pipeline: Pipeline
) -> None:
    """As a study of the thoracic spine beside it gives one, whichever comes first."""
    alone = graded_alone(seed, bundled_pipeline)
    prediction = bundled_pipeline.predict_study(
        with_a_cut_series(seed, SeriesKind.SAGITTAL_T2, cut_first=first)
    )
    assert prediction.flags == alone.flags == ()
    assert len(prediction.measurements) == len(alone.measurements)
    for target, grade in prediction.grades.items():
        assert grade.source == alone.grades[target].source
        assert np.abs(grade.probabilities - alone.grades[target].probabilities).max() < 0.05


@pytest.mark.parametrize("first", [True, False])
def test_foramina_are_looked_for_on_the_t1_that_shows_them(first: bool, bundled_pipeline: Pipeline) -> None:
    alone = graded_alone(208_000, bundled_pipeline)
    prediction = bundled_pipeline.predict_study(
        with_a_cut_series(208_000, SeriesKind.SAGITTAL_T1, cut_first=first)
    )
    assert prediction.flags == alone.flags == ()
    assert {target: grade.source for target, grade in prediction.grades.items()} == {
        target: grade.source for target, grade in alone.grades.items()
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_slices_that_end_before_the_spine_are_of_the_same_part(
    kind: SeriesKind, bundled_pipeline: Pipeline
) -> None:
    """Nothing can be graded on them, which each target says, but the series is there."""

    def cut(item: Slice) -> Slice:
        rows, columns = item.plane.shape
        shape = (rows, columns // 5) if kind is SeriesKind.SAGITTAL_T1 else (rows // 5, columns)
        return replace(
            item,
            plane=replace(item.plane, shape=shape),
            read_pixels=lambda: item.pixels()[: shape[0], : shape[1]],
        )

    study = make_study(SEED, size="small").study
    series = tuple(item.changed(cut) if item.kind is kind else item for item in study.series)
    prediction = bundled_pipeline.predict_study(Study("1", series))
    flag, group = KINDS[kind]
    assert flag not in prediction.flags
    own = [grade for target, grade in prediction.grades.items() if target.condition.group is group]
    assert all(grade.flags == ("no_slice",) for grade in own)


def test_a_middle_slice_of_t1_alone_is_no_series_of_foramina(bundled_pipeline: Pipeline) -> None:
    study = make_study(SEED, size="small").study
    series = tuple(
        replace(item, stacks=((item.slices[len(item.slices) // 2],),))
        if item.kind is SeriesKind.SAGITTAL_T1
        else item
        for item in study.series
    )
    assert "no_sagittal_t1" in bundled_pipeline.predict_study(Study("1", series)).flags


@pytest.mark.usefixtures("stand_in")
def test_missing_slices_are_in_every_result(tmp_path: Path) -> None:
    """Exit 3, a line on stderr, and a flag in record, report and SR; a whole study has none."""
    images, out = tmp_path / "test_images", tmp_path / "out"
    write_study(images, "501")
    (write_study(images, "502") / "12" / "3.dcm").unlink()
    done = lumbar("predict", images, "-o", out, "--sr", "--no-pictures")
    assert done.exit_code == 3, done.output
    words = "at least 1 slice of the sagittal series is missing: there are gaps between its images"
    assert f"missing [slices_missing] 502/12: {words}" in done.stderr
    assert "what to do about slices_missing: export the series again, whole" in done.stderr
    records = {
        item["study_id"]: item for item in json.loads((out / "predictions.json").read_text())["studies"]
    }
    for study, is_whole in (("501", True), ("502", False)):
        assert ("slices_missing" in records[study]["flags"]) != is_whole
        page = (out / "reports" / study / "report.html").read_text()
        assert (f"502/12 is incomplete: {words}" in page) != is_whole
        assert ("Slices of a series are missing" in page) != is_whole
        assert (b"slices_missing" in (out / "sr" / f"{study}.dcm").read_bytes()) != is_whole
    (row,) = [row for row in records["502"]["series"] if row["series_id"] == "12"]
    assert row["slices"] == 4 and row["plane"] == "sagittal"


@pytest.mark.usefixtures("stand_in")
def test_many_copies_of_an_image_are_one_line(tmp_path: Path) -> None:
    study = write_study(tmp_path / "test_images", "501")
    content = (study / "12" / "3.dcm").read_bytes()
    for number in range(100):
        (study / "12" / f"{1000 + number}.dcm").write_bytes(content)
    done = lumbar("predict", study.parent, "-o", tmp_path / "out", "--no-pictures")
    (line,) = [line for line in done.stderr.splitlines() if "[duplicate_instance]" in line]
    assert done.exit_code == 3 and line.endswith("(so are 99 more files of it)")
    record = json.loads((tmp_path / "out" / "predictions.json").read_text())["studies"][0]
    assert sum(item["reason"] == "duplicate_instance" for item in record["rejections"]) == 100
    page = next((tmp_path / "out" / "reports").rglob("report.html")).read_text()
    assert "(so are 99 more files of it)" in page
