"""Several series look at one spine: the leading one says where the discs are, all say which is which."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from detector.candidates import DiscCandidate


@dataclass(frozen=True)
class VotingConfig:
    """How other sagittal series take part in the numbering.

    Attributes:
        match_mm: discs of two series nearer than this (sagittal plane) are the same disc.
        agree_share: share of the leading discs that must have a match for the series to agree.
        agree_mm: largest median distance of the matches; a patient who moved exceeds it.
        weight: of another series' class scores beside the leading one's.
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
    """Add another series' class scores to the discs of the leading series.

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
    joined = []
    for disc in lead:
        if id(disc) not in near:
            joined.append(disc)
            continue
        voter = near[id(disc)][0]
        scores = (disc.class_scores + config.weight * voter.class_scores) / (1 + config.weight)
        joined.append(replace(disc, class_scores=scores, members=(*disc.members, *voter.members)))
    return joined, True


def _nearest(disc: DiscCandidate, others: list[DiscCandidate]) -> tuple[DiscCandidate, float]:
    """The disc of another series nearest in the sagittal plane, and its distance in mm."""
    distances = [float(np.linalg.norm((disc.disc_mm - other.disc_mm)[1:])) for other in others]
    best = int(np.argmin(distances))
    return others[best], distances[best]


def _within_reach(disc: DiscCandidate, others: list[DiscCandidate], margin_mm: float) -> bool:
    """Whether the other series shows the spine at this height at all."""
    heights = [other.disc_mm[2] for other in others]
    return bool(min(heights) - margin_mm <= disc.disc_mm[2] <= max(heights) + margin_mm)
