"""More variants: pixels whose header is wrong."""

from __future__ import annotations

import numpy as np

from tests.hostile.quirks.files import Rng
from tests.hostile.quirks.stored import Quirk, StoredStudy


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
