"""The canvas on which tissues are painted, and the noise volume that gives them texture."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from data_prep.phantom.body import Body
from data_prep.phantom.spine import SpineCoordinates

RealArray = NDArray[np.floating]  # float32 in practice; numpy's stubs lose track of it
# Of a tissue: everywhere, at each point, or a function of the index of the points where it is needed.
Value = float | RealArray | Callable[[NDArray[np.intp]], RealArray]

_NOISE_SIZE = 64  # a power of two


@cache
def noise_volume() -> RealArray:
    """Periodic noise (64, 64, 64), mean 0, sd 1, of two scales; the same for everybody."""
    white = np.random.default_rng(0).standard_normal((2, _NOISE_SIZE, _NOISE_SIZE, _NOISE_SIZE))
    total = np.zeros_like(white[0])
    for layer, sigma in zip(white, (1.0, 2.8), strict=True):
        smooth = gaussian_filter(layer, sigma, mode="wrap")
        total += smooth / smooth.std()
    return (total / total.std()).astype(np.float32)


@cache
def _warp_volume() -> RealArray:
    """Periodic displacements (3, 64, 64, 64), mean 0, sd 1, smooth over 5 mm; the same for everybody."""
    white = np.random.default_rng(1).standard_normal((3, _NOISE_SIZE, _NOISE_SIZE, _NOISE_SIZE))
    smooth = [gaussian_filter(layer, 5.0, mode="wrap") for layer in white]
    return np.stack([layer / layer.std() for layer in smooth]).astype(np.float32)


def warped(body: Body, body_mm: RealArray) -> RealArray:
    """Body points (3, n) a little displaced, so that no structure is as regular as its formula."""
    voxels = _voxels(body_mm + _column(body.noise_shift))
    shift = _warp_volume().reshape(3, -1).take(voxels, axis=1)
    return body_mm + np.float32(body.soft["irregular"]) * shift


def _column(vector: NDArray[np.float64]) -> RealArray:
    return vector.astype(np.float32)[:, None]


def _voxels(place: RealArray) -> NDArray[np.int32]:
    """Index into a flattened periodic volume of the voxels that hold places (3, n)."""
    x, y, z = place.astype(np.int32) & (_NOISE_SIZE - 1)
    return (x * _NOISE_SIZE + y) * _NOISE_SIZE + z


def _interpolated(volume: RealArray, place: RealArray) -> RealArray:
    """A periodic volume between its voxels, at places (3, n).

    The same bits as ``map_coordinates(volume, place, order=1, mode="grid-wrap")`` of SciPy, in half the time.
    """
    floor = np.floor(place)
    after = place.astype(np.float64) - floor
    before = floor.astype(np.intp)
    x, y, z = np.stack([before, before + 1], axis=1) & (_NOISE_SIZE - 1)
    share_x, share_y, share_z = np.stack([1.0 - after, after], axis=1)
    corners = (x[:, None, None] * _NOISE_SIZE + y[:, None]) * _NOISE_SIZE + z
    parts = volume.take(corners) * share_x[:, None, None]
    parts *= share_y[:, None]
    parts *= share_z
    return parts.reshape(8, -1).sum(axis=0).astype(np.float32)


class Painter:
    """Paints layers on the points of one cut.

    Attributes:
        signal: float32 (n,), the picture so far.
        at: spine coordinates of the points.
        behind_mm: float32 (n,), how far behind the middle of the sac they lie.
    """

    def __init__(
        self, body: Body, signals: dict[str, float], coordinates: SpineCoordinates, pixel_mm: float
    ) -> None:
        self.body = body
        self.signals = signals
        self.at = coordinates
        self.edge_mm = max(pixel_mm, 0.6)
        self.behind_mm = coordinates.back_mm - self.profile("sac_centre", coordinates)
        self.signal = np.zeros(len(coordinates.position), dtype=np.float32)

    def occupancy(self, distance_mm: RealArray) -> RealArray:
        """Share of a pixel that is inside, from the signed distance of its centre."""
        return np.clip(0.5 - distance_mm / np.float32(self.edge_mm), 0.0, 1.0)

    def paint(
        self,
        distance_mm: RealArray,
        value: Value,
        where: NDArray[np.intp] | None = None,
        opacity: float | RealArray = 1.0,
    ) -> None:
        """Cover the inside of a structure; ``where`` are the points that the arrays belong to."""
        inside = self.touched(distance_mm)
        if not len(inside):
            return
        if callable(value):
            value = value(inside)
        elif isinstance(value, np.ndarray):
            value = value.take(inside)
        share = self.occupancy(distance_mm.take(inside))
        if isinstance(opacity, np.ndarray):
            opacity = opacity.take(inside)
        self.blend(value, share * opacity, inside if where is None else where.take(inside))

    def touched(self, distance_mm: RealArray) -> NDArray[np.intp]:
        """Index of the points whose pixel is not wholly outside."""
        return np.flatnonzero(distance_mm < 0.5 * self.edge_mm)

    def blend(self, value: float | RealArray, share: RealArray, where: NDArray[np.intp]) -> None:
        """Mix a tissue in with its share (0–1) of each pixel."""
        old = self.signal.take(where)
        self.signal[where] = old + share * (value - old)

    def profile(self, name: str, at: SpineCoordinates) -> RealArray:
        """A structure's measure along the spine, at each point."""
        return self.body.profile[name].take(at.sample)

    def noise(self, body_mm: RealArray, voxel_mm: float, smooth: bool = False) -> RealArray:
        """Texture at body points (3, n): mean 0, sd 1."""
        place = (body_mm + _column(self.body.noise_shift)) / np.float32(voxel_mm)
        if smooth:
            return _interpolated(noise_volume(), place)
        return noise_volume().take(_voxels(place))


def ellipse(a: RealArray, b: RealArray, half_a: float | RealArray, half_b: float | RealArray) -> RealArray:
    """About the signed distance (mm) from an ellipse with these offsets from its middle and semi-axes."""
    radius = np.sqrt((a / half_a) ** 2 + (b / half_b) ** 2)
    return (radius - 1.0) * np.minimum(half_a, half_b)


def tunnel(
    a: RealArray,
    b: RealArray,
    half_a: float | RealArray,
    half_b: float | RealArray,
    along: RealArray,
    half_length: float,
) -> RealArray:
    """As ``ellipse``, but it ends, rounded, at ``half_length`` along the third direction."""
    end = (along / half_length) ** 2
    radius = np.sqrt((a / half_a) ** 2 + (b / half_b) ** 2 + end * end)
    return (radius - 1.0) * np.minimum(half_a, half_b)


def rounded_both(a: RealArray, b: RealArray, corner_mm: float) -> RealArray:
    """Signed distance from what is inside both structures, its corners rounded."""
    over_a, over_b = np.maximum(a + corner_mm, 0.0), np.maximum(b + corner_mm, 0.0)
    return np.minimum(np.maximum(a, b), -corner_mm) + np.sqrt(over_a * over_a + over_b * over_b)


def box(distance: RealArray, half: float | RealArray) -> RealArray:
    """Signed distance from a slab."""
    return np.abs(distance) - half
