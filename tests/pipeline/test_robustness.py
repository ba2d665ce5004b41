"""Broken studies through the command line with the bundled models: named with a reason, and nothing lost."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless
from typer.testing import CliRunner, Result

from classifier.expected import Expectations
from classifier.prior import level_prior
from data_prep.vocabulary import SEVERITIES, Condition, ConditionGroup, Level, SeriesKind, Target
from pipeline.cli import app
from pipeline.commands.console import NAMED_OF_A_CODE
from pipeline.grade import Pipeline
from pipeline.results.submission import read_submission, validate_submission
from pipeline.results.words import SOURCE_NAMES, SOURCE_WORDS


@pytest.fixture(autouse=True)
def loaded_once(bundled_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "load", classmethod(lambda cls, **_: bundled_pipeline))


def studies_in(data: Path) -> list[Path]:
    return sorted((data / "train_images").iterdir())


def series_folder(study: Path, kind: SeriesKind) -> Path:
    """The first series of a kind, from the table of the data set."""
    with (study.parents[1] / "train_series_descriptions.csv").open(newline="") as file:
        return next(
            study / row["series_id"]
            for row in csv.DictReader(file)
            if (row["study_id"], row["series_description"]) == (study.name, kind.value)
        )


def lumbar(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def predict(path: Path, out: Path, *, exit_code: int) -> tuple[list[dict[str, Any]], Result]:
    """The records of the studies; the submission has been found valid."""
    result = lumbar("predict", path, "-o", out, "--no-pictures", "--no-report")
    assert result.exit_code == exit_code, result.output
    records = json.loads((out / "predictions.json").read_text())["studies"]
    validate_submission(read_submission(out / "submission.csv"), [record["study_id"] for record in records])
    refused = out / "refused.csv"
    named = result.stderr + (refused.read_text() if refused.exists() else "")
    for record in records:
        for item in record["rejections"]:
            assert f"[{item['reason']}]" in result.stderr and item["file"] in named
    return records, result


def spoil_pixels(path: Path) -> None:
    """A header that is whole, in front of RLE segments that cannot be decoded."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.PixelData = encapsulate([b"\x01\0\0\0\x40\0\0\0" + b"\xff" * 200])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path)


def truncate(study: Path) -> tuple[str, str]:
    path = series_folder(study, SeriesKind.SAGITTAL_T2) / "5.dcm"
    path.write_bytes(path.read_bytes()[:700])
    return "truncated", "5.dcm"


def cut_pixels(study: Path) -> tuple[str, str]:
    path = series_folder(study, SeriesKind.AXIAL_T2) / "5.dcm"
    path.write_bytes(path.read_bytes()[:-200])
    return "truncated", "5.dcm"


def add_text(study: Path) -> tuple[str, str]:
    (series_folder(study, SeriesKind.SAGITTAL_T1) / "notes.dcm").write_text("no image")
    return "not_dicom", "notes.dcm"


def add_copy(study: Path) -> tuple[str, str]:
    folder = series_folder(study, SeriesKind.AXIAL_T2)
    shutil.copy(folder / "5.dcm", folder / "905.dcm")
    return "duplicate_instance", "905.dcm"


def add_loose_image(study: Path) -> tuple[str, str]:
    shutil.copy(series_folder(study, SeriesKind.AXIAL_T2) / "5.dcm", study / "loose.dcm")
    return "misplaced_file", "loose.dcm"


def add_dead_link(study: Path) -> tuple[str, str]:
    (series_folder(study, SeriesKind.AXIAL_T2) / "link.dcm").symlink_to(study / "nowhere")
    return "unreadable", "link.dcm"


@pytest.mark.parametrize("damage", [truncate, cut_pixels, add_text, add_copy, add_loose_image, add_dead_link])
def test_a_bad_file_is_named_and_its_study_is_graded(
    data: Path, tmp_path: Path, damage: Callable[[Path], tuple[str, str]]
) -> None:
    study = studies_in(data)[0]
    expected = damage(study)
    (record,), _ = predict(study, tmp_path / "out", exit_code=3)
    # A file in the middle of its series that cannot be read is also a slice that it lacks.
    lacks = [("slices_missing", "")] if expected[0] == "truncated" else []
    assert [(item["reason"], item["file"]) for item in record["rejections"]] == [expected, *lacks]
    assert not record["rejected"]
    assert all(record["levels"].values())


