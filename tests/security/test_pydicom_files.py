"""Every test file that pydicom ships is read or rejected by code, within bounds: odd, broken, of any kind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from data_prep.problems import Reason
from tests.hostile.bounded import BoundedReader, Outcome

DATA = Path(pydicom.__file__).parent / "data"
FILES = sorted(
    path for name in ("test_files", "charset_files") for path in (DATA / name).rglob("*") if path.is_file()
)
CODES = {reason.value for reason in Reason}


@pytest.fixture(scope="module")
def reader() -> Iterator[BoundedReader]:
    with BoundedReader(time_s=30) as bounded:
        yield bounded


def test_each_file_alone(reader: BoundedReader) -> None:
    outcomes = {path.name: reader.run("file", path) for path in FILES}
    assert len(outcomes) > 90
    assert {name: outcome for name, outcome in outcomes.items() if not outcome.is_allowed} == {}
    assert {code for outcome in outcomes.values() for code in outcome.reasons} <= CODES
    read = {name for name, outcome in outcomes.items() if outcome.kind == "read"}
    # One real image in eight codings; what is refused is no single grey slice, or of no magnetic resonance.
    assert {name for name in outcomes if name.startswith("MR_small")} <= read
    assert reasons(outcomes["CT_small.dcm"]) == {"other_modality"}
    assert reasons(outcomes["image_dfl.dcm"]) == {"transfer_syntax_not_supported"}
    assert reasons(outcomes["MR_truncated.dcm"]) == {"truncated"}
    assert reasons(outcomes["README.txt"]) == {"not_dicom"}


def test_all_of_them_as_a_tree_of_studies(reader: BoundedReader, tmp_path: Path) -> None:
    """The good slices among them are found; nothing that is wrong with the others ends the search."""
    for number, path in enumerate(FILES):
        shutil.copy(path, tmp_path / f"{number}.dcm")
    outcome = reader.run("study", tmp_path)
    assert outcome.kind == "rejected", outcome
    assert outcome.slices > 0
    assert set(outcome.reasons) <= CODES and len(outcome.reasons) > 6


def reasons(outcome: Outcome) -> set[str]:
    return set(outcome.reasons)
