"""Whether a sagittal series shows in its plane what another one shows there.

T1 and T2 have other contrasts, and their edges differ, too. But what is of one brightness in one of them is
so in the other, whatever it is: knowing one image tells much of the other, if both lie as their headers say.
If a program has exchanged the columns and rows of one, mirrored it or turned it, it does so another way round
alone.

That one of two slices lies farther to the side than its header says, or all of them, no such comparison can
tell: neighbours show nearly the same, and so do the left and the right half of a body.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray
from data_prep.study import Series, Slice, from_middle_mm
from detector.spine.ways_round import GIVEN, WAYS, Order, Way

_WAYS = tuple(way for way in WAYS if way.order is Order.GIVEN and not way.sagittal_reversed)


@dataclass(frozen=True)
class InPlaneConfig:
    """What is compared, and when a series is said to lie another way round.

    Attributes:
        slices: pairs of slices, from the middle of the series.
        before_mm, behind_mm, along_mm: how far from the middle of the canal they are compared.
        pixel_mm, grey_values: of what is compared; as many pixels have each grey value.
        shifts_mm: that are tried, as the patient may have moved.
        suspect_by, differs_by: how many times as much as what the headers say another way round must tell on
            the middle pair without a shift to be looked at, and on all pairs to be believed. Of 192 real
            patients (Sudirman, a pair of slices of each) it is 1.03 times as much at most; of a real T1
            beside a T2 without fat 1.67 if it is mirrored. Bones alone, without the back, tell half of that.
        least_told: mutual information of what is believed.
    """

    slices: int = 3
    before_mm: float = 80.0
    behind_mm: float = 80.0
    along_mm: float = 80.0
    pixel_mm: float = 2.0
    grey_values: int = 12
    shifts_mm: tuple[float, ...] = (-4.0, 0.0, 4.0)
    suspect_by: float = 1.2
    differs_by: float = 1.6
    least_told: float = 0.25


def lies_another_way(series: Series, leading: Series, canal_mm: FloatArray, config: InPlaneConfig) -> bool:
    """Whether a series lies another way round in its plane than its headers say.

    Args:
        leading: one that lies right.
        canal_mm: (n, 3) canal points of the levels.
    """
    pairs = _pairs(series, leading, canal_mm, config)
    if not pairs or not _is_ahead(_told(*pairs[0], canal_mm, config, (0.0,)), config.suspect_by):
        return False
    told = [_told(*pair, canal_mm, config, config.shifts_mm) for pair in pairs]
    means = {way: float(np.mean([ways[way] for ways in told])) for way in told[0]}
    return max(means.values()) >= config.least_told and _is_ahead(means, config.differs_by)


def _is_ahead(told: dict[Way, float], times: float) -> bool:
    """Whether another way round tells as many times what the headers' does."""
    return max(told.values()) >= times * told[GIVEN]


def _pairs(
    series: Series, leading: Series, canal_mm: FloatArray, config: InPlaneConfig
) -> list[tuple[Slice, Slice]]:
    """Slices of a series of one size and those of the leading one that they lie next to, the middle first."""
    stack = leading.main_stack
    middle = np.argsort(np.abs(from_middle_mm(stack)), kind="stable")[: config.slices]
    others = [stack[place] for place in middle.tolist()]
    nearest = [series.nearest(other.plane.projected(canal_mm.mean(axis=0)))[0] for other in others]
    return [
        (item, other)
        for item, other in zip(nearest, others, strict=True)
        if item.plane.shape == nearest[0].plane.shape and item.shows_something() and other.shows_something()
    ]


def _told(
    item: Slice, other: Slice, canal_mm: FloatArray, config: InPlaneConfig, shifts_mm: tuple[float, ...]
) -> dict[Way, float]:
    """How much one image tells of the other for every way round, at the shift at which it tells most."""
    points, plane = _grid(other, canal_mm, config), other.plane
    known = _greys(_sampled(other, points, GIVEN), config)
    shifts = [x * plane.x_axis + y * plane.y_axis for x, y in product(shifts_mm, repeat=2)]
    rows, columns = item.plane.shape
    return {
        way: max(
            _mutual(known, _greys(_sampled(item, points + shift, way), config), config.grey_values)
            for shift in shifts
        )
        for way in _WAYS
        if rows == columns or not way.turned
    }


def _grid(item: Slice, canal_mm: FloatArray, config: InPlaneConfig) -> FloatArray:
    """(rows, columns, 3) points of a slice around the canal."""
    plane = item.plane
    middle = plane.projected(canal_mm.mean(axis=0))
    back = np.array([0.0, 1.0, 0.0]) - plane.normal[1] * plane.normal
    back /= np.linalg.norm(back)
    down = np.cross(plane.normal, back)
    deep = np.arange(-config.before_mm, config.behind_mm + 0.1, config.pixel_mm)
    along = np.arange(-config.along_mm, config.along_mm + 0.1, config.pixel_mm)
    return np.asarray(middle + along[:, None, None] * down + deep[:, None] * back)


def _sampled(item: Slice, points_mm: FloatArray, way: Way) -> NDArray[np.float32]:
    """What an image shows at points if it is stored another way round."""
    pixels = item.pixels()
    xy = way.stored_px(item.plane.to_px(points_mm), pixels.shape).astype(np.float32)
    seen = cv2.remap(pixels, xy[..., 0], xy[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.GaussianBlur(seen, (0, 0), 0.6))


def _greys(values: NDArray[np.float32], config: InPlaneConfig) -> NDArray[np.int_]:
    flat = values.ravel()
    shares = np.arange(1, config.grey_values) / config.grey_values
    return np.searchsorted(np.quantile(flat, shares), flat)


def _mutual(one: NDArray[np.int_], other: NDArray[np.int_], count: int) -> float:
    """Mutual information of grey values 0 … count - 1, in nats."""
    both = np.bincount(one * count + other, minlength=count * count).reshape(count, count) / len(one)
    apart = both.sum(axis=1)[:, None] * both.sum(axis=0)
    seen = both > 0
    return float((both[seen] * np.log(both[seen] / apart[seen])).sum())
