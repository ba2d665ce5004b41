"""Which of several series of one kind are used: those that the best of them does not make needless."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from data_prep.geometry import FloatArray, SlicePlane
from data_prep.greys import are_edited
from data_prep.problems import Reason, Rejection
from data_prep.read.spoiled import beside
from data_prep.study import Series, rank
from data_prep.traits import Image
from data_prep.vocabulary import SeriesKind

_SAME_ECHO = 1.12
_SAME_PLACE_MM = 0.1
_SAME_ANGLE_DEG = 12.0
_COVERED = 0.5
_MARGIN_MM = 6.0
_LOOKED_AT_SLICES = 5
# Each with each other; more series of a kind are the times of a dynamic one.
_MOST_COMPARED = 6


def without_empty(series: Sequence[Series]) -> tuple[list[Series], list[Rejection]]:
    """Leave out series that cannot be decoded, or are black, where another one of their kind shows something.

    A few slices of the middle are looked at, and only of kinds that several series have.
    """
    counts = Counter(item.kind for item in series)
    empty = [item for item in series if counts[item.kind] > 1 and not _shows_something(item)]
    left = {item.kind for item in series if item not in empty}
    out = [item for item in empty if item.kind in left]
    message = "its images cannot be decoded, or show nothing"
    rejections = [Rejection(Reason.BAD_PIXELS, message, item.study_id, item.series_id) for item in out]
    return [item for item in series if item not in out], rejections


def _shows_something(series: Series) -> bool:
    stack = series.main_stack
    by_distance = sorted(range(len(stack)), key=lambda place: abs(place - len(stack) // 2))
    return any(stack[place].shows_something() for place in by_distance[:_LOOKED_AT_SLICES])


def chosen(series: Sequence[Series]) -> tuple[Series, ...]:
    """The series, those that are not used marked with the reason (``Series.unused``).

    A series is not used where a better one of its kind shows the same part of the body: see ``_worse``.
    """
    series = _spoiled_marked(_echoes_marked(series))
    found = []
    for item in series:
        better = [
            other
            for other in series
            if other.kind is item.kind and item.kind is not None and rank(other) < rank(item)
        ]
        reasons = [reason for other in better if (reason := _worse(item, other)) and _covers(other, item)]
        found.append(replace(item, unused=reasons[0]) if reasons else item)
    return tuple(found)


def _worse(item: Series, other: Series) -> str:
    """Why a series is needless beside a better one of its kind; "" if it may still help."""
    mine, best = item.traits, other.traits
    # A STIR beside a T2 is a look of its own at the discs; the water image comes from the T2 itself.
    may_vote = item.kind is SeriesKind.SAGITTAL_T2 and mine.image is Image.SUPPRESSED
    if mine.image > best.image and not may_vote:
        return mine.image.name.lower()
    if mine.is_derived and not best.is_derived:
        return "derived"
    if mine.has_echoes and best.has_echoes and mine.echo_ms != best.echo_ms:
        return "shorter_echo" if mine.echo_ms < best.echo_ms else "late_echo"
    if _is_same_sequence(item, other):
        if mine.is_spoiled and not best.is_spoiled:
            return "spoiled"
        # Of T1 the later one may show contrast agent; axial ones may lie elsewhere.
        if item.kind is SeriesKind.SAGITTAL_T2 and 0 < mine.acquired < best.acquired:
            return "repeated"
    if item.kind_source in ("image", "assumed") and other.kind_source in ("table", "header"):
        return "guessed"
    return ""


def _is_same_sequence(item: Series, other: Series) -> bool:
    """Whether one was acquired again as the other: the same slices, as many, with the same echo."""
    mine, best = item.traits, other.traits
    planes = item.slices[0].plane, other.slices[0].plane
    return (
        mine.image is best.image
        and len(item.slices) == len(other.slices)
        and planes[0].shape == planes[1].shape
        and planes[0].is_parallel_to(planes[1], _SAME_ANGLE_DEG)
        and best.echo_ms <= _SAME_ECHO * mine.echo_ms
        and mine.echo_ms <= _SAME_ECHO * best.echo_ms
    )


def _covers(other: Series, item: Series) -> bool:
    """Whether the better series shows what the other one shows."""
    corners = np.concatenate(
        [plane.to_mm([[0, 0], [plane.shape[1] - 1, plane.shape[0] - 1]]) for plane in _planes(other)]
    )
    low, high = corners.min(axis=0) - _MARGIN_MM, corners.max(axis=0) + _MARGIN_MM
    centres = np.stack([plane.centre_mm for plane in _planes(item)])
    return float(np.mean(np.all((centres >= low) & (centres <= high), axis=1))) >= _COVERED


def _planes(series: Series) -> list[SlicePlane]:
    return [item.plane for item in series.slices]


def differing(series: Sequence[Series], names: Mapping[str, str]) -> list[Rejection]:
    """Series of one name and the same slices that show something else, as without fat, and nothing says so.

    Args:
        names: by series id.
    """
    message = "the same slices as in a series that is called alike, and they show something else"
    return [
        Rejection(Reason.KIND_DISAGREES, message, item.study_id, item.series_id)
        for other, item in combinations(_few_of_a_kind(series), 2)
        if "header" == item.kind_source == other.kind_source
        # T2 is taken of the bent and of the stretched spine, under names that say so.
        and (item.kind is SeriesKind.SAGITTAL_T1 or names.get(item.series_id) == names.get(other.series_id))
        and not (item.traits.is_spoiled or other.traits.is_spoiled)
        and _is_repeated(item, other)
        and (found := beside(item, other)) is not None
        and found.shows_something_else
    ]


def _spoiled_marked(series: Sequence[Series]) -> list[Series]:
    """Series that were acquired again, and are clearly worse than the others, or edited, are spoiled."""

    def is_worse(item: Series, other: Series) -> bool:
        found = beside(item, other)
        return (found is not None and found.is_spoiled) or (are_edited(item) and not are_edited(other))

    few = _few_of_a_kind(series)
    return [
        replace(item, traits=replace(item.traits, is_spoiled=True))
        if item in few
        and any(other is not item and _is_repeated(item, other) and is_worse(item, other) for other in few)
        else item
        for item in series
    ]


def _few_of_a_kind(series: Sequence[Series]) -> list[Series]:
    counts = Counter(item.kind for item in series)
    return [item for item in series if counts[item.kind] <= _MOST_COMPARED]


def _is_repeated(item: Series, other: Series) -> bool:
    """Whether two series of one kind are the same sequence, acquired where the other one was."""
    return (
        item.kind is not None
        and other.kind is item.kind
        and other.traits.is_derived is item.traits.is_derived
        and _is_same_sequence(item, other)
        and _covers(other, item)
    )


def _echoes_marked(series: Sequence[Series]) -> list[Series]:
    """Series of one kind whose slices lie at the same places with another echo time are echoes."""
    return [
        replace(item, traits=replace(item.traits, has_echoes=True))
        if any(_are_echoes(item, other) for other in series)
        else item
        for item in series
    ]


def _are_echoes(item: Series, other: Series) -> bool:
    short, long = sorted((item.traits.echo_ms, other.traits.echo_ms))
    if item.kind is None or other.kind is not item.kind or not 0 < short < long:
        return False
    if len(item.slices) != len(other.slices):
        return False
    if item.series_id.rsplit("-", 1)[0] == other.series_id.rsplit("-", 1)[0]:
        return True
    # Written as a series each: the same sequence, if it is the same kind of image of the same slices.
    if item.kind is SeriesKind.SAGITTAL_T1 or item.traits.image is not other.traits.image:
        return False
    apart = _origins(item)[:, None] - _origins(other)[None]
    return long > _SAME_ECHO * short and bool(
        (np.linalg.norm(apart, axis=-1).min(axis=1) < _SAME_PLACE_MM).all()
    )


def _origins(series: Series) -> FloatArray:
    return np.stack([plane.origin_mm for plane in _planes(series)])
