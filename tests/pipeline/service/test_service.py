"""The parts of ``lumbar serve``: what is refused, what is kept, and what survives a kill at any point."""

from __future__ import annotations

import copy
import errno
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from typer.testing import CliRunner

from classifier.grade import Grade
from classifier.prior import level_prior
from data_prep.base.files import FolderInUse
from data_prep.base.uids import derived_uid
from data_prep.read.find import find_studies
from data_prep.vocabulary import TARGETS, Target
from pipeline.cli import app
from pipeline.grade import Pipeline
from pipeline.results.dicom import ResultObject
from pipeline.service.config import Peer, ServiceConfig, Tls
from pipeline.service.dicomweb import Archive, ArchiveFailed
from pipeline.service.receiver import Receiver
from pipeline.service.run import Worker, set_up_log
from pipeline.service.sender import Sender
from pipeline.service.spool import Spool, SpoolFull, WaitingStudy
from tests.pipeline.service.parts import STUDY, keep, store, worker
from tests.pipeline.stand_in import CANARY, BrokenGrader, StraightSpine, stand_in_pipeline


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("ae_title", "", "AE title"),
        ("ae_title", "A" * 17, "AE title"),
        ("ae_title", "A\\B", "AE title"),
        ("allowed_callers", ("GOOD", "\n"), "AE title"),
        ("port", 0, "port"),
        ("port", 65536, "port"),
        ("keep_s", -1.0, "keep_s"),
        ("retry_s", 0.0, "retry_s"),
        ("objects", (), "something to send"),
        ("tls", Tls(), "certificate of its own"),
        ("max_associations", 0, "max_associations"),
        ("max_pdu_bytes", 100, "max_pdu_bytes"),
        ("quiet_s", -1.0, "quiet_s"),
        ("max_spool_bytes", 0, "max_spool_bytes"),
        ("max_retry_s", 0.01, "max_retry_s"),
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
    hosts = ("archive.local", "127.0.0.1", "[::1]", "localhost")
    assert [Peer.parse(f"PACS@{host}:104").is_open for host in hosts] == [True, False, False, False]
    assert not Peer.parse("PACS@archive.local:104", Tls()).is_open
    for text in (
        "PACS",
        "PACS@host",
        "@host:1",
        " @host:1",
        f"{'A' * 17}@host:1",
        "PACS@host:99999",
        "PACS@host:x",
    ):
        with pytest.raises(ValueError):
            Peer.parse(text)


def test_titles_of_callers_are_taken_without_their_padding(config: ServiceConfig) -> None:
    assert replace(config, allowed_callers=("SCANNER ", " A")).allowed_callers == ("SCANNER", "A")


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
    first, *_ = sorted(study.images.iterdir())
    os.utime(first, (1, 1))
    assert spool.settled(60.0) == []  # the last one came just now


def test_a_study_whose_first_image_was_turned_away_is_incomplete_when_others_come(
    spool: Spool, images: list[Dataset]
) -> None:
    spool.note_cut(STUDY, "1.2.3.4.12")
    spool.clean(0.0)
    assert spool.settled(0.0) == []
    keep(spool, images[1:3])
    assert [study.is_incomplete for study in spool.settled(0.0)] == [True]


def test_studies_wait_for_every_association_that_brings_them_and_the_oldest_comes_first(
    spool: Spool, images: list[Dataset]
) -> None:
    keep(spool, images[:1])
    for number in range(5):
        spool.store(f"1.{number}", f"1.{number}.1", b"x")
    for age, path in enumerate(sorted(spool.settled(0.0), key=lambda study: study.key, reverse=True)):
        (image,) = path.images.iterdir()
        os.utime(image, (age + 1, age + 1))
    keys = [study.key for study in spool.settled(0.0)]
    assert len(keys) == 6 and keys == sorted(keys, reverse=True)
    spool.begin_arriving(STUDY)
    spool.begin_arriving(STUDY)
    keep(spool, images[1:2])
    spool.end_arriving(STUDY)
    assert len(spool.settled(0.0)) == 5
    spool.end_arriving(STUDY)
    assert len(spool.settled(0.0)) == 6


