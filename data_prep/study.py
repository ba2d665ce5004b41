"""The types that travel: slices, series and studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_prep.geometry import FloatArray, Orientation, SlicePlane
from data_prep.levels import Sight
from data_prep.problems import DicomRejected, Rejection
from data_prep.traits import PLAIN, Traits
from data_prep.vocabulary import SeriesKind

# Of a series (``unused``) that lies another way round than its headers say.
TURNED = "turned"
_THIN_MM = 1.5
_COARSE_MM = 1.0


@dataclass(frozen=True, eq=False)
class Slice:
    """One image: where it lies and, when asked, what it shows.

    Attributes:
        plane: pixel grid in patient space.
        instance_number: name of the file in the RSNA layout, else InstanceNumber. No spatial order.
        read_pixels: returns float32 (rows, columns), bright = high signal. May raise DicomRejected.
        path: the DICOM file, or None for a slice that was never one. Never written anywhere.
        frame: its number in a file of several, from 1; None in a file of one.
    """

    plane: SlicePlane
    instance_number: int
    read_pixels: Callable[[], NDArray[np.float32]]
    path: Path | None = field(default=None, repr=False)
    frame: int | None = None

    def pixels(self) -> NDArray[np.float32]:
        """Decode now. Shape ``plane.shape``, dtype float32. Raises DicomRejected."""
        return self.read_pixels()

    @cached_property
    def darkest(self) -> float:
        """The least signal that is a number, looked for once: many crops are cut of a slice.

        Raises DicomRejected.
        """
        pixels = self.pixels()
        least = pixels.min()
        return float(np.nanmin(pixels) if np.isnan(least) else least)

    def shows_something(self) -> bool:
        """Whether it can be decoded, and is not all of one grey."""
        try:
            pixels = self.pixels()
        except DicomRejected:
            return False
        return not is_of_one_grey(pixels)


def is_of_one_grey(pixels: NDArray[np.float32]) -> bool:
    """Whether an image (rows, columns) shows nothing; of most a look at the middle tells that they do."""
    rows, columns = pixels.shape
    first = pixels[0, 0]
    return not (pixels[rows // 2, columns // 2] != first or (pixels != first).any())


def places_mm(stack: Sequence[Slice]) -> FloatArray:
    """(n,) where the slices of a stack lie, along the normal of its first one."""
    normal = stack[0].plane.normal
    return np.array([float(item.plane.centre_mm @ normal) for item in stack])


def from_middle_mm(stack: Sequence[Slice]) -> FloatArray:
    """(n,) how far the slices of a stack lie from its middle, the first ones before it."""
    places = places_mm(stack)
    return np.asarray(places - (places.min() + places.max()) / 2)


@dataclass(frozen=True, eq=False)
class Series:
    """Slices of one acquisition.

    Attributes:
        kind: what it shows, or None when it could not be told.
        stacks: groups of parallel slices, each in spatial order along the group's normal:
            sagittal right → left (increasing x), axial foot → head (increasing z), coronal front → back.
        kind_source: who says so: ``table``, ``header``, ``image`` (a guess from what it shows), ``assumed``
            (an axial series that says nothing is taken for T2), ``phantom`` or ``unknown``.
        traits: what sets it apart from others of its kind.
        unused: why it is neither looked at nor graded though its kind is known, as a code; "" if it may be.
    """

    study_id: str
    series_id: str
    kind: SeriesKind | None
    stacks: tuple[tuple[Slice, ...], ...]
    kind_source: str = "unknown"
    traits: Traits = PLAIN
    unused: str = ""

    def __post_init__(self) -> None:
        if not self.stacks or any(not stack for stack in self.stacks):
            raise ValueError(f"series {self.series_id} needs at least one slice in every stack")

    @cached_property
    def slices(self) -> tuple[Slice, ...]:
        """All slices, stack after stack."""
        return tuple(item for stack in self.stacks for item in stack)

    @cached_property
    def main_stack(self) -> tuple[Slice, ...]:
        """The stack with the most slices."""
        return max(self.stacks, key=len)

    @property
    def normal(self) -> FloatArray:
        """(3,) of the main stack's slices, patient LPS."""
        return self.main_stack[0].plane.normal

    @cached_property
    def orientation(self) -> Orientation:
        """That of most slices: a steep L5/S1 stack of an axial series can be nearer to coronal."""
        counts = Counter(item.plane.orientation for item in self.slices)
        return max(counts, key=lambda orientation: (counts[orientation], orientation.value))

    @cached_property
    def is_thin(self) -> bool:
        """Whether its slices lie as near to each other as those of 3-D acquisitions."""
        places = np.sort(places_mm(self.main_stack))
        return len(places) > 1 and float(np.median(np.diff(places))) < _THIN_MM

    @cached_property
    def is_coarse(self) -> bool:
        """Whether its pixels are as large as those of a whole spine's or a body's images."""
        return min(self.main_stack[0].plane.spacing_mm) > _COARSE_MM

    def by_instance(self, instance_number: int) -> Slice:
        """The slice with this instance number. Raises KeyError."""
        for item in self.slices:
            if item.instance_number == instance_number:
                return item
        raise KeyError(f"series {self.series_id} has no instance {instance_number}")

    def nearest(self, xyz_mm: ArrayLike) -> tuple[Slice, float]:
        """The slice whose plane lies nearest to a patient point and shows it, and |distance| in mm.

        Slices that show the point inside their image are preferred over those that do not.
        """
        point = np.asarray(xyz_mm, dtype=np.float64)
        origins, normals = self._places
        # Added in the order of ``SlicePlane.distance_mm``, for the same rounding.
        x, y, z = (point[:, None] - origins) * normals
        away, slices = np.abs(x + y + z), self.slices
        order = np.argsort(away, kind="stable").tolist()
        shown = (i for i in order if slices[i].plane.shows(point))
        nearest = next(shown, order[0])
        return slices[nearest], float(away[nearest])

    @cached_property
    def _places(self) -> tuple[FloatArray, FloatArray]:
        """(3, n) origins and normals of the slices."""
        planes = [item.plane for item in self.slices]
        return np.array([plane.origin_mm for plane in planes]).T, np.array([p.normal for p in planes]).T

    def changed(self, change: Callable[[Slice], Slice]) -> Series:
        """The series with every slice as ``change`` makes it."""
        return replace(self, stacks=tuple(tuple(map(change, stack)) for stack in self.stacks))

    def stack_of(self, item: Slice) -> tuple[Slice, ...]:
        """The stack that one of its slices lies in."""
        return next(stack for stack in self.stacks if item in stack)

    def gap_mm(self, item: Slice) -> float:
        """Distance from ``item`` to its nearest neighbour in its stack; 5 mm when it has none."""
        place = self.slices.index(item)
        if place not in self._gaps:
            others = [other.plane.centre_mm for other in self.stack_of(item) if other is not item]
            gap = np.abs(item.plane.distance_mm(np.stack(others))).min() if others else 5.0
            self._gaps[place] = float(gap)
        return self._gaps[place]

    @cached_property
    def _gaps(self) -> dict[int, float]:
        """What ``gap_mm`` found so far, by place in ``slices``."""
        return {}


