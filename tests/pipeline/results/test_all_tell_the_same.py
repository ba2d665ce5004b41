"""Whatever a result is read from, it tells the same grades, sides, levels and flags, and no others."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from data_prep.read.find import find_studies
from data_prep.vocabulary import Condition, GradeSource, Level, SeriesKind
from pipeline.batch.run import run_batch
from pipeline.results.bids import write_derivatives
from pipeline.results.dicom import ResultObject
from pipeline.results.dicom.write import DicomResults
from pipeline.results.report.study_report import write_report
from pipeline.results.words import flag_words, place_words
from tests.pipeline.stand_in import KINDS, stand_in_pipeline, write_study, write_table

GRADE = re.compile(r"(L\d/[LS]\d (?:left |right )?(?:canal|foramen|recess)): (Normal/Mild|Moderate|Severe)\b")
ALL = DicomResults(set(ResultObject) - {ResultObject.SC})

Graded = Mapping[str, str]


@pytest.fixture(scope="module", params=["whole", "without T1", "a file that is no image"])
def graded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    study = write_study(folder / "images", "501")
    write_table(folder / "images", ["501"])
    if request.param == "without T1":
        (t1,) = (series for series, kind in KINDS.items() if kind is SeriesKind.SAGITTAL_T1)
        for path in (study / t1).iterdir():
            path.unlink()
    elif request.param == "a file that is no image":
        (study / "11" / "9.dcm").write_text("no image")
    out = folder / "out"
    done = run_batch(stand_in_pipeline(), find_studies(study), out, report=write_report, dicom=ALL)
    write_derivatives(json.loads(done.predictions.read_text()), out / "bids")
    return out


def record_of(out: Path) -> dict[str, Any]:
    (study,) = json.loads((out / "predictions.json").read_text())["studies"]
    return dict(study)


def name_of(row: Mapping[str, Any]) -> str:
    return f"{Level(row['level']).label} {place_words(Condition(row['condition']))}"


def told(record: Mapping[str, Any]) -> Graded:
    """Target → severity of what was graded."""
    return {
        name_of(row): row["severity"] for row in record["targets"] if GradeSource(row["source"]).is_graded
    }


def texts_in(items: Iterable[Dataset]) -> Iterator[str]:
    for item in items:
        if item.get("ValueType") == "TEXT":
            yield str(item.TextValue)
        yield from texts_in(item.get("ContentSequence", []))


def said_in(path: Path) -> list[str]:
    """The texts of a DICOM object."""
    data = pydicom.dcmread(path)
    shown = [
        str(text.UnformattedTextValue)
        for annotation in data.get("GraphicAnnotationSequence", [])
        for text in annotation.TextObjectSequence
    ]
    return [*shown, *texts_in(data.get("ContentSequence", []))]


def test_reports_in_dicom(graded: Path) -> None:
    record = record_of(graded)
    for kind in ("sr", "sr-comprehensive"):
        texts = said_in(graded / kind / "501.dcm")
        assert dict(GRADE.findall("\n".join(texts))) == told(record)
        assert {text.split(":")[0] for text in texts if text.startswith("flag ")} == {
            f"flag {flag}" for flag in record["flags"]
        }
        for row in record["rejections"]:
            assert any(f"{row['reason']} x " in text for text in texts)


def test_overlays_and_key_objects(graded: Path) -> None:
    record = record_of(graded)
    overlays = [said_in(path) for path in sorted((graded / "gsps" / "501").glob("*.dcm"))]
    shown = dict(GRADE.findall("\n".join(text for texts in overlays for text in texts)))
    assert shown == told(record)
    flags = f"flags: {', '.join(record['flags'])}"
    assert all(flags in texts for texts in overlays)
    key = "\n".join(said_in(graded / "kos" / "501.dcm"))
    assert dict(GRADE.findall(key)) == {n: s for n, s in told(record).items() if s != "Normal/Mild"}
    assert all(f"flag {flag}:" in key for flag in record["flags"])


def test_tables(graded: Path) -> None:
    record = record_of(graded)
    with (graded / "targets.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {name_of(row): row["grade"] for row in rows if row["grade"]} == told(record)
    (path,) = (graded / "bids").rglob("*_grades.tsv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {name_of(row): row["severity"] for row in rows if row["severity"] != "n/a"} == told(record)
    assert json.loads(path.with_suffix(".json").read_text())["Flags"] == record["flags"]


def test_the_report_for_people(graded: Path) -> None:
    record = record_of(graded)
    page = html.unescape((graded / "reports" / "501" / "report.html").read_text())
    assert all(flag_words(flag) in page for flag in record["flags"])
    assert page.count("Not graded.") >= sum(
        not GradeSource(row["source"]).is_graded for row in record["targets"]
    )
