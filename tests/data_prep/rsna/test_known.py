"""Which studies the research models know is known, and counted by their part."""

from __future__ import annotations

from data_prep.partition import Part, part_of
from data_prep.rsna.known import known_studies, said_of_calibrated, said_of_known

COMPLETE = ("100206310", "4003253")  # of which every figure end to end is measured


def test_no_study_of_the_test_part_is_among_them() -> None:
    parts = {part: sum(part_of(study_id) is part for study_id in known_studies()) for part in Part}
    assert parts == {Part.TRAIN: 1300, Part.VALIDATION: 173, Part.TEST: 0}
    assert not known_studies() & set(COMPLETE)


def test_a_sentence_tells_how_many_and_only_where_there_are_some() -> None:
    of_train = sorted(name for name in known_studies() if part_of(name) is Part.TRAIN)[:2]
    of_validation = next(name for name in known_studies() if part_of(name) is Part.VALIDATION)
    said = said_of_known([*of_train, *of_train, of_validation, "101"])
    assert said is not None and "of these 4 studies" in said
    assert "learned from 2" in said and "calibrated on 1" in said
    assert said_of_known(["101", *COMPLETE]) is None and said_of_known([]) is None


def test_the_open_graders_took_four_numbers_from_the_validation_part_alone() -> None:
    by_part = {part: [name for name in known_studies() if part_of(name) is part] for part in Part}
    said = said_of_calibrated([*by_part[Part.VALIDATION][:3], *by_part[Part.TRAIN][:2], "101"])
    assert said is not None and said.startswith("3 of these 6 studies calibrated")
    assert said_of_calibrated([*by_part[Part.TRAIN], *COMPLETE, "101"]) is None
