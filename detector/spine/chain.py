"""WHERE and WHICH: a chain of discs along the spine, and one integer offset that numbers it.

The shape figures are of 1,885 real series (RSNA 2024 coordinate table): ratios of successive canal
gaps to their mean, and angles of the four segments between canal points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray
from data_prep.vocabulary import LEVELS
from detector.look.candidates import DiscCandidate
from detector.spec import SAGITTAL_LEVELS

CANAL_GAP_RATIOS = np.array([1.08, 1.06, 1.00, 0.86])
CANAL_GAP_RATIO_SD = np.array([0.08, 0.07, 0.07, 0.10])
SEGMENT_ANGLES_DEG = np.array([-12.0, -8.0, 2.5, 16.5])
SEGMENT_ANGLE_SD_DEG = np.array([8.0, 7.0, 8.0, 11.0])
CANAL_GAPS_MM = np.array([34.0, 33.0, 31.0, 25.0])
FIRST_LUMBAR = SAGITTAL_LEVELS.index(LEVELS[0].label)
LAST_LUMBAR = SAGITTAL_LEVELS.index(LEVELS[-1].label)


@dataclass(frozen=True)
class ChainConfig:
    """Weights and limits of the chain and its numbering.

    Attributes:
        disc_gap_mm, disc_gap_sd_mm: distance of neighbouring disc centres.
        min_gap_mm, max_gap_mm: neighbours nearer or farther are not neighbours.
        presence_cost: a disc has to score more than this to lengthen the chain.
        skip_cost: price of one disc that is not seen between two that are.
        unknown_share: evidence left for discs outside T11/T12 … L5/S1.
        class_floor: score added to that of every level, so that no disc rules an offset out alone.
        well_formed_score: a disc that scores as much is well formed: by convention it cannot lie below L5/S1.
        convention_share: the convention overrules the evidence only for a neighbouring offset that is at
            least this likely beside the likeliest one. A rudimentary S1/S2 disc may score 0.5 to 0.8; there
            the other discs say clearly where L5/S1 is.
        weights: of the terms of ``numbering_terms``; fitted on patients that train nothing
            (``detector/learn/numbering.py``).
        sureness: what the evidence is multiplied by before it becomes probabilities, likewise fitted. It
            decides nothing: which offset wins is asked of the evidence as it is.
    """

    disc_gap_mm: float = 35.0
    disc_gap_sd_mm: float = 6.0
    min_gap_mm: float = 16.0
    max_gap_mm: float = 54.0
    presence_cost: float = 0.15
    skip_cost: float = 0.6
    unknown_share: float = 0.1
    class_floor: float = 0.003
    well_formed_score: float = 0.5
    convention_share: float = 0.2
    weights: tuple[float, ...] = (0.67, 0.17, 0.33, 0.33, 2.0)
    sureness: float = 1.0


@dataclass(frozen=True, eq=False)
class ChainDisc:
    """A disc of the chain: a candidate, or a gap filled in between two (candidate None)."""

    disc_mm: FloatArray
    canal_mm: FloatArray
    candidate: DiscCandidate | None


@dataclass(frozen=True, eq=False)
class NumberedChain:
    """A chain with its numbering.

    Attributes:
        discs: head to foot.
        offset: the first disc is ``SAGITTAL_LEVELS[offset]`` (may be negative: above T11/T12).
        confidence: softmax probability of the offset, over all that were weighed.
        offsets: every offset that was weighed, with its probability.
    """

    discs: tuple[ChainDisc, ...]
    offset: int
    confidence: float
    offsets: dict[int, float]

    @property
    def reaches_sacrum(self) -> bool:
        """Whether a disc was seen where L5/S1 must be: else the levels are counted from above."""
        place = LAST_LUMBAR - self.offset
        return 0 <= place < len(self.discs) and self.discs[place].candidate is not None

    def other_readings(self, least: float) -> dict[int, float]:
        """By how many levels the numbering may be off → probability, from ``least`` on; likeliest first."""
        others = {o - self.offset: share for o, share in self.offsets.items() if o != self.offset}
        kept = sorted((-share, shift) for shift, share in others.items() if share >= least)
        return {shift: -share for share, shift in kept}

    def suspects_transition(self, min_score: float) -> bool:
        """Whether a disc below L5/S1 scores that much, or the convention overruled the evidence."""
        likeliest = max(self.offsets, key=lambda offset: self.offsets[offset])
        return likeliest != self.offset or _best_below_sacrum(self.discs, self.offset) >= min_score


def best_chain(candidates: list[DiscCandidate], config: ChainConfig) -> tuple[ChainDisc, ...]:
    """The chain of discs, head to foot, with the highest sum of scores minus the cost of odd gaps.

    Dynamic programming over candidates from the head down; gaps of about two discs are filled.
    """
    nodes = sorted(candidates, key=lambda c: -c.disc_mm[2])
    if not nodes:
        return ()
    best = [node.score - config.presence_cost for node in nodes]
    previous: list[tuple[int, int] | None] = [None] * len(nodes)
    for j, lower in enumerate(nodes):
        own = lower.score - config.presence_cost
        for i, upper in enumerate(nodes[:j]):
            link = _link_cost(upper, lower, config)
            if link is None:
                continue
            cost, missing = link
            value = best[i] + own - cost
            if value > best[j]:
                best[j], previous[j] = value, (i, missing)
    end: int | None = int(np.argmax(best))
    chain: list[ChainDisc] = []
    while end is not None:
        node = nodes[end]
        chain.append(ChainDisc(node.disc_mm, node.canal_mm, node))
        step = previous[end]
        if step is not None and step[1]:
            upper = nodes[step[0]]
            chain.append(
                ChainDisc((node.disc_mm + upper.disc_mm) / 2, (node.canal_mm + upper.canal_mm) / 2, None)
            )
        end = step[0] if step is not None else None
    return tuple(reversed(chain))


def _link_cost(upper: DiscCandidate, lower: DiscCandidate, config: ChainConfig) -> tuple[float, int] | None:
    """Cost of two discs being neighbours (or next but one), and how many discs lie unseen between."""
    step = (lower.disc_mm - upper.disc_mm)[1:]  # in the sagittal plane
    distance = float(np.linalg.norm(step))
    if -step[1] < 0.35 * distance:  # more across than down
        return None
    if config.min_gap_mm <= distance <= config.max_gap_mm:
        return 0.05 * ((distance - config.disc_gap_mm) / config.disc_gap_sd_mm) ** 2, 0
    if 2 * config.min_gap_mm < distance <= 2 * config.max_gap_mm - 14:
        excess = (distance / 2 - config.disc_gap_mm) / config.disc_gap_sd_mm
        return config.skip_cost + 0.05 * excess**2, 1
    return None


def number_chain(
    discs: tuple[ChainDisc, ...], config: ChainConfig, *, view_z_mm: tuple[float, float] | None = None
) -> NumberedChain:
    """Weigh every integer offset that leaves at least one lumbar disc in the chain.

    The likeliest offset wins, or one beside it that is nearly as likely and keeps the convention that the
    likeliest breaks: L5/S1 is the last well-formed disc. The confidence is the winner's share of the
    evidence.

    Args:
        view_z_mm: lowest and highest z that the sagittal images show, for the field-of-view prior.

    Raises:
        ValueError: an empty chain.
    """
    if not discs:
        raise ValueError("a chain needs at least one disc")
    offsets = possible_offsets(len(discs))
    scores = numbering_terms(discs, config, view_z_mm) @ np.array(config.weights)
    shares = offset_shares(scores)
    keeps = np.array([_best_below_sacrum(discs, o) < config.well_formed_score for o in offsets])
    beside = np.abs(np.arange(len(offsets)) - shares.argmax()) <= 1
    open_to = keeps & beside & (shares >= config.convention_share * shares.max())
    winner = int(np.argmax(np.where(open_to, shares, -1.0) if open_to.any() else shares))
    told = offset_shares(scores * config.sureness)
    return NumberedChain(
        discs=discs,
        offset=offsets[winner],
        confidence=float(told[winner]),
        offsets={offset: float(share) for offset, share in zip(offsets, told, strict=True)},
    )


def offset_shares(scores: FloatArray) -> FloatArray:
    """The softmax of the evidence for each offset."""
    shares: FloatArray = np.exp(scores - scores.max())
    return shares / shares.sum()


def possible_offsets(count: int) -> range:
    """Offsets that give at least one of ``count`` discs a lumbar level."""
    return range(FIRST_LUMBAR - count + 1, len(SAGITTAL_LEVELS))


def numbering_terms(
    discs: tuple[ChainDisc, ...], config: ChainConfig, view_z_mm: tuple[float, float] | None
) -> FloatArray:
    """Evidence for every possible offset, (offsets, 5); larger is better.

    Columns: log share of the class scores; log density of the shape of the canal; of the place in the
    view; minus the number of lumbar levels out of the chain; minus the scores of discs below L5/S1 (by
    convention L5/S1 is the last well-formed disc).
    """
    return np.array(
        [
            (
                _class_score(discs, offset, config),
                shape_score(discs, offset),
                _view_score(discs, offset, view_z_mm),
                -float(len(LEVELS) - len(_lumbar_canal(discs, offset)[0])),
                -sum(_scores_below_sacrum(discs, offset)),
            )
            for offset in possible_offsets(len(discs))
        ]
    )


def _scores_below_sacrum(discs: tuple[ChainDisc, ...], offset: int) -> list[float]:
    below = discs[max(0, len(SAGITTAL_LEVELS) - offset) :]
    return [disc.candidate.score for disc in below if disc.candidate is not None]


def _best_below_sacrum(discs: tuple[ChainDisc, ...], offset: int) -> float:
    return max(_scores_below_sacrum(discs, offset), default=0.0)


def _class_score(discs: tuple[ChainDisc, ...], offset: int, config: ChainConfig) -> float:
    """Sum over discs of the log share of evidence for the level that the offset gives them."""
    total = 0.0
    for position, disc in enumerate(discs):
        if disc.candidate is None:
            continue
        scores = disc.candidate.class_scores
        level = offset + position
        named = float(scores[level]) if 0 <= level < len(scores) else 0.0
        inside = 0 <= level < len(scores)
        evidence = (named + config.class_floor) if inside else config.unknown_share
        weight = min(1.0, disc.candidate.score / 0.5)
        total += weight * float(np.log(evidence / (float(scores.sum()) + config.unknown_share)))
    return total


def _lumbar_canal(discs: tuple[ChainDisc, ...], offset: int) -> tuple[NDArray[np.intp], FloatArray]:
    """Level indices 0–4 in the chain, and their canal points (n, 3)."""
    levels = [i for i in range(len(LEVELS)) if 0 <= i + FIRST_LUMBAR - offset < len(discs)]
    points = [discs[i + FIRST_LUMBAR - offset].canal_mm for i in levels]
    return np.array(levels, dtype=np.intp), np.array(points).reshape(-1, 3)


def segment_shape(canal_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lengths (n−1,) mm and angles (n−1,) degrees of the segments of a chain of canal points (n, 3).

    Angle in the sagittal plane between the segment, head to foot, and straight down; positive when it
    runs to the back.
    """
    steps = np.diff(canal_mm[:, 1:], axis=0)
    return np.linalg.norm(steps, axis=1), np.degrees(np.arctan2(steps[:, 0], -steps[:, 1]))


