"""The ways round in which series may lie under headers that say otherwise, and how far they may lie apart."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from data_prep.geometry import FloatArray


@dataclass(frozen=True)
class CrossingConfig:
    """What is compared, and when a series is said to lie otherwise than its headers say.

    Chosen on 24 synthetic patients (seeds 156,000 to 156,015 and, hard ones, 166,000 to 166,007) and the two
    real studies, as they lie, changed in 30 ways that leave them right, and in 12 that do not.

    Attributes:
        axial_slices, sagittal_slices: slices spread over a series that are compared, at most; even numbers.
            To the axial ones come those nearest to the levels.
        from_mm, beside_mm: how far from the middle of their stack sagittal slices are looked at: near it left
            and right are alike.
        first_mm: of T2 only those up to here at first, which are decoded in any case.
        level_mm: how near to a level the slices lie that are looked at first.
        before_mm, behind_mm: how far before and behind the canal the lines are followed, in steps of
            ``step_mm``.
        pixel_mm: images are looked at with pixels of about this size.
        blur_mm: along the lines, before edges are looked for.
        near_mm: by which series may have moved against each other, in every direction.
        aside_mm, along_mm, deep_mm: farther ways that the headers are given before another way round is
            believed: to the side, along the table, and to front or back; all in steps of ``shift_mm``.
        fewest_slices, fewest_lines: axial slices, and lines of each, without which nothing is said.
        least_likeness: mean correlation of the edges below which a way round is not believed.
        agrees_by, differs_by: by which what the headers say must be more alike than any other way round to be
            believed, and another way round than what the headers say.
        share: of the axial slices, that must say so.
    """

    axial_slices: int = 12
    sagittal_slices: int = 8
    from_mm: float = 4.0
    beside_mm: float = 28.0
    first_mm: float = 12.0
    level_mm: float = 10.0
    before_mm: float = 60.0
    behind_mm: float = 45.0
    step_mm: float = 1.0
    pixel_mm: float = 1.2
    blur_mm: float = 1.0
    shift_mm: float = 3.0
    near_mm: float = 3.0
    aside_mm: float = 12.0
    along_mm: float = 45.0
    deep_mm: float = 9.0
    fewest_slices: int = 5
    fewest_lines: int = 3
    least_likeness: float = 0.2
    agrees_by: float = 0.05
    differs_by: float = 0.08
    share: float = 0.7


class Order(Enum):
    """Of the images of a series."""

    GIVEN = "given"
    REVERSED = "reversed"
    STACKS_REVERSED = "stacks_reversed"  # each stack by itself


@dataclass(frozen=True)
class Way:
    """A way round in which series may lie.

    Attributes:
        mirrored, upended: columns of axial images, or rows, are in reverse.
        turned: columns and rows of axial images are exchanged, before that.
        order: of the axial images.
        sagittal_reversed: the sagittal images are in reverse order.
    """

    mirrored: bool = False
    upended: bool = False
    turned: bool = False
    order: Order = Order.GIVEN
    sagittal_reversed: bool = False

    def stored_px(self, xy: FloatArray, shape: tuple[int, ...]) -> FloatArray:
        """Where pixels (..., 2) of an image lie in the one (rows, columns) that is stored in its place."""
        if self.turned:
            xy = xy[..., ::-1]
        rows, columns = shape
        flipped = np.array([self.mirrored, self.upended])
        return np.where(flipped, np.array([columns - 1, rows - 1]) - xy, xy)


GIVEN, MIRRORED, SAGITTAL_REVERSED = Way(), Way(mirrored=True), Way(sagittal_reversed=True)
SIDES = GIVEN, MIRRORED, SAGITTAL_REVERSED
# Those that can come near to what the headers say.
LIKELY = (*SIDES, Way(order=Order.REVERSED), Way(order=Order.STACKS_REVERSED))
_FLIPS = tuple((upended, mirrored) for upended in (False, True) for mirrored in (False, True))
WAYS = (
    *(Way(mirrored, upended, turned) for turned in (False, True) for upended, mirrored in _FLIPS),
    *(
        Way(mirrored, upended, order=order)
        for order in (Order.REVERSED, Order.STACKS_REVERSED)
        for upended, mirrored in _FLIPS
    ),
    SAGITTAL_REVERSED,
)


@dataclass(frozen=True)
class Reach:
    """Shifts that are tried: to the side and along the table in mm, to front and back in steps of the lines.

    As many in either direction, so that the middle one is none.
    """

    aside_mm: tuple[float, ...] = (0.0,)
    along_mm: tuple[float, ...] = (0.0,)
    deep_steps: tuple[int, ...] = (0,)

    @classmethod
    def of(cls, aside_mm: float, along_mm: float, deep_mm: float, config: CrossingConfig) -> Reach:
        """Up to these, in steps of ``shift_mm``."""
        aside, along, deep = (_shifts(most_mm, config.shift_mm) for most_mm in (aside_mm, along_mm, deep_mm))
        return cls(aside, along, tuple(round(shift / config.step_mm) for shift in deep))


def _shifts(most_mm: float, step_mm: float) -> tuple[float, ...]:
    count = int(most_mm / step_mm)
    return tuple(step_mm * step for step in range(-count, count + 1))
