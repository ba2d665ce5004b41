"""SIGKILL to the real command line, full disks, folders that cannot be written, two runs at once."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import pipeline.cli
from benchmarks.interruption import batches, contents, killed_batch
from data_prep.base.files import FolderInUse, locked_folder
from data_prep.read.find import find_studies
from pipeline.batch.run import run_batch
from pipeline.grade import Pipeline
from pipeline.results.report.study_report import write_report
from pipeline.results.submission import read_submission, validate_submission
from tests.pipeline.stand_in import stand_in_pipeline, write_studies
from tests.pipeline.warm_program import start_warm

STUDIES = ["501", "502", "503", "504"]
N_KILLS = 5
_WORK_S = 1.5  # four studies of 0.2 s and what is written for them


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_studies(tmp_path_factory.mktemp("data") / "test_images", STUDIES)


def arguments(images: Path, out: Path) -> list[str]:
    return ["predict", str(images), "-o", str(out), "--no-pictures", "--json", "--quiet"]


def command(images: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "tests.pipeline.stand_in_main", "0.2", *arguments(images, out)]


@pytest.fixture
def lumbar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command line as the script runs it, in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(Pipeline, "load", classmethod(lambda cls, **_: stand_in_pipeline()))

    def run(images: Path, out: Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lumbar", *arguments(images, out)])
        with pytest.raises(SystemExit) as caught:
            pipeline.cli.main()
        said = capsys.readouterr()
        return int(caught.value.code or 0), said.out, said.err

    return run


Lumbar = Callable[[Path, Path], tuple[int, str, str]]


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run writes."""
    out = tmp_path_factory.mktemp("out") / "undisturbed"
    run_batch(stand_in_pipeline(), find_studies(images), out, report=write_report)
    written = contents(out)
    assert {name.partition("/")[0] for name in written} == {
        "studies",
        "reports",
        "index.html",
        "predictions.json",
        "submission.csv",
        "targets.csv",
        "refused.csv",
    }
    return written


def test_a_batch_that_was_killed_ends_with_the_same_bytes_and_does_nothing_twice(
    images: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    done = batches(
        partial(command, images),
        tmp_path,
        undisturbed,
        runs=N_KILLS,
        work_s=_WORK_S,
        rng=random.Random(0),
    )
    kills = 0
    for batch in done:
        assert batch.same_bytes and batch.taken_over_right and batch.redone == ()
        kills += len(batch.kills)
    assert kills == N_KILLS


def test_a_run_that_redoes_or_differs_would_be_seen(tmp_path: Path) -> None:
    record = tmp_path / "out" / "studies" / "501.json"
    record.parent.mkdir(parents=True)
    record.write_text("done")
    again = f"open({str(record)!r}, 'w').write('again'); print('{{\"resumed\": 0}}')"
    batch = killed_batch(
        [sys.executable, "-c", again],
        tmp_path / "out",
        {"studies/501.json": b"done"},
        number=0,
        max_kills=0,
        work_s=1.0,
        rng=random.Random(0),
    )
    assert (batch.same_bytes, batch.redone, batch.taken_over_right) == (False, ("501.json",), False)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A file system of its own for a test; skips where none may be mounted."""
    folder.mkdir(exist_ok=True)
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a file system")
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(
    images: Path, tmp_path: Path, undisturbed: dict[str, bytes], lumbar: Lumbar
) -> None:
    one_study = sum(len(content) for name, content in undisturbed.items() if "501" in name)
    size = f"size={int(1.7 * one_study) // 4096 * 4096}"
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", size, "tmpfs") as disk:
        out = disk / "out"
        code, said, complained = lumbar(images, out)
        assert (code, said) == (1, "")
        assert "No space left on device" in complained and "make room on the disk" in complained
        left = contents(out)
        assert "studies/501.json" in left and "submission.csv" not in left
        # No half file has the name of a whole one.
        assert {name: left[name] == undisturbed.get(name) for name in left} == dict.fromkeys(left, True)
        subprocess.run(["mount", "-o", "remount,size=64M", str(disk)], check=True)
        code, said, _ = lumbar(images, out)
        finished = [name for name in left if name.startswith("studies/")]
        assert code == 0 and json.loads(said)["resumed"] == len(finished)
        assert contents(out) == undisturbed


def test_files_that_may_not_grow_end_the_run(images: Path, tmp_path: Path, lumbar: Lumbar) -> None:
    """The same without a mount: a limit on the size of a file, which the report of a study passes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        code, said, complained = lumbar(images, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, said) == (1, "") and "File too large" in complained
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize("place", ["below a file", "in /proc", "read-only"])
def test_a_folder_that_cannot_be_written_is_said_before_anything_is_done(
    images: Path, tmp_path: Path, place: str, lumbar: Lumbar
) -> None:
    (tmp_path / "file").write_text("")
    if place == "read-only":
        with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "ro", "tmpfs") as disk:
            code, said, complained = lumbar(images, disk / "out")
    elif place == "in /proc":
        if not Path("/proc/self").exists():
            pytest.skip("no /proc here")
        code, said, complained = lumbar(images, Path("/proc/out"))
    else:
        code, said, complained = lumbar(images, tmp_path / "file" / "out")
    assert (code, said) == (1, "")
    assert "what to do: " in complained and ": out" in complained


