"""Which of two acquisitions of one sequence is spoiled: blurred by motion, with ghosts, or noisy.

A sequence is taken again where the patient moved, and sometimes the first one was the better. Edges tell:
those of a blurred image are a fainter copy of the other's, where a noisy one has edges that the other lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.problems import DicomRejected
from data_prep.study import Series, Slice

_Pixels = NDArray[np.float32]

_LOOKED_AT = (0.35, 0.5, 0.65)
# Structures between these sizes are edges.
_FINE_MM, _COARSE_MM = 0.7, 2.0
# Each series of the two real studies and 20 synthetic ones (seeds 216000 …) beside itself. If it is blurred
# over 1.2 mm, the original has 1.27 times the edges and more, 1.5 in the median; with ghosts of a quarter 1.2
# to 1.35; with another coil, enhancing tissue, or as much noise again 1.15 and less.
_FAINTER = 1.25
# In terms of the mean: .02 to .06 of the real ones, .2 and more with noise of a quarter of the signal.
_NOISY, _NOISIER = 0.12, 2.5
# Coarse structures of images that show something else, as without fat: .6 and less of the real ones.
_ALIKE = 0.65
_BODY = 0.3
# Rows and columns of the middle half; smaller pictures show nothing.
_FEWEST_PX = 24


@dataclass(frozen=True)
class _Beside:
    """An image beside another one of the same slice.

    Attributes:
        alike: correlation of the coarse structures.
        edges, others_edges: how much of them lies in each image where it lies in the other: the other's edges
            are as many times as strong as its own.
        noise, others_noise: of the mean brightness.
    """

    alike: float
    edges: float
    others_edges: float
    noise: float
    others_noise: float


def is_spoiled(series: Series, other: Series) -> bool:
    """Whether a series is clearly blurrier or noisier than another one of the same slices.

    Slices in the middle are compared that both have; False where none can be decoded or they differ in what
    they show.
    """
    pairs = [
        (series.main_stack[place], other.main_stack[place])
        for place in sorted({int(at * len(series.main_stack)) for at in _LOOKED_AT})
        if place < len(other.main_stack)
    ]
    seen = [beside for one, two in pairs if (beside := _beside(one, two)) is not None]
    if not seen:
        return False
    alike, edges, others_edges, noise, others_noise = (
        median(getattr(one, name) for one in seen) for name in _Beside.__dataclass_fields__
    )
    is_fainter = others_edges >= _FAINTER and edges < 1
    is_noisier = noise >= max(_NOISY, _NOISIER * others_noise) and edges < 1.1
    return alike >= _ALIKE and (is_fainter or is_noisier)


def _beside(one: Slice, two: Slice) -> _Beside | None:
    """None where an image cannot be decoded, is tiny or shows nothing, or they have different shapes."""
    try:
        pixels = [_middle(item.pixels()) for item in (one, two)]
    except DicomRejected:
        return None
    if pixels[0].shape != pixels[1].shape or min(pixels[0].shape) < _FEWEST_PX:
        return None
    spacing_mm = float(np.mean(one.plane.spacing_mm))
    fine, coarse = (
        [np.asarray(cv2.GaussianBlur(image, (0, 0), max(0.5, size_mm / spacing_mm))) for image in pixels]
        for size_mm in (_FINE_MM, _COARSE_MM)
    )
    body = np.logical_and(*(image > _BODY * np.percentile(image[::4, ::4], 90) for image in coarse))
    if not body.any() or any(float(image[body].std()) <= 0 for image in coarse):
        return None
    means = [float(image[body].mean()) for image in coarse]
    own, others = ((fine[at] - coarse[at])[body] / means[at] for at in (0, 1))
    both = float(own @ others)
    noise = [_noise(image, body) / mean for image, mean in zip(pixels, means, strict=True)]
    return _Beside(
        alike=float(np.corrcoef(coarse[0][body], coarse[1][body])[0, 1]),
        edges=both / max(float(others @ others), 1e-12),
        others_edges=both / max(float(own @ own), 1e-12),
        noise=noise[0],
        others_noise=noise[1],
    )


def _middle(pixels: _Pixels) -> _Pixels:
    """The middle half of an image, where the spine is, above its darkest value."""
    rows, columns = pixels.shape
    part = pixels[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    return np.asarray(part - min(0.0, float(part.min())), dtype=np.float32)


def _noise(pixels: _Pixels, body: NDArray[np.bool_]) -> float:
    """The spread of what differs from pixel to pixel in both directions, as no tissue does."""
    steps = np.diff(np.diff(pixels, axis=0), axis=1)[body[1:, 1:]]
    return float(np.median(np.abs(steps))) / 0.6745 / 2 if steps.size else 0.0
