"""The canvas on which tissues are painted, and the noise volume that gives them texture."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from data_prep.phantom.body import Body
from data_prep.phantom.spine import SpineCoordinates

RealArray = NDArray[np.floating]  # float32 in practice; numpy's stubs lose track of it

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
    """Periodic displacements (64, 64, 64, 3), mean 0, sd 1, smooth over 5 mm; the same for everybody."""
    white = np.random.default_rng(1).standard_normal((3, _NOISE_SIZE, _NOISE_SIZE, _NOISE_SIZE))
    smooth = [gaussian_filter(layer, 5.0, mode="wrap") for layer in white]
    return np.stack([layer / layer.std() for layer in smooth], axis=-1).astype(np.float32)


def warped(body: Body, body_mm: RealArray) -> RealArray:
    """Body points (n, 3) a little displaced, so that no structure is as regular as its formula."""
    shift = _warp_volume().reshape(-1, 3).take(_voxels(body_mm + body.noise_shift.astype(np.float32)), axis=0)
    return body_mm + np.float32(body.soft["irregular"]) * shift


def _voxels(place: RealArray) -> NDArray[np.int32]:
    """Index into a flattened periodic volume of the voxels that hold places (n, 3)."""
    x, y, z = place.T.astype(np.int32) & (_NOISE_SIZE - 1)
    return (x * _NOISE_SIZE + y) * _NOISE_SIZE + z


class Painter:
    """Paints layers on the points of one cut.

    Attributes:
        signal: float32 (n,), the picture so far.
        at: spine coordinates of the points.
    """

    def __init__(
        self, body: Body, signals: dict[str, float], coordinates: SpineCoordinates, pixel_mm: float
    ) -> None:
        self.body = body
        self.signals = signals
        self.at = coordinates
        self.edge_mm = max(pixel_mm, 0.6)
        self.signal = np.zeros(len(coordinates.position), dtype=np.float32)

    def occupancy(self, distance_mm: RealArray) -> RealArray:
        """Share of a pixel that is inside, from the signed distance of its centre."""
        return np.clip(0.5 - distance_mm / np.float32(self.edge_mm), 0.0, 1.0)

    def paint(
        self,
        distance_mm: RealArray,
        value: float | RealArray,
        where: NDArray[np.intp] | None = None,
        opacity: float | RealArray = 1.0,
    ) -> None:
        """Cover the inside of a structure; ``where`` are the points that the arrays belong to."""
        self.blend(value, self.occupancy(distance_mm) * opacity, where)

    def blend(
        self, value: float | RealArray, share: RealArray, where: NDArray[np.intp] | None = None
    ) -> None:
        """Mix a tissue in with its share (0–1) of each pixel."""
        if where is None:
            self.signal += share * (value - self.signal)
        else:
            old = self.signal[where]
            self.signal[where] = old + share * (value - old)

    def profile(self, name: str, at: SpineCoordinates) -> RealArray:
        """A structure's measure along the spine, at each point."""
        return self.body.profile[name][at.sample]

    def noise(self, body_mm: RealArray, voxel_mm: float, smooth: bool = False) -> RealArray:
        """Texture at body points (n, 3): mean 0, sd 1."""
        place = (body_mm + self.body.noise_shift.astype(np.float32)) / np.float32(voxel_mm)
        if smooth:
            return map_coordinates(noise_volume(), place.T, order=1, mode="grid-wrap")
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
