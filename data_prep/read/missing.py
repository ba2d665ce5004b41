"""Slices that a series lacks, told by gaps between its images, their numbers and what their headers state.

A gap alone is no proof: axial slices are planned in stacks with air between them, and slices are usually a
tenth to a third of their thickness apart. Nor is a number that nobody has: scanners number echoes in turn,
and archives renumber. Where both agree, or where sagittal slices that lie evenly jump by whole steps, images
are missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_prep.geometry import FloatArray, Orientation
from data_prep.problems import Reason, Rejection
from data_prep.read.missing_signs import (
    Numbering,
    Numbers,
    along,
    begin_late,
    fewer_than_beside,
    holes_in,
    leave_room,
    lost_of_shuffled,
    numberings_of,
    stated_beyond,
)
from data_prep.read.slice_header import SliceHeader
from data_prep.study import Series, Slice

_SAME_ANGLE_DEG = 0.2
_SAME_PLACE_MM = 0.1
# A step that is a whole number of steps but for this part of one; scanners write positions to .01 mm.
_WHOLE = 0.06
_EVEN = 0.03
_FARTHEST = 0.2
_FEWEST_OF_A_STACK = 5
_OFTEN, _MOSTLY = 0.6, 0.8
# Slices this far apart, axial and sagittal ones, are thicker with their gaps than those of usual protocols.
_WIDE_MM = (8.5, 6.5)
_LARGEST_GAP_OF_THICKNESS = 1.6
# Between stacks: the distance of two slices, as part of that which the missing numbers would need.
_FILLS_A_HOLE = (0.5, 3.0)
_MOST_HOLES = 2
# Where all slices lie more steps apart, the spacing is stated in another unit.
_FEW = 4

Sources = Mapping[str, Sequence[SliceHeader]]


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two neighbours of a stack, of one angle.

    Attributes:
        step_mm: along their normal.
    """

    first: Slice
    second: Slice
    step_mm: float


def slices_missing(study_id: str, series: Sequence[Series], sources: Sources) -> list[Rejection]:
    """What is to be said of series of which slices are missing; nothing of those that are whole.

    Args:
        series: all that can be used.
        sources: by series id the headers of the series as it was read, before it was divided.
    """
    found = []
    images = len({(header.path, header.frame) for source in sources.values() for header in source})
    for item in series:
        others = [
            frozenset(header.instance_number for header in source if header.instance_number is not None)
            for series_id, source in sources.items()
            if series_id != item.series_id
        ]
        looked = _Looked(item, sources.get(item.series_id, ()), series, images, others)
        count, why = next((told for told in looked.told() if told[0]), (0, ""))
        if count:
            slices, are = ("slice", "is") if count == 1 else ("slices", "are")
            message = f"at least {count} {slices} of the {item.orientation.value} series {are} missing: {why}"
            found.append(Rejection(Reason.SLICES_MISSING, message, study_id, item.series_id))
    return found


