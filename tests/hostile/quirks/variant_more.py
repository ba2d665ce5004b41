"""More variants: pixels whose header is wrong, series that show nothing, images that are there twice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.clinic import clinical
from tests.hostile.quirks.files import Rng, added
from tests.hostile.quirks.stored import Quirk, StoredImage, StoredStudy

T2 = SeriesKind.SAGITTAL_T2


def beyond_bits(stored: int, *, signed: int = 0, brightest: int = 65535, high: int | None = None) -> Quirk:
    """Grey values up to ``brightest`` under a header that has room for fewer, or for half."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        factor = brightest // max(int(image.pixels().max()) for image in study.images)
        return study.each(
            lambda image: image.changed(
                PixelData=(image.pixels() * np.uint32(factor)).astype("<u2").tobytes(),
                BitsStored=stored,
                HighBit=stored - 1 if high is None else high,
                PixelRepresentation=signed,
            )
        )

    return quirk


def black(image: StoredImage) -> StoredImage:
    """The image without a signal."""
    return image.with_pixels(np.zeros_like(image.pixels()))


def cut_off(image: StoredImage) -> StoredImage:
    """The image with pixels that no decoder takes: bits that there are not."""
    return image.changed(BitsAllocated=12)


def all_of(kind: SeriesKind, change: Callable[[StoredImage], StoredImage]) -> Quirk:
    """Every image of a kind changed."""
    return lambda study, rng: clinical(study).each(change, tuple(study.ids_of(kind))).without_table()


def taken_again(kind: SeriesKind, change: Callable[[StoredImage], StoredImage], time: str) -> Quirk:
    """A kind acquired twice, and what came of it the second time."""

    def quirk(study: StoredStudy, rng: Rng) -> StoredStudy:
        study = clinical(study).each(lambda image: image.changed(AcquisitionTime="101500"))
        made = added(study, study.ids_of(kind)[0], 1, change, AcquisitionTime=time)
        return study.plus(*made).without_table()

    return quirk


def exported_twice(study: StoredStudy, rng: Rng) -> StoredStudy:
    """Every image twice in its series, the copy with an identifier of its own."""
    tree = clinical(study).as_tree()
    copies = [
        image.changed(SOPInstanceUID=f"{image.dataset.SOPInstanceUID}.9").at(f"{image.path}-2")
        for image in tree.images
    ]
    return tree.plus(*copies)


def in_dynamics(study: StoredStudy, rng: Rng) -> StoredStudy:
    """T2 acquired twice in one series, the times told by TemporalPositionIdentifier alone."""
    tree = clinical(study).as_tree()
    made = []
    for image in tree.of(*study.ids_of(T2)):
        number = int(image.dataset.InstanceNumber)
        noise = rng.normal(0, 3, image.pixels().shape)
        changed = image.with_pixels(
            image.pixels() + noise,
            TemporalPositionIdentifier=2,
            InstanceNumber=number + 500,
            SOPInstanceUID=f"{image.dataset.SOPInstanceUID}.2",
        )
        made.append(changed.at(f"{image.path}-2"))
    first = tree.each(lambda image: image.changed(TemporalPositionIdentifier=1), tuple(study.ids_of(T2)))
    return first.plus(*made)
