"""Which identifiers an archive takes, and new ones that depend on nothing but what they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.base.uids import derived_uid
from tests.dicom_tools import is_valid_uid


@pytest.mark.parametrize("text", ["1.2.840.10008.1.2", "2.25.0", "2.999.1", "0.39.5"])
def test_real_roots_are_valid(text: str) -> None:
    assert is_valid_uid(text)


@pytest.mark.parametrize(
    "text",
    ["", "4003253", "4003253.1.1", "3.1", "1.40.1", "1.2.", "1..2", "1.02", "1.2.x", "1.2 ", "2." + "1" * 63],
)
def test_what_is_no_uid_is_told(text: str) -> None:
    assert not is_valid_uid(text)


@settings(max_examples=25)
@given(st.lists(st.text(), min_size=1, max_size=4))
def test_derived_identifiers_are_valid_and_stay(parts: list[str]) -> None:
    uid = derived_uid(*parts)
    assert is_valid_uid(uid) and uid == derived_uid(*parts)
    assert uid != derived_uid(*parts, "more")


def test_the_value_is_part_of_the_contract() -> None:
    # Another value would file the results of the same study twice.
    assert derived_uid("study", "4003253") == "2.25.173482413859022834556778535458667935587"
