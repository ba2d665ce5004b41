"""Protects: results that lie in their input are no patient's, and hide none."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest

from tests.command_line import lumbar
from tests.pipeline.stand_in import write_study

OBJECTS = ("--sr", "comprehensive", "--sc", "--gsps", "--kos", "--bids")


def write_patient(folder: Path, study_id: str) -> None:
    for path in sorted(write_study(folder, study_id).rglob("*.dcm")):
        dataset = pydicom.dcmread(path)
        dataset.PatientID, dataset.PatientName = f"P{study_id}", f"Canary^{study_id}"
        dataset.StudyInstanceUID = f"1.2.{study_id}"
        dataset.SeriesInstanceUID = f"1.2.{study_id}.{path.parent.name}"
        dataset.SOPInstanceUID = f"{dataset.SeriesInstanceUID}.{path.stem}"
        dataset.save_as(path, enforce_file_format=True)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("layout", ["rsna", "tree"])
def test_an_output_folder_in_its_input_changes_nothing_and_hides_nobody(tmp_path: Path, layout: str) -> None:
    """Every kind of result; then a second patient comes, in a folder that is called as one of ours."""
    top = tmp_path / "in"
    place = top if layout == "rsna" else top / "a"
    write_patient(place, "501")

    def graded() -> tuple[list[str], list[object], int]:
        done = lumbar("predict", top, "-o", top, *OBJECTS, "--json")
        assert done.exit_code in (0, 3), done.stderr
        told = json.loads(done.stdout)
        studies = json.loads((top / "predictions.json").read_text())["studies"]
        return [study["study_id"] for study in studies], told["rejections"], told["resumed"]

    ids, said, _ = graded()
    assert len(ids) == 1
    assert sum(len(list((top / kind).rglob("*.dcm"))) for kind in ("sr", "sc", "gsps")) >= 3
    assert graded() == (ids, said, 1)
    write_patient(top / "sc", "602")
    again, _, resumed = graded()
    assert len(again) == 2 and set(ids) < set(again) and resumed == 1
