"""A spine that is bent sideways: what lay at x is shown at x + f(z)."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.geometry import Array, Rng, to_mm
from tests.hostile.quirks.stored import Quirk, StoredImage, StoredStudy


def bent(apex_mm: float) -> Quirk:
    """A spine bent to the patient's left in one bow, in the sagittal and the axial slices of a study.

    What lay at x is shown at x + f(z); f is largest in the middle of the sagittal view and 0 at its ends.
    """

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        sagittal = study.ids_of(SeriesKind.SAGITTAL_T2)
        ends = [_heights_mm(image) for image in study.of(*sagittal)]
        low, high = min(z.min() for z in ends), max(z.max() for z in ends)

        def bow(z: Array) -> Array:
            return apex_mm * _bow_share(z, low, high)

        def moved(images: list[StoredImage]) -> list[StoredImage]:
            is_sagittal = abs(np.cross(*images[0].axes)[0]) > 0.7
            return _bent_sagittal(images, bow) if is_sagittal else [_bent_axial(one, bow) for one in images]

        return study.each_series(moved)

    return quirk


def bent_to_the_edge(canals_mm: Array) -> Quirk:
    """As ``bent``, as far as takes the first of the levels onto the last slice at the patient's left.

    Args:
        canals_mm: (levels, 3) where they lie before.
    """

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        images = study.of(*study.ids_of(SeriesKind.SAGITTAL_T2))
        last = max(images, key=lambda image: image.position_mm[0])
        normal = np.cross(*last.axes)
        room_mm = (last.position_mm - canals_mm) @ normal / normal[0]
        heights = np.concatenate([_heights_mm(image) for image in images])
        share = _bow_share(canals_mm[:, 2], heights.min(), heights.max())
        return bent(float(min(room_mm[share > 0.3] / share[share > 0.3])))(study, rng)

    return quirk


def _bow_share(z_mm: Array, low_mm: float, high_mm: float) -> Array:
    """Of the bow's largest movement, what it moves by at a height."""
    return np.asarray(np.sin(np.clip((z_mm - low_mm) / (high_mm - low_mm), 0.0, 1.0) * np.pi) ** 2)


def _heights_mm(image: StoredImage) -> Array:
    """(rows,) z of the middle of each row."""
    rows, columns = image.pixels().shape
    return np.array([to_mm(image, (columns - 1) / 2, row)[2] for row in range(rows)])


def _bent_sagittal(images: list[StoredImage], bow: Callable[[Array], Array]) -> list[StoredImage]:
    x = np.array([image.position_mm[0] for image in images])
    order = np.argsort(x)
    volume = np.stack([images[i].pixels() for i in order]).astype(np.float64)
    found = []
    for image, at in zip(images, x, strict=True):
        rows = np.arange(volume.shape[1])
        place = np.interp(at - bow(_heights_mm(image)), x[order], np.arange(len(x)))
        low = np.floor(place).astype(int)
        share = (place - low)[:, None]
        high = np.minimum(low + 1, len(x) - 1)
        found.append(image.with_pixels((1 - share) * volume[low, rows] + share * volume[high, rows]))
    return found


def _bent_axial(image: StoredImage, bow: Callable[[Array], Array]) -> StoredImage:
    rows, columns = image.pixels().shape
    z = to_mm(image, (columns - 1) / 2, (rows - 1) / 2)[2:]
    moved_px = float(bow(z)[0]) / image.spacing_mm[1] * np.sign(image.axes[0][0])
    shift = np.array([[1.0, 0.0, moved_px], [0.0, 1.0, 0.0]])
    pixels = image.pixels().astype(np.float32)
    return image.with_pixels(cv2.warpAffine(pixels, shift, (columns, rows), borderMode=cv2.BORDER_REPLICATE))
