"""Looks at slices with one detector: pixels, canonical image, network, candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import SlicePlane
from data_prep.problems import DicomRejected
from data_prep.study import Series, Slice
from detector.look.candidates import CandidateConfig, SliceCandidate, slice_candidates
from detector.look.canonical import CanonicalImage, canonical_image
from detector.look.inference import SlicePredictor

# Which part of a slice is looked at.
Part = Callable[[Slice, SlicePlane], SlicePlane]


@dataclass(frozen=True, eq=False)
class SliceSighting:
    """What a detector sees on one slice; ``plane`` is the canonical grid that it looked at."""

    series: Series
    item: Slice
    plane: SlicePlane
    candidates: tuple[SliceCandidate, ...]


def look_at(
    slices: list[tuple[Series, Slice]],
    predictor: SlicePredictor,
    config: CandidateConfig,
    part: Part | None = None,
    ahead: Iterable[Slice] = (),
) -> list[SliceSighting]:
    """Candidates of several slices, in their order.

    ``part`` says which part of a slice is looked at; None: all of it. Slices ``ahead`` are decoded while the
    network computes: a study that remembers its pixels has them when they are looked at next.

    Slices that cannot be decoded are left out: whoever reads the study lists them, their neighbours serve.
    """
    spec = predictor.spec
    shown: list[tuple[Series, Slice, CanonicalImage]] = []

    def images() -> Iterator[NDArray[np.uint8]]:
        for series, item in slices:
            try:
                pixels = item.pixels()
            except DicomRejected:
                continue
            canonical = canonical_image(
                item.plane,
                pixels,
                mm_per_px=spec.mm_per_px,
                max_side_px=spec.max_canvas_px,
                part=None if part is None else partial(part, item),
            )
            shown.append((series, item, canonical))
            yield canonical.image
        for item in ahead:
            with suppress(DicomRejected):
                item.pixels()

    predictions = predictor.predict(images(), len(slices))
    return [
        SliceSighting(
            series,
            item,
            canonical.plane,
            tuple(
                slice_candidates(
                    prediction,
                    canonical,
                    spec,
                    config,
                    series_id=series.series_id,
                    instance_number=item.instance_number,
                    pad_px=pad,
                )
            ),
        )
        for (series, item, canonical), (prediction, pad) in zip(shown, predictions, strict=True)
    ]