def test_attempts_are_those_since_it_was_graded(spool: Spool, images: list[Dataset]) -> None:
    """A study that images join one by one is not given up."""
    for number in range(4):
        keep(spool, images[number : number + 1])
        (study,) = spool.settled(0.0)
        assert study.attempts == 0
        spool.begin(study)
        spool.finish(study, "graded")


@pytest.mark.parametrize("state", ["{", "[]", '{"format": "lumbar-spool/9", "graded": []}', "\0" * 20])
def test_a_state_that_a_bad_disk_has_spoilt_has_its_study_graded_again(
    config: ServiceConfig, spool: Spool, images: list[Dataset], state: str
) -> None:
    keep(spool, images[:2])
    spool.store("1.9", "1.9.1", b"x")
    for study in spool.settled(0.0):
        spool.finish(study, "graded")
        (study.images.parent / "state.json").write_text(state)
    spool.close()
    again = Spool(config.spool, max_bytes=config.max_spool_bytes)
    assert sorted(len(study.instances) for study in again.settled(0.0)) == [1, 2]
    again.close()


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


def test_nobody_else_can_look_into_a_folder_that_was_there(tmp_path: Path, images: list[Dataset]) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    spool = Spool(folder, max_bytes=10**6)
    spool.note_cut("1.2", "1.2.3")
    spool.note_refused("1.3", "1.3.4", "A900")
    for path in (folder / "studies", folder / "outbox", *(folder / "studies").iterdir()):
        assert oct(path.stat().st_mode & 0o777) == "0o700"
    spool.close()


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


def test_no_more_graded_images_go_than_must_and_the_oldest_first(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=1000)
    for number in (1, 2, 3):
        spool.store(f"1.{number}", f"1.{number}.1", b"x" * 300)
    ages = {}
    for study in spool.settled(0.0):
        (path,) = study.images.iterdir()
        ages[path] = path.stat().st_mtime
        spool.finish(study, "graded")
    spool.store("1.4", "1.4.1", b"x" * 500)  # two of them
    (left,) = [path for path in ages if path.exists()]
    assert ages[left] == max(ages.values())
    spool.close()


def test_the_size_of_the_spool_is_kept_though_a_study_makes_room_for_its_own_correction(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=1000)
    spool.store("1.1", "1.1.1", b"x" * 900)
    spool.finish(spool.settled(0.0)[0], "graded")
    spool.store("1.1", "1.1.1", b"y" * 990)
    spool.store("1.1", "1.1.1", b"y" * 995)  # now it waits, and replaces itself
    with pytest.raises(SpoolFull):
        spool.store("1.2", "1.2.1", b"x" * 10)
    spool.store("1.2", "1.2.1", b"x" * 5)
    spool.close()
    again = Spool(tmp_path / "spool", max_bytes=1000)  # it knows what is there
    with pytest.raises(SpoolFull):
        again.store("1.3", "1.3.1", b"x")
    again.close()


def test_an_image_whose_room_its_own_correction_takes_goes_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=1000)
    spool.store("1.1", "1.1.1", b"x" * 600)
    spool.finish(spool.settled(0.0)[0], "graded")
    spool.store("1.2", "1.2.1", b"x" * 300)
    with pytest.raises(SpoolFull):
        spool.store("1.1", "1.1.1", b"y" * 750)  # the room is its own, and not enough
    spool.store("1.1", "1.1.1", b"y" * 700)
    with pytest.raises(SpoolFull):
        spool.store("1.3", "1.3.1", b"x")
    assert sum(path.stat().st_size for path in (tmp_path / "spool").rglob("*.dcm")) == 1000
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


def test_a_corrected_image_is_graded_and_the_same_one_is_not(spool: Spool, images: list[Dataset]) -> None:
    keep(spool, images[:2])
    spool.finish(spool.settled(0.0)[0], "graded")
    corrected = copy.deepcopy(images[1])
    corrected.PixelData = bytes(len(corrected.PixelData))
    keep(spool, [images[0], corrected])
    (study,) = spool.settled(0.0)
    assert len(study.instances) == len(list(study.images.iterdir())) == 2 and not study.is_incomplete


