"""The canary once more, where names have one component and folders and files are called after the patient.

Libraries warn of such names, and quote them; folders and files give studies and rejections their names.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
import warnings
import zipfile
from pathlib import Path

import pydicom
import pytest

from pipeline.app.jobs import unpack_all
from pipeline.quiet import silence_libraries
from tests.pipeline.stand_in import write_study

NAMES = ("Zanzibara", "Quillfeather")
TRACES = re.compile(rb"zanzibar|quillfeath", re.IGNORECASE)


def plant(folder: Path, *, uids: bool) -> Path:
    """Two patients with names of one component, each in a folder and files called after them."""
    for number, name in enumerate(NAMES):
        study = write_study(folder.parent / f"made{number}", str(501 + number))
        for path in sorted(study.rglob("*.dcm")):
            dataset = pydicom.dcmread(path)
            dataset.PatientName = dataset.ReferringPhysicianName = name
            dataset.PatientID = f"{number + 1}77"
            dataset.InstitutionName = dataset.StudyDescription = dataset.ProtocolName = name
            dataset.SeriesDescription = {"11": "T2", "12": "T1", "13": "T2"}[path.parent.name]
            dataset.SeriesInstanceUID = f"1.2.{number}.{path.parent.name}"
            if uids:
                dataset.StudyInstanceUID = f"1.2.{number}.9"
            to = folder / f"{name}_John_1960" / path.parent.name / f"{name}_{path.name}"
            to.parent.mkdir(parents=True, exist_ok=True)
            dataset.save_as(to, enforce_file_format=True)
    first, second, *_ = sorted(folder.rglob("*.dcm"))
    first.write_bytes(first.read_bytes()[:-50])
    second.write_text("no image of Zanzibara")
    (folder / f"{NAMES[0]}_notes.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / f"{NAMES[1]}.dcm").symlink_to(folder / "nowhere")
    return folder


def traces_in(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.rglob("*")):
        content = b""
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".dcm":  # names the patient so that an archive can file it, there alone
                dataset = pydicom.dcmread(path)
                for keyword in ("PatientName", "ReferringPhysicianName", "StudyDescription"):
                    dataset.pop(keyword, None)
                content = repr(dataset).encode()
        if TRACES.search(path.name.encode()) or TRACES.search(content):
            found.append(path.name)
    return found


@pytest.mark.parametrize("uids", [True, False], ids=["identifiers", "none"])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_predict_quiet_names_nobody(tmp_path: Path, uids: bool, packed: bool) -> None:
    """A process of its own, every warning on: what libraries print is seen."""
    source = plant(tmp_path / f"{NAMES[0]}_{NAMES[1]}", uids=uids)
    if packed:
        archive = tmp_path / f"{NAMES[0]}.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(path for path in source.rglob("*") if path.is_file()):
                file.write(path, path.relative_to(tmp_path))
        source = archive
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "tests.pipeline.stand_in_main",
        "0",
        "predict",
        str(source),
        "-o",
        str(out),
    ]
    done = subprocess.run(
        [*command, "--quiet", "--sr", "--sc"],
        capture_output=True,
        env={**os.environ, "PYTHONWARNINGS": "always", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert not TRACES.search(done.stdout + done.stderr), done.stderr
    assert len(list(out.glob("sr/*.dcm"))) == 2 and len(list(out.glob("studies/*.json"))) == 2
    assert traces_in(out) == []


def test_a_wrong_path_is_not_said(tmp_path: Path) -> None:
    for name in (f"{NAMES[0]}_John", f"{NAMES[0]}"):
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "predict", name, "-o", "out"],
            capture_output=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            check=False,
        )
        assert done.returncode == 2
        assert not TRACES.search(done.stdout + done.stderr), done.stderr


def test_warnings_of_any_thread_go_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    """Another thread that leaves a ``catch_warnings`` turns every filter back on."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        shown = warnings.showwarning
        try:
            silence_libraries()

            def warn() -> None:
                warnings.warn(f"the name {NAMES[0]} has one component", stacklevel=1)
                logging.getLogger("pydicom").warning("Invalid value: %s", NAMES[0])

            threads = [threading.Thread(target=warn) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            logging.captureWarnings(False)
            warnings.showwarning = shown
    said = capfd.readouterr()
    assert not TRACES.search((said.out + said.err).encode())


def test_the_app_refuses_without_names(tmp_path: Path) -> None:
    """What the page shows of a zip that cannot be read."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{NAMES[0]}.zip").write_bytes(b"no zip")
    try:
        rejections = unpack_all(tmp_path / "in")
    except Exception as error:
        rejections = (error,)  # type: ignore[assignment]
    assert rejections and not any(TRACES.search(str(item).encode()) for item in rejections)
