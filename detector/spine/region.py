"""Whether sagittal series show the lumbar spine, and which of several places in the patient does.

A neck is half as large, and looks like a lumbar spine to a network that has seen nothing else: where the
discs that were seen leave a doubt, the middle slice is looked at once more, twice as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from data_prep.problems import DicomRejected
from data_prep.study import Series, Slice
from detector.look.candidates import CandidateConfig
from detector.look.canonical import canonical_image
from detector.look.inference import SlicePredictor
from detector.spine.chain import ChainConfig, ChainDisc
from detector.spine.orientation import chains_seen, level_evidence

# Neighbouring lumbar discs are 30 to 40 mm apart, thoracic ones 20 to 28, those of the neck 15 to 20.
_LEAST_GAP_MM = 24.0
_FEWEST_DISCS = 3
# From the middle of a disc to that of the canal behind it: 23 to 32 mm in 28 patients of SPIDER (medians),
# 21.7 and more from T11/T12 to L1/L2, 18.8 and more on 104 single slices of patients; 16 to 17 in a
# neck whose every second disc goes unseen.
_LEAST_DEPTH_MM = 17.5
_UNSURE_EVIDENCE = 0.4


@dataclass(frozen=True)
class RegionConfig:
    """When the middle slice is looked at twice as large, and what is believed then.

    Chosen on synthetic patients of seeds 271,000 to 271,005 and the two real studies, at 0.4 to 1 times their
    size. As they are, they show at most a tenth of their evidence twice as large; at 0.6 times their size and
    less, they show more of it so.

    Attributes:
        sure_discs, sure_evidence, sure_depth_mm, sure_gap_mm: a chain with fewer discs, or less in the mean
            of its discs (evidence) or the median (from disc to canal, from disc to disc), leaves a doubt.
        doubtful_share, other_share: of the evidence as it is, what is shown twice as large leaves a doubt,
            or is another part of the body.
        least_evidence: less is no spine.
    """

    sure_discs: int = 5
    sure_evidence: float = 0.3
    sure_depth_mm: float = 19.5
    sure_gap_mm: float = 28.0
    doubtful_share: float = 0.5
    other_share: float = 1.2
    least_evidence: float = 0.8


class Region(Enum):
    """What a chain of discs is taken for."""

    LUMBAR = "lumbar"
    DOUBTFUL = "doubtful"
    OTHER = "other"


# Two series show the same part of the patient if they share as much of the smaller one from head to foot, and
# nothing else if they share as much of the larger one.
_SAME_VIEW, _ALIKE = 0.5, 0.8


def views_of(series: Sequence[Series]) -> list[tuple[Series, ...]]:
    """The views of the patient that sagittal series give: each leads with another one, in their order.

    A series leads where those before it show another part of the patient, or those of its kind a larger or
    smaller one: a lumbar series beside one of the whole spine, or one that ends above the sacrum. Behind it
    come all that show what it shows.
    """
    leading: list[Series] = []
    for item in series:
        same = [other for other in leading if _shared(other, item)[0] >= _SAME_VIEW]
        if not any(other.kind is not item.kind or _shared(other, item)[1] >= _ALIKE for other in same):
            leading.append(item)
    return [
        (item, *(other for other in series if other is not item and _shared(item, other)[0] >= _SAME_VIEW))
        for item in leading
    ]


def _shared(first: Series, second: Series) -> tuple[float, float]:
    """How much of the smaller and of the larger one they share from head to foot."""
    a, b = (item.slices[len(item.slices) // 2].plane.heights_mm for item in (first, second))
    shared = min(a[1], b[1]) - max(a[0], b[0])
    smaller, larger = sorted((a[1] - a[0], b[1] - b[0]))
    return float(shared / max(smaller, 1e-6)), float(shared / max(larger, 1e-6))


def lumbar_evidence(chain: Sequence[ChainDisc]) -> float:
    """How much a chain of discs looks lumbar: its evidence, none if it is too small."""
    return level_evidence(chain)[0] if _has_lumbar_size(chain) else 0.0


def shows_lumbar_spine(series: Sequence[Series], chain: Sequence[ChainDisc], region: Region) -> bool:
    """Whether it is the lumbar spine that is seen: discs large and far enough apart, and what headers say.

    Headers that speak of another part of the body are a hint, believed where the image leaves a doubt: its
    discs do not convince, and twice as large (``region_seen``) it shows more.
    """
    if region is Region.OTHER or not _has_lumbar_size(chain):
        return False
    if region is Region.LUMBAR:
        return True
    doubtful = lumbar_evidence(chain) < _UNSURE_EVIDENCE * len(chain)
    return not (doubtful and is_named_otherwise(series))


def region_seen(
    chain: Sequence[ChainDisc],
    middle: Slice,
    predictor: SlicePredictor,
    config: RegionConfig,
    candidates: CandidateConfig,
    chains: ChainConfig,
) -> Region:
    """What the image itself says, whatever headers name: whether it shows more of a spine twice as large.

    Args:
        chain: the discs seen in all slices; while they are convincing nothing more is looked at.
        middle: the slice to enlarge. One that cannot be decoded leaves no doubt.
    """
    if not chain or _is_convincing(chain, config):
        return Region.LUMBAR

    spec, plane = predictor.spec, middle.plane

    def evidence(scale: float) -> float:
        """Of the chain that the slice shows when it is taken to be so many times as large."""
        x_mm, y_mm = plane.spacing_mm
        larger = replace(plane, spacing_mm=(x_mm * scale, y_mm * scale))
        shown = canonical_image(
            larger, middle.pixels(), mm_per_px=spec.mm_per_px, max_side_px=spec.max_canvas_px
        )
        (seen,) = chains_seen([shown.image], shown, predictor, candidates, chains)
        return level_evidence(seen)[0]

    try:
        once, twice = evidence(1.0), evidence(2.0)
        if twice >= max(config.other_share * once, config.least_evidence):
            return Region.OTHER
        if once < config.least_evidence:  # nothing to speak of: any spine that is larger leaves a doubt
            twice = max(twice, evidence(1.5))
    except DicomRejected:
        return Region.LUMBAR
    doubtful = twice >= max(config.doubtful_share * once, config.least_evidence)
    return Region.DOUBTFUL if doubtful else Region.LUMBAR


def _is_convincing(chain: Sequence[ChainDisc], config: RegionConfig) -> bool:
    if len(chain) < config.sure_discs or level_evidence(chain)[0] < config.sure_evidence * len(chain):
        return False
    gap_mm, depth_mm = _sizes_mm(chain)
    return gap_mm >= config.sure_gap_mm and depth_mm >= config.sure_depth_mm


def is_named_otherwise(series: Sequence[Series]) -> bool:
    """Whether the headers of all series speak of another part of the body."""
    return all(item.traits.is_other_region for item in series)


def _has_lumbar_size(chain: Sequence[ChainDisc]) -> bool:
    if len(chain) < _FEWEST_DISCS:
        return True
    gap_mm, depth_mm = _sizes_mm(chain)
    return gap_mm >= _LEAST_GAP_MM and depth_mm >= _LEAST_DEPTH_MM


def _sizes_mm(chain: Sequence[ChainDisc]) -> tuple[float, float]:
    """Medians of the distance from disc to disc and from disc to canal, for two discs and more."""
    centres, canal = (
        np.stack(points) for points in zip(*((d.disc_mm, d.canal_mm) for d in chain), strict=True)
    )
    gap_mm = np.median(np.linalg.norm(np.diff(centres, axis=0), axis=1))
    return float(gap_mm), float(np.median(np.linalg.norm(canal - centres, axis=1)))
