"""Protects: results that lie in their input are no patient's, and hide none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pydicom
import pytest
from click.testing import Result

from tests.command_line import lumbar
from tests.pipeline.stand_in import write_study

OBJECTS = ("--sr", "comprehensive", "--sc", "--gsps", "--kos", "--bids")
NAMES = (
    *("submission.csv", "targets.csv", "refused.csv", "predictions.json", "index.html"),
    *("pictures/501.png", "reports/501/report.html", "studies/501.json"),
    *("sc/501.dcm", "kos/501.dcm", "gsps/501/11.dcm"),
)


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


@pytest.mark.usefixtures("stand_in")
def test_results_of_another_patient_never_stay_under_a_study_s_name(tmp_path: Path) -> None:
    """A study that is graded anew: by its folder it has the name that somebody else had."""
    top, out = tmp_path / "in", tmp_path / "out"

    def results(study_id: str) -> set[str]:
        found = (path.relative_to(out) for path in out.rglob("*") if path.is_file())
        return {place.parts[0] for place in found if study_id in place.as_posix()} - {"studies"}

    write_patient(top, "501")
    write_patient(top, "602")
    assert lumbar("predict", top, "-o", out, *OBJECTS[:-1]).exit_code in (0, 3)
    every = results("602")
    assert results("501") == every >= {"reports", "pictures", "sr", "sc", "gsps", "kos"}
    graded = (out / "reports" / "501" / "report.html").read_bytes()
    # The same images, fewer results: the others are as good as they were.
    assert lumbar("predict", top / "501", "-o", out, "--sr", "3d", "--no-pictures").exit_code in (0, 3)
    assert results("501") == every and (out / "reports" / "501" / "report.html").read_bytes() == graded
    for path in (top / "501").rglob("*.dcm"):
        path.write_bytes(b"nothing")
    said = lumbar("predict", top / "501", "-o", out, "--sr", "3d", "--no-pictures")
    assert said.exit_code == 3 and "results of 1 more study from earlier runs" in said.stderr
    assert results("501") == {"reports"} and (out / "reports" / "501" / "report.html").read_bytes() != graded
    assert results("602") == every


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_somebody_else_is_never_overwritten(tmp_path: Path, name: str) -> None:
    """A submission of one's own beside ``train_images``, say."""
    write_study(tmp_path / "in", "501")
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("row_id,normal_mild,moderate,severe\n")

    with_objects = ("predict", tmp_path / "in", "-o", out, *OBJECTS[2:-1])
    done = lumbar(*with_objects)
    assert done.exit_code == 1
    assert f"'out' holds a {name} that this program did not write" in " ".join(done.stderr.split())
    assert "what to do: choose another folder, or move the file away" in done.stderr
    assert [path for path in out.rglob("*") if path.is_file()] == [out / name]
    assert (out / name).read_text() == "row_id,normal_mild,moderate,severe\n"
    # One that is not made now is left alone.
    if name.startswith(("sc", "kos", "gsps")):
        assert lumbar("predict", tmp_path / "in", "-o", out).exit_code == 0
        assert (out / name).read_text() == "row_id,normal_mild,moderate,severe\n"
        (out / name).unlink()
        assert lumbar(*with_objects).exit_code == 0


@pytest.mark.usefixtures("stand_in")
def test_what_an_earlier_run_wrote_is_written_anew(tmp_path: Path) -> None:
    """Every file that the test before puts in the way."""
    write_study(tmp_path / "in", "501")
    out = tmp_path / "out"

    def predict() -> Result:
        return lumbar("predict", tmp_path / "in", "-o", out, *OBJECTS[2:-1])

    for _ in range(2):
        assert predict().exit_code == 0
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written >= set(NAMES)
    # Without the records, which somebody may remove, and after a run that was killed before its last table.
    shutil.rmtree(out / "studies")
    assert predict().exit_code == 0
    (out / "predictions.json").unlink()
    assert predict().exit_code == 0


@pytest.mark.usefixtures("stand_in")
def test_a_picture_of_somebody_else_is_never_drawn_over(tmp_path: Path) -> None:
    """By ``show``, which calls its pictures after study and series."""
    write_study(tmp_path / "in", "501")
    for _ in range(2):
        assert lumbar("show", tmp_path / "in", "-o", tmp_path / "out").exit_code == 0
    drawn = sorted((tmp_path / "out").glob("501*.png"))
    assert len(drawn) > 1
    for path in drawn:
        before = path.read_bytes()
        path.write_bytes(b"mine")
        done = lumbar("show", tmp_path / "in", "-o", tmp_path / "out")
        assert done.exit_code == 1 and f"'out' holds a {path.name} that this program" in done.stderr
        assert path.read_bytes() == b"mine"
        path.write_bytes(before)
