"""Variants of series of which slices are missing, and of whole ones that look as if some were."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_prep.vocabulary import SeriesKind
from tests.hostile.quirks.files import numbered
from tests.hostile.quirks.stored import Quirk, StoredImage

Images = list[StoredImage]


def middle(images: Images) -> Images:
    """All but the three in the middle."""
    first = len(images) // 2 - 1
    return [*images[:first], *images[first + 3 :]]


def one(images: Images) -> Images:
    """All but the one before the middle."""
    first = len(images) // 2 - 1
    return [*images[:first], *images[first + 1 :]]


def every_second(images: Images) -> Images:
    """The first, the third …"""
    return images[::2]


def first_third(images: Images) -> Images:
    """All but a third at the right, or at the feet."""
    return images[len(images) // 3 :]


def last_third(images: Images) -> Images:
    """All but a third at the left, or at the head."""
    return images[: len(images) - len(images) // 3]


def middle_third(images: Images) -> Images:
    """All but the third in the middle."""
    third = len(images) // 3
    return [*images[:third], *images[len(images) - third :]]


def both_sides(images: Images) -> Images:
    """All but two at either side, numbered as if there had been no more."""
    return [image.changed(InstanceNumber=n) for n, image in enumerate(images[2:-2], start=1)]


def lost(kind: SeriesKind, kept: Callable[[Images], Images]) -> Quirk:
    """Of the series of a kind only some slices are there."""

    return lambda study, rng: study.each_series(kept, tuple(study.ids_of(kind)))


def renumbered(change: Quirk) -> Quirk:
    """Then an export numbers images and files anew, from 1."""
    return lambda study, rng: anew(change(study, rng), rng)


def stated(change: Quirk) -> Quirk:
    """Headers say how many images their series had."""

    def say(images: Images) -> Images:
        return [image.changed(ImagesInAcquisition=len(images)) for image in images]

    return lambda study, rng: change(study.each_series(say), rng)


# Nothing is missing; every second number is, as where another echo was left out.
in_twos = numbered(lambda count, rng: 2 * np.arange(1, count + 1))
anew = numbered(lambda count, rng: np.arange(1, count + 1))
