"""What is said of something that was rejected: codes, advice, and never a patient's name."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path

from data_prep.problems import DicomRejected, LumbarError, Reason, Rejection, counted


def test_every_reason_has_advice() -> None:
    assert all(reason.advice for reason in Reason)


def test_a_file_is_named_by_its_last_part_and_only_if_an_exporter_named_it() -> None:
    plain = Rejection.of(Path("/home/doe/IM0001.dcm"), Reason.TRUNCATED, "it ends early", study_id="1")
    assert (plain.file, plain.place) == ("IM0001.dcm", "1/IM0001.dcm")
    named = Rejection.of(Path("/home/Doe^Jane.dcm"), Reason.TRUNCATED, "it ends early", series_id="2")
    assert "doe" not in str(named).lower() and named.place.startswith("2/name-")


def test_a_rejection_comes_back_from_its_record() -> None:
    rejection = Rejection(Reason.TRUNCATED, "it ends early", "1", "2", "3.dcm")
    assert Rejection.from_record(json.loads(json.dumps(asdict(rejection)))) == rejection


def test_a_refusal_brings_its_advice_along_from_another_process() -> None:
    inner = Rejection(Reason.LOCALISER, "a scout")
    error = DicomRejected(Rejection(Reason.NO_SERIES, "nothing usable", "7"), (inner,))
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, LumbarError)
    assert (again.rejection, again.rejections) == (error.rejection, (inner,))
    assert again.advice == Reason.NO_SERIES.advice


def test_many_copies_of_a_series_are_counted_and_damaged_files_named() -> None:
    """Another series, reason or sentence is another group; up to three copies are named one by one."""

    def files(count: int, series: str, reason: Reason = Reason.DUPLICATE) -> list[Rejection]:
        return [Rejection(reason, "it is so", "1", series, f"{n}.dcm") for n in range(count)]

    few, many, other = files(3, "2"), files(100, "3"), files(4, "3", Reason.TRUNCATED)
    mixed = [item for group in zip(many, [*few, *other, *many], strict=False) for item in group][:14]
    found = counted([*few, *many, *other])
    assert found == [*((item, 0) for item in few), (many[0], 99), *((item, 0) for item in other)]
    assert sum(1 + more for _, more in counted(mixed)) == 14
    assert counted([]) == []
