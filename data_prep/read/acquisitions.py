"""The acquisitions among some images, and whether two of them can be of one examination."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from data_prep.geometry import FloatArray, Orientation
from data_prep.read.slice_header import SliceHeader
from data_prep.read.weighting import shown_label

_SAME_PLACE_MM = 0.1
# A neck, the whole spine, or a second axial stack beside the first share less.
_SAME_PART_OF_THE_BODY = 0.35
_DOUBLED_SHARE = 0.5
_SHARED_PLACES = 0.25

# Disc-angled axial stacks of neighbouring levels lie across each other in what is one series.
_PARALLEL_DEG = {Orientation.SAGITTAL: 12.0, Orientation.CORONAL: 12.0, Orientation.AXIAL: 4.0}

Grid = tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Acquisition:
    """Images of one series, one contrast and one grid.

    Attributes:
        label: what is shown: plane, weighting and what sets it apart; "" parts where nothing says.
        grid: size, spacing and orientation of its images.
    """

    label: tuple[str, ...]
    grid: Grid
    headers: tuple[SliceHeader, ...]

    @cached_property
    def box_mm(self) -> FloatArray:
        """(2, 3) lowest and highest patient coordinates of the images, 4 mm thick at least."""
        corners = []
        for header in self.headers:
            rows, columns = header.plane.shape
            corners.append(header.plane.to_mm([[0, 0], [columns - 1, rows - 1], [columns - 1, 0]]))
        points = np.concatenate(corners)
        return np.stack([points.min(axis=0) - 2.0, points.max(axis=0) + 2.0])

    @cached_property
    def origins_mm(self) -> FloatArray:
        """(n, 3) of the images."""
        return np.stack([header.plane.origin_mm for header in self.headers])

    @property
    def is_doubled(self) -> bool:
        """Whether most places have several images that nothing tells apart: as of two patients in one."""
        numbers = [header.instance_number for header in self.headers]
        is_numbered = None not in numbers and len(set(numbers)) == len(numbers)
        return not is_numbered and self.has_shared_places

    @property
    def has_shared_places(self) -> bool:
        """Whether most places have several images that are no copies of each other."""
        unique = {
            (header.sop_uid or str(number), tuple(np.round(header.plane.origin_mm, 1)))
            for number, header in enumerate(self.headers)
        }
        counts = Counter(place for _, place in unique)
        return sum(count > 1 for count in counts.values()) >= _DOUBLED_SHARE * len(counts)


def acquisitions_of(headers: Iterable[SliceHeader], *, by_series: bool = True) -> list[Acquisition]:
    """The acquisitions among some images, the largest first; ``by_series``: one has one SeriesInstanceUID."""
    grouped: dict[tuple[object, ...], list[SliceHeader]] = defaultdict(list)
    for header in headers:
        key = (
            header.series_uid if by_series else "",
            header.description,
            header.echo_time_ms,
            header.image_type[2:4],
        )
        grouped[(*key, _grid(header))].append(header)
    found = [Acquisition(shown_label(group), key[-1], tuple(group)) for key, group in grouped.items()]  # type: ignore[arg-type]
    return sorted(found, key=lambda item: (-len(item.headers), item.label))


def _grid(header: SliceHeader) -> Grid:
    plane = header.plane
    axes = np.round(np.concatenate([plane.x_axis, plane.y_axis]), 2) + 0.0
    return plane.shape, tuple(round(value, 3) for value in plane.spacing_mm), tuple(axes.tolist())


def conflict(a: Acquisition, b: Acquisition) -> bool:
    """Whether two acquisitions show the same in the same part of the body, so that one is enough.

    Copies of one file are no conflict, nor are images of one grid at places of their own.
    """
    if a.label != b.label:
        return False
    planes = a.headers[0].plane, b.headers[0].plane
    if not planes[0].is_parallel_to(planes[1], _PARALLEL_DEG[planes[0].orientation]):
        return False
    if _are_copies(a, b):
        return False
    if a.grid == b.grid:
        small, large = sorted((a.origins_mm, b.origins_mm), key=len)
        nearest = np.linalg.norm(small[:, None] - large[None], axis=-1).min(axis=1)
        if float(np.mean(nearest < _SAME_PLACE_MM)) < _SHARED_PLACES and _are_one_lattice(a, b):
            return False
    return _overlap(a.box_mm, b.box_mm) > _SAME_PART_OF_THE_BODY


def _are_copies(a: Acquisition, b: Acquisition) -> bool:
    """Whether half of the smaller are files of the other: one identifier and one place, none alone."""
    places = {header.sop_uid: header.plane.origin_mm for header in a.headers if header.sop_uid}
    shared = sum(
        header.sop_uid in places
        and bool(np.abs(places[header.sop_uid] - header.plane.origin_mm).max() < _SAME_PLACE_MM)
        for header in b.headers
    )
    return 2 * shared >= min(len(a.headers), len(b.headers))


def _are_one_lattice(a: Acquisition, b: Acquisition) -> bool:
    """Whether the images of both lie one behind the other, as those of one stack."""
    normal = a.headers[0].plane.normal
    steps = b.origins_mm - a.origins_mm[0]
    across = steps - (steps @ normal)[:, None] * normal
    return bool(np.linalg.norm(across, axis=1).max() < 1.0)


def are_parts_of_one(a: Sequence[SliceHeader], b: Sequence[SliceHeader]) -> bool:
    """Whether images of two folders are one stack: those of one lie between or behind the others'."""
    found = acquisitions_of(a), acquisitions_of(b)
    if any(len(one) != 1 for one in found):
        return False
    (first,), (second,) = found
    if (first.label, first.grid) != (second.label, second.grid) or not _are_one_lattice(first, second):
        return False
    if len({(header.echo_time_ms, header.repetition_time_ms) for header in (*a, *b)}) > 1:
        return False
    places = np.concatenate([first.origins_mm, second.origins_mm]) @ first.headers[0].plane.normal
    gaps = np.diff(np.sort(places))
    return min(len(a), len(b)) > 1 and bool(gaps.min() > _SAME_PLACE_MM and gaps.max() < 1.2 * gaps.min())


def conflicts(parts: Sequence[Sequence[Acquisition]]) -> list[tuple[str, ...]]:
    """Labels that two of several parts both have in the same part of the body."""
    return sorted(
        {a.label for part, other in combinations(parts, 2) for a in part for b in other if conflict(a, b)}
    )


def _overlap(a: FloatArray, b: FloatArray) -> float:
    """What two boxes share, as part of what both take up."""
    sides = np.minimum(a[1], b[1]) - np.maximum(a[0], b[0])
    volumes = [float(np.prod(box[1] - box[0])) for box in (a, b)]
    shared = float(np.prod(np.maximum(sides, 0.0)))
    return shared / max(sum(volumes) - shared, 1e-6)
