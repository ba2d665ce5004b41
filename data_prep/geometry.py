"""Where a pixel lies in the patient, and back.

Conventions of the whole project:

- ``_px``: (column, row) = (x, y), zero-based, integers at pixel CENTRES.
- ``_mm``: DICOM patient coordinates, LPS: +x to the patient's left, +y to the back, +z to the head.
- Image arrays are indexed [row, column].

Formula: DICOM PS3.3 C.7.6.2.1.1 (Image Plane Module), equation C.7.6.2.1-1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]

_ORTHONORMAL_TOLERANCE = 1e-2
# Axial slices follow the discs: an L5/S1 steeper than 64° is not known, nor a coronal slice tilted by 26°.
SAME_ORIENTATION_COSINE = float(np.cos(np.deg2rad(64.0)))


class Orientation(StrEnum):
    """The anatomical plane that a slice is nearest to."""

    SAGITTAL = "sagittal"
    CORONAL = "coronal"
    AXIAL = "axial"


def _checked(value: ArrayLike, name: str) -> list[float]:
    array = np.asarray(value, dtype=np.float64)
    numbers: list[float] = array.tolist()
    if array.shape != (3,) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} must be 3 finite numbers, but got {numbers}")
    return numbers


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@dataclass(frozen=True, eq=False)
class SlicePlane:
    """A rectangular pixel grid in patient space.

    Attributes:
        origin_mm: (3,) centre of pixel (0, 0), patient LPS (ImagePositionPatient).
        x_axis: (3,) unit vector of increasing column.
        y_axis: (3,) unit vector of increasing row.
        spacing_mm: (column distance, row distance): millimetres per step in x and in y.
            DICOM PixelSpacing is the other way round: (between rows, between columns).
        shape: (rows, columns).

    Raises:
        ValueError: not finite, axes not orthonormal within 1e-2, spacing or shape not positive.

    A sagittal slice 10 mm left of the middle, columns towards the back, rows towards the feet:

    >>> back, feet = np.array([0, 1, 0]), np.array([0, 0, -1])
    >>> plane = SlicePlane(np.array([10, -80, 200]), back, feet, (0.5, 0.5), (640, 640))
    >>> plane.to_mm((20, 100)).tolist()
    [10.0, -70.0, 150.0]
    >>> plane.to_px([10, -70, 150]).tolist()
    [20.0, 100.0]
    """

    origin_mm: FloatArray
    x_axis: FloatArray
    y_axis: FloatArray
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        # In plain floats: numpy takes several times as long for three numbers, and a study makes hundreds of
        # planes.
        origin, x, y = (_checked(getattr(self, name), name) for name in ("origin_mm", "x_axis", "y_axis"))
        lengths = math.sqrt(_dot(x, x)), math.sqrt(_dot(y, y))
        if max(abs(lengths[0] - 1), abs(lengths[1] - 1)) > _ORTHONORMAL_TOLERANCE:
            raise ValueError(f"image axes must have length 1, but got {lengths[0]:.3f}, {lengths[1]:.3f}")
        if abs(_dot(x, y)) > _ORTHONORMAL_TOLERANCE:
            raise ValueError("image axes must be perpendicular")
        x = [value / lengths[0] for value in x]
        along = _dot(y, x)
        y = [value - other * along for value, other in zip(y, x, strict=True)]
        length = math.sqrt(_dot(y, y))
        object.__setattr__(self, "origin_mm", np.array(origin))
        object.__setattr__(self, "x_axis", np.array(x))
        object.__setattr__(self, "y_axis", np.array([value / length for value in y]))
        spacing = tuple(float(value) for value in self.spacing_mm)
        if len(spacing) != 2 or not all(math.isfinite(v) and v > 0 for v in spacing):
            raise ValueError(f"spacing_mm must be 2 positive numbers, but got {self.spacing_mm}")
        object.__setattr__(self, "spacing_mm", spacing)
        shape = tuple(int(value) for value in self.shape)
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"shape must be 2 positive integers, but got {self.shape}")
        object.__setattr__(self, "shape", shape)

    @classmethod
    def from_dicom(
        cls,
        position: ArrayLike,
        orientation: ArrayLike,
        pixel_spacing: ArrayLike,
        shape: tuple[int, int],
    ) -> SlicePlane:
        """Build from ImagePositionPatient (3), ImageOrientationPatient (6) and PixelSpacing (row, column).

        ``shape`` is (rows, columns).
        """
        axes = np.asarray(orientation, dtype=np.float64).reshape(2, 3)
        between_rows, between_columns = np.asarray(pixel_spacing, dtype=np.float64).tolist()
        origin = np.asarray(position, dtype=np.float64)
        return cls(origin, axes[0], axes[1], (between_columns, between_rows), shape)

    @cached_property
    def normal(self) -> FloatArray:
        """(3,) unit vector x_axis × y_axis."""
        return np.array(self._axes[2])

    @cached_property
    def _axes(self) -> tuple[list[float], list[float], list[float]]:
        """Columns, rows and normal, for one point: plain floats take a fraction of numpy's time."""
        x, y = self.x_axis.tolist(), self.y_axis.tolist()
        (a, b, c), (d, e, f) = x, y
        return x, y, [b * f - c * e, c * d - a * f, a * e - b * d]

    @cached_property
    def orientation(self) -> Orientation:
        """The plane whose axis the normal is nearest to; between axial and coronal it is axial up to 64°."""
        cosines = np.abs(self.normal)
        axis = int(np.argmax(cosines))
        if axis == 1 and cosines[2] >= SAME_ORIENTATION_COSINE:
            axis = 2
        return (Orientation.SAGITTAL, Orientation.CORONAL, Orientation.AXIAL)[axis]

    @cached_property
    def centre_mm(self) -> FloatArray:
        """(3,) centre of the image, patient LPS."""
        rows, columns = self.shape
        return self.to_mm([(columns - 1) / 2, (rows - 1) / 2])

    @property
    def heights_mm(self) -> FloatArray:
        """(2,) lowest and highest z of the pixels, patient LPS."""
        rows, columns = self.shape
        z = self.to_mm([[0, 0], [columns - 1, 0], [0, rows - 1], [columns - 1, rows - 1]])[:, 2]
        return np.array([z.min(), z.max()])

    def to_mm(self, xy_px: ArrayLike) -> FloatArray:
        """Map pixels (..., 2) to patient LPS millimetres (..., 3)."""
        xy = np.asarray(xy_px, dtype=np.float64)
        return (
            self.origin_mm
            + xy[..., :1] * self.spacing_mm[0] * self.x_axis
            + xy[..., 1:2] * self.spacing_mm[1] * self.y_axis
        )

    def to_px(self, xyz_mm: ArrayLike) -> FloatArray:
        """Project patient points (..., 3) onto the plane along its normal: pixels (..., 2)."""
        offset = np.asarray(xyz_mm, dtype=np.float64) - self.origin_mm
        if offset.ndim == 1:
            point, (x, y, _) = offset.tolist(), self._axes
            return np.array([_dot(point, x) / self.spacing_mm[0], _dot(point, y) / self.spacing_mm[1]])
        found = np.empty((*offset.shape[:-1], 2))
        found[..., 0] = offset @ self.x_axis / self.spacing_mm[0]
        found[..., 1] = offset @ self.y_axis / self.spacing_mm[1]
        return found

    def distance_mm(self, xyz_mm: ArrayLike) -> FloatArray:
        """Signed distance (...) of patient points (..., 3) from the plane, positive along ``normal``."""
        offset = np.asarray(xyz_mm, dtype=np.float64) - self.origin_mm
        if offset.ndim == 1:
            return np.asarray(_dot(offset.tolist(), self._axes[2]))[()]
        return offset @ self.normal

    def contains_px(self, xy_px: ArrayLike, margin_px: float = 0.0) -> NDArray[np.bool_]:
        """Whether pixels (..., 2) lie inside the image, at least ``margin_px`` from its border."""
        xy = np.asarray(xy_px, dtype=np.float64)
        rows, columns = self.shape
        if xy.ndim == 1:
            x, y = xy.tolist()
            across = -0.5 + margin_px <= x <= columns - 0.5 - margin_px
            return np.asarray(across and -0.5 + margin_px <= y <= rows - 0.5 - margin_px)[()]
        return (
            (xy[..., 0] >= -0.5 + margin_px)
            & (xy[..., 0] <= columns - 0.5 - margin_px)
            & (xy[..., 1] >= -0.5 + margin_px)
            & (xy[..., 1] <= rows - 0.5 - margin_px)
        )

    def shows(self, xyz_mm: ArrayLike, margin_px: float = 0.0) -> bool:
        """Whether a patient point (3,) lies before or behind the image, ``margin_px`` from its border."""
        return bool(self.contains_px(self.to_px(xyz_mm), margin_px))

    def projected(self, xyz_mm: FloatArray) -> FloatArray:
        """A patient point (3,) moved onto the plane, along its normal."""
        return xyz_mm - float(self.distance_mm(xyz_mm)) * self.normal

    def is_parallel_to(self, other: SlicePlane, tolerance_deg: float = 3.0) -> bool:
        """Whether the normals agree (either sign) within ``tolerance_deg`` degrees."""
        cosine = min(1.0, abs(float(self.normal @ other.normal)))
        return bool(np.degrees(np.arccos(cosine)) <= tolerance_deg)
