"""A second series confirms or contradicts, and counts half where it confirms."""

from dataclasses import replace

import numpy as np

from detector.look.candidates import DiscCandidate
from detector.spine.voting import VotingConfig, join_votes

CONFIG = VotingConfig()


def discs(count: int = 6, *, level: int = 1, shift_mm: float = 0.0) -> list[DiscCandidate]:
    return [
        DiscCandidate(
            score=0.8,
            class_scores=np.eye(7)[min(level + i, 6)] * 0.8,
            disc_mm=np.array([0.0, 5.0 * i + shift_mm, -36.0 * i]),
            canal_mm=np.array([0.0, 5.0 * i + 24 + shift_mm, -36.0 * i]),
            spread_mm=0.5,
            members=(),
        )
        for i in range(count)
    ]


def test_an_agreeing_series_adds_its_evidence_and_its_places() -> None:
    lead = discs()
    lead[2] = replace(lead[2], class_scores=np.full(7, 0.1))  # the leading series cannot tell
    other = discs(shift_mm=2.0)
    other[4] = replace(other[4], canal_mm=other[4].canal_mm + [0, 7, 0])  # sees this one somewhere else
    joined, agrees = join_votes(lead, other, CONFIG)
    assert agrees
    assert joined[2].class_scores.argmax() == 3
    for index, (before, after) in enumerate(zip(lead, joined, strict=True)):
        moved = np.array([0, 0 if index == 4 else 2 * CONFIG.weight / (1 + CONFIG.weight), 0])
        np.testing.assert_allclose(after.disc_mm - before.disc_mm, moved)
        np.testing.assert_allclose(after.canal_mm - before.canal_mm, moved)


def test_a_patient_who_moved_is_noticed_and_does_not_vote() -> None:
    lead = discs()
    joined, agrees = join_votes(lead, discs(shift_mm=10.0), CONFIG)
    assert not agrees
    assert joined is lead


def test_a_series_that_shows_a_part_of_the_spine_votes_for_that_part() -> None:
    joined, agrees = join_votes(discs(), discs()[3:], CONFIG)
    assert agrees
    assert len(joined) == 6


def test_a_series_that_shows_another_stretch_of_the_spine_says_nothing() -> None:
    lead = discs()
    far = [replace(disc, disc_mm=disc.disc_mm - [0, 0, 400]) for disc in discs()]
    assert join_votes(lead, far, CONFIG) == (lead, True)
    beside = [replace(disc, disc_mm=disc.disc_mm + [0, 90, 0]) for disc in discs()]
    assert join_votes(lead, beside, CONFIG) == (lead, False), "same heights, nowhere near"


def test_a_series_that_shows_nothing_says_nothing() -> None:
    lead = discs()
    assert join_votes(lead, [], CONFIG) == (lead, True)
