"""Voxels without a value around the body: research volumes are often NaN outside of a mask."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.problems import Reason
from data_prep.read.dicom_limits import Refused

# Of the way from the darkest value to the 95th percentile. Around masks that hold the whole body 0 to 1 % of
# the border is brighter (slices of two patients); around broken strips, bands and blocks that reach the spine
# 7 to 100 %, with such a mask beside them, too.
_BRIGHT_FROM = 0.2
_MOST_BRIGHT = 0.02
_REPLACE = "if they are background, put its grey value in their place"


def without_nan(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image with the grey of the background where it has NaN around the body.

    NaN is background where it comes in from the edge of the slice, leaves the middle third free, and ends in
    the dark around the body. Nothing broken that reaches the spine does: it ends in tissue, or in the middle.

    Args:
        image: (rows, columns) one slice.

    Raises:
        Refused: infinite values, NaN alone, NaN within the image, or NaN that ends in tissue.
    """
    if np.isfinite(image).all():
        return image
    nan = np.isnan(image)
    found = image[~nan]
    if not len(found) or not np.isfinite(found).all():
        raise Refused(Reason.BAD_PIXELS, "voxel values are not finite")
    padded = np.pad(nan, 1, constant_values=True).astype(np.uint8)
    parts = cv2.connectedComponents(padded, connectivity=4)[1]
    rows, columns = (slice(size // 3, size - size // 3) for size in image.shape)
    if nan[rows, columns].any() or (nan & (parts[1:-1, 1:-1] != parts[0, 0])).any():
        raise Refused(Reason.BAD_PIXELS, f"voxels within the image are not a number: {_REPLACE}")
    beside = cv2.dilate(nan.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~nan
    darkest, bright = float(found.min()), float(np.percentile(found, 95))
    border = image[beside]
    if (border > darkest + _BRIGHT_FROM * (bright - darkest)).mean() > _MOST_BRIGHT:
        raise Refused(Reason.BAD_PIXELS, f"voxels are not a number as far as into tissue: {_REPLACE}")
    return np.where(nan, np.median(border), image).astype(np.float32)
