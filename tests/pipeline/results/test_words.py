"""Every code has words."""

from __future__ import annotations

from data_prep.vocabulary import Flag, GradeSource
from pipeline.results.words import FLAG_WORDS, SOURCE_WORDS, flag_words


def test_every_flag_and_every_source_has_a_sentence_and_nothing_else_has() -> None:
    assert set(FLAG_WORDS) == set(Flag)
    assert set(SOURCE_WORDS) == set(GradeSource)
    assert all(words.endswith(".") for words in (*FLAG_WORDS.values(), *SOURCE_WORDS.values()))


def test_a_flag_of_somebody_elses_stays_readable() -> None:
    assert flag_words("left_out") == "Left out."
