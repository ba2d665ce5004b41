"""Whether a patient lies as the coordinates say, told from the images.

A patient who was registered in another position than he lies in has coordinates that are off by half a turn:
feet first instead of head first, prone instead of supine, or both. Sagittal slices are then shown with head
and foot, front and back, or both exchanged, and nothing in the headers says so. The sagittal detector sees
discs even so, but their levels do not follow each other as they do on the same slice the right way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.problems import DicomRejected
from data_prep.study import Slice
from detector.look.candidates import CandidateConfig, merge_candidates, slice_candidates
from detector.look.canonical import CanonicalImage, canonical_image
from detector.look.inference import SlicePredictor
from detector.spine.chain import ChainConfig, ChainDisc, best_chain, possible_offsets, shape_score


@dataclass(frozen=True)
class OrientationConfig:
    """When a slice is looked at turned, and when another way round is believed.

    Chosen on synthetic patients of seeds from 152,000, hard ones from 162,000, and SPIDER's training part;
    the order also on 120 RSNA validation studies.

    Attributes:
        sure_order: of a chain's order (``order_seen``), from which the orientation is taken as it is claimed:
            2 of 585 turned chains of choosing patients, real and synthetic, reach it, and 86 % of right ones.
        order_weight: of the log density of the canal's shape in that order.
        least_evidence: a chain, turned or not, with less evidence in all is no spine.
        margin: another way round is believed when its evidence is so many times that of the claimed one.
        few_discs, margin_of_few: fewer discs, as in half a view or of a bent spine, leave their order to
            chance: of 120 such views of choosing patients (seeds 283,000 to 283,039) that were not turned, 6
            looked better turned with the other margin, and 2 do so with this one.
        shape_weight: of the log density of the canal's shape beside the logarithm of the evidence.
        least_shape: a shape that is less likely counts as this: an odd spine is no proof.
    """

    sure_order: float = 0.44
    order_weight: float = 0.1
    least_evidence: float = 0.8
    margin: float = 1.2
    few_discs: int = 6
    margin_of_few: float = 1.5
    shape_weight: float = 0.04
    least_shape: float = -15.0


def orientation_is_doubtful(
    chain: tuple[ChainDisc, ...],
    middle: Slice,
    predictor: SlicePredictor,
    config: OrientationConfig,
    candidates: CandidateConfig,
    chains: ChainConfig,
) -> bool:
    """Whether the spine is clearly better seen with the images turned than as the coordinates say.

    Args:
        chain: the discs seen in all slices; while they are convincing nothing more is looked at.
        middle: the slice to turn. One that cannot be decoded leaves no doubt.
    """
    if chain and order_seen(chain, config) >= config.sure_order:
        return False
    spec = predictor.spec
    try:
        pixels = middle.pixels()
    except DicomRejected:
        return False
    shown = canonical_image(middle.plane, pixels, mm_per_px=spec.mm_per_px, max_side_px=spec.max_canvas_px)
    claimed, *turned = chains_seen(_all_ways_round(shown.image), shown, predictor, candidates, chains)
    least = max(plausibility(claimed, config), config.least_evidence)
    return any(is_clearly_better(discs, least, config) for discs in turned)


def is_clearly_better(turned: tuple[ChainDisc, ...], least: float, config: OrientationConfig) -> bool:
    """Whether the evidence of a chain is above ``least`` by the margin that a chain of its length needs."""
    margin = config.margin if len(turned) >= config.few_discs else config.margin_of_few
    return plausibility(turned, config) > least * margin


def order_seen(chain: tuple[ChainDisc, ...], config: OrientationConfig) -> float:
    """How well the discs of a chain follow each other head to foot, however faint they are, in [0, 1].

    The mean score of the level that the best offset gives each disc, less where the canal has a shape that no
    spine has.
    """
    total, offset = level_evidence(chain, weighted=False)
    return total / len(chain) * _likely_shape(chain, offset, config.order_weight, config)


def plausibility(chain: tuple[ChainDisc, ...], config: OrientationConfig) -> float:
    """The evidence of a chain, less where its canal has a shape that no spine has."""
    evidence, offset = level_evidence(chain)
    return evidence * _likely_shape(chain, offset, config.shape_weight, config)


def level_evidence(chain: Sequence[ChainDisc], *, weighted: bool = True) -> tuple[float, int]:
    """How well the levels that the discs look like follow each other, and the offset that fits best.

    The sum over discs of their score (1 for all if not ``weighted``) times the score of the level that the
    offset gives them: near the number of discs where all are seen and told apart, far below where their order
    makes no sense; 0 without discs.
    """
    offsets = possible_offsets(len(chain))
    sums = [
        sum(
            (disc.candidate.score if weighted else 1.0) * float(disc.candidate.class_scores[offset + place])
            for place, disc in enumerate(chain)
            if disc.candidate is not None and 0 <= offset + place < len(disc.candidate.class_scores)
        )
        for offset in offsets
    ]
    best = int(np.argmax(sums))
    return sums[best], offsets[best]


def _likely_shape(
    chain: tuple[ChainDisc, ...], offset: int, weight: float, config: OrientationConfig
) -> float:
    """In (0, 1] for usual shapes of the canal at this offset, near 0 for what no spine has."""
    return float(np.exp(weight * max(shape_score(chain, offset), config.least_shape)))


def _all_ways_round(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """As claimed; front and back, head and foot, and both exchanged."""
    return [
        image,
        *(np.ascontiguousarray(turned) for turned in (image[:, ::-1], image[::-1], image[::-1, ::-1])),
    ]


def chains_seen(
    images: list[NDArray[np.uint8]],
    shown: CanonicalImage,
    predictor: SlicePredictor,
    candidates: CandidateConfig,
    chains: ChainConfig,
) -> list[tuple[ChainDisc, ...]]:
    """The chain of each image, as though it had been acquired on the grid of ``shown``."""
    found = []
    for prediction, pad in predictor.predict(images, len(images)):
        seen = slice_candidates(
            prediction, shown, predictor.spec, candidates, series_id="", instance_number=0, pad_px=pad
        )
        found.append(best_chain(merge_candidates(seen, candidates, slices_seen=1), chains))
    return found
