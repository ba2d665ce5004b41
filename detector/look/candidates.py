"""From network output to disc candidates in millimetres: per slice first, then over the slices of a study.

What slices of a spine that bends sideways show at two heights may be one tilted disc.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray
from detector.look.canonical import CanonicalImage
from detector.spec import DetectorSpec

# Of its best score: what a slice that shows a disc clearly gives it.
_CLEAR_SHARE = 0.3
_BEST_SLICES = 3
# A disc that tilts by 40° (the largest curves) lies this much lower on a slice 30 mm farther across.
_LARGEST_STEP_MM = 25.0
_LEAST_SCORE = 0.3
# Two such halves lie nearer to each other than this part of what discs usually do.
_NEAR = 0.7
# As one disc they lie no farther from their neighbours than this part of it.
_FAR = 1.3
_LEAST_OTHER_GAPS = 3


@dataclass(frozen=True)
class CandidateConfig:
    """How anchors become candidates.

    Attributes:
        min_score: anchors below this are not looked at.
        merge_mm: candidates of one slice whose first keypoint is nearer than this are one.
        merge_slices_mm: the same across slices and series, measured in the sagittal plane.
    """

    min_score: float = 0.04
    merge_mm: float = 12.0
    merge_slices_mm: float = 14.0


@dataclass(frozen=True, eq=False)
class SliceCandidate:
    """One object in one slice.

    Attributes:
        score: 0–1 that the object is there.
        class_scores: (levels,) score per level; empty for a detector without levels.
        points_mm: (keypoints, 3) patient LPS.
        series_id, instance_number: where it was seen.
    """

    score: float
    class_scores: FloatArray
    points_mm: FloatArray
    series_id: str
    instance_number: int


@dataclass(frozen=True, eq=False)
class DiscCandidate:
    """One disc over all slices that show it.

    Attributes:
        score: 0–1, mean of the best slices' scores.
        class_scores: (levels,) sum over slices of score-weighted level scores, divided by the sum of scores.
        disc_mm, canal_mm: (3,) patient LPS, averaged over slices with their scores as weights.
        spread_mm: weighted standard deviation of the canal point over slices, in the sagittal plane.
    """

    score: float
    class_scores: FloatArray
    disc_mm: FloatArray
    canal_mm: FloatArray
    spread_mm: float
    members: tuple[SliceCandidate, ...]


def slice_candidates(
    prediction: NDArray[np.float32],
    canonical: CanonicalImage,
    spec: DetectorSpec,
    config: CandidateConfig,
    *,
    series_id: str,
    instance_number: int,
    pad_px: tuple[int, int],
) -> list[SliceCandidate]:
    """Candidates of one slice.

    Args:
        prediction: (classes + 3 × keypoints, anchors), class probabilities and keypoints in pixels of the
            padded canonical image.
        pad_px: (left, top) padding that was added to the canonical image.
    """
    number = len(spec.class_names)
    classes = prediction[:number]
    objectness = classes[spec.disc_class] if spec.disc_class is not None else classes.max(axis=0)
    chosen = np.flatnonzero(objectness >= config.min_score)
    if not len(chosen):
        return []
    chosen = chosen[np.argsort(-objectness[chosen], kind="stable")]
    keypoints = prediction[number:, chosen].reshape(len(spec.keypoints), 3, -1)[:, :2].transpose(2, 0, 1)
    keypoints = keypoints.astype(np.float64) - np.array(pad_px)
    anchor = keypoints[:, 0] if spec.disc_class is not None else keypoints.mean(axis=1)
    scores = objectness[chosen].astype(np.float64)
    level_scores = classes[: len(spec.level_names), chosen].T.astype(np.float64)
    # Of each candidate: its best anchor, and all of its anchors.
    merged: list[tuple[int, NDArray[np.bool_]]] = []
    free = np.ones(len(chosen), dtype=bool)
    for i in range(len(chosen)):
        if not free[i]:
            continue
        away_px = np.sqrt(((anchor - anchor[i]) ** 2).sum(axis=1))
        near = free & (away_px * spec.mm_per_px < config.merge_mm)
        free &= ~near
        merged.append((i, near))
    squares = scores**2
    points_px = [
        np.einsum("a,akc->kc", squares[near] / squares[near].sum(), keypoints[near]) for _, near in merged
    ]
    return [
        SliceCandidate(
            score=float(scores[i]),
            class_scores=level_scores[near].max(axis=0) if level_scores.size else np.zeros(0),
            points_mm=points_mm,
            series_id=series_id,
            instance_number=instance_number,
        )
        for (i, near), points_mm in zip(merged, canonical.plane.to_mm(np.array(points_px)), strict=True)
    ]


def merge_candidates(
    candidates: list[SliceCandidate], config: CandidateConfig, *, slices_seen: int
) -> list[DiscCandidate]:
    """Join candidates of all sagittal slices into discs, best first.

    A disc's score is the mean over its three best slices, or over all ``slices_seen`` if fewer were looked
    at; a slice that does not show it counts 0.

    Distances are measured in the patient's y–z plane: one disc is seen at many x. What is left of a disc that
    tilts so much that it stands at two heights is joined afterwards (``detector.look.candidates``).
    """
    ordered = sorted(candidates, key=lambda c: (-c.score, c.series_id, c.instance_number))
    groups: list[list[SliceCandidate]] = []
    centres: list[FloatArray] = []
    slices: list[set[tuple[str, int]]] = []
    for item in ordered:
        own = (item.series_id, item.instance_number)
        for place, group in enumerate(groups):
            away_y, away_z = (centres[place] - item.points_mm[0, 1:]).tolist()
            if own not in slices[place] and math.hypot(away_y, away_z) < config.merge_slices_mm:
                group.append(item)
                slices[place].add(own)
                centres[place] = _centre(group)
                break
        else:
            groups.append([item])
            slices.append({own})
            centres.append(_centre([item]))
    for upper, lower in halves([_seen(*one) for one in zip(groups, centres, strict=True)]):
        groups[upper] += groups[lower]
        groups[lower] = []
    discs = [_join(group, min(_BEST_SLICES, slices_seen)) for group in groups if group]
    return sorted(discs, key=lambda disc: -disc.score)


def _seen(group: list[SliceCandidate], centre: FloatArray) -> SeenDisc:
    best = max(item.score for item in group)
    clear = [item for item in group if item.score >= _CLEAR_SHARE * best]
    across = [float(item.points_mm[0, 0]) for item in clear]
    slices = frozenset((item.series_id, item.instance_number) for item in clear)
    return SeenDisc(centre, (min(across), max(across)), slices, best)


def _centre(group: list[SliceCandidate]) -> FloatArray:
    """(2,) y and z of a group's discs, by their scores."""
    scores = np.array([item.score for item in group])
    return np.asarray(
        (np.stack([item.points_mm[0, 1:] for item in group]) * scores[:, None]).sum(axis=0) / scores.sum()
    )


def _join(group: list[SliceCandidate], best_slices: int) -> DiscCandidate:
    scores = np.array([item.score for item in group])
    points = np.stack([item.points_mm for item in group])
    weights = scores**2 / np.sum(scores**2)
    mean = np.einsum("s,skc->kc", weights, points)
    spread = np.sqrt(np.einsum("s,s->", weights, np.sum((points[:, -1, 1:] - mean[-1, 1:]) ** 2, axis=-1)))
    top = np.sort(scores)[::-1][:best_slices]
    return DiscCandidate(
        score=float(top.sum() / best_slices),
        class_scores=np.einsum("s,sl->l", scores / scores.sum(), np.stack([c.class_scores for c in group])),
        disc_mm=mean[0],
        canal_mm=mean[-1],
        spread_mm=float(spread),
        members=tuple(group),
    )


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
