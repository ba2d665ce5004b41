"""Protects: inverted images, and those of a narrow window, are told from what scanners write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.greys import are_edited
from data_prep.phantom import make_study
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import Flag, SeriesKind
from pipeline.grade import _doubts

Pixels = NDArray[np.float32]


@cache
def study() -> Study:
    return make_study(152_003, size="small").study


def inverted(pixels: Pixels) -> Pixels:
    return pixels.max() - pixels


def windowed(pixels: Pixels) -> Pixels:
    low, high = np.percentile(pixels, (30, 78))
    return np.clip((pixels - low) / (high - low), 0, 1).astype(np.float32)


def changed(series: Series, change: Callable[[Pixels], Pixels]) -> Series:
    def of(item: Slice) -> Slice:
        return replace(item, read_pixels=lambda: change(item.pixels()))

    return replace(series, stacks=tuple(tuple(map(of, stack)) for stack in series.stacks))


@pytest.mark.parametrize("kind", SeriesKind)
@pytest.mark.parametrize("change", [inverted, windowed])
def test_edited_greys_are_told(kind: SeriesKind, change: Callable[[Pixels], Pixels]) -> None:
    (series, *_) = study().of_kind(kind)
    assert not are_edited(series)
    edited = changed(series, change)
    assert are_edited(edited)
    others = [item for item in study().series if item is not series]
    assert Flag.DEGRADED_INPUT in _doubts(replace(study(), series=(*others, edited)), {})
    unused = replace(edited, unused="repeated")
    assert _doubts(replace(study(), series=(*others, unused)), {}) == _doubts(study(), {}) == ()


def test_what_shows_nothing_is_not_called_edited() -> None:
    (series, *_) = study().of_kind(SeriesKind.SAGITTAL_T1)
    assert not are_edited(changed(series, np.zeros_like))
