"""Canal, discs, slip and lordosis on one sagittal T2 slice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from classifier.measure.extents import Extent, extent_of
from classifier.measure.planar import PlanarSlice
from classifier.measure.quantities import Quantity
from classifier.measure.strips import DISC_ALONG_MM, DISC_STEP_MM, Strip, between, canal_strip, disc_strip
from classifier.measure.tissues import Tissues, find_tissues
from data_prep.geometry import FloatArray

# Rows of the canal that count for a level, and rows of a disc that count for its height.
_LEVEL_MM: Final = 2.0
_FLUID_MM: Final = 9.0
_SEEN_MM: Final = 20.0
# Fluid is as bright as this quantile of a row of the sac, smoothed along the canal; tissue is as dark as this
# one of what lies well in front of it.
_FLUID_QUANTILE, _DARK_QUANTILE, _DARK_MM, _SMOOTH_MM = 0.85, 0.15, -10.0, 12.0
_BRIGHTEST: Final = 1.1
_DISC_MM: Final = 9.0
# Runs of sac and disc are usually this near to the line through the found points.
_USUAL_SAC_MM, _USUAL_DISC_MM = 8.0, 5.0
# A tissue whose largest share is less is not seen; a disc, too, that covers less in the slice.
_LEAST_PEAK: Final = 0.3
_LEAST_DISC_MM2: Final = 20.0
# Least uncertainty, one standard deviation, and by how much the spread of the borders counts: between what
# phantoms and five SPIDER patients, kept apart from the network, show (docs/measurements.md).
_FLOOR_MM: Final = {"canal": 1.4, "disc": 1.4, "slip": 1.5}
_FLOOR_CSF: Final = 10.0
FLOOR_DEG: Final = 8.0
_WALL: Final = (0.22, 0.78)
_WALL_PLACES, _LEAST_WALL_MM = 12, 6.0
# Twice the way from the last disc to the middle of S1, in gaps between discs; places that count there, and
# at the disc.
_SACRAL, _LEAST_FLUID_MM = 0.9, 1.0
_BESIDE_MM: Final = np.array([-4.0, -2.0, 0.0, 2.0, 4.0])
_LEAST_OVER_MM: Final = np.array([-2.0, 0.0, 2.0])
# Places between the borders of the sac, as shares of its thickness.
_INSIDE: Final = (np.arange(30) + 0.5) / 30


@dataclass(frozen=True, eq=False)
class Reading:
    """A value, its standard deviation, and the (2, 2) in-plane points between which it was read."""

    value: float
    uncertainty: float
    ends_mm: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class _Disc:
    """A disc: height in the middle, its endplates as lines through points with directions, their spread."""

    height_mm: float
    uncertainty: float
    upper: tuple[FloatArray, FloatArray]
    lower: tuple[FloatArray, FloatArray]
    ends_mm: FloatArray


@dataclass(frozen=True, eq=False)
class SagittalReading:
    """What one slice says; places are those of the levels that were given."""

    strip: Strip
    values: NDArray[np.float32]
    level_rows: FloatArray
    sac: Extent
    discs: tuple[_Disc | None, ...]

    def at_level(self, place: int) -> dict[Quantity, Reading]:
        """Every quantity that can be read at a level."""
        disc, body = self.discs[place], self._body_height(place)
        readings = {
            Quantity.CANAL_DEPTH: self._depth(place),
            # Where the canal is so narrow that its borders are unsure, there is no fluid, wherever they are.
            Quantity.CSF_SHARE: self._csf_share(place),
        }
        if disc is not None:
            readings[Quantity.DISC_HEIGHT] = Reading(disc.height_mm, disc.uncertainty, disc.ends_mm)
        if disc is not None and body is not None:
            index = Reading(disc.height_mm / body, disc.uncertainty / body)
            readings[Quantity.DISC_HEIGHT_INDEX] = index
        readings[Quantity.SLIP] = self._slip(place)
        return {quantity: reading for quantity, reading in readings.items() if reading is not None}

    def endplate(self, place: int, *, upper: bool) -> FloatArray | None:
        """(2,) in-plane direction, front to back, of the upper or lower edge of a disc, where it is seen."""
        disc = self.discs[place]
        return None if disc is None else (disc.upper if upper else disc.lower)[1]

    def _near(self, place: int, reach_mm: float, step_mm: float) -> FloatArray:
        """Places around a level, in rows and between them, so that they move with its point."""
        reach = np.arange(-reach_mm, reach_mm + 1e-6, step_mm)
        return np.asarray(self.level_rows[place] + reach / self.step_mm)

    @cached_property
    def step_mm(self) -> float:
        """Between rows of the canal: beyond the levels it runs straight on."""
        return float(np.linalg.norm(self.strip.centres_mm[-1] - self.strip.centres_mm[-2]))

    def _depth(self, place: int) -> Reading | None:
        """Where the canal is closed there is a depth, too, if the sac is seen above or below."""
        sac, row = self.sac, self.level_rows[place : place + 1]
        if between(sac.peak, self._near(place, _SEEN_MM, 2.0)).max() < _LEAST_PEAK:
            return None
        near = self._near(place, _LEVEL_MM, 2.0)
        value = float(between(sac.thickness_mm, near).mean())
        ends = [self.strip.point_mm(row, between(border, row))[0] for border in (sac.first_mm, sac.last_mm)]
        spread = between(sac.spread_mm, near).mean()
        return Reading(value, float(np.hypot(_FLOOR_MM["canal"], 0.5 * spread)), np.stack(ends))

    def _csf_share(self, place: int) -> Reading | None:
        """Per cent: fluid where there is least near the disc, of that beside the middle of the vertebrae."""
        fluid, row, gaps = self.fluid_mm, self.level_rows[place], np.diff(self.level_rows)
        above = gaps[place - 1] if place else gaps[0]
        below = gaps[place] if place < len(gaps) else gaps[-1] * _SACRAL
        reach = _BESIDE_MM / self.step_mm
        beside = [
            between(fluid, np.clip(row + off, reach[-1], len(fluid) - 1 - reach[-1]) + reach).mean()
            for off in (-above / 2, below / 2)
        ]
        if np.mean(beside) < _LEAST_FLUID_MM:
            return None
        near = self._near(place, _FLUID_MM, 1.0) + _LEAST_OVER_MM[:, None] / self.step_mm
        least = between(fluid, near).mean(axis=0).min()
        share = 100 * float(least / np.mean(beside))
        return Reading(min(share, 100.0), _FLOOR_CSF)

    @cached_property
    def fluid_mm(self) -> FloatArray:
        """(rows,) thickness of the fluid in the sac: bright pixels count whole, grey ones in part."""
        across, sac = self.strip.across_mm, self.sac
        dark = float(np.quantile(self.values[:, across < _DARK_MM], _DARK_QUANTILE))
        # As many places in every row, from border to border: what is read moves with the borders.
        at = sac.first_mm[:, None] + sac.thickness_mm[:, None] * _INSIDE
        column = np.clip((at - across[0]) / float(across[1] - across[0]), 0, len(across) - 1)
        before = np.minimum(column.astype(np.intp), len(across) - 2)
        first, second = (np.take_along_axis(self.values, before + step, axis=1) for step in (0, 1))
        inside = first + (second - first) * (column - before)
        bright = np.quantile(inside, _FLUID_QUANTILE, axis=1)
        reach = np.arange(1 - len(bright), len(bright)) * self.step_mm
        kernel = np.exp(-0.5 * (reach / _SMOOTH_MM) ** 2)
        edge = len(kernel) // 2
        smooth = np.convolve(np.pad(bright, edge, mode="edge"), kernel / kernel.sum(), mode="valid")
        share = (inside - dark) / np.maximum(smooth - dark, 1e-3)[:, None]
        return np.asarray(np.clip(share, 0.0, _BRIGHTEST).mean(axis=1) * sac.thickness_mm)

    def _body_height(self, place: int) -> float | None:
        """Mean height (mm) of the vertebrae beside a disc, between the edges of neighbouring discs."""
        heights = []
        for above, below in ((place - 1, place), (place, place + 1)):
            if above < 0 or below >= len(self.discs):
                continue
            upper, lower = self.discs[above], self.discs[below]
            if upper is not None and lower is not None:
                heights.append(float(np.linalg.norm(upper.lower[0] - lower.upper[0])))
        return float(np.mean(heights)) if heights else None

    def _slip(self, place: int) -> Reading | None:
        """How far the rear wall of the vertebra above stands in front of that below, at the disc."""
        row = self.level_rows[place]
        gaps = np.diff(self.level_rows)
        above = gaps[place - 1] if place else gaps[0]
        below = gaps[place] if place < len(gaps) else gaps[-1] * 0.8
        walls = []
        for start, end in (
            (row - _WALL[1] * above, row - _WALL[0] * above),
            (row + _WALL[0] * below, row + _WALL[1] * below),
        ):
            start, end = max(start, 0.0), min(end, len(self.sac.peak) - 1.0)
            rows = np.linspace(start, end, _WALL_PLACES)
            if (end - start) * self.step_mm < _LEAST_WALL_MM or between(
                self.sac.peak, rows
            ).mean() < _LEAST_PEAK:
                return None
            walls.append(self.strip.point_mm(rows, between(self.sac.first_mm, rows)))
        middle = np.array([row])
        origin, back = between(self.strip.centres_mm, middle)[0], between(self.strip.across, middle)[0]
        along = np.array([-back[1], back[0]])
        at_disc = []
        for wall in walls:
            x, y = (wall - origin) @ along, (wall - origin) @ back
            at_disc.append(float(np.polynomial.Polynomial.fit(x, y, 1)(0.0)))
        return Reading(at_disc[1] - at_disc[0], _FLOOR_MM["slip"])


def read_sagittal(planar: PlanarSlice, canal_mm: FloatArray, disc_mm: FloatArray) -> SagittalReading:
    """Find canal and discs on a slice.

    Args:
        canal_mm, disc_mm: (levels, 2) in-plane points, head to foot, three levels or more.
    """
    strip, rows = canal_strip(canal_mm, disc_mm)
    tissues = find_tissues(planar, canal_mm, disc_mm)
    sac = extent_of(tissues.at("sac", strip.at_mm()), strip.across_mm, _USUAL_SAC_MM)
    downwards = np.gradient(disc_mm, axis=0)
    ups = -downwards / np.linalg.norm(downwards, axis=1, keepdims=True)
    to_back = (canal_mm - disc_mm).mean(axis=0)
    discs = tuple(_disc(tissues, disc_mm[i], ups[i], to_back) for i in range(len(disc_mm)))
    return SagittalReading(strip, strip.read(planar.pixels, planar.spacing_mm), rows, sac, discs)


def _disc(tissues: Tissues, centre: FloatArray, up: FloatArray, back: FloatArray) -> _Disc | None:
    """A disc, read across its own long axis through its own middle."""
    strip, disc = _disc_extent(tissues, centre, up, back)
    weight = disc.shares.sum()
    step = float(strip.across_mm[1] - strip.across_mm[0]) * DISC_STEP_MM
    if weight * step < _LEAST_DISC_MM2:
        return None
    at, share = strip.at_mm().reshape(-1, 2), disc.shares.reshape(-1, 1)
    middle = (share * at).sum(axis=0) / weight
    off = at - middle
    axis = np.linalg.eigh(off.T @ (share * off))[1][:, 0]
    strip, disc = _disc_extent(tissues, middle, axis if axis @ up > 0 else -axis, back)
    rows = np.flatnonzero(np.abs(DISC_ALONG_MM) <= _DISC_MM + DISC_STEP_MM / 2)
    if disc.peak[rows].mean() < _LEAST_PEAK:
        return None
    lower, upper = (_line(strip, border, rows) for border in (disc.first_mm, disc.last_mm))
    sd = float(np.hypot(_FLOOR_MM["disc"], 0.3 * disc.spread_mm[rows].mean()))
    height = float(disc.thickness_mm[rows].mean())
    return _Disc(height, sd, upper, lower, np.stack([lower[0], upper[0]]))


def _disc_extent(
    tissues: Tissues, centre: FloatArray, up: FloatArray, back: FloatArray
) -> tuple[Strip, Extent]:
    strip = disc_strip(centre, up, back)
    return strip, extent_of(tissues.at("disc", strip.at_mm()), strip.across_mm, _USUAL_DISC_MM)


def _line(strip: Strip, border: FloatArray, rows: NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
    """Middle point and direction, front to back, of a border."""
    points = strip.point_mm(rows, border[rows])
    middle = points.mean(axis=0)
    _, _, axes = np.linalg.svd(points - middle)
    direction = axes[0] if axes[0] @ (points[-1] - points[0]) > 0 else -axes[0]
    return middle, direction
