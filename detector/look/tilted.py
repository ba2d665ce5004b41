"""Discs of a spine that bends sideways: what slices show at two heights may be one tilted disc."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.geometry import FloatArray


@dataclass(frozen=True)
class SeenDisc:
    """What slices say of one disc.

    Attributes:
        place_mm: (2,) y and z in the sagittal plane.
        across_mm: lowest and highest x of the slices that show it.
        slices: which show it clearly.
        score: of the best of them.
    """

    place_mm: FloatArray
    across_mm: tuple[float, float]
    slices: frozenset[tuple[str, int]]
    score: float


# A disc that tilts by 40° (the largest curves) lies this much lower on a slice 30 mm farther across.
_LARGEST_STEP_MM = 25.0
_LEAST_SCORE = 0.3
# Two such halves lie nearer to each other than this part of what discs usually do.
_NEAR = 0.7
# As one disc they lie no farther from their neighbours than this part of it.
_FAR = 1.3
_LEAST_OTHER_GAPS = 3


def halves(discs: Sequence[SeenDisc]) -> list[tuple[int, int]]:
    """Pairs of places in ``discs`` that are halves of one tilted disc, head to foot.

    No slice shows both, one is seen to the right of wherever the other is, they lie too near to each other
    for two discs, and as one disc they are not too far from their neighbours.
    """
    order = sorted(
        (i for i, disc in enumerate(discs) if disc.score >= _LEAST_SCORE),
        key=lambda i: -float(discs[i].place_mm[1]),
    )
    places = np.array([discs[i].place_mm for i in order]).reshape(-1, 2)
    gaps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    pairs: list[tuple[int, int]] = []
    for at in range(len(gaps)):
        others = np.delete(gaps, at)
        if len(others) < _LEAST_OTHER_GAPS:
            return []
        usual = float(np.median(others))
        upper, lower = discs[order[at]], discs[order[at + 1]]
        if gaps[at] > min(_LARGEST_STEP_MM, _NEAR * usual) or not _are_beside(upper, lower):
            continue
        middle = places[at : at + 2].mean(axis=0)
        beside = [places[i] for i in (at - 1, at + 2) if 0 <= i < len(places)]
        if all(float(np.linalg.norm(middle - place)) <= _FAR * usual for place in beside):
            pairs.append((order[at], order[at + 1]))
    return pairs


def _are_beside(one: SeenDisc, other: SeenDisc) -> bool:
    apart = one.across_mm[1] < other.across_mm[0] or other.across_mm[1] < one.across_mm[0]
    return apart and not one.slices & other.slices
