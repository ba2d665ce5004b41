"""Axial slices that are missing where numbers do not follow places: holes in the one, room in the other.

Numbers drawn at random say of no gap that slices are missing there, and a gap alone may be air that was
planned. Where the numbers lack as many as the gaps have room for, slices are missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_prep.geometry import FloatArray, Orientation
from data_prep.read.missing_ends import along
from data_prep.read.missing_numbers import Numbering
from data_prep.study import Series

_FEWEST, _LEAST_SHARE = 3, 0.2
# Numbers of neighbours in one direction, from head to foot or back: of so many, numbers follow places.
_ORDERED = 0.8
# Of the room in gaps, what the numbers lack at least: those above the highest that is left are not seen.
_LEAST_OF_ROOM = 0.6
# Of one stack: how far from whole its steps may be, and as many slices as no disc has for itself, in a row.
_WHOLE, _LONG_RUN = 0.2, 6
# Steps that part groups of slices, one a disc, in usual steps; their distances, in distances of the others.
_BETWEEN_GROUPS, _ALIKE, _WIDE = 2.5, 1.4, 1.6
_FEWEST_DISTANCES, _MOST_GROUPS = 3, 2


def lost_of_shuffled(
    item: Series, numberings: Sequence[Numbering], elsewhere: Sequence[frozenset[int]]
) -> int:
    """How many axial slices the numbers lack from 1 on, if the gaps between slices have room for them.

    Args:
        elsewhere: numbers of the other series of the study; one that has those that are lacking, and none of
            the others, is the other part of a divided one.
    """
    if item.orientation is not Orientation.AXIAL or item.is_thin or item.traits.is_derived or not numberings:
        return 0
    numbers, taken = numberings[0]
    there, lacking = len(item.slices), max(taken) - len(taken)
    if len(taken) != there or min(taken) < 1 or not max(_FEWEST, _LEAST_SHARE * there) <= lacking < there:
        return 0
    holes = frozenset(range(1, max(taken))) - taken
    if any(holes & other and not taken & other for other in elsewhere):
        return 0
    z = np.array([slice_.plane.centre_mm[2] for slice_ in item.slices])
    order = np.argsort(z)
    up = np.diff([numbers[id(item.slices[place])] for place in order]) > 0
    if max(up.mean(), 1 - up.mean()) >= _ORDERED:
        return 0
    room = _room_between_groups(np.sort(z))
    if not room and len(item.stacks) == 1:
        centres = [slice_.plane.centre_mm for slice_ in item.slices]
        room = _room_in_steps(np.sort(along(item.slices[0], centres)))
    return lacking if _LEAST_OF_ROOM * room <= lacking <= room else 0


def _room_in_steps(places_mm: FloatArray) -> int:
    """Slices for which there is room in one stack whose slices lie whole steps apart.

    None in short runs: they are planned, one a disc.
    """
    steps = np.diff(places_mm)
    ratios = steps / max(float(np.median(steps)), 1e-6)
    whole = np.round(ratios)
    if (whole < 1).any() or (np.abs(ratios - whole) > _WHOLE).any():
        return 0
    runs = 1 + np.count_nonzero(whole > 1)
    return int((whole - 1).sum()) if len(places_mm) >= _LONG_RUN * runs else 0


def _room_between_groups(places_mm: FloatArray) -> int:
    """Slices for which there is room where groups, one a disc, lie evenly but for one distance.

    They are those of one or two groups, and of those that have fewer slices than the largest.
    """
    steps = np.diff(places_mm)
    groups = np.split(places_mm, np.flatnonzero(steps > _BETWEEN_GROUPS * np.median(steps)) + 1)
    distances = np.diff([group.mean() for group in groups])
    if len(distances) < _FEWEST_DISTANCES:
        return 0
    others = np.delete(distances, np.argmax(distances))
    if others.max() > _ALIKE * others.min() or distances.max() < _WIDE * others.max():
        return 0
    lost = round(float(distances.max() / others.max())) - 1
    sizes = np.array([len(group) for group in groups])
    return int(lost * sizes.max() + (sizes.max() - sizes).sum()) if lost <= _MOST_GROUPS else 0
