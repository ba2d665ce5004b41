"""Atomic writing and names that are safe to write."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.files import atomic_write, csv_cell, safe_id


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


@pytest.mark.parametrize("text", ["4003253", "4003253.1.1", "patient_01", "A-b"])
def test_plain_identifiers_stay(text: str) -> None:
    assert safe_id(text) == text


@given(st.text(), st.text())
def test_identifiers_are_safe_and_stay_apart(a: str, b: str) -> None:
    for text in (a, b):
        safe = safe_id(text)
        assert safe and len(safe) <= 96
        assert all(c.isascii() and (c.isalnum() or c in "._-") for c in safe)
        assert safe[0].isalnum()
        assert safe_id(safe) == safe
    assert (safe_id(a) == safe_id(b)) == (a == b) or safe_id(a) == b or safe_id(b) == a


@pytest.mark.parametrize("text", ["../../etc/passwd", "..", "a/b", "a\\b", "=1+1", "\x1b[31mred", "x" * 200])
def test_dangerous_identifiers_change(text: str) -> None:
    assert safe_id(text) != text
    assert not {"/", "\\", "\x1b", "="} & set(safe_id(text))


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_cells_that_start_a_formula_are_quoted(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


def test_plain_cells_stay_and_control_characters_go() -> None:
    assert csv_cell("4003253_x") == "4003253_x"
    assert csv_cell("\t=1\x1b[2J\n") == "?=1?[2J?"
