"""Whether neighbouring slices show the patient at the same place, left and right on one side, and in order.

A program can mirror some images of a series, or those of one of its stacks, and leave their headers. Each of
them looks right by itself, and the series as a whole fits the sagittal ones no worse than many do. But a
slice is more like its neighbour than like the mirror image of it: no body is so symmetrical that it were not.

Scanners acquire every second slice, then those between. A patient who moves between these two packages lies
elsewhere on every second slice: what neighbours show is shifted to and fro, or, if he moved across the
slices, is by turns less and more alike. No anatomy alternates so. A patient who moved to the side between two
stacks, or while one was acquired, lies farther to the side on one slice than on its neighbour.

Programs that sort files by name, or put every second slice behind the others, write positions in the wrong
order; others write one image at several places. Each image looks right by itself. But the image that is most
like another one is that of a neighbour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Series, Slice, Study, places_mm
from data_prep.vocabulary import Flag, SeriesKind

# Of 4,900 pairs of 270 synthetic patients and two real studies none is by more than .05 more like its mirror
# image, and of 130 patients whose tissues chance has not made brighter none by more than .003; where slices
# of the real studies are made to change sides the pair is by .12 and .33.
_MORE_ALIKE, _LEAST_LIKENESS = 0.08, 0.5
_PIXEL_MM = 3.0
_NEIGHBOUR_MM = 10.0
_SAME_AXIS_COSINE = 0.9
# The mirror image of a patient who lies beside the middle lies beside it on the other side.
_MARGIN_ROWS, _MARGIN_SHARE, _LEAST_PIXELS = 4, 6, 24
# Of 58 synthetic patients and both real studies none is shifted to and fro, in pixels of 3 mm, and stacks of
# nine slices and more are by .026 and less more and less alike; where every second slice shows what lies two
# slices on, by .04 to .15 of most.
_FEWEST_PAIRS, _LEAST_FRO_MM = 4, 2.5
_LONG_ROW, _LEAST_UNLIKE = 8, 0.04
# Of the least step of a stack.
_REGULAR = 1.3
# Of them all, two neighbours lie 1.2 mm aside of each other at most, as near as 3 mm can tell.
_LEAST_ASIDE_MM, _LIKE_ASIDE = 4.5, 0.6
_Image = NDArray[np.float32]
_Images = Callable[[Slice], _Image | None]
# How unlike each image is to that of its neighbours that is more like it, over how unlike to the one most
# like it, in the mean of a series. As they lie: axial series of the two real studies and 116 synthetic ones
# 1.01 and less, T1 1.05, 44 stacks of slices of SPIDER 1.002; crops of 568 axial series of RSNA 1.12, but for
# two. Odd slices before even ones: axial 1.33 and more, T1 and SPIDER 1.16; shuffled: axial 1.7, T1 1.13.
_OUT_OF_ORDER = 1.13
# Neighbours on both sides lie so far at most, in distances of the nearest.
_BESIDE = 1.5
# Farther apart, left and right halves of a body are more alike than neighbours.
_FARTHEST_MM, _FEWEST = 6.5, 6
_LARGEST = 1e9
_APART_MM = 0.1
# T2 is read on its middle slices, and those in another order are told by the levels.
_ASKED = (SeriesKind.AXIAL_T2, SeriesKind.SAGITTAL_T1)


@dataclass(frozen=True)
class Neighbours:
    """What slices show of their neighbours.

    Attributes:
        sides_change: a slice is more like the mirror image of its neighbour than like the neighbour itself.
        patient_moved: every second slice shows the patient elsewhere, or one does farther to the side.
    """

    sides_change: bool
    patient_moved: bool


@dataclass(frozen=True)
class _Pair:
    """Two neighbours, and where one is most like the other.

    Attributes:
        likeness: correlation there.
        aside_mm, down_mm: how far that is from where the headers say.
        is_mirrored: whether it is more like the other's mirror image.
    """

    likeness: float
    aside_mm: float
    down_mm: float
    is_mirrored: bool


def neighbours(stacks: Sequence[Sequence[Slice]], *, show_sides: bool = True) -> Neighbours:
    """What slices show of their neighbours: those of their stack, and of another one the nearest.

    Args:
        show_sides: whether the sides of the images are those of the patient.
    """
    images: _Images = cache(small_image)
    rows = [[_pair(one, other, images, show_sides) for one, other in pairwise(stack)] for stack in stacks]
    between = [_pair(one, other, images, show_sides) for one, other in _between(stacks)]
    told = [pair for row in (*rows, between) for pair in row if pair is not None]
    # Where one is black, or shows something else, nothing is where it is most alike.
    alike = [[pair for pair in row if pair and pair.likeness >= _LEAST_LIKENESS] for row in rows]
    whole = [
        seen
        for seen, row, stack in zip(alike, rows, stacks, strict=True)
        if len(seen) == len(row) and _is_regular(stack)
    ]
    # Of sagittal slices the side of the image is the back of the body, or the front.
    aside = show_sides and any(_lies_aside(pair) for pair in told)
    return Neighbours(any(pair.is_mirrored for pair in told), aside or _alternate(whole))


def _lies_aside(pair: _Pair) -> bool:
    return abs(pair.aside_mm) >= _LEAST_ASIDE_MM and pair.likeness >= _LIKE_ASIDE


def _alternate(rows: Sequence[Sequence[_Pair]]) -> bool:
    """Whether what pairs of neighbours show differs by turns, as most of the pairs' stacks say."""
    moved = [(len(row), _fro_mm(row)) for row in rows if len(row) > 1]
    unlike = [(len(row), _unlike(row)) for row in rows if len(row) >= _LONG_ROW]
    to_and_fro = sum(count for count, _ in moved) >= _FEWEST_PAIRS and _median(moved) >= _LEAST_FRO_MM
    return to_and_fro or (bool(unlike) and _median(unlike) >= _LEAST_UNLIKE)


