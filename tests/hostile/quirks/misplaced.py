"""Positions and tilts of slices that a program has made up, and a patient who moved within a series."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.stored import Quirk, StoredImage, StoredStudy

Rng = np.random.Generator
_Change = Callable[[list[StoredImage]], list[StoredImage]]


def _each(kind: SeriesKind, change: _Change) -> Quirk:
    return lambda study, rng: study.each_series(change, tuple(study.ids_of(kind)))


def another_step(kind: SeriesKind, factor: float) -> Quirk:
    """The slices of the series of a kind lie as many times as far from the middle one."""

    def change(images: list[StoredImage]) -> list[StoredImage]:
        normal, middle = np.cross(*images[0].axes), images[len(images) // 2].position_mm
        away = [float((image.position_mm - middle) @ normal) for image in images]
        return [
            image.in_geometry(image.position_mm + (factor - 1) * mm * normal)
            for image, mm in zip(images, away, strict=True)
        ]

    return _each(kind, change)


def axes_of_the_patient(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Axial slices say that they are not tilted; their positions are as they were."""
    straight = np.eye(3)[:2]
    own = tuple(study.ids_of(SeriesKind.AXIAL_T2))
    return study.each(lambda image: image.in_geometry(image.position_mm, straight), own)


def at_the_place_of_another(study: StoredStudy, rng: Rng) -> StoredStudy:
    """One sagittal T1 slice of one side says that it lies where one of the other side does."""

    def change(images: list[StoredImage]) -> list[StoredImage]:
        return [
            image.in_geometry(images[-4].position_mm) if place == 3 else image
            for place, image in enumerate(images)
        ]

    return _each(SeriesKind.SAGITTAL_T1, change)(study, rng)


def moved_between_packages(kind: SeriesKind, right_mm: float, down_mm: float) -> Quirk:
    """Every second slice shows the patient farther to the right and down in the image."""

    def moved(image: StoredImage) -> StoredImage:
        between_rows, between_columns = image.spacing_mm
        pixels = image.pixels().astype(np.float32)
        shift = np.array([[1, 0, right_mm / between_columns], [0, 1, down_mm / between_rows]], np.float32)
        size = pixels.shape[::-1]
        return image.with_pixels(cv2.warpAffine(pixels, shift, size, borderMode=cv2.BORDER_REPLICATE))

    return _each(kind, lambda images: [moved(image) if at % 2 else image for at, image in enumerate(images)])
