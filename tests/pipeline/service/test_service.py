"""The parts of ``lumbar serve``: what is refused, what is kept, and what survives a kill at any point."""

from __future__ import annotations

import copy
import logging
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
)
from pynetdicom import AE, evt
from typer.testing import CliRunner

from data_prep.base.files import FolderInUse
from data_prep.base.uids import derived_uid
from pipeline.cli import app
from pipeline.grade import Pipeline
from pipeline.results.dicom import ResultObject
from pipeline.service.config import Peer, ServiceConfig
from pipeline.service.receiver import Receiver
from pipeline.service.run import set_up_log
from pipeline.service.sender import Sender
from pipeline.service.spool import Spool, SpoolFull
from pipeline.service.worker import Worker
from tests.pipeline.stand_in import CANARY, BrokenGrader, StraightSpine, stand_in_pipeline, write_study

STUDY, VERIFICATION = "1.2.3.4", "1.2.840.10008.1.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def config(tmp_path: Path) -> ServiceConfig:
    peer = Peer("PACS", "127.0.0.1", free_port())
    return ServiceConfig(
        tmp_path / "spool", peer, port=free_port(), quiet_s=0.0, retry_s=0.1, objects=(ResultObject.SR,)
    )


@pytest.fixture
def spool(config: ServiceConfig) -> Iterator[Spool]:
    held = Spool(config.spool, max_bytes=config.max_spool_bytes)
    yield held
    held.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    """The 15 images of a study whose every text element names the canary."""
    study = write_study(tmp_path_factory.mktemp("images"), "501")
    found = []
    for number, path in enumerate(sorted(study.rglob("*.dcm"))):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID = STUDY
        dataset.SeriesInstanceUID = f"{STUDY}.{path.parent.name}"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{STUDY}.5.{number + 1}"
        # So that the kind of a series is known without a table.
        dataset.RepetitionTime, dataset.EchoTime = (500, 10) if path.parent.name == "12" else (3000, 100)
        dataset.SeriesDescription = ""
        found.append(dataset)
    return found


def keep(spool: Spool, images: list[Dataset]) -> None:
    for dataset in images:
        stream = pydicom.filebase.DicomBytesIO()
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
        spool.store(STUDY, dataset.SOPInstanceUID, stream.getvalue())


