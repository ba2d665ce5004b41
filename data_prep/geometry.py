"""Where a pixel lies in the patient, and back.

Conventions of the whole project:

- ``_px``: (column, row) = (x, y), zero-based, integers at pixel CENTRES.
- ``_mm``: DICOM patient coordinates, LPS: +x to the patient's left, +y to the back, +z to the head.
- Image arrays are indexed [row, column].

Formula: DICOM PS3.3 C.7.6.2.1.1 (Image Plane Module), equation C.7.6.2.1-1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

_ORTHONORMAL_TOLERANCE = 1e-2
# Axial slices follow the discs: an L5/S1 steeper than 64° is not known, nor a coronal slice tilted by 26°.
SAME_ORIENTATION_COSINE = float(np.cos(np.deg2rad(64.0)))


class Orientation(StrEnum):
    """The anatomical plane that a slice is nearest to."""

    SAGITTAL = "sagittal"
    CORONAL = "coronal"
    AXIAL = "axial"


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
        for name in ("origin_mm", "x_axis", "y_axis"):
            value = np.array(getattr(self, name), dtype=np.float64)
            if value.shape != (3,) or not all(map(math.isfinite, value.tolist())):
                raise ValueError(f"{name} must be 3 finite numbers, but got {value.tolist()}")
            object.__setattr__(self, name, value)
        # As np.linalg.norm, without its detours: a study makes hundreds of planes.
        lengths = math.sqrt(self.x_axis @ self.x_axis), math.sqrt(self.y_axis @ self.y_axis)
        if max(abs(lengths[0] - 1), abs(lengths[1] - 1)) > _ORTHONORMAL_TOLERANCE:
            raise ValueError(f"image axes must have length 1, but got {lengths[0]:.3f}, {lengths[1]:.3f}")
        if abs(float(self.x_axis @ self.y_axis)) > _ORTHONORMAL_TOLERANCE:
            raise ValueError("image axes must be perpendicular")
        x_axis = self.x_axis / lengths[0]
        y_axis = self.y_axis - x_axis * float(self.y_axis @ x_axis)
        object.__setattr__(self, "x_axis", x_axis)
        object.__setattr__(self, "y_axis", y_axis / math.sqrt(y_axis @ y_axis))
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
        between_rows, between_columns = (float(v) for v in np.asarray(pixel_spacing, dtype=np.float64))
        return cls(
            origin_mm=np.asarray(position, dtype=np.float64),
            x_axis=axes[0],
            y_axis=axes[1],
            spacing_mm=(between_columns, between_rows),
            shape=shape,
        )

    @cached_property
    def normal(self) -> FloatArray:
        """(3,) unit vector x_axis × y_axis."""
        # As np.cross, without its detours.
        (a, b, c), (d, e, f) = self.x_axis.tolist(), self.y_axis.tolist()
        return np.array([b * f - c * e, c * d - a * f, a * e - b * d])

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
        found = np.empty((*offset.shape[:-1], 2))
        found[..., 0] = offset @ self.x_axis / self.spacing_mm[0]
        found[..., 1] = offset @ self.y_axis / self.spacing_mm[1]
        return found

    def distance_mm(self, xyz_mm: ArrayLike) -> FloatArray:
        """Signed distance (...) of patient points (..., 3) from the plane, positive along ``normal``."""
        return (np.asarray(xyz_mm, dtype=np.float64) - self.origin_mm) @ self.normal

    def contains_px(self, xy_px: ArrayLike, margin_px: float = 0.0) -> NDArray[np.bool_]:
        """Whether pixels (..., 2) lie inside the image, at least ``margin_px`` from its border."""
        xy = np.asarray(xy_px, dtype=np.float64)
        rows, columns = self.shape
        return (
            (xy[..., 0] >= -0.5 + margin_px)
            & (xy[..., 0] <= columns - 0.5 - margin_px)
            & (xy[..., 1] >= -0.5 + margin_px)
            & (xy[..., 1] <= rows - 0.5 - margin_px)
        )

    def is_parallel_to(self, other: SlicePlane, tolerance_deg: float = 3.0) -> bool:
        """Whether the normals agree (either sign) within ``tolerance_deg`` degrees."""
        cosine = min(1.0, abs(float(self.normal @ other.normal)))
        return bool(np.degrees(np.arccos(cosine)) <= tolerance_deg)
