"""Strips: an image read along a line of the spine, so that its borders run from one end to the other.

A strip has a row for every place along the line and a column for every step across it. Three kinds are cut:
along the canal (across: front to back), along a disc (across: foot to head), and around a point (a row for
every angle, columns outwards).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.crops import percentiles
from data_prep.geometry import FloatArray

CANAL_ACROSS_MM: Final = np.arange(-14.0, 16.01, 0.5)
# As many rows along every canal, about 2 mm apart: what is read would jump where one more is needed.
CANAL_ROWS: Final = 84
CANAL_BEYOND_MM: Final = 18.0
DISC_ACROSS_MM: Final = np.arange(-13.0, 13.01, 0.5)
DISC_STEP_MM: Final = 1.0
DISC_ALONG_MM: Final = np.arange(-22.0, 22.01, DISC_STEP_MM)
RADII_MM: Final = np.arange(0.0, 15.51, 0.5)
ANGLES: Final = np.deg2rad(np.arange(0.0, 360.0, 10.0))


@dataclass(frozen=True, eq=False)
class Strip:
    """Where the pixels of a strip lie in the plane of the image.

    Attributes:
        centres_mm: (rows, 2) in-plane millimetres where each row crosses the line, at ``across_mm`` 0.
        across: (rows, 2) in-plane unit vectors of increasing column.
        across_mm: (columns,) distance of each column from the line.
    """

    centres_mm: FloatArray
    across: FloatArray
    across_mm: FloatArray

    def at_mm(self) -> FloatArray:
        """(rows, columns, 2) in-plane millimetres of every pixel of the strip."""
        return self.centres_mm[:, None] + self.across_mm[None, :, None] * self.across[:, None]

    def point_mm(self, row: NDArray[Any], across_mm: FloatArray) -> FloatArray:
        """(n, 2) in-plane millimetres of places on rows, or between two rows."""
        return between(self.centres_mm, row) + across_mm[:, None] * between(self.across, row)

    def read(self, pixels: NDArray[np.float32], spacing_mm: tuple[float, float]) -> NDArray[np.float32]:
        """Grey values (rows, columns), scaled so that its 5th and 95th percentile are 0 and 1.

        Args:
            pixels: (rows, columns) of the image.
            spacing_mm: (column distance, row distance); (0, 0) mm is the centre of the first pixel.
        """
        at = (self.at_mm() / np.asarray(spacing_mm)).astype(np.float32)
        # Coarser than the image: a little smoothing stands for the area of a sample.
        finest = float(self.across_mm[1] - self.across_mm[0])
        sigma = max(0.0, 0.35 * finest / min(spacing_mm) - 0.2)
        if sigma > 0.1:
            pixels, corner = part_around(pixels, at, margin=int(4 * sigma) + 3)
            at = at - corner
            pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), dtype=np.float32)
        found = cv2.remap(pixels, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return stretched(np.asarray(found, dtype=np.float32), most=2.0)


def part_around(
    pixels: NDArray[np.float32], at: NDArray[np.float32], margin: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The part of an image with all places (…, 2) px and a margin, and its first (column, row).

    At an edge of the image the part ends with it.
    """
    first, last = at.min(axis=(0, 1)), at.max(axis=(0, 1))
    size = np.array(pixels.shape[::-1])
    left, top = np.clip(np.floor(first).astype(int) - margin, 0, size - 1)
    right, bottom = np.clip(np.ceil(last).astype(int) + margin + 1, 1, size)
    if right - left <= 2 * margin or bottom - top <= 2 * margin:  # beside the image: its edge is repeated
        return pixels, np.zeros(2, np.float32)
    return np.ascontiguousarray(pixels[top:bottom, left:right]), np.array([left, top], np.float32)


def between(values: FloatArray, row: NDArray[Any]) -> FloatArray:
    """Values (rows,) or (rows, n) at places between rows, linearly; beyond the ends, the ends."""
    places = np.arange(len(values))
    if values.ndim == 1:
        return np.interp(row, places, values)
    return np.stack([np.interp(row, places, part) for part in values.T], axis=-1)


def stretched(values: NDArray[np.float32], *, most: float) -> NDArray[np.float32]:
    """So that the 5th and 95th percentile are 0 and 1, cut at −1 and ``most``; all 0 where it is constant."""
    low, high = np.array(percentiles(values, (5.0, 95.0)))
    if high - low <= 1e-6 * max(1.0, abs(high)):
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), -1.0, most).astype(np.float32)


def canal_strip(canal_mm: FloatArray, disc_mm: FloatArray) -> tuple[Strip, FloatArray]:
    """The strip along the canal and the row of each level.

    Args:
        canal_mm: (levels, 2) in-plane points in the canal, head to foot, two or more.
        disc_mm: (levels, 2) disc centres in front of them.

    Returns:
        The strip, rows head to foot, columns front to back; fractional row of each level.
    """
    at = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(canal_mm, axis=0), axis=1))])
    degree = min(3, len(at) - 1)
    places, step = np.linspace(-CANAL_BEYOND_MM, at[-1] + CANAL_BEYOND_MM, CANAL_ROWS, retstep=True)
    curves = [np.polynomial.Polynomial.fit(at, canal_mm[:, axis], degree) for axis in range(2)]
    inner = np.clip(places, at[0], at[-1])
    slope = np.stack([curve.deriv()(inner) for curve in curves], axis=1)
    slope /= np.linalg.norm(slope, axis=1, keepdims=True)
    points = np.stack([curve(inner) for curve in curves], axis=1) + (places - inner)[:, None] * slope
    back = np.stack([-slope[:, 1], slope[:, 0]], axis=1)
    if np.sum((canal_mm - disc_mm).mean(axis=0) * back.mean(axis=0)) < 0:
        back = -back
    return Strip(points, back, CANAL_ACROSS_MM), (at + CANAL_BEYOND_MM) / float(step)


def disc_strip(disc_mm: FloatArray, up: FloatArray, back: FloatArray) -> Strip:
    """The strip along a disc: rows front to back, columns foot to head.

    Args:
        disc_mm: (2,) centre.
        up, back: (2,) unit vectors to the head along the chain of discs, and to the back.
    """
    along = np.array([-up[1], up[0]])
    if along @ back < 0:
        along = -along
    centres = disc_mm + DISC_ALONG_MM[:, None] * along
    return Strip(centres, np.repeat(up[None], len(centres), axis=0), DISC_ACROSS_MM)


def round_strip(centre_mm: FloatArray, rightwards: FloatArray, downwards: FloatArray) -> Strip:
    """The strip around a point: a row for every angle, from ``rightwards`` over ``downwards``."""
    across = np.cos(ANGLES)[:, None] * rightwards + np.sin(ANGLES)[:, None] * downwards
    return Strip(np.repeat(centre_mm[None], len(across), axis=0), across, RADII_MM)