def worker(config: ServiceConfig, spool: Spool, pipeline: Pipeline | None = None) -> Worker:
    return Worker(config, spool, pipeline or stand_in_pipeline(), threading.Event())


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("ae_title", "", "AE title"),
        ("ae_title", "A" * 17, "AE title"),
        ("ae_title", "A\\B", "AE title"),
        ("allowed_callers", ("GOOD", "\n"), "AE title"),
        ("port", 0, "port"),
        ("max_associations", 0, "max_associations"),
        ("max_pdu_bytes", 100, "max_pdu_bytes"),
        ("quiet_s", -1.0, "quiet_s"),
        ("max_spool_bytes", 0, "max_spool_bytes"),
    ],
)
def test_senseless_settings_are_refused(
    config: ServiceConfig, setting: str, value: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(config, **{setting: value})  # type: ignore[arg-type]


def test_a_destination_is_parsed() -> None:
    assert Peer.parse("PACS@archive.local:104") == Peer("PACS", "archive.local", 104)
    assert str(Peer.parse("PACS@[::1]:104")) == "PACS@::1:104"
    for text in ("PACS", "PACS@host", "@host:1", "PACS@host:99999", "PACS@host:x"):
        with pytest.raises(ValueError):
            Peer.parse(text)


def test_it_listens_to_this_machine_alone_unless_told() -> None:
    config = ServiceConfig(Path("spool"), Peer("PACS", "host", 104))
    assert config.host == "127.0.0.1" and config.is_local


# --- spool ---


def test_a_study_settles_when_nothing_came_for_a_while(spool: Spool, images: list[Dataset]) -> None:
    keep(spool, images[:2])
    assert spool.settled(60.0) == []
    (study,) = spool.settled(0.0)
    assert len(study.instances) == 2 and study.attempts == 0
    spool.finish(study, "graded")
    assert spool.settled(0.0) == []
    keep(spool, images[:2])  # the same again
    assert spool.settled(0.0) == []
    keep(spool, images[2:3])
    (study,) = spool.settled(0.0)
    assert len(study.instances) == 3


def test_a_restart_finds_what_was_there(config: ServiceConfig, spool: Spool, images: list[Dataset]) -> None:
    keep(spool, images[:2])
    with pytest.raises(FolderInUse):
        Spool(config.spool, max_bytes=1)
    (config.spool / "studies" / "x").mkdir()
    partial = config.spool / "outbox" / ".half.dcm.partial"
    partial.write_bytes(b"half")
    spool.close()
    again = Spool(config.spool, max_bytes=config.max_spool_bytes)
    assert [len(study.instances) for study in again.settled(0.0)] == [2] and not partial.exists()
    again.close()


def test_only_its_owner_can_look_into_the_spool(config: ServiceConfig, spool: Spool) -> None:
    assert oct(config.spool.stat().st_mode & 0o777) == "0o700"


def test_a_full_spool_lets_graded_images_go_and_then_turns_away(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=1000)
    spool.store("1.1", "1.1.1", b"x" * 600)
    with pytest.raises(SpoolFull):
        spool.store("1.2", "1.2.1", b"x" * 600)
    spool.finish(spool.settled(0.0)[0], "graded")
    spool.store("1.2", "1.2.1", b"x" * 600)
    assert len(list((tmp_path / "spool").rglob("*.dcm"))) == 1
    assert len(spool.settled(0.0)) == 1
    spool.close()


def test_images_of_graded_studies_go_after_a_while_and_are_still_known(
    spool: Spool, images: list[Dataset]
) -> None:
    keep(spool, images[:2])
    (study,) = spool.settled(0.0)
    spool.clean(0.0)  # not graded yet
    assert study.images.is_dir()
    spool.finish(study, "graded")
    spool.clean(3600.0)
    assert study.images.is_dir()
    spool.clean(0.0)
    assert not study.images.exists()
    keep(spool, images[:2])
    assert spool.settled(0.0) == []


# --- worker ---


def test_a_settled_study_gives_a_report_and_a_capture_once(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    config = replace(config, objects=(ResultObject.SR, ResultObject.SC))
    keep(spool, images)
    worker(config, spool).grade_settled()
    results = [pydicom.dcmread(path) for path in spool.waiting_results()]
    assert sorted(result.Modality for result in results) == ["OT", "SR"]
    assert {result.StudyInstanceUID for result in results} == {STUDY}
    assert {result.PatientID for result in results} == {CANARY}
    for path in spool.waiting_results():
        spool.delivered(path)
    keep(spool, images)
    worker(config, spool).grade_settled()
    assert spool.waiting_results() == []


def test_a_kill_before_the_study_was_noted_as_graded_makes_the_same_results(
    config: ServiceConfig, spool: Spool, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(spool, images)
    with monkeypatch.context() as patch:
        write = spool._write_state
        patch.setattr(
            spool, "_write_state", lambda *given: write(*given) if given[3] != "graded" else os.abort
        )
        worker(config, spool).grade_settled()
    first = {path.name: path.read_bytes() for path in spool.waiting_results()}
    assert spool.settled(0.0)[0].attempts == 1
    worker(config, spool).grade_settled()
    assert {path.name: path.read_bytes() for path in spool.waiting_results()} == first and len(first) == 1


def test_a_study_that_ends_the_program_is_given_up(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    keep(spool, images)
    for attempt in range(config.max_attempts):
        (study,) = spool.settled(0.0)
        assert study.attempts == attempt
        spool.begin(study)  # and the process dies
    worker(config, spool).grade_settled()
    assert spool.settled(0.0) == [] and spool.waiting_results() == []


def test_what_cannot_be_graded_gives_no_result_and_is_not_tried_again(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    keep(spool, images)
    broken = Pipeline(StraightSpine(), BrokenGrader(STUDY))
    worker(config, spool, broken).grade_settled()
    spool.store("1.9", "1.9.1", b"no DICOM")
    worker(config, spool).grade_settled()
    assert spool.settled(0.0) == [] and spool.waiting_results() == []


# --- receiver ---


@pytest.fixture
def receiver(config: ServiceConfig, spool: Spool) -> Iterator[Receiver]:
    running = Receiver(replace(config, allowed_callers=("SCANNER",), max_file_bytes=100_000), spool)
    running.start()
    yield running
    running.stop()


def associate(config: ServiceConfig, caller: str = "SCANNER", called: str = "LUMBAR", **syntax: str) -> Any:
    ae = AE(ae_title=caller)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    for sop_class in (MRImageStorage, ComputedRadiographyImageStorage, VERIFICATION):
        ae.add_requested_context(sop_class, syntax.get("syntax", ExplicitVRLittleEndian))
    return ae.associate(config.host, config.port, ae_title=called)


def store(config: ServiceConfig, dataset: Dataset) -> int | None:
    """The status of one C-STORE; None when the association was ended."""
    association = associate(config)
    assert association.is_established
    status = association.send_c_store(dataset).get("Status")
    if association.is_established:
        association.release()
    return status


@pytest.mark.usefixtures("receiver")
def test_only_those_who_are_allowed_and_call_it_by_its_name_are_answered(config: ServiceConfig) -> None:
    for caller, called, welcome in (
        ("SCANNER", "LUMBAR", True),
        ("STRANGER", "LUMBAR", False),
        ("SCANNER", "OTHER", False),
    ):
        association = associate(config, caller, called)
        assert association.is_established == welcome and association.is_rejected != welcome
        if welcome:
            assert association.send_c_echo().Status == 0
            association.release()


@pytest.mark.usefixtures("receiver")
def test_an_image_is_kept_and_other_objects_are_dropped(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    assert store(config, images[0]) == 0
    other = copy.deepcopy(images[0])
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    assert store(config, other) == 0
    (study,) = spool.settled(0.0)
    assert len(study.instances) == 1
    (path,) = study.images.iterdir()
    kept = pydicom.dcmread(path)
    assert kept.SOPInstanceUID == images[0].SOPInstanceUID and kept.PixelData == images[0].PixelData


@pytest.mark.usefixtures("receiver")
@pytest.mark.parametrize("study_uid", ["", "../../etc", f"1.{'2' * 63}"])
def test_an_image_without_a_usable_study_is_refused(
    config: ServiceConfig, spool: Spool, images: list[Dataset], study_uid: str
) -> None:
    dataset = copy.deepcopy(images[0])
    dataset["StudyInstanceUID"] = pydicom.DataElement(
        "StudyInstanceUID", "UI", study_uid, validation_mode=pydicom.config.IGNORE
    )
    assert store(config, dataset) == 0xC000
    assert spool.settled(0.0) == []


@pytest.mark.usefixtures("receiver")
@pytest.mark.parametrize("study_uid", ["1.2.003.04", "4003253"])
def test_identifiers_are_taken_as_they_come(
    config: ServiceConfig, spool: Spool, images: list[Dataset], study_uid: str
) -> None:
    dataset = copy.deepcopy(images[0])
    instance = f"{study_uid}.007"
    for part, keyword, uid in (
        (dataset, "StudyInstanceUID", study_uid),
        (dataset, "SOPInstanceUID", instance),
        (dataset.file_meta, "MediaStorageSOPInstanceUID", instance),
    ):
        part[keyword] = pydicom.DataElement(keyword, "UI", uid, validation_mode=pydicom.config.IGNORE)
    assert store(config, dataset) == 0
    assert len(spool.settled(0.0)) == 1


@pytest.mark.usefixtures("receiver")
def test_private_objects_are_taken_and_dropped_and_the_images_kept(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    """An archive that forwards a study stops at the first object that is not taken."""
    private = "1.3.12.2.1107.5.9.1"  # Siemens CSA non-image
    entity = AE(ae_title="SCANNER")
    for sop_class in (private, MRImageStorage, "1.2.840.10008.5.1.4.1.1.104.1"):
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", config.port, ae_title="LUMBAR")
    assert association.is_established and association.rejected_contexts == []
    other = copy.deepcopy(images[0])
    del other.PixelData
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = private
    try:
        for dataset in (other, *images):
            assert association.send_c_store(dataset).Status == 0
    finally:
        association.release()
    (study,) = spool.settled(0.0)
    assert len(study.instances) == len(images)


@pytest.mark.usefixtures("receiver")
def test_a_refused_association_is_logged(config: ServiceConfig, capfd: pytest.CaptureFixture[str]) -> None:
    set_up_log()
    assert not associate(config, called="OTHER").is_established
    for _ in range(50):
        said = "".join(capfd.readouterr())
        if said:
            break
        time.sleep(0.1)
    assert "an association from 'SCANNER' to 'OTHER' was refused; this node is 'LUMBAR'" in said


@pytest.mark.usefixtures("receiver")
def test_an_object_beyond_the_limit_ends_its_association(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    dataset = copy.deepcopy(images[0])
    dataset.PixelData = b"\0" * 400_000
    assert store(config, dataset) is None
    assert store(config, images[1]) == 0  # the service goes on
    assert sum(len(study.instances) for study in spool.settled(0.0)) == 1


@pytest.mark.usefixtures("receiver")
def test_a_pdu_that_claims_gigabytes_is_not_read(config: ServiceConfig, images: list[Dataset]) -> None:
    with socket.create_connection((config.host, config.port), timeout=10) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFF0) + b"\0" * 1000)
        assert connection.recv(1) == b""  # closed at once, not after 4 GiB
    assert store(config, images[0]) == 0


@pytest.mark.usefixtures("receiver")
def test_deflated_images_are_not_negotiated(config: ServiceConfig) -> None:
    association = associate(config, syntax=DeflatedExplicitVRLittleEndian)
    assert {context.abstract_syntax for context in association.accepted_contexts} <= {VERIFICATION}
    association.release()


def test_a_full_spool_says_so_to_the_sender(
    config: ServiceConfig, images: list[Dataset], tmp_path: Path
) -> None:
    small = Spool(tmp_path / "small", max_bytes=100)
    running = Receiver(config, small)
    running.start()
    assert store(config, images[0]) == 0xA700
    running.stop()
    small.close()


def test_more_associations_than_allowed_are_turned_away(config: ServiceConfig, spool: Spool) -> None:
    running = Receiver(replace(config, max_associations=1), spool)
    running.start()
    first = associate(config)
    second = associate(config)
    assert first.is_established and not second.is_established
    first.release()
    running.stop()


# --- sender ---


def test_results_wait_for_a_destination_that_is_away(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    keep(spool, images)
    worker(replace(config, objects=(ResultObject.SR, ResultObject.SC)), spool).grade_settled()
    sender = Sender(config, spool, threading.Event())
    assert sender.deliver() == 2
    received: list[str] = []
    answers = [0xA700, 0x0000, 0xB000]

    def answer(event: evt.Event) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        return answers.pop(0)

    archive = AE(ae_title=config.destination.ae_title)
    archive.require_called_aet = True
    for sop_class in ("1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7"):
        archive.add_supported_context(sop_class)
    address = (config.destination.host, config.destination.port)
    server = archive.start_server(address, block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
    assert sender.deliver() == 1  # the first was turned away, which does not keep the second
    assert sender.deliver() == 0 and spool.waiting_results() == []
    assert len(received) == 3 and received[0] == received[2] != received[1]
    server.shutdown()


# --- the whole, and privacy ---


@pytest.fixture
def undisturbed() -> Iterator[None]:
    """Puts back what the command sets for the whole process: signals and loggers."""
    loggers = [logging.getLogger(name) for name in ("lumbar.serve", "pynetdicom", "pydicom", "highdicom")]
    before = [(logger, logger.handlers[:], logger.propagate) for logger in loggers]
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for logger, handlers, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
    for number, handler in signals.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("undisturbed")
def test_a_port_that_is_taken_and_a_spool_in_use_end_with_1(
    config: ServiceConfig, spool: Spool, tmp_path: Path
) -> None:
    arguments = ["--to", "PACS@127.0.0.1:9", "--port", str(config.port)]
    in_use = CliRunner().invoke(app, ["serve", str(config.spool), *arguments])
    assert in_use.exit_code == 1 and "another run is writing into 'name-" in in_use.stderr
    assert "choose another folder" in in_use.stderr and config.spool.name not in in_use.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", config.port))
        taken.listen()
        port_taken = CliRunner().invoke(app, ["serve", str(tmp_path / "other"), *arguments])
    assert port_taken.exit_code == 1 and "cannot listen on 127.0.0.1" in port_taken.stderr
    nonsense = CliRunner().invoke(app, ["serve", str(tmp_path / "third"), "--to", "PACS"])
    assert nonsense.exit_code == 2 and "AETITLE@host:port" in nonsense.stderr
    assert not (tmp_path / "third").exists()


@pytest.mark.usefixtures("undisturbed")
def test_no_patient_gets_into_the_log(
    config: ServiceConfig, spool: Spool, images: list[Dataset], capfd: pytest.CaptureFixture[str]
) -> None:
    set_up_log()
    running = Receiver(config, spool)
    running.start()
    for dataset in images:
        assert store(config, dataset) == 0
    running.stop()
    odd = copy.deepcopy(images[0])
    odd.SOPInstanceUID, odd.PatientID = derived_uid("odd"), f"{CANARY}-2"
    worker(config, spool).grade_settled()
    odd.file_meta.MediaStorageSOPInstanceUID = odd.SOPInstanceUID
    keep(spool, [*images, odd])
    worker(config, spool).grade_settled()
    Sender(config, spool, threading.Event()).deliver()
    said = "".join(capfd.readouterr())
    assert f"study {STUDY}" in said and "graded, 1 results to send" in said
    assert said.count("rejected [identifiers_disagree] × 1") == 1  # another patient's image joined the study
    assert "CANARY" not in said
    assert spool.waiting_results()
    for path in spool.waiting_results():
        result = pydicom.dcmread(path)
        assert result.PatientID == CANARY and odd.SOPInstanceUID.encode() not in path.read_bytes()
    for path in config.spool.rglob("*"):
        assert "CANARY" not in path.name and STUDY not in path.name
        assert path.suffix == ".dcm" or not path.is_file() or b"CANARY" not in path.read_bytes()


def test_the_clock_may_be_set_back(spool: Spool, images: list[Dataset]) -> None:
    keep(spool, images[:1])
    (study,) = spool.settled(0.0)
    (path,) = study.images.iterdir()
    later = time.time() + 9999
    os.utime(path, (later, later))
    assert len(spool.settled(0.0)) == 1
