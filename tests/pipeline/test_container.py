"""The entry point of the container, started as routers start it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest

from pipeline.container.modules import SettingsRejected, mercure_settings
from tests.pipeline.test_privacy import canary_elements
from tests.pipeline.warm_program import run_warm, start_warm

ROOT = Path(__file__).resolve().parents[2]


def start(**environment: Path) -> subprocess.CompletedProcess[bytes]:
    given = {name: str(value) for name, value in environment.items()}
    return run_warm("pipeline.container", [], environment=given, cwd=ROOT)


def as_a_router_delivers(study: Path, folder: Path) -> Path:
    """All files of a study in one folder, as mercure and MONAI put them."""
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted(study.rglob("*.dcm"))):
        shutil.copyfile(path, folder / f"{number:04d}.dcm")
    return folder


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from data_prep.phantom import write_dataset

    folder = tmp_path_factory.mktemp("router")
    write_dataset(folder / "data", studies=1, seed=5, size="small", headers="pacs")
    (study,) = (folder / "data" / "train_images").iterdir()
    return as_a_router_delivers(study, folder / "in")


def test_as_a_mercure_module(delivered: Path, tmp_path: Path) -> None:
    inside = Path(shutil.copytree(delivered, tmp_path / "in"))
    settings = {"sc": False, "forward": True}
    (inside / "task.json").write_text(json.dumps({"id": "1", "process": {"settings": settings}}))
    (tmp_path / "out").mkdir()

    done = start(MERCURE_IN_DIR=inside, MERCURE_OUT_DIR=tmp_path / "out")

    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    (study,) = result["studies"]
    assert len(study["grades"]) == 25
    assert not study["rejected"]
    assert result["__mercure_notification"] == {"requested": False, "text": "1 of 1 studies graded."}
    written = sorted(path.name for path in (tmp_path / "out").glob("lumbar-*.dcm"))
    assert [name.split("-")[1] for name in written] == ["sr"]
    report = pydicom.dcmread(tmp_path / "out" / written[0])
    image = pydicom.dcmread(inside / "0000.dcm", stop_before_pixels=True)
    assert report.Modality == "SR"
    assert report.StudyInstanceUID == image.StudyInstanceUID
    assert report.PatientID == image.PatientID
    forwarded = {path.name for path in (tmp_path / "out").glob("[0-9]*.dcm")}
    assert forwarded == {path.name for path in inside.glob("*.dcm")}


def test_a_router_is_told_no_grade_of_what_was_not_graded(delivered: Path, tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    for path in sorted(delivered.glob("*.dcm")):
        if "T1" not in str(pydicom.dcmread(path, stop_before_pixels=True).SeriesDescription):
            shutil.copyfile(path, inside / path.name)
    (tmp_path / "out").mkdir()
    settings = {"sc": False, "sr": False}
    (inside / "task.json").write_text(json.dumps({"process": {"settings": settings}}))

    done = start(MERCURE_IN_DIR=inside, MERCURE_OUT_DIR=tmp_path / "out")

    assert done.returncode == 0, done.stderr
    (study,) = json.loads((tmp_path / "out" / "result.json").read_text())["studies"]
    assert {name for name, grade in study["grades"].items() if grade is None} == {
        name for name in study["grades"] if "foraminal" in name
    }


def test_a_study_of_which_nothing_was_graded_is_not_called_graded(delivered: Path, tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    for path in sorted(delivered.glob("*.dcm")):
        row_x = pydicom.dcmread(path, stop_before_pixels=True).ImageOrientationPatient[0]
        if abs(row_x) > 0.5:  # axial
            shutil.copyfile(path, inside / path.name)
    (tmp_path / "out").mkdir()

    done = start(MERCURE_IN_DIR=inside, MERCURE_OUT_DIR=tmp_path / "out")

    assert done.returncode == 1
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["__mercure_notification"]["requested"] is True
    assert result["__mercure_notification"]["text"].startswith("0 of 1 studies graded. There is no sagittal")


def test_as_a_monai_application(delivered: Path, tmp_path: Path) -> None:
    done = start(MONAI_INPUTPATH=delivered, MONAI_OUTPUTPATH=tmp_path / "out")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "predictions.json").is_file()
    assert list((tmp_path / "out" / "sr").glob("*.dcm"))


def test_as_a_command_line() -> None:
    command = [sys.executable, "-m", "pipeline.container", "predict", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0
    assert "submission.csv" in done.stdout


def test_an_input_without_images_ends_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()

    done = start(MERCURE_IN_DIR=tmp_path / "in", MERCURE_OUT_DIR=tmp_path / "out")

    assert done.returncode == 1
    assert b"no readable" in done.stderr


@pytest.mark.parametrize(
    "names", [("MERCURE_IN_DIR", "MERCURE_OUT_DIR"), ("MONAI_INPUTPATH", "MONAI_OUTPUTPATH")]
)
def test_an_output_that_cannot_be_written_is_said_before_anything_is_graded(
    names: tuple[str, str], delivered: Path, tmp_path: Path
) -> None:
    (tmp_path / "Doe_John").write_text("a file where the folder should be")

    done = start(**{names[0]: delivered, names[1]: tmp_path / "Doe_John"})

    assert done.returncode == 1
    assert b"what to do: a file is in the way" in done.stderr
    assert b"internal failure" not in done.stderr
    assert b"John" not in done.stderr
    assert b"1/1" not in done.stderr


def test_who_ends_a_module_leaves_nothing_of_the_patient_behind(delivered: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    environment = {"MERCURE_IN_DIR": str(delivered), "MERCURE_OUT_DIR": str(tmp_path / "out")}
    environment |= {"TMPDIR": str(scratch)}
    said = tmp_path / "said.txt"
    process = start_warm("pipeline.container", [], out=said, err=said, environment=environment, cwd=ROOT)
    until = time.monotonic() + 60
    while not list(scratch.glob("lumbar-module-*/*")) and time.monotonic() < until:
        time.sleep(0.01)

    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert list(scratch.iterdir()) == []


@pytest.mark.filterwarnings("ignore:Found unknown escape sequence")
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_nothing_of_a_header_is_said(delivered: Path, tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    canary = canary_elements()
    for path in delivered.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        description = dataset.SeriesDescription
        uids = {element.tag: element for element in dataset if element.VR == "UI"}
        dataset._dict.update(canary._dict)
        dataset._dict.update(uids)
        dataset.SeriesDescription = f"{description} CANARY"
        dataset.save_as(inside / path.name)

    done = start(MERCURE_IN_DIR=inside, MERCURE_OUT_DIR=tmp_path / "out")

    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr + (tmp_path / "out" / "result.json").read_bytes()
    assert b"canary" not in told.lower()
    (report,) = (tmp_path / "out").glob("lumbar-sr-*.dcm")
    assert pydicom.dcmread(report).PatientID == "CANARY-1"


def test_an_output_folder_must_be_named(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MERCURE")}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.container"],
        env={**environment, "MERCURE_IN_DIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "MERCURE_OUT_DIR" in done.stderr


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"process": {"settings": {"colour": true}}}', '{"process": {"settings": {"sr": 1}}}'],
)
def test_settings_that_are_not_known_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text(content)

    with pytest.raises(SettingsRejected):
        mercure_settings(tmp_path / "task.json")


def test_of_several_modules_the_first_is_this_one(tmp_path: Path) -> None:
    first, second = {"settings": {"sr": False}}, {"settings": {"forward": True}}
    (tmp_path / "task.json").write_text(json.dumps({"process": [first, second]}))

    settings = mercure_settings(tmp_path / "task.json")

    assert [name for name, wanted in settings.items() if wanted] == ["sc"]


@pytest.mark.parametrize("content", ["{}", '{"process": null}', '{"process": []}', '{"process": {}}'])
def test_a_task_that_says_nothing_of_settings_is_no_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text(content)

    assert mercure_settings(tmp_path / "task.json") == mercure_settings(tmp_path / "none.json")


def test_without_a_task_there_are_report_and_capture(tmp_path: Path) -> None:
    settings = mercure_settings(tmp_path / "task.json")

    assert [name for name, wanted in settings.items() if wanted] == ["sr", "sc"]
