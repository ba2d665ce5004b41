"""Which of two acquisitions of one sequence is spoiled: blurred by motion, with ghosts, or noisy.

A sequence is taken again where the patient moved, and sometimes the first one was the better. Edges tell:
those of a blurred image are a fainter copy of the other's, where a noisy one has edges that the other lacks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from statistics import median
from typing import Any

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
# Coarse structures: .74 and more are left of them by blur, ghosts, noise, another coil. Where they fit best,
# .98 of a patient who moved by up to 10 mm, .65 and more of one who moved by a slice, .46 to .55 of real
# sagittal slices without fat.
_ALIKE, _UNLIKE = 0.65, 0.6
# A patient may have moved so far in the plane.
_MOVED_MM = 14.0
_BODY = 0.3
# Rows and columns of the middle half; smaller pictures show nothing.
_FEWEST_PX = 24


@dataclass(frozen=True)
class Beside:
    """A series beside another one of the same slices.

    Attributes:
        alike, alike_moved: correlation of the coarse structures as they lie, and where they fit best.
        edges, others_edges: how much of them lies in each image where it lies in the other: the other's edges
            are as many times as strong as its own.
        noise, others_noise: of the mean brightness.
    """

    alike: float
    alike_moved: float
    edges: float
    others_edges: float
    noise: float
    others_noise: float

    @property
    def is_spoiled(self) -> bool:
        """Whether it is clearly blurrier or noisier, and shows the same."""
        is_fainter = self.others_edges >= _FAINTER and self.edges < 1
        is_noisier = self.noise >= max(_NOISY, _NOISIER * self.others_noise) and self.edges < 1.1
        return self.alike >= _ALIKE and (is_fainter or is_noisier)

    @property
    def shows_something_else(self) -> bool:
        """Whether it does, as of the same slices without fat."""
        return self.alike_moved < _UNLIKE


def beside(series: Series, other: Series) -> Beside | None:
    """The median of what slices in the middle say that both series have; None where they say nothing."""
    pairs = [
        (series.main_stack[place], other.main_stack[place])
        for place in sorted({int(at * len(series.main_stack)) for at in _LOOKED_AT})
        if place < len(other.main_stack)
    ]
    seen = [found for one, two in pairs if (found := _beside(one, two)) is not None]
    if not seen:
        return None
    return Beside(*(median(getattr(one, item.name) for one in seen) for item in fields(Beside)))


def _beside(one: Slice, two: Slice) -> Beside | None:
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
    return Beside(
        alike=float(np.corrcoef(coarse[0][body], coarse[1][body])[0, 1]),
        alike_moved=_alike_moved(coarse[0], coarse[1], spacing_mm),
        edges=both / max(float(others @ others), 1e-12),
        others_edges=both / max(float(own @ own), 1e-12),
        noise=noise[0],
        others_noise=noise[1],
    )


def _alike_moved(image: NDArray[Any], other: NDArray[Any], spacing_mm: float) -> float:
    """Correlation of an image with the inner part of another one where that is most alike."""
    size = [max(1, round(length * spacing_mm / _COARSE_MM)) for length in image.shape[::-1]]
    small, others = (
        np.asarray(cv2.resize(one, size, interpolation=cv2.INTER_AREA)) for one in (image, other)
    )
    reach = min(round(_MOVED_MM / _COARSE_MM), (min(size) - 1) // 3)
    inner = np.ascontiguousarray(others[reach : size[1] - reach, reach : size[0] - reach])
    return float(np.nan_to_num(cv2.matchTemplate(small, inner, cv2.TM_CCOEFF_NORMED)).max())


def _middle(pixels: _Pixels) -> _Pixels:
    """The middle half of an image, where the spine is, above its darkest value."""
    rows, columns = pixels.shape
    part = pixels[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    return np.asarray(part - min(0.0, float(part.min())), dtype=np.float32)


def _noise(pixels: _Pixels, body: NDArray[np.bool_]) -> float:
    """The spread of what differs from pixel to pixel in both directions, as no tissue does."""
    steps = np.diff(np.diff(pixels, axis=0), axis=1)[body[1:, 1:]]
    return float(np.median(np.abs(steps))) / 0.6745 / 2 if steps.size else 0.0
