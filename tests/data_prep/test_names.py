"""Names that are safe to write and to say."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.names import csv_cell, input_label, safe_id


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


@pytest.mark.parametrize(
    "name",
    ["5.dcm", "IM0001", "image-12.DCM", "MR.1.2.840.113619.2", "slice_003 (copy).dcm", "I", "notes.dcm"],
)
def test_names_that_exporters_give_are_said(name: str) -> None:
    assert input_label(name) == name


@pytest.mark.parametrize(
    "name", ["Doe_John_0001.dcm", "MÜLLER", "患者.dcm", "患 1.dcm", "IM1 doe.dcm", "1.dcm\x1b[2J", "a.doe"]
)
def test_names_that_may_be_a_patients_are_not_said(name: str) -> None:
    label = input_label(name)
    assert re.fullmatch(r"name-[0-9a-f]{8}(\.dcm)?", label)
    assert label.split("-")[1][:8] == hashlib.sha256(name.encode()).hexdigest()[:8]
