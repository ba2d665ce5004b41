"""Atomic writing, and folders that one run has to itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.base.files import atomic_write, locked_folder


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    with atomic_write(path) as stream:
        stream.write("hälf\n")
        assert not path.exists()
    assert path.read_bytes() == "hälf\n".encode()
    assert [item.name for item in path.parent.iterdir()] == ["result.json"]


def test_an_error_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with atomic_write(path, binary=True) as stream:
            stream.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["result.bin"]


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), locked_folder(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()
