"""The receiver of ``lumbar serve``: whom it answers, what it keeps, and what it refuses."""

from __future__ import annotations

import copy
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pydicom
import pynetdicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)
from pynetdicom import AE

from pipeline.service.config import ServiceConfig
from pipeline.service.receiver import Receiver
from pipeline.service.spool import Spool
from tests.pipeline.service.parts import STUDY, VERIFICATION, associate, store, worker


def soon(is_so: Callable[[], object]) -> bool:
    """Whether something comes true within seconds: the receiver ends associations in threads of its own."""
    for _ in range(500):
        if is_so():
            return True
        time.sleep(0.01)
    return False


@contextmanager
def logged() -> Iterator[list[str]]:
    """What the service logs meanwhile."""
    log, said = logging.getLogger("lumbar.serve"), []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler, level = Kept(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield said
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@pytest.fixture
def receiver(config: ServiceConfig, spool: Spool) -> Iterator[Receiver]:
    running = Receiver(replace(config, allowed_callers=("SCANNER",), max_file_bytes=100_000), spool)
    running.start()
    yield running
    running.stop()


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
            assert association.acceptor.maximum_length == config.max_pdu_bytes
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
    for sop_class in (MRImageStorage, private, "1.2.840.10008.5.1.4.1.1.104.1"):
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    other = copy.deepcopy(images[0])
    del other.PixelData
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = private
    for some in (images[:5], images[5:]):  # the second time it is known
        association = entity.associate("127.0.0.1", config.port, ae_title="LUMBAR")
        assert association.is_established and association.rejected_contexts == []
        try:
            for dataset in (other, *some):
                assert association.send_c_store(dataset).Status == 0
        finally:
            association.release()
    (study,) = spool.settled(0.0)
    assert len(study.instances) == len(images)


@pytest.mark.usefixtures("receiver")
def test_private_classes_are_not_learned_without_end(
    config: ServiceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.service.receiver._MAX_PRIVATE_CLASSES", 2)
    entity = AE(ae_title="SCANNER")
    for number in range(4):
        entity.add_requested_context(f"1.3.12.2.1107.5.9.{20 + number}", ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", config.port, ae_title="LUMBAR")
    assert len(association.accepted_contexts) == len(association.rejected_contexts) == 2
    association.release()


@pytest.mark.usefixtures("receiver")
def test_a_greeting_with_every_class_in_every_syntax_is_read(config: ServiceConfig) -> None:
    """Longer than a PDU of data may be."""
    entity = AE(ae_title="SCANNER")
    syntaxes = [f"1.2.840.10008.1.2.{number}.99999.99999" for number in range(30)]
    entity.add_requested_context(VERIFICATION)
    for number in range(127):
        entity.add_requested_context(f"1.3.12.2.1107.5.9.{100 + number}", syntaxes)
    association = entity.associate("127.0.0.1", config.port, ae_title="LUMBAR")
    assert association.is_established
    association.release()


@pytest.mark.usefixtures("receiver")
@pytest.mark.parametrize("sop_class", [EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage])
def test_enhanced_objects_are_kept(
    config: ServiceConfig, spool: Spool, images: list[Dataset], sop_class: str
) -> None:
    other = copy.deepcopy(images[0])
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = sop_class
    entity = AE(ae_title="SCANNER")
    entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", config.port, ae_title="LUMBAR")
    try:
        assert association.send_c_store(other).Status == 0
    finally:
        association.release()
    (study,) = spool.settled(0.0)
    assert len(study.instances) == 1


@pytest.mark.usefixtures("receiver")
def test_a_refused_association_is_logged(config: ServiceConfig) -> None:
    with logged() as said:
        assert not associate(config, called="OTHER").is_established
        assert soon(lambda: said)
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


def test_an_object_is_bounded_however_it_is_cut_and_an_association_of_many_is_not(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    longest = 2 * len(images[0].PixelData)
    running = Receiver(replace(config, max_pdu_bytes=4096, max_file_bytes=longest), spool)
    running.start()
    try:
        association = associate(config)
        assert [association.send_c_store(dataset).Status for dataset in images[:5]] == [0] * 5
        association.release()
        dataset = copy.deepcopy(images[5])
        dataset.PixelData = b"\0" * 2 * longest
        assert store(config, dataset) is None
    finally:
        running.stop()
    assert sum(len(study.instances) for study in spool.settled(0.0)) == 5


def test_who_is_sending_when_it_stops_may_end_and_nobody_else_begins(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    running = Receiver(config, spool)
    running.start()
    association = associate(config)
    ending = threading.Thread(target=running.stop)
    ending.start()
    try:
        assert association.send_c_store(images[0]).Status == 0
        assert not associate(config).is_established
        assert ending.is_alive()
    finally:
        association.release()
        ending.join()
    (study,) = spool.settled(0.0)
    assert len(study.instances) == 1 and not study.is_incomplete


def test_who_never_ends_does_not_keep_it_from_stopping(
    config: ServiceConfig, spool: Spool, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.service.receiver._LAST_ASSOCIATIONS_S", 0.1)
    running = Receiver(config, spool)
    running.start()
    association = associate(config)
    assert association.send_c_store(images[0]).Status == 0
    running.stop()
    association.join(5)  # sooner than it gives up by itself
    assert association.is_aborted
    assert spool.settled(0.0)[0].is_incomplete


@pytest.mark.usefixtures("receiver")
def test_a_pdu_that_claims_gigabytes_is_not_read(config: ServiceConfig, images: list[Dataset]) -> None:
    for claimed in (0xFFFFFFF0, 300 * 1024):
        with socket.create_connection((config.host, config.port), timeout=10) as connection:
            connection.sendall(struct.pack(">BBL", 1, 0, claimed) + b"\0" * 1000)
            assert connection.recv(1) == b""  # closed at once, not after 4 GiB
    assert store(config, images[0]) == 0


@pytest.mark.usefixtures("receiver")
def test_deflated_images_are_not_negotiated(config: ServiceConfig) -> None:
    with logged() as said:
        association = associate(config, syntax=DeflatedExplicitVRLittleEndian)
        assert {context.abstract_syntax for context in association.accepted_contexts} <= {VERIFICATION}
        association.release()
        assert soon(lambda: said)
    (line,) = (line for line in said if "not accepted" in line)
    assert MRImageStorage in line


def test_nothing_of_an_association_stays_when_it_has_ended(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    """Another one may get its identity: bytes, study and what was refused would be taken for its own."""
    running = Receiver(replace(config, max_file_bytes=100_000), spool)
    running.start()
    long, other = copy.deepcopy(images[0]), copy.deepcopy(images[0])
    long.PixelData = b"\0" * 400_000
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    with logged() as said:
        for dataset in (long, other, images[1], images[2]):
            store(config, dataset)
        association = associate(config)
        association.send_c_store(images[3])
        association.abort()
        running.stop()
        assert soon(lambda: "1 objects that are no MR images were taken and dropped" in said)
    kept = running._received, running._starts, running._dropped, running._transfers
    assert soon(lambda: not any(kept))


def test_an_image_that_cannot_be_written_is_sent_again_later(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    """By its status: 0xC000 would say that no other try can help."""
    running = Receiver(config, spool)
    running.start()
    assert store(config, images[0]) == 0
    (study,) = spool.settled(0.0)
    kept = study.images.rename(study.images.with_name("kept"))
    study.images.write_bytes(b"")
    assert store(config, images[1]) == 0xA700
    study.images.unlink()
    kept.rename(study.images)
    (study,) = spool.settled(0.0)
    assert study.refused_why == ["A700"]
    assert store(config, images[1]) == 0
    running.stop()
    (study,) = spool.settled(0.0)
    assert len(study.instances) == 2 and not study.is_incomplete


def test_a_full_spool_says_so_to_the_sender(
    config: ServiceConfig, images: list[Dataset], tmp_path: Path
) -> None:
    small = Spool(tmp_path / "small", max_bytes=100)
    running = Receiver(config, small)
    running.start()
    assert store(config, images[0]) == 0xA700
    running.stop()
    small.close()


def test_a_transfer_that_broke_off_is_told_until_the_series_is_sent_again(
    config: ServiceConfig,
    spool: Spool,
    images: list[Dataset],
    monkeypatch: pytest.MonkeyPatch,
    receiver: Receiver,
) -> None:
    def send(some: list[Dataset], *, is_whole: bool) -> bool:
        association = associate(config)
        for dataset in some:
            assert association.send_c_store(dataset).Status == 0
        association.release() if is_whole else association.abort()
        assert soon(lambda: not receiver._ae.active_associations)
        (study,) = spool.settled(0.0)
        return study.is_incomplete

    assert not send(images[:5], is_whole=True)
    assert send(images[5:8], is_whole=False)
    assert send(images[10:], is_whole=True)  # another series
    assert not send(images[5:10], is_whole=True)
    # A sender that keeps its association for the next study, and was ended long after the last image.
    monkeypatch.setattr("pipeline.service.receiver._TIMEOUT_S", 15)
    assert not send(images[5:8], is_whole=False)


@pytest.mark.usefixtures("receiver")
def test_a_study_waits_while_its_association_is_open(
    config: ServiceConfig, spool: Spool, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    association = associate(config)
    for dataset in images[:3]:
        assert association.send_c_store(dataset).Status == 0
    assert spool.settled(0.0) == []
    association.release()
    (study,) = spool.settled(0.0)
    assert len(study.instances) == 3 and not study.is_incomplete
    # Not for ever: some senders never end an association.
    association = associate(config)
    assert association.send_c_store(images[3]).Status == 0
    assert spool.settled(0.0) == []
    monkeypatch.setattr("pipeline.service.spool.WHILE_OPEN_S", 0.0)
    assert len(spool.settled(0.0)[0].instances) == 4
    association.release()


def test_an_image_that_was_turned_away_is_told(
    config: ServiceConfig, images: list[Dataset], tmp_path: Path
) -> None:
    small = Spool(tmp_path / "small", max_bytes=20_000)
    running = Receiver(config, small)
    running.start()
    assert [store(config, dataset) for dataset in images[:5]] == [0, 0, 0, 0xA700, 0xA700]
    (study,) = small.settled(0.0)
    assert study.is_incomplete and study.refused_why == ["A700", "A700"]
    running.stop()
    small.close()


@pytest.mark.usefixtures("receiver")
@pytest.mark.parametrize("alone", [False, True])
def test_what_was_refused_is_told_once_with_its_reason_until_it_comes(
    config: ServiceConfig,
    spool: Spool,
    images: list[Dataset],
    monkeypatch: pytest.MonkeyPatch,
    alone: bool,
) -> None:
    """Each in an association of its own, too: what comes after it and is taken makes up for nothing."""
    monkeypatch.setattr(pynetdicom._config, "STORE_SEND_CHUNKED_DATASET", True)
    other_class, other_uid = copy.deepcopy(images[0]), copy.deepcopy(images[1])
    other_class.SOPClassUID = EnhancedMRImageStorage
    other_uid.SOPInstanceUID = f"{other_uid.SOPInstanceUID}.9"
    long = copy.deepcopy(images[2])
    long.PixelData = b"\0" * 400_000
    paths = []
    for number, dataset in enumerate((other_class, other_uid, *images[3:])):
        paths.append(config.spool.parent / f"{number}.dcm")
        pydicom.dcmwrite(paths[-1], dataset)
    if alone:
        statuses = [store(config, path) for path in paths]
        assert store(config, long) is None
    else:
        association = associate(config)
        nobodys = copy.deepcopy(images[0])
        nobodys.StudyInstanceUID, nobodys.SOPInstanceUID = "", "1.2.3.4.5.99"
        assert association.send_c_store(nobodys).Status == 0xC000
        broken = config.spool.parent / "broken.dcm"
        nobodys.file_meta.MediaStorageSOPInstanceUID = nobodys.SOPInstanceUID = "1.2.3.4.5.98"
        pydicom.dcmwrite(broken, nobodys)
        start = broken.read_bytes().partition(b"\x08\x00\x16\x00UI")[0]
        broken.write_bytes(start + b"\x08\x00\x16\x00SQ\0\0\xff\xff\xff\xff" * 100)
        assert association.send_c_store(broken).Status == 0xC000  # it ends too early
        statuses = [association.send_c_store(path).Status for path in paths]
        association.send_c_store(long)
    assert soon(lambda: spool.settled(0.0))
    assert statuses == [0xA900, 0xC000, *[0] * (len(images) - 3)]
    for _ in range(2):
        worker(config, spool).grade_settled()
        (report,) = spool.waiting_results()
        said = report.read_bytes().decode("utf-8", "replace")
        assert f"incomplete: image_refused x {3 if alone else 5}" in said  # two go by their neighbours
        assert "flag transfer_incomplete: Images may be missing" in said
        assert store(config, paths[0]) == 0xA900  # again: that is known
    for dataset in images[:2]:
        assert store(config, dataset) == 0
    (study,) = spool.settled(0.0)
    assert study.refused_why == ["size"] if alone else ["C000", "C000", "size"]


def test_more_associations_than_allowed_are_turned_away(config: ServiceConfig, spool: Spool) -> None:
    running = Receiver(replace(config, max_associations=1), spool)
    running.start()
    first = associate(config)
    second = associate(config)
    assert first.is_established and not second.is_established
    first.release()
    running.stop()


@pytest.mark.usefixtures("receiver")
def test_different_images_of_one_identifier_are_all_kept(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    """As a careless anonymiser leaves them: of one series, and of two patients. The same again is one."""
    sent = []
    for keyword, value in (
        ("InstanceNumber", 7),
        ("PatientID", "B"),
        ("SeriesInstanceUID", f"{STUDY}.99"),
        ("ImagePositionPatient", [1, 2, 3]),
        ("EchoTime", 7),
        ("PixelData", bytes(len(images[0].PixelData))),  # a correction of the first
    ):
        dataset = copy.deepcopy(images[0])
        setattr(dataset, keyword, value)
        sent.append(dataset)
    association = associate(config)
    for dataset in (images[0], *sent, sent[0]):
        assert association.send_c_store(dataset).Status == 0
    association.release()
    (study,) = spool.settled(0.0)
    kept = [path.read_bytes() for path in study.images.iterdir()]
    assert len(kept) == len(sent) and sum(sent[-1].PixelData in content for content in kept) == 1