def test_slices_that_cannot_be_decoded_are_listed_once_each(data: Path, tmp_path: Path) -> None:
    study = studies_in(data)[0]
    spoilt = set()
    for kind in SeriesKind:
        for path in sorted(series_folder(study, kind).iterdir())[::2]:
            spoil_pixels(path)
            spoilt.add((path.parent.name, path.name))
    (record,), result = predict(study, tmp_path / "out", exit_code=3)
    assert {item["reason"] for item in record["rejections"]} == {"bad_pixels"}
    listed = [(item["series_id"], item["file"]) for item in record["rejections"]]
    assert len(listed) == len(set(listed)) and set(listed) <= spoilt
    # The detector looks at the middle of T2 and T1, the graders at all three kinds.
    assert {series for series, _ in listed} == {series for series, _ in spoilt}
    assert not record["rejected"]
    assert len(listed) > NAMED_OF_A_CODE
    assert result.stderr.count("[bad_pixels]") == NAMED_OF_A_CODE + 1  # the last line counts the others


def test_a_study_without_any_pixels_gets_the_prior_and_says_so(data: Path, tmp_path: Path) -> None:
    study = studies_in(data)[0]
    for path in study.rglob("*.dcm"):
        spoil_pixels(path)
    (record,), _ = predict(study, tmp_path / "out", exit_code=3)
    assert "no_level_found" in record["flags"]
    assert {target["source"] for target in record["targets"]} == {"prior"}
    assert len(record["rejections"]) >= 7


