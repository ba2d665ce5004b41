"""A picture with points, brought to the scale at which a detector looks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray, SlicePlane
from detector.learn.slices import LabelledSlice
from detector.look.canonical import canonical_image
from detector.spec import DetectorSpec


def canonical_slice(
    pixels: NDArray[np.float32],
    plane: SlicePlane,
    names: tuple[str, ...],
    points_px: FloatArray,
    spec: DetectorSpec,
    patient: str,
    name: str,
) -> LabelledSlice:
    """A labelled slice at canonical scale.

    Args:
        points_px: (n, keypoints, 2) pixels of ``plane``, NaN where not annotated.
    """
    canonical = canonical_image(plane, pixels, mm_per_px=spec.mm_per_px, max_side_px=spec.max_canvas_px)
    keypoints = canonical.plane.to_px(plane.to_mm(points_px))
    return LabelledSlice(canonical.image, names, keypoints, patient, name)
