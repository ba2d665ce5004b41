"""A disc that tilts sideways so far that slices show it at two heights counts once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detector.look.candidates import CandidateConfig, SeenDisc, SliceCandidate, halves, merge_candidates

ACROSS = (-14.0, -10.0, 12.0, 16.0)


def seen(z_mm: float, across: tuple[float, float] = (-14.0, 16.0), score: float = 0.7) -> SeenDisc:
    slices = frozenset(("t1", int(x)) for x in ACROSS if across[0] <= x <= across[1])
    return SeenDisc(np.array([0.0, z_mm]), across, slices, score)


RIGHT, LEFT = (-14.0, -10.0), (12.0, 16.0)
STRAIGHT = [seen(z) for z in (140.0, 105.0, 70.0, 35.0, 0.0)]


def test_two_heights_of_one_disc_are_joined() -> None:
    tilted = [*STRAIGHT[:2], seen(79.0, RIGHT), seen(61.0, LEFT), *STRAIGHT[3:]]
    assert halves(tilted) == [(2, 3)]
    assert halves(tilted[::-1]) == [(3, 2)]


@pytest.mark.parametrize(
    "pair",
    [
        (seen(79.0), seen(61.0)),
        (seen(79.0, RIGHT), seen(61.0, (-14.0, 16.0))),
        (seen(79.0, RIGHT), seen(45.0, LEFT)),
        (seen(79.0, RIGHT), seen(61.0, LEFT, score=0.1)),
    ],
    ids=["on the same slices", "one slice shows both", "as far apart as two discs", "hardly seen"],
)
def test_two_discs_stay_two(pair: tuple[SeenDisc, SeenDisc]) -> None:
    assert halves([*STRAIGHT[:2], *pair, *STRAIGHT[3:]]) == []


def test_a_join_that_would_leave_a_hole_is_none() -> None:
    """Two short gaps beside long ones: as one disc they would lie too far from the next."""
    discs = [seen(z) for z in (140.0, 105.0, 70.0)]
    assert halves([*discs, seen(30.0, RIGHT), seen(12.0, LEFT), seen(-40.0)]) == []
    assert halves([seen(79.0, RIGHT), seen(61.0, LEFT)]) == [], "nothing says how far apart discs lie"


def test_the_candidates_of_both_sides_become_one_disc_between_them() -> None:
    def candidates(z_mm: float, tilt_mm: float = 0.0) -> list[SliceCandidate]:
        return [
            SliceCandidate(0.7, np.full(7, 0.1), np.array([[x, 0.0, at], [x, 30.0, at]]), "t1", int(x))
            for x in ACROSS
            for at in [z_mm + np.sign(x) * tilt_mm]
        ]

    heights = (140.0, 105.0, 70.0, 35.0, 0.0)
    tilted = [item for z in heights for item in candidates(z, 9.0 if z == 70.0 else 0.0)]
    discs = merge_candidates(tilted, CandidateConfig(), slices_seen=len(ACROSS))
    assert sorted((round(float(disc.disc_mm[2])) for disc in discs), reverse=True) == [140, 105, 70, 35, 0]
    assert all(len(disc.members) == len(ACROSS) for disc in discs)
    weak = replace(tilted[8], score=0.05, points_mm=tilted[8].points_mm + [0.0, 0.0, 18.0])
    again = merge_candidates([*tilted, weak], CandidateConfig(), slices_seen=len(ACROSS))
    assert len(again) == len(discs), "what a slice hardly shows does not say that it shows both"