def test_two_runs_never_write_into_one_folder(
    images: Path, tmp_path: Path, undisturbed: dict[str, bytes], lumbar: Lumbar
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with locked_folder(out):
        code, said, complained = lumbar(images, out)
        assert (code, said) == (1, "")
        assert "another run is writing into 'out'" in complained and "choose another folder" in complained
        assert [path.name for path in out.iterdir()] == [".lock"]
    # What a killed run leaves locks nobody out.
    (out / ".lock").write_text("")
    assert lumbar(images, out)[0] == 0
    assert contents(out) == undisturbed
    validate_submission(read_submission(out / "submission.csv"), STUDIES)


def test_what_was_unpacked_goes_however_a_run_ends(images: Path, tmp_path: Path, lumbar: Lumbar) -> None:
    """A zip holds images of patients: they must not stay in a temporary folder."""
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(images.rglob("*.dcm")):
            file.write(path, path.relative_to(images))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    for end in (signal.SIGTERM, signal.SIGKILL):
        out = tmp_path / end.name
        process = start_warm(
            "tests.pipeline.stand_in_main",
            ["60", *arguments(archive, out)],
            out=tmp_path / "said",
            err=tmp_path / "said",
            environment={"TMPDIR": str(temporary)},
        )
        while not (out / ".lock").exists():
            assert process.poll() is None
            time.sleep(0.02)
        assert len(list(temporary.rglob("*.dcm"))) == 15 * len(STUDIES)
        process.send_signal(end)
        process.wait(60)
        assert (list(temporary.iterdir()) == []) == (end is signal.SIGTERM)
    # What SIGKILL left goes when the next zip is opened, a minute later at the earliest.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        assert lumbar(archive, tmp_path / "young")[0] == 0
        (abandoned,) = temporary.iterdir()
        os.utime(abandoned, (0, 0))
        with locked_folder(abandoned):
            os.utime(abandoned, (0, 0))
            assert lumbar(archive, tmp_path / "locked")[0] == 0
            assert abandoned.exists()
        os.utime(abandoned, (0, 0))
        assert lumbar(archive, tmp_path / "old")[0] == 0
        assert list(temporary.iterdir()) == []


def test_the_lock_is_one_for_all_and_goes_with_its_block(tmp_path: Path) -> None:
    with locked_folder(tmp_path), pytest.raises(FolderInUse), locked_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError), locked_folder(tmp_path):
        raise ValueError
    assert list(tmp_path.iterdir()) == []
    with locked_folder(tmp_path):
        pass
