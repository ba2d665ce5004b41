"""Slices that are missing where no gap tells it: at an end, or where numbers do not follow places.

Nothing lies behind an end, so other series and tags tell. Numbers drawn at random say of no gap that slices
are missing there, and a gap alone may be air that was planned: but the numbers may lack as many as the gaps
have room for.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np

from data_prep.geometry import FloatArray, Orientation
from data_prep.read.slice_header import SliceHeader
from data_prep.study import Series, Slice

# Number by ``id`` of a slice.
Numbers = Mapping[int, int]
# Numbers of a series, and all that are taken in what it was read from.
Numbering = tuple[Numbers, frozenset[int]]
_FEWEST_SLICES = 4
_SAME_PLACE_MM = 0.1
# Series that were planned alike: their steps agree to a part, their ends to so many steps.
_SAME_STEP = 0.03
_SAME_END, _SAME_END_WITHOUT_NUMBERS = 1.0, 0.6
# Numbers that begin late: the steps of slices whose numbers follow each other, how near to the edge of a
# sagittal view slices are planned, and by how many steps stacks overlap.
_LARGEST_STEP_MM, _VIEW_MARGIN_MM, _MOST_BACK = 12.0, 20.0, 3.0
# Slices that are missing: where the numbers say so, and where they do not.
_FEWEST, _FEWEST_WITHOUT_NUMBERS, _LEAST_SHARE = 2, 3, 0.2
# Numbers of neighbours in one direction, from head to foot or back: of so many, numbers follow places.
_ORDERED = 0.8
# Of the room in gaps, what the numbers lack at least: those above the highest that is left are not seen.
_LEAST_OF_ROOM = 0.6
# Of one stack: how far from whole its steps may be, and as many slices as no disc has for itself, in a row.
_WHOLE_STEPS, _LONG_RUN = 0.2, 6
# Steps that part groups of slices, one a disc, in usual steps; their distances, in distances of the others.
_BETWEEN_GROUPS, _ALIKE, _WIDE = 2.5, 1.4, 1.6
_FEWEST_DISTANCES, _MOST_GROUPS = 3, 2


def numberings_of(item: Series, source: Sequence[SliceHeader]) -> list[Numbering]:
    """Numbers of a series by header, by file and by place in an enhanced stack, those that are distinct.

    Args:
        source: headers of what the series was read from.
    """
    headers: dict[tuple[Path | None, int | None], SliceHeader] = {
        (header.path, None if header.frame is None else header.frame + 1): header for header in source
    }
    own = [headers.get((part.path, part.frame)) for part in item.slices]
    if None in own:
        return []
    found: list[Numbering] = []
    for number_of in (attrgetter("instance_number"), _file_number, attrgetter("stack_position")):
        numbers = [number_of(header) for header in own if header is not None]
        taken = frozenset(n for header in source if (n := number_of(header)) is not None)
        if None not in numbers and len(set(numbers)) == len(numbers):
            pairs = zip(item.slices, numbers, strict=True)
            found.append(({id(part): int(n) for part, n in pairs if n is not None}, taken))
    return found


def leave_room(pair: tuple[int, int], count: int, step: int, taken: frozenset[int]) -> bool:
    """Whether the numbers of two slices leave room for so many between them, and nothing else has these.

    Args:
        step: from one number to the next.
    """
    low, high = sorted(pair)
    if high - low != step * (count + 1):
        return False
    return not any(n in taken for n in range(low + step, high, step))


def holes_in(taken: frozenset[int], share: float) -> list[tuple[int, int, int]]:
    """Numbers before and behind a hole, and how many are missing; none where more of the numbers jump.

    Args:
        share: of the numbers must follow each other.
    """
    order = sorted(taken)
    found = [(a, b, b - a - 1) for a, b in itertools.pairwise(order) if b - a > 1]
    return found if len(order) - 1 - len(found) >= share * (len(order) - 1) else []


def _file_number(header: SliceHeader) -> int | None:
    stem = header.path.stem
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 10 else None


def stated_beyond(item: Series, source: Sequence[SliceHeader], in_study: int) -> int:
    """How many images the headers of a series state beyond those that were found.

    Nothing of 3-D acquisitions, of which scanners leave out the first and last slices, nor where the images
    ``in_study`` are counted.
    """
    parts = _parts_missing(source)
    if parts or not source or item.is_thin:
        return parts
    images = len({header.sop_uid or id(header) for header in source})
    places = len({header.place for header in source})
    most = 0
    for name, seen in (("images_stated", images), ("slices_stated", places)):
        stated = {getattr(header, name) for header in source}
        value = stated.pop() if len(stated) == 1 else None
        # A whole multiple counts echoes that were filed elsewhere.
        if value and value > seen and value % seen and value != in_study:
            most = max(most, value - seen)
    return most


def _parts_missing(source: Sequence[SliceHeader]) -> int:
    """How many parts of concatenations are not there (PS3.3 section C.7.6.16.2.2.4)."""
    stated = {header.concatenation for header in source if header.concatenation is not None}
    uids = {uid for uid, _, _ in stated}
    found = {uid: {part for other, part, _ in stated if other == uid} for uid in uids}
    total = {uid: max(parts for other, _, parts in stated if other == uid) for uid in uids}
    return sum(max(total[uid] - len(found[uid]), 0) for uid in uids)


def fewer_than_beside(item: Series, all_series: Sequence[Series], numberings: Sequence[Numbering]) -> int:
    """How many slices fewer at one side a sagittal series has than the one that was planned like it."""
    if item.orientation is not Orientation.SAGITTAL or len(item.stacks) != 1:
        return 0
    others = [
        other
        for other in all_series
        if other.kind is not item.kind
        and other.orientation is Orientation.SAGITTAL
        and len(other.stacks) == 1
    ]
    first = item.slices[0].plane
    alike = [
        part
        for series in all_series
        if series.kind is item.kind and series.traits.image is item.traits.image
        for part in series.slices
        if part.plane.is_parallel_to(first) and part.plane.shows(first.centre_mm)
    ]
    return max((_cut_off(item.slices, alike, other.slices, numberings) for other in others), default=0)


def along(first: Slice, points: Sequence[FloatArray]) -> FloatArray:
    """How far points lie along the normal of a slice, mm."""
    found: FloatArray = (np.stack(points) - first.plane.centre_mm) @ first.plane.normal
    return found


def _cut_off(
    mine: Sequence[Slice], alike: Sequence[Slice], whole: Sequence[Slice], numberings: Sequence[Numbering]
) -> int:
    """How many slices one series has beyond an end of another, where both have the other end.

    Of the first all slices of the same image count, whatever series they are filed under. Whoever plans fewer
    slices takes them from both sides. As many must be missing in the numbers, or be a fifth of the series;
    none are where the numbers begin at that end.
    """
    if not _FEWEST_SLICES <= len(mine) < len(whole):
        return 0
    if not mine[0].plane.is_parallel_to(whole[0].plane):
        return 0
    places, own = (along(whole[0], [item.plane.centre_mm for item in items]) for items in (whole, mine))
    step, own_step = (float(np.median(np.abs(np.diff(line)))) for line in (places, own))
    if step < _SAME_PLACE_MM or abs(own_step - step) > _SAME_STEP * step:
        return 0
    seen = along(whole[0], [item.plane.centre_mm for item in alike])
    before, behind = float(seen.min() - places.min()) / step, float(places.max() - seen.max()) / step
    apart, longer = abs(min(before, behind)), max(before, behind)
    if apart > _SAME_END:
        return 0
    at_first = (before > behind) == (own[0] < own[-1])
    nearest = mine[0 if at_first else -1]
    for numbers, taken in numberings:
        lacking = max(taken) - len(taken)
        if lacking >= _FEWEST and abs(lacking - longer) <= 1.2:
            return lacking
        if numbers[id(nearest)] == 1:
            return 0
    count = round(longer)
    is_much = count >= max(_FEWEST_WITHOUT_NUMBERS, _LEAST_SHARE * len(whole))
    return count if is_much and apart <= _SAME_END_WITHOUT_NUMBERS else 0


def begin_late(
    item: Series,
    all_series: Sequence[Series],
    numberings: Sequence[Numbering],
    elsewhere: Sequence[frozenset[int]],
) -> int:
    """How many axial slices are missing before the first, whose number is not 1.

    All numbers from its own on are there and follow the slices from one end of the series to the other, the
    sagittal images show the place where the missing ones would lie, and no other series has their numbers
    without having some of the others, as the other part of a divided one has.

    Args:
        elsewhere: numbers of the other series of the study.
    """
    if item.orientation is not Orientation.AXIAL or item.is_thin or item.traits.is_derived or not numberings:
        return 0
    lacking = {min(taken) - 1 for _, taken in numberings}
    numbers, taken = numberings[0]
    count, there = lacking.pop(), len(item.slices)
    if lacking or not max(_FEWEST_WITHOUT_NUMBERS, _LEAST_SHARE * there) <= count < there:
        return 0
    if len(taken) != there or max(taken) - count != there:
        return 0
    before = set(range(1, count + 1))
    if any(before & other and not taken & other for other in elsewhere):
        return 0
    beyond_mm = _before_first(sorted(item.slices, key=lambda one: numbers[id(one)]), count)
    return count if beyond_mm is not None and _is_in_view(beyond_mm, all_series) else 0


def _before_first(slices: Sequence[Slice], count: int) -> FloatArray | None:
    """Where the middle one of so many would lie before slices that follow each other from end to end."""
    centres = np.stack([item.plane.centre_mm for item in slices])
    steps = np.diff(centres, axis=0)
    sizes = np.linalg.norm(steps, axis=1)
    near = np.flatnonzero((sizes > _SAME_PLACE_MM) & (sizes <= _LARGEST_STEP_MM))
    if not near.size:
        return None
    step, size = steps[near[0]], float(sizes[near[0]])
    # Stacks that follow discs overlap by a few slices.
    if bool((steps @ step < -_MOST_BACK * size * size).any()):
        return None
    return np.asarray(centres[0] - step * (count / 2))


def _is_in_view(point_mm: FloatArray, all_series: Sequence[Series]) -> bool:
    """Whether sagittal images show this height."""
    for series in all_series:
        if series.orientation is Orientation.SAGITTAL:
            low, high = series.slices[0].plane.heights_mm
            if low + _VIEW_MARGIN_MM <= point_mm[2] <= high - _VIEW_MARGIN_MM:
                return True
    return False


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
    if (
        len(taken) != there
        or min(taken) < 1
        or not max(_FEWEST_WITHOUT_NUMBERS, _LEAST_SHARE * there) <= lacking < there
    ):
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
    if (whole < 1).any() or (np.abs(ratios - whole) > _WHOLE_STEPS).any():
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