@dataclass(frozen=True, eq=False)
class _Looked:
    """A series that is looked at.

    Attributes:
        source: headers of what it was read from.
        all_series: of the study: slices may have been filed under another identifier.
        images: how many the study has.
        others: numbers of each other series, as it was read.
    """

    item: Series
    source: Sequence[SliceHeader]
    all_series: Sequence[Series]
    images: int
    others: Sequence[frozenset[int]]

    def told(self) -> Iterator[tuple[int, str]]:
        """How many slices are missing by one sign after the other, 0 where it is not there, and the sign."""
        item, all_series, numberings = self.item, self.all_series, self.numberings
        yield sum(count for _, count in self._gaps()), "there are gaps between its images"
        stated = stated_beyond(item, self.source, self.images)
        yield stated, "its headers state more images than were found"
        yield begin_late(item, all_series, numberings, self.others), "its numbers begin behind the first"
        shuffled = lost_of_shuffled(item, numberings, self.others)
        yield shuffled, "its numbers lack as many as its gaps have room for"
        fewer = fewer_than_beside(item, all_series, numberings)
        yield fewer, "it ends before the series that was planned alike"

    def _gaps(self) -> list[tuple[_Pair, int]]:
        """Pairs with missing slices between them, and how many."""
        if len(self.item.slices) < 2 or not self.pairs:
            return []
        unit, is_stated = self._unit_mm()
        gaps = [(pair, round(pair.step_mm / unit) - 1) for pair in self.pairs]
        gaps = [
            (pair, count)
            for pair, count in gaps
            # A slice far outside of the others is not one that more are missing before than are there.
            if 0 < count <= len(self.item.slices) and _is_whole(pair.step_mm / unit, _WHOLE)
        ]
        gaps = [(pair, count) for pair, count in gaps if not self._are_elsewhere(pair, count)]
        if gaps and self._is_even(unit, gaps, is_stated=is_stated):
            return gaps
        for numbers, taken in self.numberings:
            proved = [
                (pair, count)
                for pair, count in gaps
                if leave_room(
                    (numbers[id(pair.first)], numbers[id(pair.second)]),
                    count,
                    self._number_step(numbers, unit),
                    taken,
                )
            ]
            missing_numbers = sum(n for _, _, n in holes_in(taken, _OFTEN))
            if not proved and gaps and sum(count for _, count in gaps) == missing_numbers:
                proved = gaps
            holes = holes_in(taken, _MOSTLY)
            proved += self._between_stacks(numbers, holes, unit, [pair for pair, _ in proved])
            if proved:
                return proved
        return []

    @cached_property
    def pairs(self) -> list[_Pair]:
        """Neighbours of one angle, of all stacks."""
        found = []
        for stack in self.item.stacks:
            for first, second in itertools.pairwise(stack):
                if first.plane.is_parallel_to(second.plane, _SAME_ANGLE_DEG):
                    step = abs(float(first.plane.distance_mm(second.plane.centre_mm)))
                    if step > _SAME_PLACE_MM:
                        found.append(_Pair(first, second, step))
        return found

    @cached_property
    def numberings(self) -> list[Numbering]:
        """See ``numberings_of``."""
        return numberings_of(self.item, self.source)

    def _unit_mm(self) -> tuple[float, bool]:
        """The step between neighbours if all were there, and whether the headers state it."""
        steps = np.array([pair.step_mm for pair in self.pairs])
        spacing, thickness = self._stated("spacing_mm"), self._stated("thickness_mm")
        if spacing and spacing >= 0.99 * (thickness or 0.0):
            fits = [_is_whole(float(step) / spacing, _WHOLE) for step in steps]
            if np.mean(fits) >= _MOSTLY:
                return spacing, spacing > 1.01 * (thickness or 0.0)
        usual = float(np.percentile(steps, 30))
        for numbers, taken in self.numberings:
            every = self._jump_everywhere(numbers)
            unit = usual / max(every, 1)
            wide = _WIDE_MM[self.item.orientation is Orientation.SAGITTAL]
            likely = unit <= _LARGEST_GAP_OF_THICKNESS * thickness if thickness else usual >= wide
            is_likely = likely and unit >= 0.98 * (thickness or 0.0)
            if every > 1 and is_likely and len(self.pairs) >= 3:
                low, high = min(numbers.values()), max(numbers.values())
                if not any((n - low) % every for n in taken if low < n < high):
                    return unit, False
        return usual, False

    def _stated(self, name: str) -> float | None:
        """What most headers say of it."""
        values = [value for header in self.source if (value := getattr(header, name))]
        return float(np.median(values)) if values else None

    def _jump_everywhere(self, numbers: Numbers) -> int:
        """By how much the numbers of all neighbours differ; 0 where they do by several."""
        jumps = {abs(numbers[id(pair.first)] - numbers[id(pair.second)]) for pair in self.pairs}
        return jumps.pop() if len(jumps) == 1 else 0

    def _number_step(self, numbers: Numbers, unit: float) -> int:
        """By how much the numbers of neighbours usually differ between which nothing is missing."""
        near = [pair for pair in self.pairs if round(pair.step_mm / unit) == 1]
        jumps = [abs(numbers[id(pair.first)] - numbers[id(pair.second)]) for pair in near]
        return int(np.median(jumps)) if jumps else 1

    def _is_even(self, unit: float, gaps: list[tuple[_Pair, int]], *, is_stated: bool) -> bool:
        """Whether the places alone prove it: all neighbours lie whole steps apart, in one sagittal stack.

        So do axial ones if every one of them lies as many steps of the stated size from the next.
        """
        ratios = [pair.step_mm / unit for pair in self.pairs]
        if not all(_is_whole(ratio, _EVEN) for ratio in ratios):
            return False
        if len(gaps) == len(ratios):
            # A reformat may state the distance of the slices that it was made from.
            is_stated = is_stated and not self.item.traits.is_derived
            return is_stated and len(whole := {round(ratio) for ratio in ratios}) == 1 and max(whole) <= _FEW
        return (
            self.item.orientation is Orientation.SAGITTAL
            and len(self.item.stacks) == 1
            and len(ratios) == len(self.item.slices) - 1 >= _FEWEST_OF_A_STACK - 1
        )

    def _are_elsewhere(self, pair: _Pair, count: int) -> bool:
        """Whether the slices between two lie in another stack, or in another series of the same image."""
        start, end = pair.first.plane.centre_mm, pair.second.plane.centre_mm
        places = [start + (end - start) * (n + 1) / (count + 1) for n in range(count)]
        reach = 0.4 * pair.step_mm / (count + 1)
        slices, centres, normals = self._alike
        for place in places:
            away = np.abs(np.sum((place - centres) * normals, axis=1))
            near = np.flatnonzero(away <= reach)
            if not any(_shows(slices[index], pair, place) for index in near):
                return False
        return True

    @cached_property
    def _alike(self) -> tuple[list[Slice], FloatArray, FloatArray]:
        """Slices of the study that show the same kind of image, their middles and normals (n, 3)."""
        slices = [
            item
            for series in self.all_series
            if series.kind is self.item.kind and series.traits.image is self.item.traits.image
            for item in series.slices
        ]
        planes = [item.plane for item in slices]
        return slices, np.stack([p.centre_mm for p in planes]), np.stack([p.normal for p in planes])

    def _between_stacks(
        self, numbers: Numbers, holes: list[tuple[int, int, int]], unit: float, known: Sequence[_Pair]
    ) -> list[tuple[_Pair, int]]:
        """Slices before and behind a hole in the numbers that lie as far apart as those that are missing."""
        if not 0 < len(holes) <= _MOST_HOLES or min(numbers.values()) > 1:
            return []
        by_number = {numbers[id(item)]: item for item in self.item.slices}
        seen = {id(item) for pair in known for item in (pair.first, pair.second)}
        found = []
        for low, high, count in holes:
            first, second = by_number.get(low), by_number.get(high)
            if first is None or second is None or {id(first), id(second)} <= seen:
                continue
            places = along(first, [item.plane.centre_mm for item in self.item.slices])
            step = float(along(first, [second.plane.centre_mm])[0])
            inside = np.sign(step) * places
            is_empty = not np.any((inside > 0.5 * unit) & (inside < abs(step) - 0.5 * unit))
            low_share, high_share = _FILLS_A_HOLE
            if is_empty and low_share <= abs(step) / (unit * (count + 1)) <= high_share:
                pair = _Pair(first, second, abs(step))
                if not self._are_elsewhere(pair, count):
                    found.append((pair, count))
        return found


def _is_whole(ratio: float, tolerance: float) -> bool:
    """Positions are rounded: the larger a step is, the less whole it may be."""
    return round(ratio) >= 1 and abs(ratio - round(ratio)) <= min(tolerance * max(1.0, ratio / 2), _FARTHEST)


def _shows(other: Slice, pair: _Pair, place: FloatArray) -> bool:
    """Whether a slice at a place between two others is of their kind, and shows what they do."""
    return (
        other not in (pair.first, pair.second)
        and other.plane.spacing_mm == pair.first.plane.spacing_mm
        and other.plane.is_parallel_to(pair.first.plane)
        and other.plane.shows(place)
    )