@dataclass(frozen=True, eq=False)
class Study:
    """One patient's examination.

    Attributes:
        series: usable series.
        rejections: files and series of this study that were not used.
        flags: what a reader should know of how it was put together, such as ``identifiers_missing``.
    """

    study_id: str
    series: tuple[Series, ...]
    rejections: tuple[Rejection, ...] = ()
    flags: tuple[str, ...] = ()

    def of_kind(self, kind: SeriesKind) -> tuple[Series, ...]:
        """Series of a kind that may be used, the best first: see ``rank``."""
        return tuple(item for item in self._ranked if item.kind == kind)

    @cached_property
    def _ranked(self) -> list[Series]:
        """All that may be used, the best first."""
        return sorted((item for item in self.series if not item.unused), key=rank)

    def changed(self, change: Callable[[Slice], Slice]) -> Study:
        """The study with every slice as ``change`` makes it."""
        return replace(self, series=tuple(item.changed(change) for item in self.series))

    def with_unused(self, series_ids: Collection[str], why: str) -> Study:
        """The study in which these series are neither looked at nor graded, for a reason (a code)."""
        if not series_ids:
            return self
        series = (replace(item, unused=why) if item.series_id in series_ids else item for item in self.series)
        return replace(self, series=tuple(series))

    def slice_at(self, sight: Sight) -> tuple[Series, Slice]:
        """The series and the slice. Raises KeyError: the study has no such one."""
        series = {item.series_id: item for item in self.series}[sight.series_id]
        return series, series.by_instance(sight.instance_number)


# Later echoes of a map are mostly noise.
_LATE_ECHO_MS = 200.0
_GUESSED = ("image", "assumed", "unknown")


def rank(series: Series) -> tuple[bool, int, bool, bool, float, bool, bool, int, bool, float, str]:
    """Which of several series of one kind comes first.

    The lumbar spine before other parts of the body, plain images before those with suppressed fat, contrast
    agent or less, what is named before what was guessed, acquired images before calculated ones, for T2 the
    longest echo up to 200 ms, thick slices before those of 3-D acquisitions, fine pixels before coarse ones
    (of the whole spine, of the body); then the most slices, and of as many those that are not spoiled. Of
    what is left the last one, which was acquired for a reason; of T1 the first, as the next may show contrast
    agent.
    """
    traits = series.traits
    echo_ms = 0.0 if series.kind is SeriesKind.SAGITTAL_T1 else traits.echo_ms
    echo_ms = -echo_ms if echo_ms > _LATE_ECHO_MS else echo_ms
    return (
        traits.is_other_region,
        int(traits.image),
        series.kind_source in _GUESSED,
        traits.is_derived,
        -echo_ms if traits.has_echoes else 0.0,
        series.is_thin,
        series.is_coarse,
        -len(series.slices),
        traits.is_spoiled,
        traits.acquired if series.kind is SeriesKind.SAGITTAL_T1 else -traits.acquired,
        series.series_id,
    )
