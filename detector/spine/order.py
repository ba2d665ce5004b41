"""Whether the images of a series follow each other as its slices do, each place with an image of its own.

Programs that sort files by name, or put every second slice behind the others, write positions in the wrong
order; others write one image at several places. Each image looks right by itself. But the image that is most
like another one is that of a neighbour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise

import numpy as np

from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import Flag, SeriesKind
from detector.spine.neighbours import small_image

# How unlike each image is to its nearest neighbour's, over how unlike to the one most like it, in the mean of
# a series. As they lie: axial series of the two real studies 1.16 and less, of 30 synthetic patients 1.06; T1
# of the real ones 1.04, of 125 stacks of SPIDER 1.04, of 82 synthetic ones 1.23. Odd slices before even ones:
# axial 1.5 and more, T1 1.3; axial ones in the order of their names ("1, 10, 11, 2") 1.32; shuffled 2.
_OUT_OF_ORDER = 1.28
# Farther apart, left and right halves of a body are more alike than neighbours.
_FARTHEST_MM, _FEWEST = 6.5, 6
_LARGEST = 1e9
_APART_MM = 0.1
# T2 is read on its middle slices, and those in another order are told by the levels.
_ASKED = (SeriesKind.AXIAL_T2, SeriesKind.SAGITTAL_T1)


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
    np.fill_diagonal(unlike, _LARGEST)
    np.fill_diagonal(apart_mm, _LARGEST)
    near = np.median(apart_mm.min(axis=1)) <= _FARTHEST_MM
    beside = unlike[np.arange(len(unlike)), apart_mm.argmin(axis=1)].mean()
    return bool(near and beside >= _OUT_OF_ORDER * unlike.min(axis=1).mean())


def _are_one_image(item: Slice, other: Slice) -> bool:
    if float(np.linalg.norm(item.plane.centre_mm - other.plane.centre_mm)) < _APART_MM:
        return False  # a copy of it, which changes nothing
    try:
        pixels, others = item.pixels(), other.pixels()
    except DicomRejected:
        return False
    same = pixels.shape == others.shape and np.array_equal(pixels[::8], others[::8])
    return same and bool(np.ptp(pixels) > 0) and np.array_equal(pixels, others)
