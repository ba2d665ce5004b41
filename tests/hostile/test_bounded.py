"""The watcher of the fuzzing sees what it is there for: a hang, a crash, a limit that was hit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.dicom_files import write_slice
from tests.hostile.bounded import BoundedReader


def test_what_must_not_be_is_seen_and_the_next_file_is_read(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "1.dcm")
    large = write_slice(tmp_path / "2.dcm", np.zeros((4096, 4096), np.uint16), position=(9, 0, 0))
    with BoundedReader(memory_mb=40, time_s=60) as reader:
        assert reader.run("file", path).kind == "read"
        assert reader.run("file", large).kind == "memory"
        child = reader._child
        assert child is not None
        child.kill()
        child.wait()
        crash = reader.run("file", path)
        assert (crash.kind, crash.detail) == ("crash", "SIGKILL")
        assert reader.run("file", path).kind == "read"
        reader._time_s = 0.0
        assert reader.run("study", tmp_path).kind == "hang"
        reader._time_s = 60.0
        outcome = reader.run("study", tmp_path)
        assert outcome.kind == "memory" and not outcome.is_allowed


def test_a_file_that_vanishes_without_a_word_is_noticed(tmp_path: Path) -> None:
    write_slice(tmp_path / "1.dcm", orientation=(1, 0, 0, 0, 1, 0))
    (tmp_path / "notes.txt").write_text("passed over in silence")
    with BoundedReader(time_s=60) as reader:
        outcome = reader.run("study", tmp_path)
    assert (outcome.kind, outcome.slices, outcome.unexplained) == ("read", 1, 1)
    assert not outcome.is_allowed
