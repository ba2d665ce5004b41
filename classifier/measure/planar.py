"""A slice with in-plane millimetres: x along its columns, y along its rows, from the first pixel's centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_prep.crops import display_axes
from data_prep.geometry import FloatArray, SlicePlane
from data_prep.study import Slice


@dataclass(frozen=True, eq=False)
class PlanarSlice:
    """Pixels of a slice, and the way from the patient to its plane and back.

    Attributes:
        plane: pixel grid in the patient.
        pixels: float32 (rows, columns).
    """

    plane: SlicePlane
    pixels: NDArray[np.float32]

    @classmethod
    def of(cls, item: Slice) -> PlanarSlice:
        """Decode a slice. Raises DicomRejected."""
        return cls(item.plane, item.pixels())

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """(column distance, row distance)."""
        return self.plane.spacing_mm

    def to_mm2(self, xyz_mm: ArrayLike) -> FloatArray:
        """Patient points (..., 3), projected along the normal, to in-plane millimetres (..., 2)."""
        return self.plane.to_px(xyz_mm) * np.asarray(self.spacing_mm)

    def to_patient(self, xy_mm: ArrayLike) -> FloatArray:
        """In-plane millimetres (..., 2) to patient points (..., 3)."""
        return self.plane.to_mm(np.asarray(xy_mm) / np.asarray(self.spacing_mm))

    def along(self, direction: FloatArray) -> FloatArray:
        """(2,) in-plane unit vector of a patient direction (3,)."""
        found = np.array([direction @ self.plane.x_axis, direction @ self.plane.y_axis])
        return found / max(float(np.linalg.norm(found)), 1e-9)

    def displayed(self) -> tuple[FloatArray, FloatArray]:
        """In-plane unit vectors (2,) rightwards and downwards as the slice is shown."""
        right, down = display_axes(self.plane)
        return self.along(right), self.along(down)
