"""What headers and disks say is text: no formula in a table, no markup in a page, nothing to a terminal."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_prep.names import csv_cell, safe_id
from pipeline.cli import app
from pipeline.grade import Pipeline
from tests.dicom_files import AXIAL, SAGITTAL, write_series
from tests.pipeline.stand_in import stand_in_pipeline

EVIL = '=HYPERLINK("//x","<script>alert(1)</script>")\x1b[31m\r\x07'
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202e]")


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A tree of two studies whose every name and identifier is hostile, one file of it broken."""
    folder = tmp_path / "in" / f"{EVIL.replace('/', '|')}"
    for number, start in enumerate(("=", "@")):
        for series, orientation, description in ((1, SAGITTAL, "T1"), (2, SAGITTAL, "T2"), (3, AXIAL, "T2")):
            write_series(
                folder / f"+{number}\x1b]0;title\x07" / f"-{series}",
                orientation=orientation,
                description=f"{description} {EVIL[:40]}",
                study_uid=f"{start}{EVIL[1:]}",
                series_uid=f"{start}{series}{EVIL[1:]}",
            )
    (folder / "+0\x1b]0;title\x07" / "-1" / "<b>\x1b[2J.dcm").write_text("no image")
    return folder.parent


@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value length")
def test_hostile_names_are_text_everywhere(
    evil: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "load", classmethod(lambda cls, **_: stand_in_pipeline()))
    out = tmp_path / "out"
    for arguments in (
        ["predict", str(evil), "-o", str(out), "--verbose"],
        ["predict", str(evil), "-o", str(out), "--json", "--no-pictures"],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 3, result.output
        assert "[not_dicom]" in result.stderr
        assert CONTROL.search(result.stdout + result.stderr) is None
    pages = [out / "index.html", *out.rglob("report.html")]
    assert len(pages) == 3
    for page in pages:
        text = page.read_text()
        assert "<script>alert" not in text and "<b>" not in text and "Study" in text
    with (out / "submission.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 51
    assert all(cell[0] not in "=+-@\t\r" for row in rows for cell in row)
    for path in out.rglob("*"):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", path.name), path.name
        if path.suffix in (".json", ".csv"):
            assert CONTROL.search(path.read_text()) is None


def test_two_hostile_identifiers_stay_two() -> None:
    assert safe_id("=1") != safe_id("@1") != safe_id("1")
    assert csv_cell("=1+1") == "'=1+1" and csv_cell("\t=1") == "?=1"
