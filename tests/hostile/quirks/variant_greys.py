"""Variants of grey values that a program has changed, and of a sequence that was acquired twice."""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.clinic import clinical
from tests.hostile.quirks.files import Rng
from tests.hostile.quirks.stored import StoredImage, StoredStudy

_SCALES = (0.15, 0.5, 0.3, 0.8)


def scaled_each(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Each slice on another scale, as some archives store them, and the slopes lost."""
    return clinical(study).each_series(
        lambda images: [
            image.with_pixels(image.pixels() * _SCALES[place % len(_SCALES)])
            for place, image in enumerate(images)
        ]
    )


def every_second_inverted(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Every second slice of each series inverted, and called MONOCHROME2 all the same."""
    return clinical(study).each_series(
        lambda images: [
            image.with_pixels(image.pixels().max() - image.pixels()) if place % 2 else image
            for place, image in enumerate(images)
        ]
    )


def folded_back(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The brightest values begin again at 0: too few bits were kept."""
    return clinical(study).each(
        lambda image: image.with_pixels(image.pixels() % np.ceil(np.percentile(image.pixels(), 95)))
    )


def of_few_greys(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Sixteen greys in each image."""

    def reduced(image: StoredImage) -> StoredImage:
        white = max(1.0, float(np.percentile(image.pixels(), 99.5)))
        return image.with_pixels(200 * np.floor(15 * np.clip(image.pixels() / white, 0, 1)))

    return clinical(study).each(reduced)


def folded_over(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Axial images of a field of view too narrow, what lies beside it folded over them."""

    def folded(image: StoredImage) -> StoredImage:
        pixels = image.pixels().astype(np.float64)
        beside = pixels.shape[1] // 4
        inner = pixels[:, beside:-beside].copy()
        inner[:, :beside] += pixels[:, -beside:]
        inner[:, -beside:] += pixels[:, :beside]
        origin = image.position_mm + image.axes[0] * image.spacing_mm[1] * beside
        return image.with_pixels(inner / 1.3).in_geometry(origin)

    return clinical(study).each(folded, tuple(study.ids_of(SeriesKind.AXIAL_T2)))


def moved(image: StoredImage) -> StoredImage:
    """Blurred, with two ghosts."""
    pixels = np.asarray(cv2.GaussianBlur(image.pixels().astype(np.float32), (0, 0), 2.0))
    far = len(pixels) // 10
    return image.with_pixels(0.6 * pixels + 0.2 * np.roll(pixels, far, 0) + 0.2 * np.roll(pixels, -far, 0))


def noisy(image: StoredImage) -> StoredImage:
    """A third of the brightness of bright tissue is noise."""
    pixels = image.pixels().astype(np.float64)
    spread = float(np.percentile(pixels, 95)) / 3
    one, other = np.random.default_rng(int(image.dataset.InstanceNumber)).normal(
        0, spread, (2, *pixels.shape)
    )
    return image.with_pixels(np.hypot(pixels + one, other))
