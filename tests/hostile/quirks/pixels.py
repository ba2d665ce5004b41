"""Quirks of what the images show: metal, noise, motion, shading, text, nothing at all."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.stored import Quirk, StoredImage, StoredStudy

Rng = np.random.Generator
Pixels = NDArray[np.float64]
METAL_RADIUS_MM = 13.0


def on_pixels(change: Callable[[Pixels, StoredImage, Rng], Pixels], kinds: tuple[SeriesKind, ...]) -> Quirk:
    """Other pixel values (rows, columns) of the series of some kinds."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        series = tuple(series_id for kind in kinds for series_id in study.ids_of(kind))
        return study.each(
            lambda image: image.with_pixels(change(image.pixels().astype(np.float64), image, rng)), series
        )

    return quirk


def noise(signal_to_noise: float) -> Quirk:
    """Rician noise: bright tissue (the 95th percentile) stands that many times above it."""

    def add(pixels: Pixels, image: StoredImage, rng: Rng) -> Pixels:
        sd = float(np.percentile(pixels, 95)) / signal_to_noise
        return np.hypot(pixels + rng.normal(0, sd, pixels.shape), rng.normal(0, sd, pixels.shape))

    return on_pixels(add, tuple(SeriesKind))


def shading(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A surface coil that gives five times as much signal at one end of the image as at the other."""

    def shade(pixels: Pixels, image: StoredImage, rng: Rng) -> Pixels:
        return pixels * np.geomspace(0.35, 1.75, pixels.shape[0])[:, None]

    return on_pixels(shade, tuple(SeriesKind))(study, rng)


def motion(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Breathing: two ghosts along the phase direction and a blur of one pixel."""

    def move(pixels: Pixels, image: StoredImage, rng: Rng) -> Pixels:
        ghosts = np.roll(pixels, pixels.shape[0] // 7, axis=0) + np.roll(
            pixels, -pixels.shape[0] // 7, axis=0
        )
        return np.asarray(cv2.GaussianBlur(0.8 * pixels + 0.12 * ghosts, (0, 0), 0.8))

    return on_pixels(move, tuple(SeriesKind))(study, rng)


def metal_at(points_mm: NDArray[np.float64]) -> Quirk:
    """Screws: within 13 mm of each point (n, 3) no signal, a bright rim around, shifted along the rows."""

    def spoil(pixels: Pixels, image: StoredImage, rng: Rng) -> Pixels:
        rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]].astype(np.float64)
        between_rows, between_columns = image.spacing_mm
        normal = np.cross(*image.axes)
        white = float(np.percentile(pixels, 99))
        for point in points_mm:
            offset = point - image.position_mm
            depth = float(offset @ normal)
            right = columns * between_columns - float(offset @ image.axes[0])
            down = rows * between_rows - float(offset @ image.axes[1])
            distance = np.sqrt(right**2 + down**2 + depth**2) / METAL_RADIUS_MM
            rim = np.exp(-(((distance - 1.15) / 0.12) ** 2)) * (down > 0)
            pixels = np.where(distance < 1, 0.0, pixels) + 1.4 * white * rim
        return pixels

    return on_pixels(spoil, tuple(SeriesKind))


def blank_ends(study: StoredStudy, rng: Rng) -> StoredStudy:
    """The outer two slices at both ends of every series are black."""

    def blank(images: list[StoredImage]) -> list[StoredImage]:
        last = len(images) - 1
        return [
            image.with_pixels(np.zeros(image.pixels().shape)) if min(n, last - n) < 2 else image
            for n, image in enumerate(images)
        ]

    return study.each_series(blank)


def blank(*kinds: SeriesKind) -> Quirk:
    """Series of these kinds are black."""
    return on_pixels(lambda pixels, image, rng: np.zeros_like(pixels), kinds)


def burned_in_text(study: StoredStudy, rng: Rng) -> StoredStudy:
    """A line of text at the top of every image."""

    def write(pixels: Pixels, image: StoredImage, rng: Rng) -> Pixels:
        drawn = np.zeros(pixels.shape, np.uint8)
        cv2.putText(drawn, "HOSPITAL 12:30 L", (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 255)
        return np.where(drawn > 127, pixels.max(), pixels)

    return on_pixels(write, tuple(SeriesKind))(study, rng)
