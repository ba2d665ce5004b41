"""What axial and sagittal images show on the lines where their planes meet, for every way round.

A converter or an anonymiser can mirror the images of a series, turn them in their plane, or put them into
reverse order, and leave the headers as they were. Each image by itself looks right then. But along the line
where an axial and a sagittal plane meet both show the same tissue, and the edges on it lie at the same
places, whatever the weighting: they do so in one way round alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray, SlicePlane
from data_prep.problems import DicomRejected
from data_prep.study import Series, Slice, from_middle_mm
from detector.spine.ways_round import GIVEN, CrossingConfig, Order, Reach, Way

_Values = NDArray[np.float32]
_Inside = NDArray[np.bool_]
_Places = NDArray[np.int_]

# A line whose inner part lies inside an image lies there for the most part.
_INNER = 0.1, 0.9
# Planes that meet at less than 45° have no line to follow.
_STEEPEST_COSINE = 0.7
# In reverse, a shorter stack shows each disc at its place or a few millimetres beside it.
_LONG_STACK = 8


@dataclass(frozen=True, eq=False)
class _Small:
    """An image (rows, columns) whose pixels are the means of ``factor`` by ``factor`` of the whole one's.

    Attributes:
        shape: of the whole one.
    """

    pixels: _Values
    factor: int
    shape: tuple[int, int]


# The image of a slice with fewer pixels; None of one that cannot be decoded.
Images = Callable[[Slice], _Small | None]


class Crossings:
    """The lines where slices of a sagittal and of an axial series meet.

    Args:
        sagittal: as many slices on either side, in spatial order, that can be decoded.
        places: of slices of the axial series, see ``places_near`` and ``places_spread``.
        canal_mm: (n, 3) canal points of the levels.
    """

    def __init__(
        self,
        sagittal: Sequence[Slice],
        axial: Series,
        places: Sequence[int],
        canal_mm: FloatArray,
        images: Images,
        config: CrossingConfig,
    ) -> None:
        self._config, self._images, self._slices = config, images, axial.slices
        self._sagittal, self._sources = sagittal, _sources(axial)
        self._chosen = [place for place in places if self._can_be_compared(place)]
        if not self.can_tell:
            return
        self._start_mm, self._along = _meeting(
            [self._slices[place].plane for place in self._chosen], [item.plane for item in sagittal], canal_mm
        )
        steps_mm = np.arange(-config.before_mm, config.behind_mm + 0.1, config.step_mm)
        self._inner_mm = np.quantile(steps_mm, _INNER)
        parts = (steps_mm - self._inner_mm[0]) / (self._inner_mm[1] - self._inner_mm[0])
        self._parts = parts.astype(np.float32)

    @property
    def can_tell(self) -> bool:
        """Whether enough slices can be compared."""
        config = self._config
        return len(self._chosen) >= config.fewest_slices and len(self._sagittal) >= config.fewest_lines

    def _can_be_compared(self, place: int) -> bool:
        """Whether a slice crosses the sagittal ones, and can be decoded in every order."""
        if not self._sagittal:
            return False
        cosine = float(self._slices[place].plane.normal @ self._sagittal[0].plane.normal)
        sources = (self._slices[order[place]] for order in self._sources.values())
        return abs(cosine) < _STEEPEST_COSINE and None not in map(self._images, sources)

    def likenesses(self, ways: Sequence[Way], reach: Reach) -> dict[Way, FloatArray]:
        """Mean correlation of the edges on the lines of each axial slice (slices,), for every way round.

        At the shift at which all together are most alike. NaN for slices that have too few lines, and for
        those whose own image is in its place in a reversed order, too; ways that cannot be, or that too few
        slices tell, are left out.
        """
        sagittal = {
            is_reversed: self._sagittal_edges(is_reversed, reach.along_mm)
            for is_reversed in sorted({way.sagittal_reversed for way in ways})
        }
        found = {}
        for way in ways:
            axial = self._axial_edges(way, reach.aside_mm) if way.order in self._sources else None
            if axial is None:
                continue
            (edges, inside), (others, seen) = axial, sagittal[way.sagittal_reversed]
            both = inside & seen
            lines = both.sum(axis=1)
            told = lines >= self._config.fewest_lines
            if way.order is not Order.GIVEN:
                told &= self._sources[way.order][self._chosen] != np.array(self._chosen)
            if told.sum() < self._config.fewest_slices:
                continue
            alike = np.concatenate([_alike(edges, others, both, lag) for lag in reach.deep_steps])
            means = alike / np.maximum(lines, 1)
            best = means[int(np.argmax(means[:, told].mean(axis=1)))]
            found[way] = np.where(told, best, np.nan)
        return found

    def _sagittal_edges(self, is_reversed: bool, shifts_mm: Sequence[float]) -> tuple[_Values, _Inside]:
        """(shifts, axial, sagittal, steps), and which lines (axial, sagittal) lie inside the images."""
        sources = self._sagittal[::-1] if is_reversed else self._sagittal
        shifts = np.array(shifts_mm)[:, None, None] * [0.0, 0.0, 1.0]
        seen = [
            self._on(item.plane, self._start_mm[:, place] + shifts, self._along[:, place], source, GIVEN)
            for place, (item, source) in enumerate(zip(self._sagittal, sources, strict=True))
        ]
        values = np.stack([values for values, _ in seen], axis=2)
        return _edges(values, self._config), np.stack([inside for _, inside in seen], axis=1)

    def _axial_edges(self, way: Way, shifts_mm: Sequence[float]) -> tuple[_Values, _Inside] | None:
        """The same of axial images; None where they cannot be turned so."""
        sources = [self._slices[self._sources[way.order][place]] for place in self._chosen]
        if way.turned and any(source.plane.shape[0] != source.plane.shape[1] for source in sources):
            return None
        shifts = np.array(shifts_mm)[:, None, None] * [1.0, 0.0, 0.0]
        seen = [
            self._on(self._slices[place].plane, self._start_mm[row] + shifts, self._along[row], source, way)
            for row, (place, source) in enumerate(zip(self._chosen, sources, strict=True))
        ]
        values = np.stack([values for values, _ in seen], axis=1)
        return _edges(values, self._config), np.stack([inside for _, inside in seen])

    def _on(
        self, plane: SlicePlane, start_mm: FloatArray, along: FloatArray, source: Slice, way: Way
    ) -> tuple[_Values, _Inside]:
        """What an image shows (shifts, lines, steps) if it lies in a plane this way round.

        And of which lines, as they lie without a shift, most is inside it.

        Args:
            start_mm, along: (shifts, lines, 3) and (lines, 3), of the lines.
        """
        small = self._images(source)
        assert small is not None  # only what can be decoded is compared
        ends = plane.to_px(start_mm[..., None, :] + self._inner_mm[:, None] * along[..., None, :])
        ends = way.stored_px(ends, small.shape)
        unmoved = ends[len(ends) // 2]
        inside = (unmoved >= -0.5) & (unmoved <= np.array(small.shape[::-1]) - 0.5)
        ends = ((ends + 0.5) / small.factor - 0.5).astype(np.float32)
        first, whole = ends[..., :1, :], ends[..., 1:, :] - ends[..., :1, :]
        x, y = (first[..., axis] + self._parts * whole[..., axis] for axis in (0, 1))
        values = cv2.remap(
            small.pixels,
            x.reshape(-1, x.shape[-1]),
            y.reshape(-1, y.shape[-1]),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(values.reshape(x.shape), dtype=np.float32), inside.all(axis=(-1, -2))


def slices_beside(
    stack: Sequence[Slice], most_mm: float, images: Images, config: CrossingConfig
) -> list[Slice]:
    """Slices on both sides of the middle of a stack that can be decoded, as many on each.

    Args:
        most_mm: how far from the middle.
    """
    away = np.abs(from_middle_mm(stack))
    beside = [
        item for item, at_mm in zip(stack, away.tolist(), strict=True) if config.from_mm <= at_mm <= most_mm
    ]
    chosen = [beside[place] for place in _symmetric(len(beside), config.sagittal_slices)]
    seen = [images(item) is not None for item in chosen]
    return [item for item, one, other in zip(chosen, seen, seen[::-1], strict=True) if one and other]


def places_near(axial: Series, canal_mm: FloatArray, config: CrossingConfig) -> list[int]:
    """Places of the slice nearest to each level, and of that whose image is there in reversed order.

    Most of them are decoded in any case.
    """
    away = np.abs(np.stack([item.plane.distance_mm(canal_mm) for item in axial.slices]))
    nearest = [
        place
        for place, level in zip(away.argmin(axis=0).tolist(), away.T, strict=True)
        if level[place] <= config.level_mm
    ]
    others = _sources(axial)[Order.REVERSED][nearest].tolist()
    return sorted({*nearest, *others})


def places_spread(axial: Series, config: CrossingConfig) -> list[int]:
    """Places of slices spread over the series, the same counted from either end."""
    by_number = _by_number(axial)
    return [int(by_number[place]) for place in _symmetric(len(by_number), config.axial_slices)]


def _by_number(axial: Series) -> _Places:
    """Places in ``slices`` by instance number, which is how a copy of a series goes through them."""
    return np.argsort([item.instance_number for item in axial.slices], kind="stable")


def _sources(axial: Series) -> dict[Order, _Places]:
    """For every place in ``slices`` the one whose image lies there in each order."""
    places, by_number = np.arange(len(axial.slices)), _by_number(axial)
    whole = np.empty_like(places)
    whole[by_number] = by_number[::-1]
    sources = {Order.GIVEN: places, Order.REVERSED: whole}
    if len(axial.stacks) > 1 and len(axial.main_stack) >= _LONG_STACK:
        ends = np.cumsum([len(stack) for stack in axial.stacks])
        sources[Order.STACKS_REVERSED] = np.concatenate([part[::-1] for part in np.split(places, ends[:-1])])
    return sources


def _symmetric(count: int, most: int) -> list[int]:
    """Up to ``most`` of ``count`` places, spread evenly, the same counted from either end."""
    half = np.linspace(0, (count - 1) // 2, most // 2).astype(int).tolist() if count else []
    return sorted({place for first in half for place in (first, count - 1 - first)})


def _meeting(
    axial: Sequence[SlicePlane], sagittal: Sequence[SlicePlane], canal_mm: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Where planes meet beside the canal, and in which direction to the back, both (axial, sagittal, 3)."""
    normals, others = np.stack([p.normal for p in axial]), np.stack([p.normal for p in sagittal])
    away = np.stack([plane.distance_mm(canal_mm) for plane in axial])
    near = np.abs(away).argmin(axis=1)
    cosine = (normals @ others.T)[..., None]
    from_axial = away[np.arange(len(near)), near][:, None, None]
    from_sagittal = np.stack([plane.distance_mm(canal_mm[near]) for plane in sagittal], axis=1)[..., None]
    to_axial = (from_axial - cosine * from_sagittal) / (1.0 - cosine**2)
    to_sagittal = (from_sagittal - cosine * from_axial) / (1.0 - cosine**2)
    start_mm = canal_mm[near][:, None] - to_axial * normals[:, None] - to_sagittal * others
    along = np.cross(normals[:, None], others[None])
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    return start_mm, np.where(along[..., 1:2] < 0, -along, along)