def shape_score(discs: tuple[ChainDisc, ...], offset: int) -> float:
    """Log density of the gap ratios and segment angles, per segment that is in the chain."""
    levels, canal = _lumbar_canal(discs, offset)
    if len(levels) < 3:
        return 0.0
    lengths, angles = segment_shape(canal)
    part = levels[:-1]
    ratios = lengths / lengths.mean() * CANAL_GAP_RATIOS[part].mean()
    z_ratio = (ratios - CANAL_GAP_RATIOS[part]) / (1.3 * CANAL_GAP_RATIO_SD[part])
    tilt = np.mean(angles - SEGMENT_ANGLES_DEG[part])  # the whole spine may lean
    z_angle = (angles - tilt * 0.5 - SEGMENT_ANGLES_DEG[part]) / SEGMENT_ANGLE_SD_DEG[part]
    density = -0.5 * (np.clip(z_ratio, -4, 4) ** 2 + np.clip(z_angle, -4, 4) ** 2)
    return float(density.sum())


def _view_score(discs: tuple[ChainDisc, ...], offset: int, view_z_mm: tuple[float, float] | None) -> float:
    """Log density of the place of the lumbar levels in the view.

    Usual heights: normalised y .300 .416 .531 .641 .730 (sd .055) of the canal points in 1,885 series.
    The sd is widened, because other hospitals plan otherwise.
    """
    if view_z_mm is None:
        return 0.0
    low, high = view_z_mm
    levels, canal = _lumbar_canal(discs, offset)
    usual = np.array([0.300, 0.416, 0.531, 0.641, 0.730])[levels]
    seen = (high - canal[:, 2]) / max(high - low, 1.0)
    offset_from_usual = float(np.mean(seen - usual))
    return -0.5 * (offset_from_usual / 0.10) ** 2
