"""Whether the grey values of an image show the patient as they should, or what a program has left of them.

Programs invert images and say MONOCHROME2, write what a narrow window shows, keep the lower bits of each
value or a few steps, or scale every slice by itself, and the headers say nothing of it. It shows in the
images: much of them is as bright as it can be, the brightest lies beside black, there is as much of every
grey, or slices are unlike their neighbours. So do tissues beside the field of view that a scanner has folded
over the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.crops import percentiles
from data_prep.problems import DicomRejected
from data_prep.study import Series, Slice, places_mm
from data_prep.vocabulary import SeriesKind

_Pixels = NDArray[np.float32]

# Of 967 real images, of T1, T2 and axial series, .25 and less are bright. Of the same ones inverted 99 of 100
# have .39 and more that are bright.
_BRIGHT, _MUCH_IS_BRIGHT = 0.8, 0.3
# Of what is brighter than air the largest value have none in the real studies, .03 and less in 99 of 100 of
# 2,000 slices of others, written with the window of their headers, .17 in the most; .22 and more in the real
# studies with a window of a third of their values.
_NOT_AIR, _MUCH_IS_CUT = 0.15, 0.2
# How far the values, in their order, lie from a straight line: .1 and more of the same slices, .19 and more
# in 99 of 100; where the histogram was made even .01 to .17, in the median .02 to .15.
_EVEN, _FEWEST_VALUES = 0.1, 500
_LOOKED_AT = (0.35, 0.5, 0.65)
# Rows and columns that tell as much as all of them.
_ENOUGH_PIXELS = 128
# Of a value that was folded back the brightest pixels lie beside black ones. So do .0015 of the pixels and
# less of 4,300 real sagittal images, where fluid is bright, and .001 of those with lines of text; where .03
# and more lay above the fold, .0018 and more in nine of ten.
_TOP, _BOTTOM, _AGAIN, _AGAIN_OF_BRIGHTEST = 0.85, 0.1, 0.0018, 0.05
_ENOUGH_ROWS = 64
# Real images of 8 bits have 40 and more, those of scanners some hundreds.
_FEWEST_GREYS = 24
# How far a slice lies from the mean of its neighbours, in terms of how far its pixels spread: .97 and less of
# 2,200 real and 60 synthetic series (of neighbours 16 mm apart); 1.1 and more if each slice is multiplied by
# another factor from .15 to .8, 1.5 if every second one is inverted or noise.
_UNLIKE_NEIGHBOURS = 1.0
_MIDDLE_SLICES, _SMALL_PX, _FARTHEST_MM = 5, 48, 12.0
# Where tissue beside the field of view lies over the image, its last column goes on in its first one: their
# details correlate as those of neighbours do, by .68 to .97 in 36 of 37 real series that were folded so, and
# more than those of columns some way inside, which are alike where both sides of the patient are. Of 13 real
# series as they are .07 at most; none of 241 synthetic ones is told.
_GOES_ON, _AS_NEIGHBOURS, _MORE_THAN_INSIDE = 0.6, 0.85, 0.2
# Of rows: most images have air at one end. Of 28 single real slices that have none .24 at most; of the two
# real series folded by .15 and .25 of their height .56 to .74.
_GOES_ON_IN_FRONT = 0.5
# Shares of the height, and of the width.
_DETAILS, _BESIDE_SKIN, _INSIDE, _LEAST_TISSUE = 60, 40, 20, 0.15
_SPREAD, _FEWEST_FOLDED = (0.15, 0.27, 0.38, 0.5, 0.62, 0.73, 0.85), 3


def are_edited(series: Series) -> bool:
    """Whether three slices of a series, or those of them that can be decoded, are edited, each of them.

    Or neighbouring slices differ as no anatomy does, or axial ones show what lies beside them on both sides.
    """
    stack = series.main_stack
    places = sorted({int(at * len(stack)) for at in _LOOKED_AT})
    told = [is_edited(pixels) for pixels in _decoded(stack[place] for place in places)]
    return (bool(told) and all(told)) or are_uneven(series) or are_folded_over(series)


def is_edited(pixels: _Pixels) -> bool:
    """Whether an image (rows, columns) has few greys, too many bright ones, or as many of each.

    Or bright ones beside black.
    """
    step = max(1, min(pixels.shape) // _ENOUGH_PIXELS)
    some = pixels[::step, ::step]
    above = some - some.min()
    (bright,) = percentiles(above, (99.5,))
    if not bright > 0:
        return False
    most = float(above.max())
    are_cut = above[above > _NOT_AIR * most] == most
    return (
        float((above > _BRIGHT * bright).mean()) >= _MUCH_IS_BRIGHT
        or float(are_cut.mean()) >= _MUCH_IS_CUT
        or _are_even(above[above > 0])
        or len(np.unique(some[::2, ::2])) < _FEWEST_GREYS
        or _begins_again(pixels)
    )


def _are_even(values: _Pixels) -> bool:
    """Whether there is as much of every grey, as where a histogram was equalised."""
    if values.size < _FEWEST_VALUES:
        return False
    values = np.sort(values)
    ranks = (np.arange(len(values)) + 0.5) / len(values)
    along = (values - values[0]) / max(float(values[-1] - values[0]), 1e-6)
    return bool(np.abs(along - ranks).max() < _EVEN)


def _begins_again(pixels: _Pixels) -> bool:
    rows = pixels[:: max(1, len(pixels) // _ENOUGH_ROWS)]
    low, high = float(rows.min()), float(rows.max())
    bottom = rows < low + _BOTTOM * (high - low)
    # Letters and lines that were drawn have the largest value itself.
    top = (rows > low + _TOP * (high - low)) & (rows < high)
    beside = np.count_nonzero(top[:, 1:] & bottom[:, :-1]) + np.count_nonzero(bottom[:, 1:] & top[:, :-1])
    return bool(beside >= max(_AGAIN * rows.size, _AGAIN_OF_BRIGHTEST * np.count_nonzero(top)))


def are_uneven(series: Series) -> bool:
    """Whether a slice in the middle of a stack is quite unlike both its neighbours."""
    return any(map(_is_uneven, series.stacks))


def _is_uneven(stack: tuple[Slice, ...]) -> bool:
    first = max(0, len(stack) // 2 - _MIDDLE_SLICES // 2)
    middle = stack[first : first + _MIDDLE_SLICES]
    images = list(map(_small, _decoded(middle)))
    if len(images) < len(middle) or len({image.shape for image in images}) > 1:
        return False
    places = places_mm(middle)
    for at in range(1, len(images) - 1):
        mean = (images[at - 1] + images[at + 1]) / 2
        spread = float(images[at].std() * mean.std())
        away = float(np.square(images[at] - mean).mean())
        near = abs(places[at + 1] - places[at - 1]) <= _FARTHEST_MM
        if near and spread > 0 and away >= _UNLIKE_NEIGHBOURS**2 * spread:
            return True
    return False


def are_folded_over(series: Series) -> bool:
    """Whether some axial slices together begin on the one side, or in front, with what they end with."""
    if series.kind is not SeriesKind.AXIAL_T2:
        return False
    slices = series.slices
    chosen = [slices[place] for place in sorted({int(at * len(slices)) for at in _SPREAD})]
    images = list(_decoded(chosen))
    plane, turned = slices[0].plane, [pixels.T for pixels in images]
    if abs(plane.x_axis[0]) < abs(plane.y_axis[0]):
        images, turned = turned, images
    return _go_on(images, _GOES_ON) or _go_on(turned, _GOES_ON_IN_FRONT)


def _go_on(images: Sequence[_Pixels], least_alike: float) -> bool:
    """Whether the last column of most images goes on in their first one."""
    seen = [details for pixels in images if (details := _details_of_columns(pixels)) is not None]
    if len(seen) < _FEWEST_FOLDED:
        return False
    details = np.concatenate(seen, axis=1)
    details /= np.maximum(np.linalg.norm(details, axis=1, keepdims=True), 1e-6)
    second, first, last, last_but_one, inside, others_inside = details
    neighbours = (second @ first + last @ last_but_one) / 2
    least = max(least_alike, _AS_NEIGHBOURS * neighbours, inside @ others_inside + _MORE_THAN_INSIDE)
    return bool(first @ last >= least and neighbours >= least_alike)


def _details_of_columns(pixels: _Pixels) -> _Pixels | None:
    """The details (6, n) of the second, first, last and last but one column, and of two inside of them.

    Where there is tissue at both sides; None where that is little.
    """
    rows, columns = pixels.shape
    if min(rows, columns) < _SMALL_PX:
        return None
    deep = columns // _INSIDE
    places = [1, 0, columns - 1, columns - 2, deep, columns - 1 - deep]
    pixels = pixels - pixels.min()  # air may have any value
    lines = np.ascontiguousarray(pixels[:, places].T, dtype=np.float32)
    smooth = cv2.GaussianBlur(lines, (0, 1), sigmaX=rows / _DETAILS, sigmaY=1)
    least = max(1e-6, _LEAST_TISSUE * float(np.percentile(pixels[::4, ::4], 95)))
    tissue = np.logical_and(smooth[1] > least, smooth[2] > least).astype(np.uint8)
    # Skin lies at the same height on both sides.
    kernel = np.ones((1, 2 * (rows // _BESIDE_SKIN) + 1), np.uint8)
    seen = cv2.erode(tissue[None], kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)[0] > 0
    if 4 * np.count_nonzero(seen) < rows:
        return None
    return np.asarray(((lines - smooth) / np.maximum(smooth, least))[:, seen])


def _small(pixels: _Pixels) -> _Pixels:
    """An image of few pixels, of some of its rows: the noise is averaged."""
    step = max(1, min(pixels.shape) // _SMALL_PX)
    rows = np.ascontiguousarray(pixels[:: max(1, step // 2)])
    size = max(1, pixels.shape[1] // step), max(1, pixels.shape[0] // step)
    return np.asarray(cv2.resize(rows, size, interpolation=cv2.INTER_AREA))


def _decoded(slices: Iterable[Slice]) -> Iterator[_Pixels]:
    """The pixels of those slices that can be decoded."""
    for item in slices:
        try:
            yield item.pixels()
        except DicomRejected:
            continue
