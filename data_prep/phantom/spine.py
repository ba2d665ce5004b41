"""The spine curve with its moving frame, and spine coordinates of any point of the body.

Body coordinates: LPS axes (+x left, +y back, +z head), millimetres, origin near the L3/L4 disc. The patient
lies turned and shifted on the table; ``Spine.to_body`` undoes that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from data_prep.geometry import Float32Array, FloatArray
from data_prep.phantom.posture import N_PLANES, PLANE_NAMES, Posture

SAMPLES_PER_LEVEL = 64


@dataclass(frozen=True, eq=False)
class SpineCoordinates:
    """Where points lie relative to the spine. All arrays (n,), float32 or intp.

    Attributes:
        body_mm: (3, n) body coordinates.
        position: plane index + fraction of the way to the next plane (0 at T3/T4, foot-ward).
        sample: row of the profile tables.
        left_mm, back_mm: offsets from the centre line in the moving frame.
        disc: index of the nearest disc plane; above_mm: signed distance from it, positive to the head.
    """

    body_mm: Float32Array
    position: Float32Array
    sample: NDArray[np.intp]
    left_mm: Float32Array
    back_mm: Float32Array
    disc: NDArray[np.intp]
    above_mm: Float32Array

    def take(self, index: NDArray[np.intp]) -> SpineCoordinates:
        """The coordinates of some of the points."""
        return _SomeCoordinates(self, index)


class _SomeCoordinates(SpineCoordinates):
    """Those of some points; an array is cut out when it is asked for."""

    def __init__(self, whole: SpineCoordinates, index: NDArray[np.intp]) -> None:
        self.__dict__.update(_whole=whole, _index=index)

    def __getattr__(self, name: str) -> Any:
        if name not in SpineCoordinates.__dataclass_fields__:
            raise AttributeError(name)
        values = getattr(self.__dict__["_whole"], name).take(self.__dict__["_index"], axis=-1)
        self.__dict__[name] = values
        return values


@dataclass(frozen=True, eq=False)
class Spine:
    """Disc planes and the centre line through them.

    Attributes:
        centres_mm: (planes, 3) disc centres; up, left, back: (planes, 3) frame of each disc; body frame.
        line: (samples, 9) centre, left and back vectors along the curve, float32.
        rotation: (3, 3) and offset_mm (3,): patient = rotation @ body + offset.
        stature: scale of all lengths.
    """

    centres_mm: FloatArray
    up: FloatArray
    left: FloatArray
    back: FloatArray
    line: Float32Array
    rotation: FloatArray
    offset_mm: FloatArray
    stature: float

    def to_body(self, xyz_mm: ArrayLike) -> FloatArray:
        """Patient LPS (..., 3) to body coordinates."""
        return (np.asarray(xyz_mm, dtype=np.float64) - self.offset_mm) @ self.rotation

    def to_patient(self, body_mm: ArrayLike) -> FloatArray:
        """Body coordinates (..., 3) to patient LPS."""
        return np.asarray(body_mm, dtype=np.float64) @ self.rotation.T + self.offset_mm

    def at_disc(self, plane: int, left_mm: float, back_mm: float, above_mm: float) -> FloatArray:
        """The patient point (3,) with these offsets from a disc centre in the frame of the disc."""
        body = (
            self.centres_mm[plane]
            + left_mm * self.left[plane]
            + back_mm * self.back[plane]
            + above_mm * self.up[plane]
        )
        return self.to_patient(body)

    def coordinates(self, body_mm: Float32Array) -> SpineCoordinates:
        """Spine coordinates of body points (3, n).

        A point lies between two disc planes; the fraction is its distance from the upper plane over the sum
        of both distances. Far from the spine, where planes would cross, the distance in y is held.
        """
        x, y, z = body_mm
        line_y = np.interp(z, self.line[::-1, 2], self.line[::-1, 1]).astype(np.float32)
        held = np.stack([np.clip(x, -60.0, 60.0), line_y + np.clip(y - line_y, -48.0, 52.0), z])
        first, last = self._planes_near(float(z.min()), float(z.max()))
        up = self.up[first:last].astype(np.float32)
        distance = up @ held
        distance -= np.sum(up * self.centres_mm[first:last], axis=1).astype(np.float32)[:, None]
        above_point = (distance < 0).view(np.int8).sum(axis=0, dtype=np.int8)
        below = np.clip(above_point - 1, 0, last - first - 2).astype(np.intp)
        flat = below * len(z) + np.arange(len(z))
        from_upper = np.maximum(-distance.take(flat), 0.0)
        from_lower = np.maximum(distance.take(flat + len(z)), 0.0)
        below += first
        fraction = from_upper / np.maximum(from_upper + from_lower, 1e-3)
        position = below.astype(np.float32) + fraction
        sample = np.minimum((position * SAMPLES_PER_LEVEL + 0.5).astype(np.intp), len(self.line) - 1)
        line = self.line.take(sample, axis=0).T
        dx, dy, dz = body_mm - line[:3]
        nearer_lower = from_lower < from_upper
        return SpineCoordinates(
            body_mm=body_mm,
            position=position,
            sample=sample,
            left_mm=dx * line[3] + dy * line[4] + dz * line[5],
            back_mm=dx * line[6] + dy * line[7] + dz * line[8],
            disc=below + nearer_lower,
            above_mm=np.where(nearer_lower, from_lower, -from_upper),
        )

    def _planes_near(self, lowest_mm: float, highest_mm: float) -> tuple[int, int]:
        """Range of the disc planes that a point between these heights can lie next to."""
        heights = self.centres_mm[:, 2]
        first = int(np.count_nonzero(heights > highest_mm + 95.0))
        last = N_PLANES - int(np.count_nonzero(heights < lowest_mm - 95.0))
        first = min(first, N_PLANES - 2)
        return first, max(last, first + 2)


def make_spine(rng: np.random.Generator, posture: Posture) -> Spine:
    """Lay a posture out in space, and the patient on the table: a little turned and off its axis."""
    along = np.concatenate([[0.0], np.cumsum(posture.gaps_mm)])
    # The curve is found by integrating its direction, so that it is smooth and as long as the gaps say.
    fine = np.linspace(0, along[-1], 2000)
    tilt_fine = CubicSpline(along, posture.tilt)(fine)
    side_fine = CubicSpline(along, posture.side_tilt)(fine)
    step = np.stack(
        [np.sin(side_fine), np.sin(tilt_fine) * np.cos(side_fine), -np.cos(tilt_fine) * np.cos(side_fine)], 1
    )
    curve = np.concatenate([[np.zeros(3)], np.cumsum(step[1:] + step[:-1], axis=0) * (fine[1] / 2)])
    samples = np.interp(
        np.arange((N_PLANES - 1) * SAMPLES_PER_LEVEL + 1) / SAMPLES_PER_LEVEL, np.arange(N_PLANES), along
    )
    centre = np.stack([np.interp(samples, fine, curve[:, axis]) for axis in range(3)], axis=1)
    up = -np.stack([np.interp(samples, fine, step[:, axis]) for axis in range(3)], axis=1)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    # Coupled rotation: the vertebrae turn into the curve.
    twist = np.interp(samples, fine, -0.5 * side_fine)
    left = np.stack([np.cos(twist), np.sin(twist), np.zeros_like(twist)], axis=1)
    left -= up * np.sum(left * up, axis=1, keepdims=True)
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    back = np.cross(up, left)
    at_planes = np.arange(N_PLANES) * SAMPLES_PER_LEVEL
    if posture.slip is not None:
        plane, slip_mm = posture.slip
        centre -= slip_forward(plane, slip_mm)[:, None] * back[plane * SAMPLES_PER_LEVEL]
    centre -= centre[PLANE_NAMES.index("L3/L4") * SAMPLES_PER_LEVEL]
    angles = np.deg2rad(rng.normal(0.0, [2.5, 2.5, 4.5]))
    return Spine(
        centres_mm=centre[at_planes],
        up=up[at_planes],
        left=left[at_planes],
        back=back[at_planes],
        line=np.concatenate([centre, left, back], axis=1).astype(np.float32),
        rotation=_rotation(angles),
        offset_mm=rng.normal([0.0, 10.0, -200.0], [10.0, 15.0, 120.0]),
        stature=posture.stature,
    )


def slip_forward(plane: int, slip_mm: float, over_levels: float = 0.05) -> FloatArray:
    """Millimetres (samples,) by which the spine has slid forwards above a disc, 0 below it."""
    position = np.arange((N_PLANES - 1) * SAMPLES_PER_LEVEL + 1) / SAMPLES_PER_LEVEL
    return slip_mm / (1.0 + np.exp(np.clip((position - plane) / over_levels, -50, 50)))


def _rotation(angles: FloatArray) -> FloatArray:
    cx, cy, cz = np.cos(angles)
    sx, sy, sz = np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
