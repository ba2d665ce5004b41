"""Protects: a study is in the same part in every data set, for ever, and the parts keep apart."""

from __future__ import annotations

from data_prep.partition import Part, part_of, studies_of


def test_the_parts_are_those_that_the_bundled_models_were_trained_with() -> None:
    # Golden: were the rule changed, models would be judged on what they learned from.
    assert [part_of(str(number)) for number in range(12)] == [
        Part.TEST, Part.TRAIN, Part.TRAIN, Part.TRAIN, Part.TRAIN, Part.TRAIN,
        Part.TRAIN, Part.TEST, Part.TRAIN, Part.TEST, Part.TEST, Part.TRAIN,
    ]  # fmt: skip


def test_two_tenths_are_kept_from_training() -> None:
    names = [f"study-{number}" for number in range(5000)]
    parts = {part: studies_of(names, part) for part in Part}
    assert sum(map(len, parts.values())) == len(names)
    assert not parts[Part.TRAIN] & parts[Part.VALIDATION] and not parts[Part.TRAIN] & parts[Part.TEST]
    for part in (Part.VALIDATION, Part.TEST):
        assert 0.08 < len(parts[part]) / len(names) < 0.12


def test_the_two_complete_studies_choose_nothing() -> None:
    assert part_of("100206310") is Part.TEST and part_of("4003253") is Part.TEST
