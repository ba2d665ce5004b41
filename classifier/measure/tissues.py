"""Disc, vertebra and dural sac on a sagittal T2 slice: how much of each pixel belongs to each.

The slice is read upright, on pixels of one size, around the found points; small networks
(``network.py``, run by ONNX Runtime) give the share of each tissue, and their mean counts. A pixel
that a border crosses has a share between 0 and 1: the sum across a structure is its thickness to a part
of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from classifier.measure.planar import PlanarSlice
from classifier.measure.strips import stretched
from data_prep.base.graph import SUFFIX
from data_prep.base.networks import CompiledNetwork, load_network
from data_prep.geometry import FloatArray

TISSUES: Final = ("disc", "vertebra", "sac")
# Networks whose shares are averaged.
STEMS: Final = ("tissues", "tissues-2")
PIXEL_MM: Final = 0.75
# Rows and columns, the same for every slice, or what is found would jump where one more is needed. Multiples
# of 8: phases of 2, halved twice. 192 by 84 mm: five levels and 24 mm to the head and foot, mostly.
SHAPE: Final = (256, 112)
# Grey values that the networks take are cut there; see ``stretched``.
BRIGHTEST: Final = 2.5
# At least so much beyond the outermost points along the spine, in front of the discs, and behind the canal;
# where that is more than there are pixels of this size, pixels are larger.
_BEYOND_MM, _FRONT_MM, _BEHIND_MM = 15.0, 21.0, 14.0

RealArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class UprightGrid:
    """Square pixels along the spine: rows to the foot, columns to the back.

    Attributes:
        corner_mm: (2,) in-plane millimetres of the centre of the first pixel.
        right, down: (2,) in-plane unit vectors of increasing column and row.
        pixel_mm: distance of neighbouring rows and columns.
        shape: rows and columns.
    """

    corner_mm: FloatArray
    right: FloatArray
    down: FloatArray
    pixel_mm: float = PIXEL_MM
    shape: tuple[int, int] = SHAPE

    @classmethod
    def around(cls, canal_mm: FloatArray, disc_mm: FloatArray) -> UprightGrid:
        """The grid that holds the levels, in its middle; it moves with the points without a step.

        Args:
            canal_mm, disc_mm: (levels, 2) in-plane points, head to foot, two levels or more.
        """
        right, down = upright_axes(canal_mm, disc_mm)
        points = np.concatenate([canal_mm, disc_mm])
        along, across = points @ down, points @ right
        first = np.array([across.min() - _FRONT_MM, along.min() - _BEYOND_MM])
        last = np.array([across.max() + _BEHIND_MM, along.max() + _BEYOND_MM])
        steps = np.array(SHAPE[::-1]) - 1
        pixel_mm = max(PIXEL_MM, float(((last - first) / steps).max()))
        corner = (first + last - steps * pixel_mm) / 2
        return cls(corner[0] * right + corner[1] * down, right, down, pixel_mm)

    def to_px(self, xy_mm: FloatArray) -> RealArray:
        """In-plane millimetres (..., 2) to (column, row) of this grid."""
        off = xy_mm - self.corner_mm
        return np.stack([off @ self.right, off @ self.down], axis=-1).astype(np.float32) / np.float32(
            self.pixel_mm
        )

    def read(self, pixels: RealArray, spacing_mm: tuple[float, float]) -> RealArray:
        """Grey values (rows, columns) as the network takes them; beyond the image, its edge is repeated."""
        spacing = np.asarray(spacing_mm)
        matrix = np.stack([self.right, self.down], axis=1) * self.pixel_mm / spacing[:, None]
        affine = np.concatenate([matrix, (self.corner_mm / spacing)[:, None]], axis=1)
        sigma = 0.35 * self.pixel_mm / min(spacing_mm) - 0.2
        if sigma > 0.15:
            pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), dtype=np.float32)
        found = cv2.warpAffine(
            pixels,
            affine,
            self.shape[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return stretched(np.asarray(found, dtype=np.float32), most=BRIGHTEST)


@dataclass(frozen=True, eq=False)
class Tissues:
    """Share of each tissue on an upright grid, (tissues, rows, columns)."""

    grid: UprightGrid
    shares: RealArray

    def at(self, tissue: str, xy_mm: FloatArray) -> RealArray:
        """Share of a tissue at in-plane points (rows, columns, 2); 0 beyond the grid."""
        places = self.grid.to_px(xy_mm)
        found = cv2.remap(
            self.shares[TISSUES.index(tissue)], places[..., 0], places[..., 1], cv2.INTER_LINEAR
        )
        return np.asarray(found, dtype=np.float32)


def upright_axes(canal_mm: FloatArray, disc_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
    """In-plane unit vectors to the back and to the foot, from the first to the last canal point."""
    down = canal_mm[-1] - canal_mm[0]
    down = down / np.linalg.norm(down)
    right = np.array([down[1], -down[0]])
    if (canal_mm - disc_mm).mean(axis=0) @ right < 0:
        right = -right
    return right, down


def find_tissues(planar: PlanarSlice, canal_mm: FloatArray, disc_mm: FloatArray) -> Tissues:
    """What lies where on a slice.

    Args:
        canal_mm, disc_mm: (levels, 2) in-plane points, head to foot, two levels or more.
    """
    grid = UprightGrid.around(canal_mm, disc_mm)
    seen = phases(grid.read(planar.pixels, planar.spacing_mm))[None]
    shares = [1.0 / (1.0 + np.exp(-scores[0])) for (scores,) in (bundled(stem)([(seen,)]) for stem in STEMS)]
    return Tissues(grid, np.mean(shares, axis=0, dtype=np.float32))


def phases(image: RealArray) -> RealArray:
    """(2 H, 2 W) to (4, H, W): even and odd rows and columns apart."""
    rows, columns = image.shape
    parts = image.reshape(rows // 2, 2, columns // 2, 2).transpose(1, 3, 0, 2)
    return np.ascontiguousarray(parts.reshape(4, rows // 2, columns // 2))


@cache
def bundled(stem: str) -> CompiledNetwork:
    """A bundled network by the name of its files, prepared for this processor."""
    folder = files("classifier.measure")
    weights, graph = folder.joinpath(f"{stem}.safetensors"), folder.joinpath(f"{stem}{SUFFIX}")
    content = weights.read_bytes()
    return load_network(content, graph.read_bytes() if graph.is_file() else None, lambda: _converted(content))


def _converted(weights: bytes) -> bytes:
    from classifier.measure.network import converted_tissues

    return converted_tissues(weights)
