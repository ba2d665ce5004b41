"""Which series lie another way round than their headers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from data_prep.geometry import FloatArray
from data_prep.study import Series
from data_prep.vocabulary import SeriesKind
from detector.spine.crossings import (
    Crossings,
    Images,
    places_near,
    places_spread,
    slices_beside,
    small_images,
)
from detector.spine.in_plane import InPlaneConfig, lies_another_way
from detector.spine.ways_round import GIVEN, LIKELY, SIDES, WAYS, CrossingConfig, Order, Reach, Way


class Verdict(Enum):
    """What a sagittal series tells of an axial one."""

    UNTOLD = "untold"
    AGREES = "agrees"
    SIDES_DIFFER = "sides_differ"  # left and right alone: either may be the wrong one
    AXIAL_TURNED = "axial_turned"
    AXIAL_TURNED_SIDES_DIFFER = "axial_turned_sides_differ"  # and left and right, too


_TURNED = (Verdict.AXIAL_TURNED, Verdict.AXIAL_TURNED_SIDES_DIFFER)


@dataclass(frozen=True)
class WrongWay:
    """What is wrong with the series of a study.

    Attributes:
        series: ids of those that lie another way round than their headers say.
        sides_doubtful: whether left and right are exchanged in a series, and it may be any.
    """

    series: tuple[str, ...] = ()
    sides_doubtful: bool = False


def wrong_way_round(
    sagittal: Sequence[Series],
    axial: Sequence[Series],
    canal_mm: FloatArray,
    config: CrossingConfig,
    in_plane: InPlaneConfig,
) -> WrongWay:
    """Compares every axial series with sagittal ones of different kinds.

    And a T1 that agrees with none of them with T2, in its plane.

    Args:
        canal_mm: (n, 3) canal points of the levels.
    """
    images = small_images(config.pixel_mm)
    told: dict[str, dict[str, Verdict]] = {}
    right: set[str] = set()  # sagittal ones that agree with an axial one
    for across in axial:
        said = told.setdefault(across.series_id, {})
        for along in sagittal:
            agrees = Verdict.AGREES in said.values()
            if agrees and along.series_id in right:
                continue
            # What agrees with one series is not turned: of the next one the sides alone are left to ask.
            ways = SIDES if agrees else LIKELY
            said[along.series_id] = verdict(along, across, canal_mm, ways, images, config)
            if said[along.series_id] is Verdict.AGREES:
                right.add(along.series_id)
    t1, t2 = (
        [s for s in sagittal if s.kind is kind] for kind in (SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2)
    )
    turned = [
        series.series_id
        for series in t1
        if t2 and series.series_id not in right and lies_another_way(series, t2[0], canal_mm, in_plane)
    ]
    # What it says of axial ones says nothing of them.
    told = {across: {s: one for s, one in said.items() if s not in turned} for across, said in told.items()}
    wrong = judged(told)
    return replace(wrong, series=tuple(sorted({*wrong.series, *turned})))


def verdict(
    sagittal: Series,
    axial: Series,
    canal_mm: FloatArray,
    likely: Sequence[Way],
    images: Images,
    config: CrossingConfig,
) -> Verdict:
    """What a sagittal series tells of an axial one.

    Most series agree as they lie, and on slices that are decoded in any case: nothing more is looked at then.
    Where they do not, small shifts and more slices are tried; and only where another way round is ahead even
    so, all of them, against the headers at any shift.

    Args:
        likely: ways round that are asked about as long as the headers are ahead.
    """
    near = Reach.of(config.near_mm, config.near_mm, config.near_mm, config)
    stack = sagittal.main_stack
    first_mm = config.first_mm if sagittal.kind is SeriesKind.SAGITTAL_T2 else config.beside_mm
    beside = slices_beside(stack, first_mm, images, config)
    places = places_near(axial, canal_mm, config)
    first = Crossings(beside, axial, places, canal_mm, images, config)
    for reach in (Reach(), near) if first.can_tell else ():
        alike = first.likenesses(likely, reach)
        if _agrees(alike, config):
            return Verdict.AGREES
        if likely == SIDES and reach == near and _is_best(GIVEN, alike, config):
            return Verdict.UNTOLD
    beside = slices_beside(stack, config.beside_mm, images, config)
    places = sorted({*places, *places_spread(axial, config)})
    whole = Crossings(beside, axial, places, canal_mm, images, config)
    if not whole.can_tell:
        return Verdict.UNTOLD
    alike = whole.likenesses(likely, near)
    if _agrees(alike, config):
        return Verdict.AGREES
    if GIVEN not in alike or _is_best(GIVEN, alike, config):
        return Verdict.UNTOLD
    far = Reach.of(config.aside_mm, config.along_mm, config.deep_mm, config)
    return _contradiction(whole.likenesses(WAYS, near) | whole.likenesses([GIVEN], far), config)


def _contradiction(alike: Mapping[Way, FloatArray], config: CrossingConfig) -> Verdict:
    best = _best(alike)
    if not _is_ahead(alike[best], alike[GIVEN], config.differs_by, config):
        return Verdict.UNTOLD
    if best in SIDES:
        return Verdict.SIDES_DIFFER
    if best.order is not Order.GIVEN and best.mirrored and not best.upended:
        return Verdict.AXIAL_TURNED_SIDES_DIFFER
    return Verdict.AXIAL_TURNED


def judged(told: Mapping[str, Mapping[str, Verdict]]) -> WrongWay:
    """Which series are wrong, from what sagittal series tell of axial ones: by axial and by sagittal id.

    A series that two others contradict, or that no exchange of sides alone explains, is the wrong one.
    """
    wrong: set[str] = set()
    right_sagittal = {s for said in told.values() for s, one in said.items() if one is Verdict.AGREES}
    doubtful = False
    for axial, said in told.items():
        verdicts = list(said.values())
        turned = [one for one in verdicts if one in _TURNED]
        differing = [s for s, one in said.items() if one is Verdict.SIDES_DIFFER]
        agrees = Verdict.AGREES in verdicts
        outvoted = len(differing) > 1 and len(differing) == len(verdicts)
        if (turned and not agrees) or outvoted:
            wrong.add(axial)
            doubtful |= outvoted or Verdict.AXIAL_TURNED_SIDES_DIFFER in turned
        elif agrees and differing and not turned and not right_sagittal & set(differing):
            wrong.update(differing)
        elif differing or turned:
            doubtful = True
    if wrong & set(told):
        # What was turned with it, and is too little to tell.
        wrong.update(axial for axial, said in told.items() if Verdict.AGREES not in said.values())
    return WrongWay(tuple(sorted(wrong)), doubtful)


def _best(alike: Mapping[Way, FloatArray]) -> Way:
    return max(alike, key=lambda way: float(np.nanmean(alike[way])))


def _is_best(way: Way, alike: Mapping[Way, FloatArray], config: CrossingConfig) -> bool:
    """Whether a way round is more alike than all others, and alike at all."""
    return bool(alike) and _best(alike) == way and float(np.nanmean(alike[way])) >= config.least_likeness


def _agrees(alike: Mapping[Way, FloatArray], config: CrossingConfig) -> bool:
    """Whether what the headers say is clearly more alike than any other way round."""
    given = alike.get(GIVEN)
    return given is not None and all(
        _is_ahead(given, other, config.agrees_by, config) for way, other in alike.items() if way != GIVEN
    )


def _is_ahead(one: FloatArray, other: FloatArray, by: float, config: CrossingConfig) -> bool:
    """Whether one way round is more alike than another, on enough slices and by enough."""
    more = (one - other)[np.isfinite(one) & np.isfinite(other)]
    return bool(
        len(more) >= config.fewest_slices
        and np.nanmean(one) >= config.least_likeness
        and more.mean() >= by
        and (more > 0).mean() >= config.share
    )
