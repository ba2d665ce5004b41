"""Images that a converter has mirrored, turned or put into reverse order, under headers as they were."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks import files
from tests.hostile.quirks.files import Rng
from tests.hostile.quirks.stored import Quirk, StoredImage, StoredStudy

FLIPS: dict[str, Callable[[NDArray[np.uint16]], NDArray[np.uint16]]] = {
    "mirrored": lambda pixels: pixels[:, ::-1],
    "upended": lambda pixels: pixels[::-1],
    "half a turn": lambda pixels: pixels[::-1, ::-1],
}


def flipped(kind: SeriesKind, flip: str) -> Quirk:
    """Every image of the series of a kind mirrored or turned in its plane: one of ``FLIPS``."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        own = tuple(study.ids_of(kind))
        return study.each(lambda image: image.with_pixels(FLIPS[flip](image.pixels())), own)

    return quirk


def transposed(kind: SeriesKind) -> Quirk:
    """Columns and rows of every image of a kind exchanged, squares of them, under headers as they were."""

    def exchanged(image: StoredImage) -> StoredImage:
        pixels = image.pixels()
        missing = [(0, max(pixels.shape) - length) for length in pixels.shape]
        return image.with_pixels(np.pad(pixels, missing).T)

    return lambda study, rng: study.each(exchanged, tuple(study.ids_of(kind)))


def reversed_order(*kinds: SeriesKind) -> Quirk:
    """The images of each series of these kinds in reverse order, by the numbers of their files."""

    def change(images: list[StoredImage]) -> list[StoredImage]:
        images = sorted(images, key=lambda image: int(image.name.removesuffix(".dcm")))
        others = [image.pixels() for image in reversed(images)]
        return [image.with_pixels(pixels) for image, pixels in zip(images, others, strict=True)]

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        return study.each_series(change, tuple(s for kind in kinds for s in study.ids_of(kind)))

    return quirk


def without(kind: SeriesKind, then: Quirk) -> Quirk:
    """The series of a kind left out, and another quirk."""
    return lambda study, rng: then(files.without(kind)(study, rng), rng)
