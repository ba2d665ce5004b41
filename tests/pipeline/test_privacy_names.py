"""The canary once more, where names have one component and folders and files are called after the patient.

Libraries warn of such names, and quote them; folders and files give studies and rejections their names.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE

from pipeline.app.jobs import unpack_all
from pipeline.quiet import silence_libraries
from tests.command_line import lumbar
from tests.pipeline.running_program import asking_app, running, said
from tests.pipeline.service.parts import free_port
from tests.pipeline.stand_in import stand_in_files
from tests.pipeline.warm_program import run_warm

NAMES = ("Zanzibara", "Quillfeather")
TRACES = re.compile(rb"zanzibar|quillfeath", re.IGNORECASE)


def plant(folder: Path, *, uids: bool) -> Path:
    """Two patients with names of one component, each in a folder and files called after them."""
    for place, content in _planted(uids).items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
    (folder / f"{NAMES[1]}.dcm").symlink_to(folder / "nowhere")
    return folder


@cache
def _planted(uids: bool) -> dict[str, bytes]:
    """Place → content of the files."""
    files = {}
    for number, name in enumerate(NAMES):
        for path, content in stand_in_files(str(501 + number)).items():
            dataset = pydicom.dcmread(BytesIO(content))
            dataset.PatientName = dataset.ReferringPhysicianName = name
            dataset.PatientID = f"{number + 1}77"
            dataset.InstitutionName = dataset.StudyDescription = dataset.ProtocolName = name
            dataset.SeriesDescription = {"11": "T2", "12": "T1", "13": "T2"}[path.parent.name]
            dataset.SeriesInstanceUID = f"1.2.{number}.{path.parent.name}"
            # What libraries warn of, and quote: values that are none of their kind, and surplus bytes.
            for keyword, vr in (("AcquisitionDate", "DA"), ("PatientWeight", "DS"), ("PatientAge", "AS")):
                value = DataElement(keyword, vr, "", validation_mode=pydicom.config.IGNORE)
                value._value = name
                dataset[keyword] = value
            dataset.PixelData += name.encode()
            if uids:
                dataset.StudyInstanceUID = f"1.2.{number}.9"
            with BytesIO() as stream:
                dataset.save_as(stream, enforce_file_format=True)
                place = f"{name}_John_1960/{path.parent.name}/{name}_{path.name}"
                files[place] = stream.getvalue()
    first, second, *_ = sorted(files)
    files[first] = files[first][:-50]
    files[second] = b"no image of Zanzibara"
    files[f"{NAMES[0]}_notes.png"] = b"\x89PNG\r\n\x1a\n"
    return files


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


@pytest.mark.parametrize(("uids", "packed"), [(True, False), (False, True)], ids=["folder", "zip, no UIDs"])
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
    arguments = ["0", "predict", str(source), "-o", str(out), "--quiet", "--sr", "--sc"]
    done = run_warm("tests.pipeline.stand_in_main", arguments)
    assert done.returncode == 3, done.stderr
    assert not TRACES.search(done.stdout + done.stderr), done.stderr
    assert len(list(out.glob("sr/*.dcm"))) == 2 and len(list(out.glob("studies/*.json"))) == 2
    assert traces_in(out) == []


def test_the_node_names_nobody(tmp_path: Path) -> None:
    """Two patients are sent, graded and kept for an archive that is away; a third party is turned away."""
    source = plant(tmp_path / "made", uids=True)
    log, port = tmp_path / "node.log", free_port()
    to = ["--to", f"ARCHIVE@127.0.0.1:{free_port()}", "--port", str(port), "--settle", "1", "--retry", "2"]
    with running(["serve", str(tmp_path / "spool"), *to, "--allow", "SCANNER"], log) as process:
        said(log, "ready: ")
        entity = AE(ae_title="SCANNER")
        entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", port, ae_title="LUMBAR")
        assert association.is_established
        sent = 0
        for path in sorted(source.rglob("*_*.dcm"))[2:]:  # the first two are no whole files
            dataset = pydicom.dcmread(path)
            sent += association.send_c_store(dataset).Status == 0
        association.release()
        assert sent == 28
        entity.ae_title = "STRANGER"
        assert not entity.associate("127.0.0.1", port, ae_title="LUMBAR").is_established
        said(log, r"graded, \d results to send", 2)
        said(log, "ARCHIVE")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not TRACES.search(log.read_bytes()), log.read_text()
    spool = tmp_path / "spool"
    assert not [path for path in spool.rglob("*") if TRACES.search(path.name.encode())]
    texts = [path for path in spool.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    assert not [path for path in texts if TRACES.search(path.read_bytes())]


def test_the_app_names_nobody(tmp_path: Path) -> None:
    """Folders and files called after two patients are dropped; everything that the page may show is read."""
    source = plant(tmp_path / "made", uids=False)
    log = tmp_path / "app.log"
    (tmp_path / "temporary").mkdir()
    with running(["app", "--port", "0", "--no-browser"], log, TMPDIR=str(tmp_path / "temporary")) as process:
        ask = asking_app(log)
        job = json.loads(ask("POST", "api/jobs", b""))["id"]
        answers = []
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            name = path.relative_to(source).as_posix()
            answers.append(ask("PUT", f"api/jobs/{job}/files?name={name}", path.read_bytes()))
        answers.append(ask("POST", f"api/jobs/{job}/start", b""))
        state: dict[str, Any] = {"state": ""}
        for _ in range(3000):
            answers.append(ask("GET", f"api/jobs/{job}"))
            state = json.loads(answers[-1])
            if state["state"] in ("done", "failed"):
                break
            time.sleep(0.02)
        assert state["state"] == "done" and state["studies"] == 2 and state["not_used"] > 0, state
        answers += [ask("GET", f"jobs/{job}/{name}") for name in state["results"]]
        assert len(state["results"]) >= 3
        assert not [answer for answer in answers if TRACES.search(answer)]
        outputs = [path for path in (tmp_path / "temporary").rglob("output") if path.is_dir()]
        assert outputs and [name for folder in outputs for name in traces_in(folder)] == []
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert not TRACES.search(log.read_bytes()), log.read_text()


def test_the_search_would_find_a_name(tmp_path: Path) -> None:
    """What the library behind the reports says of such a name when nothing silences it; and in files."""
    code = f"from highdicom.valuerep import check_person_name; check_person_name({NAMES[0]!r})"
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, check=False)
    assert TRACES.search(done.stderr), done.stderr
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.json").write_text('{"folder": "Quillfeather"}')
    (tmp_path / "out" / "Zanzibara.csv").write_text("")
    assert traces_in(tmp_path / "out") == ["Zanzibara.csv", "a.json"]


@pytest.mark.parametrize("words", ["predict", "show", "detector predict", "annotations export"])
def test_a_wrong_path_is_not_said(tmp_path: Path, words: str) -> None:
    for name in (f"{NAMES[0]}_John", f"{NAMES[0]}"):
        done = lumbar(*words.split(), name, "-o", tmp_path / "out")
        assert done.exit_code == 2 and "path 1 of 1 does not exist" in done.stderr
        assert not TRACES.search(done.output.encode()), done.output


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
