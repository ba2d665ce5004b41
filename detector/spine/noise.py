"""How far the signal of an image stands above its noise, told from the image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.crops import percentiles

# Blind to constant, linear and bilinear signal; the sum of its squares is 36. After J. Immerkær, Fast noise
# variance estimation, Computer Vision and Image Understanding 64 (1996) 300–302; with the median instead of
# the mean, because edges are few.
_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
_SIDE_PX = 192  # of the middle of the image, which tells enough
_SD_OF_MEDIAN = 1 / 0.6745  # of a normal distribution, whose median absolute value is 0.6745 sd


def signal_to_noise(pixels: NDArray[np.float32]) -> float:
    """The 95th percentile of an image over the standard deviation of its noise; infinite without noise.

    Noise is measured in the brighter half of the image: that of magnitude images is smaller in air. Where
    the scanner has interpolated, noise is smooth and counts for less than it is.

    Args:
        pixels: (rows, columns), at least 3 × 3.
    """
    pixels = np.nan_to_num(_middle(pixels))
    rough = np.asarray(cv2.filter2D(pixels, cv2.CV_32F, _KERNEL), dtype=np.float32)[1:-1, 1:-1]
    smooth = np.asarray(cv2.blur(pixels, (5, 5)), dtype=np.float32)[1:-1, 1:-1]
    dark, signal = percentiles(smooth, (50, 95))
    noise = percentiles(np.abs(rough[smooth >= dark]), (50,))[0] * _SD_OF_MEDIAN / 6
    zero = min(0.0, float(smooth.min()))  # a rescale intercept moves it
    return (signal - zero) / noise if noise > 0 else float("inf")


def _middle(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = pixels.shape
    top, left = max(0, rows - _SIDE_PX) // 2, max(0, columns - _SIDE_PX) // 2
    return np.ascontiguousarray(pixels[top : top + _SIDE_PX, left : left + _SIDE_PX])