def _is_regular(stack: Sequence[Slice]) -> bool:
    """Whether no neighbours lie farther apart than others, as where every third slice is lost."""
    apart = np.abs(np.diff(places_mm(stack)))
    return bool(apart.max(initial=0.0) <= _REGULAR * apart.min(initial=np.inf))


def _fro_mm(row: Sequence[_Pair]) -> float:
    """How far every second slice lies from the others, as it shows in most pairs."""
    moved = np.array([(pair.aside_mm, pair.down_mm) for pair in row])
    return float(np.abs(np.median(_by_turns(len(row))[:, None] * moved, axis=0)).max())


def _unlike(row: Sequence[_Pair]) -> float:
    even = len(row) // 2 * 2
    unlike = np.sqrt(np.maximum(1.0 - np.array([pair.likeness for pair in row[:even]]), 0.0))
    return float(np.abs((_by_turns(even) * unlike).mean()))


def _by_turns(count: int) -> NDArray[np.float64]:
    return np.where(np.arange(count) % 2, -1.0, 1.0)


def _median(counted: Sequence[tuple[int, float]]) -> float:
    counts, values = zip(*counted, strict=True)
    return float(np.median(np.repeat(values, counts)))


def _pair(one: Slice, other: Slice, images: _Images, show_sides: bool) -> _Pair | None:
    """None: the slices or their middles lie apart, columns or sizes differ, or one cannot be decoded."""
    if not _lie_alike(one, other):
        return None
    first, second = images(one), images(other)
    if first is None or second is None or first.shape != second.shape:
        return None
    aside = max(2, second.shape[1] // _MARGIN_SHARE) if show_sides else _MARGIN_ROWS
    inner = np.ascontiguousarray(second[_MARGIN_ROWS:-_MARGIN_ROWS, aside:-aside])
    likeness, (column, row) = _most_alike(first, inner)
    rows, columns = one.plane.shape
    pixels_mm = np.array(one.plane.spacing_mm) * [columns // first.shape[1], rows // first.shape[0]]
    apart = other.plane.centre_mm - one.plane.centre_mm
    expected_mm = np.array([apart @ one.plane.x_axis, apart @ one.plane.y_axis])
    if abs(expected_mm[0]) > pixels_mm[0] * (aside - 1):
        return None
    moved = pixels_mm * [column - aside, row - _MARGIN_ROWS] - expected_mm
    least = max(_LEAST_LIKENESS, likeness + _MORE_ALIKE)
    ask = show_sides and least <= 1.0
    mirrored = ask and _most_alike(np.ascontiguousarray(first[:, ::-1]), inner)[0] >= least
    return _Pair(likeness, float(moved[0]), float(moved[1]), mirrored)


def _lie_alike(one: Slice, other: Slice) -> bool:
    """Whether slices lie near each other, and their headers say that their columns run the same way."""
    apart_mm = float(np.linalg.norm(one.plane.centre_mm - other.plane.centre_mm))
    return apart_mm <= _NEIGHBOUR_MM and float(one.plane.x_axis @ other.plane.x_axis) >= _SAME_AXIS_COSINE


def _between(stacks: Sequence[Sequence[Slice]]) -> Iterator[tuple[Slice, Slice]]:
    """Of two stacks the slices that lie nearest to each other."""
    for number, stack in enumerate(stacks):
        centres = np.stack([item.plane.centre_mm for item in stack])
        for other in stacks[number + 1 :]:
            apart = np.stack([item.plane.centre_mm for item in other])[None] - centres[:, None]
            away = np.linalg.norm(apart, axis=-1)
            place, beside = np.unravel_index(int(away.argmin()), away.shape)
            yield stack[int(place)], other[int(beside)]


def small_image(item: Slice) -> _Image | None:
    """The image with pixels of about 3 mm; the root, lest bright fat counts for all. None: not decoded."""
    try:
        pixels = item.pixels()
    except DicomRejected:
        return None
    # Whole numbers of pixels, which takes a tenth of the time.
    across, down = (max(1, round(_PIXEL_MM / mm)) for mm in item.plane.spacing_mm)
    rows, columns = pixels.shape[0] // down, pixels.shape[1] // across
    if min(rows, columns) < _LEAST_PIXELS:
        return None
    whole = pixels[: rows * down, : columns * across]
    small = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    # Of one grey it would be like everything.
    if not float(np.ptp(small)):
        return None
    return np.asarray(np.sqrt(np.maximum(small - small.min(), 0)), dtype=np.float32)


def _most_alike(image: _Image, inner: _Image) -> tuple[float, tuple[int, int]]:
    """The largest correlation with the inner part of another image, and where that begins: column, row."""
    alike = np.nan_to_num(cv2.matchTemplate(image, inner, cv2.TM_CCOEFF_NORMED))
    row, column = divmod(int(alike.argmax()), alike.shape[1])
    return float(alike[row, column]), (column, row)


def with_order_doubted(study: Study, flags: Collection[str] = ()) -> Study:
    """The study, and ``positions_doubtful`` for series whose images do not follow each other.

    Args:
        flags: what is said of the study already. Of axial images that lie elsewhere this says nothing more.
    """
    notes = [
        Rejection(Reason.POSITIONS_DOUBTFUL, message, series.study_id, series.series_id)
        for kind in _ASKED
        if not (kind is SeriesKind.AXIAL_T2 and Flag.AXIAL_DISAGREES in flags)
        for series in study.of_kind(kind)
        if (message := order_doubt(series))
    ]
    return replace(study, rejections=(*study.rejections, *notes)) if notes else study


def order_doubt(series: Series) -> str:
    """Why the images of a series may not lie where they belong; "" if they may."""
    slices = series.slices
    if len(slices) < _FEWEST:
        return ""
    if repeated := sum(_are_one_image(item, other) for item, other in pairwise(slices)):
        return f"{repeated} of its {len(slices)} images are the one before once more: positions were followed"
    if _out_of_order(series):
        return "its images do not follow each other as its slices do: positions were followed"
    return ""


def _out_of_order(series: Series) -> bool:
    images = [
        (item.plane.centre_mm, image) for item in series.slices if (image := small_image(item)) is not None
    ]
    shapes = Counter(image.shape for _, image in images)
    alike = [(place, image) for place, image in images if image.shape == max(shapes, key=shapes.__getitem__)]
    if len(alike) < _FEWEST:
        return False
    places = np.stack([place for place, _ in alike])
    pixels = np.stack([image.ravel() - float(image.mean()) for _, image in alike])
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    unlike = np.sqrt(np.maximum(2.0 - 2.0 * pixels @ pixels.T, 0.0))
    apart_mm = np.linalg.norm(places[:, None] - places, axis=-1)
    at_one_place = apart_mm < _APART_MM  # itself, and copies of it
    unlike[at_one_place] = apart_mm[at_one_place] = _LARGEST
    nearest_mm = apart_mm.min(axis=1)
    beside = np.where(apart_mm <= _BESIDE * nearest_mm[:, None], unlike, _LARGEST).min(axis=1)
    near = np.median(nearest_mm) <= _FARTHEST_MM
    return bool(near and beside.mean() >= _OUT_OF_ORDER * unlike.min(axis=1).mean())


def _are_one_image(item: Slice, other: Slice) -> bool:
    if float(np.linalg.norm(item.plane.centre_mm - other.plane.centre_mm)) < _APART_MM:
        return False  # a copy of it, which changes nothing
    try:
        pixels, others = item.pixels(), other.pixels()
    except DicomRejected:
        return False
    same = pixels.shape == others.shape and np.array_equal(pixels[::8], others[::8])
    return same and bool(np.ptp(pixels) > 0) and np.array_equal(pixels, others)
