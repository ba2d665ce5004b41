"""The canary where things go wrong: what fails says so, and names neither patient nor folder."""

from __future__ import annotations

import http.server
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, AllStoragePresentationContexts, evt

from tests.pipeline.running_program import asking_app, running, said
from tests.pipeline.service.parts import free_port
from tests.pipeline.test_privacy_names import NAMES, TRACES, plant, traces_in
from tests.pipeline.warm_program import ENVIRONMENT, run_warm

NAME = NAMES[0]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two patients in folders and files called after them, some of which are no whole files."""
    return plant(tmp_path / f"{NAME}_{NAMES[1]}", uids=True)


def predict(
    source: Path | str,
    out: Path | str,
    *more: str,
    module: str = "stand_in_main",
    before: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    cwd: Path | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[bytes]:
    """``predict --quiet`` in a process of its own, every warning on."""
    arguments = ["0"] if module == "stand_in_main" else []
    arguments += ["predict", str(source), "-o", str(out), "--quiet", "--no-pictures", *more]
    name = f"tests.pipeline.{module}"
    if not before and not options:
        return run_warm(name, arguments, cwd=cwd, environment=environment)
    command = [*before, sys.executable, "-m", name, *arguments]
    env = {**os.environ, **ENVIRONMENT, **(environment or {})}
    return subprocess.run(command, capture_output=True, env=env, cwd=cwd, check=False, **options)


def nobody_is_named(done: subprocess.CompletedProcess[bytes], out: Path | None = None) -> None:
    assert not TRACES.search(done.stdout + done.stderr), done.stderr
    assert out is None or traces_in(out) == []


@pytest.mark.parametrize(
    ("where", "jobs", "code", "words"),
    [
        ("detector", "1", 3, b"detection failed (ValueError)"),
        ("thread", "1", 3, b"internal failure (ValueError) at "),
        ("writing", "1", 1, b"internal failure (ValueError) at "),
        ("writing", "2", 1, b"internal failure (ValueError) at "),
        ("loading", "2", 1, b"internal failure (RuntimeError) at "),
        ("disk", "2", 1, b"No space left on device"),
        ("exit", "2", 3, b"[worker_died]"),
    ],
)
def test_a_failure_that_quotes_the_patient_is_told_without_what_it_quotes(
    source: Path, tmp_path: Path, where: str, jobs: str, code: int, words: bytes
) -> None:
    out = tmp_path / "out"
    if jobs != "1":  # a worker takes seconds to start: one study has one
        shutil.rmtree(source / f"{NAMES[1]}_John_1960")
    environment = {"LUMBAR_TEST_FAILS": where}
    done = predict(source, out, "--jobs", jobs, module="stand_in_failing", environment=environment)
    nobody_is_named(done, out)
    assert done.returncode == code and words in done.stderr, done.stderr


def test_who_asks_for_it_sees_everything(source: Path, tmp_path: Path) -> None:
    """The search would find what is not said otherwise."""
    environment = {"LUMBAR_TEST_FAILS": "writing", "LUMBAR_TRACEBACK": "1"}
    done = predict(source, tmp_path / "out", module="stand_in_failing", environment=environment)
    assert TRACES.search(done.stderr) and b"ValueError" in done.stderr


def as_somebody() -> tuple[str, ...]:
    """Before a command: take from root what lets it read and write everything."""
    if os.geteuid():
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root reads everything, and setpriv is not there")
    less = "-dac_override,-dac_read_search,-fowner"
    return ("setpriv", f"--inh-caps={less}", f"--bounding-set={less}")


@pytest.mark.parametrize("what", ["file", "series", "input"])
def test_what_must_not_be_read_names_nobody(source: Path, tmp_path: Path, what: str) -> None:
    place = {
        "file": sorted(source.rglob("*.dcm"))[5],
        "series": sorted(path for path in source.rglob("1*") if path.is_dir())[0],
        "input": source,
    }[what]
    place.chmod(0)
    try:
        done = predict(source, tmp_path / "out", before=as_somebody())
    finally:
        place.chmod(0o700)
    nobody_is_named(done)
    assert done.returncode == (2 if what == "input" else 3) and done.stderr, done.stderr
    if what != "input":
        assert traces_in(tmp_path / "out") == [] and b"[unreadable]" in done.stderr


@pytest.mark.parametrize("what", ["file in the way", "no right to write", "file too large"])
def test_an_output_that_cannot_be_written_names_nobody(source: Path, tmp_path: Path, what: str) -> None:
    """The folder around, which is called after the patient, is not said, either."""
    work = tmp_path / f"{NAME}_work"
    work.mkdir()
    options: dict[str, Any] = {}
    if what == "file in the way":
        (work / "out").write_text("")
    elif what == "no right to write":
        options["before"] = as_somebody()
        work.chmod(0o500)
    else:
        # As on a full disk, writing fails half-way.
        options["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    try:
        done = predict(source, "out", cwd=work, **options)
    finally:
        work.chmod(0o700)
    nobody_is_named(done)
    assert done.returncode == (2 if what == "file in the way" else 1) and done.stderr, done.stderr


@pytest.mark.parametrize("kind", ["half", "encrypted", "nested"])
def test_a_bad_zip_names_nobody(source: Path, tmp_path: Path, kind: str) -> None:
    archive = tmp_path / f"{NAME}.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(source.rglob(f"{NAME}_*.dcm"))[2:]:
            file.write(path, f"/{NAME}/{path.parent.name}/{path.name}")
        file.writestr(f"{NAME}_1/inner.zip", b"PK\x03\x04 more")
        if kind == "nested":
            file.writestr(f"{NAME}_2.zip", b"PK\x03\x04 more")
    content = archive.read_bytes()
    if kind == "half":
        archive.write_bytes(content[: len(content) // 2])
    elif kind == "encrypted":
        content = content.replace(
            b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"
        )
        archive.write_bytes(content)
    done = predict(archive, tmp_path / "out")
    nobody_is_named(done, tmp_path / "out")
    assert done.returncode == (3 if kind == "nested" else 1) and done.stderr, done.stderr


def test_pixels_that_no_decoder_takes_name_nobody(source: Path, tmp_path: Path) -> None:
    """The name stands where coded pixels should be; some decoders write on stderr themselves."""
    syntaxes = (
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.5",
    )
    text = f"{NAME}^John " * 400
    for number, path in enumerate(sorted(source.rglob(f"{NAME}_*.dcm"))[2:]):
        dataset = pydicom.dcmread(path)
        syntax = syntaxes[number % len(syntaxes)]
        start = (
            {"0": b"\xff\xd8\xff\xe0"}.get(syntax[-1], b"\xff\xd8")
            if "1.2.4" in syntax
            else b"\x01\0\0\0\x40\0\0\0"
        )
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        dataset.PixelData = pydicom.encaps.encapsulate([start + bytes(60) + text.encode()])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path, enforce_file_format=True)
    done = predict(source, tmp_path / "out")
    nobody_is_named(done, tmp_path / "out")
    assert done.returncode == 3 and b"bad_pixels" in done.stderr, done.stderr


@contextmanager
def an_archive_that_fails(status: int = 500) -> Iterator[str]:
    """A web server that answers everything with an error, and quotes the patient."""

    class Failing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            body = f"cannot store {NAME}^John".encode()
            self.send_response(status, f"no {NAME}")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Patient", NAME)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [500, 200])
def test_an_archive_that_answers_nonsense_names_nobody(tmp_path: Path, status: int) -> None:
    with an_archive_that_fails(status) as url:
        arguments = [
            "0",
            "predict",
            "--from",
            url,
            "--study",
            "1.2.3",
            "-o",
            str(tmp_path / "out"),
            "--quiet",
        ]
        done = run_warm("tests.pipeline.stand_in_main", arguments)
    nobody_is_named(done)
    assert done.returncode in (1, 3) and b"archive" in done.stderr, done.stderr


def store_all(port: int, source: Path) -> None:
    """Send the images, one without a study, and one that is cut within its header."""
    entity = AE(ae_title="SCANNER")
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="LUMBAR")
    assert association.is_established
    paths = sorted(source.rglob("*_*.dcm"))[2:]
    for path in paths:
        assert association.send_c_store(pydicom.dcmread(path)).Status == 0
    lost = pydicom.dcmread(paths[0])
    lost.StudyInstanceUID = ""
    assert association.send_c_store(lost).Status != 0
    association.release()


def store_one(port: int, source: Path) -> None:
    """Send an image, whatever is answered."""
    entity = AE(ae_title="SCANNER")
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="LUMBAR")
    assert association.is_established
    association.send_c_store(pydicom.dcmread(min(source.rglob("*_*.dcm"))))
    association.release()


@pytest.mark.parametrize("kind", ["stow", "c-store", "spool"])
def test_a_node_whose_results_nobody_takes_names_nobody(source: Path, tmp_path: Path, kind: str) -> None:
    """STOW answers 500, C-STORE a failure with a comment; or the spool cannot be written any more."""
    log, port, spool = tmp_path / "node.log", free_port(), tmp_path / "spool"
    settings = ["--port", str(port), "--settle", "1", "--retry", "2"]
    if kind != "c-store":
        settings.append("--no-sc")  # a picture is sent as a report is

    def refused(event: evt.Event) -> pydicom.Dataset:
        answer = pydicom.Dataset()
        answer.Status, answer.ErrorComment = 0xA700, f"no room for {NAME}"
        return answer

    other = AE(ae_title="ARCHIVE")
    other.supported_contexts = AllStoragePresentationContexts
    away = other.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, refused)])
    with an_archive_that_fails() as url:
        where = f"ARCHIVE@127.0.0.1:{away.server_address[1]}"
        to = ["--stow", url] if kind == "stow" else ["--to", where]
        with running(["serve", str(spool), *to, *settings], log) as process:
            said(log, "ready: ")
            store_all(port, source)
            if kind == "spool":
                said(log, r"graded, \d results to send")
                shutil.rmtree(spool)
                store_one(port, source)  # or nothing might be left to fail: all was sent before
                said(log, "ERROR|WARNING")
            else:
                said(log, r"graded, \d results to send", 2)
                said(log, "not taken")
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    away.shutdown()
    assert not TRACES.search(log.read_bytes()), log.read_text()


def test_a_port_that_is_taken_and_a_spool_in_the_way_name_nobody(tmp_path: Path) -> None:
    folder = tmp_path / f"{NAME}_spool"
    folder.write_text("")
    log = tmp_path / "node.log"
    with running(["serve", str(folder), "--to", "A@127.0.0.1:9"], log) as process:
        assert process.wait(60) in (1, 2)
    assert log.read_bytes() and not TRACES.search(log.read_bytes()), log.read_text()


def test_the_app_says_what_failed_without_names(tmp_path: Path) -> None:
    """Half a zip, a file that is no image, a name that leads out, and a full temporary folder."""
    log = tmp_path / "app.log"
    (tmp_path / "temporary").mkdir()
    with running(["app", "--port", "0", "--no-browser"], log, TMPDIR=str(tmp_path / "temporary")) as process:
        asked, answers = asking_app(log), list[bytes]()

        def ask(method: str, path: str, body: bytes | None = None) -> bytes:
            try:
                answers.append(asked(method, path, body))
            except urllib.error.HTTPError as error:
                answers.append(error.read() + str(error.headers).encode() + str(error.reason).encode())
            return answers[-1]

        for files in (
            {f"{NAME}.zip": b"PK\x03\x04 half"},
            {f"{NAME}_1.dcm": f"{NAME} is no image".encode()},
            {f"../../{NAME}.dcm": b"x", f"{NAME}/{NAME}.png": b"\x89PNG\r\n\x1a\n"},
        ):
            job = json.loads(ask("POST", "api/jobs", b""))["id"]
            for name, content in files.items():
                ask("PUT", f"api/jobs/{job}/files?name={urllib.request.quote(name)}", content)
            ask("POST", f"api/jobs/{job}/start", b"")
            for _ in range(300):
                state = json.loads(ask("GET", f"api/jobs/{job}"))
                if state["state"] in ("done", "failed"):
                    break
                threading.Event().wait(0.1)
            assert state["state"] == "failed", state
        ask("GET", f"jobs/1/{NAME}.html")
        ask("GET", f"api/{NAME}")
        assert len(answers) > 12 and not [answer for answer in answers if TRACES.search(answer)]
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert not TRACES.search(log.read_bytes()), log.read_text()
