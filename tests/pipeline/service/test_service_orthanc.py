"""``lumbar serve`` beside a real archive: Orthanc, started here on free ports of the loopback."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import (
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import AE

from data_prep.phantom import write_dataset
from tests.dicom_tools import dciodvfy_errors, needs
from tests.pipeline.service.parts import free_port
from tests.pipeline.warm_program import WarmProcess, start_warm

ROOT = Path(__file__).resolve().parents[3]
SEED = 5
PATIENCE_S = 240.0
# Short: while an association is open, a study waits in any case.
SETTLE_S = 0.3


def wait_for(what: str, happened: Callable[[], Any]) -> Any:
    """What ``happened`` returns, once it is something."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        found = happened()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited in vain for {what}")


@dataclass
class Archive:
    """An Orthanc with a folder of its own."""

    folder: Path
    node_port: int
    http_port: int = field(default_factory=free_port)
    dicom_port: int = field(default_factory=free_port)
    scripts: tuple[Path, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        configuration = {
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomPort": self.dicom_port,
            "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": True,
            "DicomModalities": {"lumbar": ["LUMBAR", "127.0.0.1", self.node_port]},
            "LuaScripts": [str(script) for script in self.scripts],
            "LuaHeartBeatPeriod": 1,
            "StableAge": 1,
        }
        self.folder.mkdir(exist_ok=True)
        (self.folder / "orthanc.json").write_text(json.dumps(configuration))
        with (self.folder / "orthanc.log").open("ab") as log:
            self.process = subprocess.Popen(
                [needs("Orthanc", "orthanc"), str(self.folder / "orthanc.json")],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_for("Orthanc to start", self._answers)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def ask(self, path: str, data: bytes | None = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=data)
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
        return body if path.endswith("/file") else json.loads(body)

    def _answers(self) -> bool:
        try:
            return bool(self.ask("/system"))
        except OSError:
            return False

    def upload(self, study: Path) -> str:
        """Put all files of a study into the archive; its identifier there."""
        (name,) = {self.ask("/instances", path.read_bytes())["ParentStudy"] for path in study.rglob("*.dcm")}
        return str(name)

    def forward(self, study: str) -> None:
        """Send a study to the node, as a rule of an archive does."""
        query = {"Resources": [study], "Synchronous": True}
        assert self.ask("/modalities/lumbar/store", json.dumps(query).encode())["FailedInstancesCount"] == 0

    def results(self, study_uid: str) -> dict[str, pydicom.Dataset]:
        """Modality → result that lies under a study."""
        query = {"Level": "Study", "Query": {"StudyInstanceUID": study_uid}}
        found = {}
        for study in self.ask("/tools/find", json.dumps(query).encode()):
            for series in self.ask(f"/studies/{study}/series"):
                if series["MainDicomTags"]["Modality"] != "MR":
                    for instance in series["Instances"]:
                        path = self.folder / f"{instance}.dcm"
                        path.write_bytes(self.ask(f"/instances/{instance}/file"))
                        found[f"{series['MainDicomTags']['Modality']} {instance}"] = pydicom.dcmread(path)
        return found


@dataclass
class Node:
    """``lumbar serve`` as a process of its own, which ``arguments`` tell where results go."""

    folder: Path
    arguments: tuple[str, ...]
    port: int
    process: WarmProcess | None = None

    @property
    def log(self) -> str:
        return (self.folder / "node.log").read_text()

    def start(self, said: str = "ready:") -> None:
        """Start, and wait until the log says so."""
        starts = self.log.count(said) if (self.folder / "node.log").is_file() else 0
        log = self.folder / "node.log"
        command = ["serve", str(self.folder / "spool"), *self.arguments, "--port", str(self.port)]
        command += ["--settle", str(SETTLE_S), "--retry", "0.5", "--allow", "ORTHANC"]
        self.process = start_warm("pipeline", command, out=log, err=log, cwd=ROOT)
        wait_for("the node to be ready", lambda: self.log.count(said) > starts)

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(120)
        self.process = None
        return code

    def send(self, study: Path) -> None:
        """C-STORE every file of a study, as a scanner does."""
        ae = AE(ae_title="ORTHANC")
        ae.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
        ae.add_requested_context(MRImageStorage, RLELossless)
        association = ae.associate("127.0.0.1", self.port, ae_title="LUMBAR")
        assert association.is_established
        for path in sorted(study.rglob("*.dcm")):
            assert association.send_c_store(pydicom.dcmread(path)).Status == 0
        association.release()

    def waiting(self) -> int:
        return len(list((self.folder / "spool" / "outbox").glob("[!.]*.dcm")))


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("phantoms")
    write_dataset(folder, studies=2, seed=SEED, headers="pacs")
    return sorted((folder / "train_images").iterdir())


@pytest.fixture
def archive_and_node(tmp_path: Path) -> Iterator[tuple[Archive, Node]]:
    needs("Orthanc", "orthanc")
    node_port = free_port()
    archive = Archive(tmp_path / "archive", node_port)
    node = Node(tmp_path, ("--to", f"ORTHANC@127.0.0.1:{archive.dicom_port}"), node_port)
    try:
        yield archive, node
    finally:
        for process in (archive.process, node.process):
            if process is not None:
                process.kill()
                process.wait(60)


def uid_of(study: Path) -> str:
    return str(pydicom.dcmread(next(study.rglob("*.dcm")), stop_before_pixels=True).StudyInstanceUID)


def test_the_script_of_the_deployment_forwards_what_is_complete(
    archive_and_node: tuple[Archive, Node], studies: list[Path]
) -> None:
    archive, node = archive_and_node
    archive.scripts = (ROOT / "deploy" / "forward.lua",)
    archive.start()
    node.start("listens")
    archive.upload(studies[0])
    wait_for("the results", lambda: len(archive.results(uid_of(studies[0]))) == 2)
    assert node.log.count("grading") == 1


def test_what_could_not_be_forwarded_is_forwarded_later(
    archive_and_node: tuple[Archive, Node], studies: list[Path]
) -> None:
    """Orthanc gives up a transfer that fails, and forgets at a restart which studies were still coming in."""
    archive, node = archive_and_node
    archive.scripts = (ROOT / "deploy" / "forward.lua",)
    archive.start()
    if "HasLabels" not in archive.ask("/system"):
        pytest.skip("needs an Orthanc with labels (1.12 or later)")
    first, second = studies
    name = archive.upload(first)
    wait_for("a failed transfer", lambda: "Failure" in {job["State"] for job in archive.ask("/jobs?expand")})
    archive.upload(second)
    archive.stop()
    archive.start()
    node.start("listens")
    wait_for("the results", lambda: all(len(archive.results(uid_of(study))) == 2 for study in studies))
    wait_for("the label", lambda: archive.ask(f"/studies/{name}/labels") == ["sent-to-lumbar"])
    assert node.log.count("grading") == 2


def test_studies_come_back_graded_and_nothing_is_lost_or_done_twice(
    archive_and_node: tuple[Archive, Node], studies: list[Path]
) -> None:
    archive, node = archive_and_node
    first, second = studies
    archive.start()
    node.start("listens")

    # A study that the archive forwards comes back with a report and a picture, under the same study.
    name = archive.upload(first)
    archive.forward(name)
    wait_for("the results", lambda: len(archive.results(uid_of(first))) == 2 and node.waiting() == 0)
    results = archive.results(uid_of(first))
    assert {dataset.Modality for dataset in results.values()} == {"SR", "OT"}
    assert len(archive.ask(f"/studies/{name}/series")) == 5 and len(archive.ask("/studies")) == 1
    for dataset in results.values():
        assert dataset.StudyInstanceUID == uid_of(first)
        assert dataset.PatientID == f"PHANTOM-{first.name}" and dataset.PatientName == f"Phantom^{first.name}"
        assert dciodvfy_errors(Path(str(dataset.filename))) == []

    # Sent again, results and all: there is no second result.
    archive.forward(name)
    time.sleep(SETTLE_S + 2.5)  # quiet period and two looks
    assert archive.results(uid_of(first)).keys() == results.keys() and node.waiting() == 0
    assert node.log.count("grading") == 1

    # The archive is away, and the node is killed while the images of a study are only just there.
    archive.stop()
    node.send(second)
    assert node.end(signal.SIGKILL) == -signal.SIGKILL
    node.start()
    wait_for("results that wait", lambda: node.waiting() == 2)
    wait_for("a failed delivery", lambda: "2 results wait for ORTHANC" in node.log)

    # Told to stop, it ends well, with its results on disk; then both come back.
    assert node.end(signal.SIGTERM) == 0
    assert node.log.rstrip().endswith("stopped") and node.waiting() == 2
    archive.start()
    node.start("listens")
    wait_for("the late results", lambda: len(archive.results(uid_of(second))) == 2)
    wait_for("an empty outbox", lambda: node.waiting() == 0)
    assert node.log.count("grading") == 2
    assert "Phantom^" not in node.log and "PHANTOM-" not in node.log


def other_objects(study: Path, out: Path) -> list[Path]:
    """What lies beside the images of a study in many archives, under its identifiers."""
    model = pydicom.dcmread(next(study.rglob("*.dcm")), stop_before_pixels=True)
    written = []
    for number, (sop_class, modality) in enumerate(
        (
            ("1.3.12.2.1107.5.9.1", "OT"),  # private: CSA Non-Image of Siemens
            (GrayscaleSoftcopyPresentationStateStorage, "PR"),
            (EncapsulatedPDFStorage, "DOC"),
        )
    ):
        made = pydicom.Dataset()
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID"):
            setattr(made, keyword, model[keyword].value)
        made.SOPClassUID, made.Modality = sop_class, modality
        made.SeriesInstanceUID = f"{model.StudyInstanceUID}.9{number}"
        made.SOPInstanceUID = f"{made.SeriesInstanceUID}.1"
        if sop_class == EncapsulatedPDFStorage:
            made.MIMETypeOfEncapsulatedDocument = "application/pdf"
            made.EncapsulatedDocument = b"%PDF-1.4 no more than a beginning"
        made.file_meta = pydicom.dataset.FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        written.append(out / f"other{number}.dcm")
        made.save_as(written[-1], enforce_file_format=True)
    return written


def test_a_study_with_a_private_object_a_presentation_state_and_a_pdf_arrives_whole(
    archive_and_node: tuple[Archive, Node], tmp_path: Path
) -> None:
    """A refused presentation context would end the transfer after a part of the images."""
    archive, node = archive_and_node
    write_dataset(tmp_path / "made", studies=1, seed=SEED, size="small", headers="pacs")
    (study,) = (tmp_path / "made" / "train_images").iterdir()
    images = len(list(study.rglob("*.dcm")))
    for path in other_objects(study, tmp_path):
        path.rename(study / path.name)
    archive.start()
    node.start("listens")
    name = archive.upload(study)
    assert len(archive.ask(f"/studies/{name}/series")) == 6
    archive.forward(name)
    wait_for("the results", lambda: len(archive.results(uid_of(study))) == 5 and node.waiting() == 0)
    kept = [path for path in (node.folder / "spool").rglob("*.dcm") if "outbox" not in path.parts]
    assert len(kept) == images
    (report,) = (item for item in archive.results(uid_of(study)).values() if item.Modality == "SR")
    told = str(report)
    assert "no_sagittal" not in told and "no_axial" not in told
    assert node.log.count("graded, 2 results to send") == 1, node.log
