"""The receiver of ``lumbar serve``: whom it answers, what it keeps, and what it refuses."""

from __future__ import annotations

import copy
import socket
import struct
import threading
import time
from collections.abc import Iterator
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
from pipeline.service.run import set_up_log
from pipeline.service.spool import Spool
from tests.pipeline.service.parts import VERIFICATION, associate, store, worker


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
    association.join(10)
    assert association.is_aborted
    assert spool.settled(0.0)[0].is_incomplete


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


@pytest.mark.usefixtures("receiver")
def test_a_transfer_that_broke_off_is_told_until_the_series_is_sent_again(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    def send(some: list[Dataset], *, is_whole: bool) -> bool:
        association = associate(config)
        for dataset in some:
            assert association.send_c_store(dataset).Status == 0
        association.release() if is_whole else association.abort()
        time.sleep(0.5)
        (study,) = spool.settled(0.0)
        return study.is_incomplete

    assert not send(images[:5], is_whole=True)
    assert send(images[5:8], is_whole=False)
    assert send(images[10:], is_whole=True)  # another series
    assert not send(images[5:10], is_whole=True)


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
        statuses = [association.send_c_store(path).Status for path in paths]
        association.send_c_store(long)
    assert statuses == [0xA900, 0xC000, *[0] * (len(images) - 3)]
    for _ in range(2):
        worker(config, spool).grade_settled()
        (report,) = spool.waiting_results()
        said = report.read_bytes().decode("utf-8", "replace")
        assert f"incomplete: image_refused x {3 if alone else 4}" in said  # one goes by its neighbours
        assert "flag transfer_incomplete: Images may be missing" in said
        assert store(config, paths[0]) == 0xA900  # again: that is known
    for dataset in images[:2]:
        assert store(config, dataset) == 0
    (study,) = spool.settled(0.0)
    assert study.refused_why == ["size"] if alone else ["C000", "size"]


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
    for number, patient in ((1, "A"), (2, "A"), (1, "B")):
        dataset = copy.deepcopy(images[0])
        dataset.InstanceNumber, dataset.PatientID = number, patient
        sent.append(dataset)
    for dataset in (*sent, sent[0]):
        assert store(config, dataset) == 0
    (study,) = spool.settled(0.0)
    kept = [pydicom.dcmread(path) for path in study.images.iterdir()]
    assert sorted((str(item.PatientID), int(item.InstanceNumber)) for item in kept) == [
        ("A", 1),
        ("A", 2),
        ("B", 1),
    ]