def test_late_images_of_which_the_earlier_ones_are_gone_are_called_incomplete(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    keep(spool, images[:10])
    worker(config, spool).grade_settled()
    assert "transfer_incomplete" not in said_in(spool)
    spool.clean(0.0)
    keep(spool, images[10:])
    worker(config, spool).grade_settled()
    assert "flag transfer_incomplete: Images may be missing" in said_in(spool)


def test_what_lacked_images_is_graded_again_when_all_are_there_though_none_is_new(
    spool: Spool, images: list[Dataset]
) -> None:
    def graded() -> list[tuple[int, bool]]:
        waiting = spool.settled(0.0)
        for study in waiting:
            spool.finish(study, "graded")
        return [(len(study.instances), study.is_incomplete) for study in waiting]

    keep(spool, images[:2])
    spool.note_cut(STUDY, "1.2.3.4.12")
    assert graded() == [(2, True)] and graded() == []
    keep(spool, images[:2])
    assert graded() == []  # the association is not over
    spool.note_whole(STUDY, "1.2.3.4.12")
    assert graded() == [(2, False)] and graded() == []
    spool.clean(0.0)
    keep(spool, images[2:3])
    assert graded() == [(1, True)] and graded() == []
    keep(spool, images[:1])
    assert graded() == []
    keep(spool, images[1:2])
    assert graded() == [(3, False)] and graded() == []


def test_a_refusal_has_a_graded_study_graded_again_once_and_until_the_image_comes(
    spool: Spool, images: list[Dataset]
) -> None:
    def graded() -> list[list[str]]:
        waiting = spool.settled(0.0)
        for study in waiting:
            assert study.is_incomplete == bool(study.refused)
            spool.finish(study, "graded")
        return [study.refused_why for study in waiting]

    keep(spool, images[:2])
    assert graded() == [[]]
    for number, why in ((2, "A900"), (1, "A700"), (2, "A900")):
        spool.note_refused(STUDY, images[number].SOPInstanceUID, why)
    assert graded() == [["A700", "A900"]] and graded() == []
    spool.note_refused(STUDY, images[2].SOPInstanceUID, "A900")
    assert graded() == []
    keep(spool, images[2:3])
    assert graded() == [["A700"]] and graded() == []
    keep(spool, images[1:2])  # it was there, and a correction of it was refused
    assert graded() == [[]] and graded() == []


def said_in(spool: Spool) -> str:
    """What the newest report that waits says."""
    return spool.waiting_results()[-1].read_bytes().decode("utf-8", "replace")


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
        note = spool._note
        patch.setattr(
            spool,
            "_note",
            lambda key, **given: None if given.get("outcome") == "graded" else note(key, **given),
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


def test_a_full_disk_costs_no_study(
    config: ServiceConfig, spool: Spool, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    # More often than a study that ends the program is tried; and the others are looked at all the same.
    keep(spool, images)
    spool.store("1.9", "1.9.1", b"no DICOM")
    asked: list[Path] = []

    def full(dataset: Dataset, path: Path) -> None:
        asked.append(path)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.service.spool.write_object", full)
        for _ in range(config.max_attempts + 2):
            with pytest.raises(OSError, match="No space"):
                worker(config, spool).grade_settled()
    assert len(asked) == config.max_attempts + 2
    (study,) = spool.settled(0.0)
    assert study.attempts == 0
    worker(config, spool).grade_settled()
    assert len(spool.waiting_results()) == 1 and spool.settled(0.0) == []


def test_what_cannot_be_graded_gives_no_result_and_is_not_tried_again(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    keep(spool, images)
    broken = Pipeline(StraightSpine(), BrokenGrader(STUDY))
    worker(config, spool, broken).grade_settled()
    spool.store("1.9", "1.9.1", b"no DICOM")
    worker(config, spool).grade_settled()
    assert spool.settled(0.0) == [] and spool.waiting_results() == []


@pytest.mark.usefixtures("undisturbed")
def test_a_study_of_which_no_target_was_graded_gives_no_result(
    config: ServiceConfig, spool: Spool, images: list[Dataset], capfd: pytest.CaptureFixture[str]
) -> None:
    class NothingSeen:
        def grade(self, *_: object) -> dict[Target, Grade]:
            return {target: Grade(level_prior(target), "prior") for target in TARGETS}

    set_up_log()
    keep(spool, images)
    worker(config, spool, Pipeline(StraightSpine(), NothingSeen())).grade_settled()
    assert spool.settled(0.0) == [] and spool.waiting_results() == []
    assert ": nothing to grade, 0 results to send" in capfd.readouterr().err


class Waits(threading.Event):
    """Waits for nothing, remembers how long it should have waited, and is set after so many."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.asked = most, list[float | None]()

    def wait(self, timeout: float | None = None) -> bool:
        self.asked.append(timeout)
        if len(self.asked) >= self.most:
            self.set()
        return self.is_set()


def test_the_worker_outlives_failures_waits_longer_for_a_full_disk_and_cleans_up(
    config: ServiceConfig, spool: Spool, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, keep_s=0.0, max_retry_s=5.0)
    keep(spool, images)
    failures: list[Exception] = [OSError(errno.ENOSPC, "full")] * 4 + [RuntimeError("what?")]
    settled = spool.settled

    def failing(quiet_s: float) -> list[WaitingStudy]:
        if failures:
            raise failures.pop(0)
        return settled(quiet_s)

    monkeypatch.setattr(spool, "settled", failing)
    stop, new_results = Waits(9), threading.Event()
    Worker(config, spool, stand_in_pipeline(), new_results).run(stop)
    assert stop.asked == [1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 1.0, 1.0, 1.0]
    assert len(spool.waiting_results()) == 1 and new_results.is_set()
    assert not list(config.spool.rglob("images/*.dcm"))


def test_two_patients_of_one_study_get_results_of_their_own(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    """As a scanner that gives one StudyInstanceUID twice; and each says that images may be missing."""
    other = copy.deepcopy(images)
    for dataset in other:
        dataset.PatientID = dataset.PatientName = "OTHER"
        dataset.SeriesInstanceUID += ".8"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.8"
    keep(spool, [*images, *other])
    spool.note_refused(STUDY, "1.2.3", "A900")
    worker(config, spool).grade_settled()
    results = [path.read_bytes() for path in spool.waiting_results()]
    patients = {pydicom.dcmread(path).PatientID for path in spool.waiting_results()}
    assert len(results) == 2 and patients == {CANARY, "OTHER"}
    assert all(b"flag transfer_incomplete" in result for result in results)
    assert all(b"incomplete: image_refused x 1" in result for result in results)


@pytest.mark.usefixtures("undisturbed")
def test_why_a_study_gets_no_result_is_logged(
    config: ServiceConfig, spool: Spool, images: list[Dataset], capfd: pytest.CaptureFixture[str]
) -> None:
    set_up_log()
    spool.store("1.9", "1.9.1", b"no DICOM")
    unnamed = copy.deepcopy(images)
    for dataset in unnamed:
        dataset.PatientID = "X" * 65
    keep(spool, unnamed)
    grading = worker(config, spool)
    grading.grade_settled()
    said = capfd.readouterr().err
    assert "rejected [not_dicom] × 1" in said and ": unreadable, 0 results to send" in said
    assert "rejected [dicom_result_refused] × 1" in said and ": refused, 0 results to send" in said
    assert spool.waiting_results() == [] and "XXX" not in said


def test_what_finding_says_of_a_study_is_said_beside_what_is_missing(
    config: ServiceConfig, spool: Spool, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [replace(entry, flags=("identifiers_missing",)) for entry in find_studies(kept_in(spool, images))]
    monkeypatch.setattr("pipeline.service.run.find_studies", lambda _: found)
    spool.note_cut(STUDY, "1.2")
    worker(config, spool).grade_settled()
    assert "flag identifiers_missing" in said_in(spool) and "flag transfer_incomplete" in said_in(spool)


def kept_in(spool: Spool, images: list[Dataset]) -> Path:
    keep(spool, images)
    return spool.settled(0.0)[0].images


def test_a_worker_that_is_told_to_stop_leaves_what_waits(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    keep(spool, images)
    stop = threading.Event()
    stop.set()
    worker(config, spool).grade_settled(stop)
    (study,) = spool.settled(0.0)
    assert study.attempts == 0 and spool.waiting_results() == []


# --- sender ---


def test_the_sender_waits_longer_after_every_failure_and_looks_again_when_there_is_more(
    config: ServiceConfig, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, new_results = Waits(7), Waits(99)
    sender = Sender(replace(config, max_retry_s=0.5), spool, new_results)
    left = [1, 1, 1, 1, 0, 0, 2, 2]
    new_results.set()
    monkeypatch.setattr(sender, "deliver", lambda _: left.pop(0) if left else 1)
    sender.run(stop)
    assert stop.asked == [0.1, 0.2, 0.4, 0.5, 0.1, 0.2, 0.4]
    assert new_results.asked == [5.0, 5.0] and not new_results.is_set()


def test_a_delivery_that_fails_within_the_program_is_tried_again(
    config: ServiceConfig, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "waiting_results", lambda: 1 / 0)
    assert Sender(config, spool, threading.Event()).deliver() > 0


def test_results_are_sent_oldest_first_and_a_half_one_never(spool: Spool) -> None:
    for age, name in enumerate(("c", "a", "b", ".half")):
        (spool.outbox / f"{name}.dcm").write_bytes(b"x")
        os.utime(spool.outbox / f"{name}.dcm", (age + 1, age + 1))
    assert [path.stem for path in spool.waiting_results()] == ["c", "a", "b"]
    spool.delivered(spool.outbox / "a.dcm")
    spool.delivered(spool.outbox / "a.dcm")  # of a kill in between: somebody has taken it out
    assert [path.stem for path in spool.waiting_results()] == ["c", "b"]


def test_results_wait_for_a_destination_that_is_away(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    keep(spool, images)
    worker(replace(config, objects=(ResultObject.SR, ResultObject.SC)), spool).grade_settled()
    sender = Sender(config, spool, threading.Event())
    assert sender.deliver() == 2
    spoilt = spool.outbox / "a-spoilt.dcm"
    spoilt.write_bytes(b"a bad disk")
    os.utime(spoilt, (1, 1))  # the oldest
    received: list[str] = []
    released: list[evt.Event] = []
    answers = [0xA700, 0x0000, 0xB000]

    def answer(event: evt.Event) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        return answers.pop(0)

    archive = AE(ae_title=config.destination.ae_title)
    archive.require_called_aet = True
    for sop_class in ("1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7"):
        archive.add_supported_context(sop_class)
    address = (config.destination.host, config.destination.port)
    server = archive.start_server(
        address, block=False, evt_handlers=[(evt.EVT_C_STORE, answer), (evt.EVT_RELEASED, released.append)]
    )
    assert sender.deliver() == 2  # one was turned away and one cannot be read, which does not keep the other
    assert sender.deliver() == 1 and spool.waiting_results() == [spoilt]
    assert len(received) == 3 and received[0] == received[2] != received[1]
    server.shutdown()
    assert len(released) == 2


def test_an_object_that_the_destination_never_takes_keeps_no_other_and_an_end_leaves_the_rest(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    keep(spool, images)
    worker(replace(config, objects=(ResultObject.SR, ResultObject.SC)), spool).grade_settled()
    for path in spool.waiting_results():
        if pydicom.dcmread(path).Modality == "SR":
            os.utime(path, (1, 1))  # the first
    sender = Sender(config, spool, threading.Event())
    archive = AE(ae_title=config.destination.ae_title)
    archive.add_supported_context("1.2.840.10008.5.1.4.1.1.7")
    told_to_stop = threading.Event()
    server = archive.start_server(
        (config.destination.host, config.destination.port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, lambda _: 0)],
    )
    told_to_stop.set()
    assert sender.deliver(told_to_stop) == 2
    assert sender.deliver() == 1
    (left,) = spool.waiting_results()
    assert pydicom.dcmread(left).Modality == "SR"
    server.shutdown()


@pytest.mark.parametrize(("is_unreachable", "asked"), [(True, 1), (False, 3)])
def test_an_archive_that_is_away_is_asked_once_a_round(
    config: ServiceConfig,
    spool: Spool,
    images: list[Dataset],
    monkeypatch: pytest.MonkeyPatch,
    is_unreachable: bool,
    asked: int,
) -> None:
    calls: list[Dataset] = []

    def fails(_: Archive, result: Dataset) -> None:
        calls.append(result)
        raise ArchiveFailed("no", is_unreachable=is_unreachable)

    monkeypatch.setattr("pipeline.service.sender.store", fails)
    keep(spool, images[:1])
    spool.finish(spool.settled(0.0)[0], "graded", images[:3])
    archive = Archive("http://127.0.0.1:9/web")
    assert Sender(replace(config, destination=archive), spool, threading.Event()).deliver() == 3
    assert len(calls) == asked


def test_a_destination_that_ends_the_association_gets_the_rest_later(
    config: ServiceConfig, spool: Spool, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Now and then the library misses the end, and waits for an answer.
    monkeypatch.setattr("pipeline.service.sender._TIMEOUT_S", 5)
    keep(spool, images[:1])
    spool.finish(spool.settled(0.0)[0], "graded", [captured(image) for image in images[:3]])
    archive, taken = AE(ae_title=config.destination.ae_title), list[str]()
    archive.add_supported_context("1.2.840.10008.5.1.4.1.1.7")

    def answer(event: evt.Event) -> int:
        taken.append(str(event.request.AffectedSOPInstanceUID))
        if len(taken) == 2:
            event.assoc.abort()
        return 0

    server = archive.start_server(
        (config.destination.host, config.destination.port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, answer)],
    )
    sender = Sender(config, spool, threading.Event())
    assert sender.deliver() in (1, 2) and len(taken) == 2
    assert sender.deliver() == 0
    server.shutdown()


def captured(image: Dataset) -> Dataset:
    """An image under the class of a secondary capture."""
    found = copy.deepcopy(image)
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    return found


def test_a_result_waits_until_the_archive_has_confirmed_that_very_one(
    config: ServiceConfig, spool: Spool, images: list[Dataset]
) -> None:
    def said(sequence: str, uid: str) -> bytes:
        item = {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [272]}}
        return json.dumps({sequence: {"vr": "SQ", "Value": [item]}}).encode()

    uids = [str(dataset.SOPInstanceUID) for dataset in images[:5]]
    answers = [
        (200, said("00081198", uids[0])),  # refused
        (200, b""),
        (200, said("00081199", uids[0])),  # another one is confirmed
        (500, b""),
        (200, said("00081199", uids[4])),
    ]
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            status, body = answers.pop(0)
            self.send_response(status)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    keep(spool, images[:1])
    spool.finish(spool.settled(0.0)[0], "graded", images[:5])
    waiting = spool.waiting_results()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        archive = Archive(f"http://127.0.0.1:{server.server_address[1]}/web")
        sender = Sender(replace(config, destination=archive), spool, threading.Event())
        told_to_stop = threading.Event()
        told_to_stop.set()
        assert sender.deliver(told_to_stop) == 5 and asked == []
        assert sender.deliver() == 4 and asked == ["/web/studies"] * 5
        server.shutdown()
    assert spool.waiting_results() == waiting[:4]
    assert sender.deliver() == 4  # it is away


# --- the whole, and privacy ---


@pytest.fixture
def undisturbed() -> Iterator[None]:
    """Puts back what the command sets for the whole process: signals and loggers."""
    loggers = [logging.getLogger(name) for name in ("lumbar.serve", "pynetdicom", "pydicom", "highdicom")]
    before = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for logger, handlers, propagate, level in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
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