def small_images(pixel_mm: float) -> Images:
    """Images with pixels of about this size, each made once."""
    return cache(partial(_small, pixel_mm=pixel_mm))


def _small(item: Slice, pixel_mm: float) -> _Small | None:
    try:
        pixels = item.pixels()
    except DicomRejected:
        return None
    rows, columns = pixels.shape
    factor = min(max(1, round(pixel_mm / float(np.mean(item.plane.spacing_mm)))), rows, columns)
    size = columns // factor, rows // factor
    whole = pixels[: size[1] * factor, : size[0] * factor]
    small = pixels if factor == 1 else cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
    return _Small(np.asarray(small, dtype=np.float32), factor, (rows, columns))


def _alike(edges: _Values, others: _Values, both: _Inside, lag: int) -> FloatArray:
    """Sum of the correlations of the lines of each axial slice, (shifts, slices)."""
    count = edges.shape[-1] - abs(lag)
    first, second = edges[..., max(lag, 0) :][..., :count], others[..., max(-lag, 0) :][..., :count]
    lines = np.einsum("xajn,zajn->xzaj", first, second, optimize=True) * both
    return np.asarray(lines.sum(axis=-1).reshape(-1, len(both)), dtype=np.float64)


def _edges(values: _Values, config: CrossingConfig) -> _Values:
    """How steep the values (..., steps) are along each line: vectors of length 1 and mean 0."""
    sigma = config.blur_mm / config.step_mm
    kernel = cv2.getGaussianKernel(int(6 * sigma) | 1, sigma, cv2.CV_32F)
    rows = np.ascontiguousarray(values).reshape(-1, values.shape[-1])
    rows = np.asarray(
        cv2.sepFilter2D(rows, cv2.CV_32F, kernel, np.ones(1, np.float32), borderType=cv2.BORDER_REPLICATE)
    )
    # The square root: one very bright edge is not to count for all others.
    steep = np.sqrt(np.abs(np.diff(rows, axis=1)))
    steep -= steep.mean(axis=1, keepdims=True)
    steep /= np.maximum(np.linalg.norm(steep, axis=1, keepdims=True), 1e-6)
    return np.asarray(steep.reshape(*values.shape[:-1], -1), dtype=np.float32)