def blacken(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    if dataset.file_meta.TransferSyntaxUID == RLELossless:
        dataset.decompress()
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(path)


@pytest.mark.parametrize("spoil", [spoil_pixels, blacken])
def test_a_t2_that_shows_nothing_makes_way_for_the_other_series(
    data: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """As if it were not there: a bad series never costs its study what others show."""
    study = studies_in(data)[0]
    folder = series_folder(study, SeriesKind.SAGITTAL_T2)
    for path in folder.iterdir():
        spoil(path)
    (spoilt,), _ = predict(study, tmp_path / "a", exit_code=3 if spoil is spoil_pixels else 0)
    shutil.rmtree(folder)
    (without,), _ = predict(study, tmp_path / "b", exit_code=3)
    assert "no_sagittal_t2" in spoilt["flags"] and all(spoilt["levels"].values())
    assert [target["probabilities"] for target in spoilt["targets"]] == [
        target["probabilities"] for target in without["targets"]
    ]


@pytest.mark.parametrize("spoil", [spoil_pixels, blacken])
@pytest.mark.parametrize("kind", SeriesKind)
def test_a_series_that_shows_nothing_displaces_no_other(
    data: Path, tmp_path: Path, kind: SeriesKind, spoil: Callable[[Path], None]
) -> None:
    """Whichever of the two would lead."""
    study = studies_in(data)[0]
    (plain,), _ = predict(study, tmp_path / "plain", exit_code=0)
    folder = series_folder(study, kind)
    table = study.parents[1] / "train_series_descriptions.csv"
    for copy in ("1", "9999999999"):
        shutil.copytree(folder, study / copy)
        for path in (study / copy).iterdir():
            spoil(path)
        with table.open("a") as file:
            file.write(f"{study.name},{copy},{kind.value}\n")
    (record,), _ = predict(study, tmp_path / "beside", exit_code=3)
    said = [(item["reason"], item["series_id"], item["file"]) for item in record["rejections"]]
    assert said == [("bad_pixels", "1", ""), ("bad_pixels", "9999999999", "")]
    assert record["flags"] == plain["flags"]
    assert [target["probabilities"] for target in record["targets"]] == [
        target["probabilities"] for target in plain["targets"]
    ]


@pytest.mark.parametrize(
    ("left_out", "flag", "unseen"),
    [
        ([SeriesKind.SAGITTAL_T2], "no_sagittal_t2", set()),
        ([SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1], "no_sagittal", set(ConditionGroup)),
        ([SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2], "no_axial_t2", {"spinal", "subarticular"}),
        ([SeriesKind.SAGITTAL_T1], "no_sagittal_t1", {"foraminal"}),
        ([SeriesKind.AXIAL_T2], "no_axial_t2", {"subarticular"}),
    ],
)
def test_what_a_missing_series_would_show_is_not_graded_and_gets_a_flag(
    data: Path, tmp_path: Path, left_out: list[SeriesKind], flag: str, unseen: set[str]
) -> None:
    study = studies_in(data)[0]
    for kind in left_out:
        shutil.rmtree(series_folder(study, kind))
    (record,), _ = predict(study, tmp_path / "out", exit_code=3)
    assert flag in record["flags"]
    assert [item["reason"] for item in record["rejections"]] == ["listed_series_missing"] * len(left_out)
    assert not record["rejected"]
    for target in record["targets"]:
        group = Condition(target["condition"]).group
        not_seen = "prior" if len(unseen) == len(ConditionGroup) else "expected"
        assert (target["source"] == not_seen) == (group in unseen)
        # The canal is read on axial slices, too: where they alone show it, that is said.
        alone = group is ConditionGroup.SPINAL and SeriesKind.SAGITTAL_T2 in left_out
        assert bool(target["flags"]) == (group in unseen or alone)
        assert not alone or group in unseen or target["flags"] == ["axial_only"]


def test_recesses_without_axial_slices_are_expected_from_what_was_graded(data: Path, tmp_path: Path) -> None:
    """Every output says so, grades of what was seen do not change, and nobody calls it a finding."""
    study = studies_in(data)[0]
    shutil.rmtree(series_folder(study, SeriesKind.AXIAL_T2))
    out = tmp_path / "out"
    result = lumbar("predict", study, "-o", out, "--sr", "--kos", "--bids")
    assert "not graded (10 expected from the other grades of their level)" in " ".join(result.output.split())
    (record,) = json.loads((out / "predictions.json").read_text())["studies"]
    plain = Pipeline.load()
    without = Pipeline(plain.detector, replace(plain.grader, expectations=Expectations()))
    before = without.predict(study)[0].grades
    for target in record["targets"]:
        place = Target(Condition(target["condition"]), Level(target["level"]))
        p = np.array([target["probabilities"][severity.column] for severity in SEVERITIES])
        assert target["flags"] == list(before[place].flags)
        if place.condition.group is ConditionGroup.SUBARTICULAR:
            assert (target["source"], before[place].source) == ("expected", "prior")
            assert np.abs(p - level_prior(place)).max() > 0.001 and p.sum() == pytest.approx(1)
        else:
            assert target["source"] == before[place].source
            np.testing.assert_allclose(p, before[place].probabilities, atol=1e-8)

    with (out / "targets.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "expected"]
    assert len(rows) == 10 and {(row["grade"], row["probability"]) for row in rows} == {("", "")}
    (report,) = (out / "reports").rglob("report.html")
    page = report.read_text()
    assert page.count(SOURCE_WORDS["expected"]) == 11  # ten cells, and how each grade was made
    assert (
        f"{SOURCE_NAMES['expected']} (10 of 25)" in page and "Lateral recess stenosis not assessed." in page
    )
    (tables,) = (out / "bids").rglob("*_grades.tsv")
    with tables.open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["source"] == "expected"]
    assert len(rows) == 10 and {row["severity"] for row in rows} == {"n/a"}
    (sr,) = (out / "sr").rglob("*.dcm")
    said = [item.TextValue for item in walk(pydicom.dcmread(sr)) if "TextValue" in item]
    assert sum("recess" in text and text.endswith("not graded (no_series)") for text in said) == 10


def walk(part: Any) -> Iterator[Any]:
    """A content tree, item by item."""
    yield part
    for item in part.get("ContentSequence", ()):
        yield from walk(item)


def test_a_bad_study_among_good_ones_and_a_listed_one_keep_their_rows(data: Path, tmp_path: Path) -> None:
    bad, good = studies_in(data)
    for path in bad.rglob("*.dcm"):
        path.write_bytes(b"")
    with (data / "train_series_descriptions.csv").open("a") as file:
        file.write("424242,1,Axial T2\n")
    records, _ = predict(data, tmp_path / "out", exit_code=3)
    assert [(r["study_id"], r["rejected"]) for r in records] == [
        ("424242", True),
        (bad.name, True),
        (good.name, False),
    ]
    assert [record["rejections"][-1]["reason"] for record in records[:2]] == ["no_images", "no_usable_series"]


def test_folder_names_of_any_script_are_read_and_never_written(data: Path, tmp_path: Path) -> None:
    studies = studies_in(data)
    studies[0].rename(studies[0].with_name("Müller Ünïcode 患者"))
    records, _ = predict(data / "train_images", tmp_path / "out", exit_code=0)
    assert [record["study_id"] for record in records] == [study.name for study in studies]
    for path in (tmp_path / "out").rglob("*"):
        assert path.name.isascii()
