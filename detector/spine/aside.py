"""Where the spine lies across the sagittal slices, told from the slices on which its discs are seen.

A disc is seen on every slice that cuts it: some 20 mm to both sides of its middle. Where a spine bends
sideways, or a stack was planned beside it, the middle of these slices is not the middle of the stack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray
from data_prep.levels import SpineLevel
from data_prep.study import Series, Slice, from_middle_mm
from data_prep.vocabulary import Level
from detector.look.sightings import SliceSighting
from detector.spine.chain import FIRST_LUMBAR, NumberedChain


@dataclass(frozen=True)
class AsideConfig:
    """When the slices beyond the central ones are looked at, and what they say.

    Attributes:
        faded_share: a disc fades on one side of the central slices if its score on the outermost, or the mean
            over that side, is below this share of its best, and not so on the other side.
        faded_discs: so many lumbar discs must fade on one side for the other slices to be looked at.
        moved_discs: so many for the levels to be moved to where those show them.
        outer_mm, outer_share: without axial slices, which say where the canal lies, the slices this far to
            both sides of the middle are looked at, too; a disc leans to the side on which it scores more, if
            it has less than this share on the other.
        shown_share: of its best score, what a slice that cuts a disc is expected to exceed.
        odd_mm: a level that lies this far from the curve of the others is not believed.
        half_width_mm: of a disc as it is seen, where the stack ends before it does.
        first_mm, shown_on_share: slices farther than this from the middle of the stack are looked at, on each
            side, only where the last nearer one still shows a disc with this share of its best score.
        left_mm: a disc whose middle seems to lie so far beyond the last slice has left them. How far it lies
            there is overrated: of 48 synthetic patients (seeds 283,000 to 283,023 and 284,000 to 284,023)
            bent to either side, 8.0 mm at most where all canals lay 7.4 mm within and more.
        fewest_levels: of fewer nothing is told.
        reach_mm: in the slice, how far from where the chain has it a disc is looked for.
    """

    faded_share: float = 0.8
    faded_discs: int = 2
    moved_discs: int = 3
    outer_mm: float = 14.5
    outer_share: float = 0.7
    shown_share: float = 0.8
    odd_mm: float = 8.0
    half_width_mm: float = 21.0
    first_mm: float = 24.0
    shown_on_share: float = 0.4
    left_mm: float = 8.25
    fewest_levels: int = 3
    reach_mm: float = 9.0


def fading(chain: NumberedChain, instances: Sequence[int], series_id: str, config: AsideConfig) -> int:
    """How many lumbar discs fade on the same side of the central slices, the larger number of both sides.

    Args:
        instances, series_id: the central slices in spatial order.
    """
    count = [0, 0]
    for place, disc in enumerate(chain.discs):
        if disc.candidate is None or place + chain.offset < FIRST_LUMBAR:
            continue
        found = {m.instance_number: m.score for m in disc.candidate.members if m.series_id == series_id}
        scores = np.array([found.get(instance, 0.0) for instance in instances])
        half = len(scores) // 2
        if not half or not scores.any():
            continue
        sides = (min(side[0], side.mean()) for side in (scores[:half], scores[::-1][:half]))
        first, last = (bool(side < config.faded_share * scores.max()) for side in sides)
        if first != last:
            count[last] += 1
    return max(count)


def outer_slices(stack: Sequence[Slice], config: AsideConfig) -> list[Slice]:
    """The slices nearest to ``outer_mm`` on both sides of the middle of a stack; none of a narrow one."""
    places = from_middle_mm(stack)
    if places.max() < config.outer_mm:
        return []
    return [stack[int(np.argmin(np.abs(places - side * config.outer_mm)))] for side in (-1, 1)]


def seen_across(
    stack: Sequence[Slice],
    series: Series,
    levels: Mapping[Level, SpineLevel],
    look: Callable[[Sequence[Slice]], list[SliceSighting]],
    config: AsideConfig,
) -> list[SliceSighting]:
    """What the slices of a stack show, in spatial order; outer ones only where nearer ones still show discs.

    Those that are left out keep their place, without candidates.

    Args:
        look: looks at slices; leaves out what cannot be decoded.
    """
    near = np.abs(from_middle_mm(stack)) <= config.first_mm
    seen = look([item for item, is_near in zip(stack, near, strict=True) if is_near])
    if not seen:
        return []
    scores = np.array([[_score(one, level, config.reach_mm) for level in levels.values()] for one in seen])
    shows_still = (scores >= config.shown_on_share * scores.max(axis=0)) & (scores > 0)
    first, end = int(near.argmax()), len(near) - int(near[::-1].argmax())
    sides = ((stack[:first], shows_still[0].any()), (stack[end:], shows_still[-1].any()))
    outer = look([item for side, goes_on in sides if goes_on for item in side])
    found = {id(one.item): one for one in (*seen, *outer)}
    for side, goes_on in sides:
        if not goes_on:
            found |= {id(item): SliceSighting(series, item, item.plane, ()) for item in side}
    return [found[id(item)] for item in stack if id(item) in found]


def leaning(levels: Mapping[Level, SpineLevel], outer: Sequence[SliceSighting], config: AsideConfig) -> int:
    """How many levels are seen on one of two outer slices and fade on the other, the larger number."""
    scores = np.array([[_score(one, place, config.reach_mm) for one in outer] for place in levels.values()])
    first, last = scores.T
    fades = (first < config.outer_share * last, last < config.outer_share * first)
    return int(max(np.count_nonzero(side) for side in fades))


def middle_mm(places_mm: FloatArray, scores: FloatArray, config: AsideConfig) -> float | None:
    """The middle of the slices on which a disc is seen; None if it is seen on none.

    Args:
        places_mm, scores: (slices,) in spatial order, increasing.
    """
    if not scores.any():
        return None
    first, last = _best_run(scores - config.shown_share * scores.max())
    low, high = float(places_mm[first]), float(places_mm[last])
    ends = first == 0, last == len(scores) - 1
    if ends[0] != ends[1] and high - low < 2 * config.half_width_mm:
        return high - config.half_width_mm if ends[0] else low + config.half_width_mm
    return (low + high) / 2


def _best_run(values: NDArray[np.float64]) -> tuple[int, int]:
    """First and last place of the run with the largest sum."""
    best, run, first = (-np.inf, 0, 0), 0.0, 0
    for place, value in enumerate(values.tolist()):
        if run <= 0:
            run, first = 0.0, place
        run += value
        if run > best[0]:
            best = run, first, place
    return best[1], best[2]


def aside_by_level(
    levels: Mapping[Level, SpineLevel], seen: Sequence[SliceSighting], config: AsideConfig
) -> dict[Level, float]:
    """How far across the slices, along their normal, each level lies from where the levels have it, in mm.

    A spine bends slowly: a parabola through what the levels say. A stack narrower than the slices that cut a
    disc shows no end of any: there a level is moved no farther than to its last slice.

    Args:
        seen: all slices of a stack, in spatial order.
    """
    across = seen[0].item.plane.normal
    places, middles = _middles(levels, seen, config)
    found = {level: middle - float(levels[level].canal_mm @ across) for level, middle in middles.items()}
    if len(found) < config.fewest_levels:
        return {}
    z = np.array([levels[level].canal_mm[2] for level in found])
    curve = _curve(z, np.array(list(found.values())), config.odd_mm)
    moved = {level: float(curve(place.canal_mm[2])) for level, place in levels.items()}
    if places[-1] - places[0] >= 2 * config.half_width_mm:
        return moved
    at = {level: float(place.canal_mm @ across) for level, place in levels.items()}
    return {
        level: float(np.clip(at[level] + aside, *places[[0, -1]])) - at[level]
        for level, aside in moved.items()
    }


def most_aside_mm(
    levels: Mapping[Level, SpineLevel], aside_mm: Mapping[Level, float], config: AsideConfig
) -> float:
    """How far the spine lies from the levels at most, in mm, by a parabola through ``aside_mm`` of each."""
    aside = np.array([aside_mm[level] for level in levels if level in aside_mm])
    if len(aside) >= config.fewest_levels:
        z = np.array([place.canal_mm[2] for level, place in levels.items() if level in aside_mm])
        aside = _curve(z, aside, config.odd_mm)(z)
    return float(np.abs(aside).max(initial=0.0))


def beyond_mm(
    levels: Mapping[Level, SpineLevel], seen: Sequence[SliceSighting], config: AsideConfig
) -> float:
    """How far beyond the first or last slice the farthest middle of a level's disc lies; below 0: within.

    As far as each is seen by itself: where a spine leaves the slices and comes back, no curve through all is
    to be believed.

    Args:
        seen: all slices of a stack, in spatial order.
    """
    places, middles = _middles(levels, seen, config)
    first, last = float(places[0]), float(places[-1])
    return max((max(first - at, at - last) for at in middles.values()), default=-np.inf)


def _middles(
    levels: Mapping[Level, SpineLevel], seen: Sequence[SliceSighting], config: AsideConfig
) -> tuple[FloatArray, dict[Level, float]]:
    """Where along their normal slices lie, (slices,) increasing, and the middles of the discs they show."""
    across = seen[0].item.plane.normal
    places = np.array([float(one.item.plane.centre_mm @ across) for one in seen])
    if places[0] > places[-1]:
        places, seen = places[::-1], seen[::-1]
    found: dict[Level, float] = {}
    for level, place in levels.items():
        scores = np.array([_score(one, place, config.reach_mm) for one in seen])
        middle = middle_mm(places, scores, config)
        if middle is not None:
            found[level] = middle
    return places, found


def _curve(z: FloatArray, aside_mm: FloatArray, odd_mm: float) -> np.polynomial.Polynomial:
    """A parabola through all levels, or all but the one that lies farthest from that of the others."""
    fit = np.polynomial.Polynomial.fit
    whole = fit(z, aside_mm, 2 if len(z) > 3 else 1)
    if len(z) < 5:
        return whole
    others = [np.arange(len(z)) != one for one in range(len(z))]
    curves = [fit(z[kept], aside_mm[kept], 2) for kept in others]
    left = [
        float(np.abs(curve(z[kept]) - aside_mm[kept]).sum())
        for curve, kept in zip(curves, others, strict=True)
    ]
    odd = int(np.argmin(left))
    return curves[odd] if abs(curves[odd](z[odd]) - aside_mm[odd]) > odd_mm else whole


def _score(seen: SliceSighting, level: SpineLevel, reach_mm: float) -> float:
    """Of the best candidate at the level's disc, as it is projected onto the slice."""
    # In plain floats: a crooked spine asks hundreds of times.
    (a, b, c), (x, y, z) = seen.item.plane.normal.tolist(), level.disc_mm.tolist()

    def apart(point: FloatArray) -> float:
        at_x, at_y, at_z = point.tolist()
        away = at_x - x, at_y - y, at_z - z
        off = away[0] * a + away[1] * b + away[2] * c
        return math.hypot(away[0] - off * a, away[1] - off * b, away[2] - off * c)

    return max((c.score for c in seen.candidates if apart(c.points_mm[0]) <= reach_mm), default=0.0)
