"""Whether fluid is bright or dark where the spine was found: what is called T1 may be T2, and the reverse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray
from data_prep.levels import SpineLevel, SpineLevels
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import LEVELS, Level, SeriesKind

# Brightness of the canal over that of the vertebra before it. Mid-sagittal slices of 390 patients (Sudirman),
# at given points: T1 .28 to .61 (95 %; five pictures above are T2), T2 1.2 to 4.9; where both are there, that
# of T2 is 3 times as large and more in 95 %, and never smaller. 316 RSNA T2 at detected points: .75 to 8.3.
_EXCHANGED = 1.5
# On T1 the fluid is darker than the vertebrae: without this, a T1 that ends beside the canal may pass for T2.
_BRIGHTEST_OF_T1 = 0.9
# Of a series alone: metal in the vertebrae makes fluid look bright on T1, roots that fill the sac dark on T2.
_DARK_FOR_T2, _BRIGHT_FOR_T1 = 0.6, 1.5
_LEAST_VERTEBRAE = 2
_FARTHEST_SLICE_MM = 3.0
_CANAL_RADIUS_MM, _VERTEBRA_RADIUS_MM = 1.0, 3.0
_OTHER_KIND = {
    SeriesKind.SAGITTAL_T1: SeriesKind.SAGITTAL_T2,
    SeriesKind.SAGITTAL_T2: SeriesKind.SAGITTAL_T1,
}


def kinds_as_seen(study: Study, levels: SpineLevels) -> Study:
    """The study with T1 and T2 the other way round where the images say so; the same object where not.

    Each sagittal series that changes its kind is told (``series_kind_disagrees``). Of a patient with one kind
    alone nothing is changed, and what contradicts its name is told.
    """
    t1, t2 = (study.of_kind(kind) for kind in _OTHER_KIND)
    fluid = {
        item.series_id: seen
        for item in (*t1, *t2)
        if (seen := fluid_over_vertebra(item, levels.levels)) is not None
    }
    dark, bright = (next((fluid[s.series_id] for s in of if s.series_id in fluid), None) for of in (t1, t2))
    if dark is None or bright is None:
        notes = [_note(item, study) for item in (*t1, *t2) if _contradicts(item, fluid.get(item.series_id))]
        return _with(study, study.series, notes)
    if dark < _EXCHANGED * bright or bright > _BRIGHTEST_OF_T1:
        return study
    middle = (dark * bright) ** 0.5
    changed = {
        item.series_id
        for item in (*t1, *t2)
        if item.series_id in fluid
        and (item.kind is SeriesKind.SAGITTAL_T2) != (fluid[item.series_id] > middle)
    }
    series = tuple(_as_other(item) if item.series_id in changed else item for item in study.series)
    return _with(
        study, series, [_note(item, study, is_changed=True) for item in series if item.series_id in changed]
    )


def fluid_over_vertebra(series: Series, levels: Mapping[Level, SpineLevel]) -> float | None:
    """How bright the canal is over the vertebra before it, between neighbouring discs: the median.

    None where fewer than two vertebrae are shown by a slice through the canal.
    """
    found = []
    for upper, lower in pairwise(LEVELS):
        if upper not in levels or lower not in levels:
            continue
        canal_mm = (levels[upper].canal_mm + levels[lower].canal_mm) / 2
        vertebra_mm = (levels[upper].disc_mm + levels[lower].disc_mm) / 2
        item, distance_mm = series.nearest(canal_mm)
        if distance_mm > _FARTHEST_SLICE_MM:
            continue
        try:
            pixels = item.pixels()
        except DicomRejected:
            continue
        zero = min(0.0, float(pixels[::8, ::8].min()))  # a rescale intercept moves it
        canal = _mean_around(item, pixels, canal_mm, _CANAL_RADIUS_MM) - zero
        vertebra = _mean_around(item, pixels, vertebra_mm, _VERTEBRA_RADIUS_MM) - zero
        if np.isfinite(canal) and vertebra > 0:
            found.append(canal / vertebra)
    return median(found) if len(found) >= _LEAST_VERTEBRAE else None


def _mean_around(item: Slice, pixels: NDArray[np.float32], at_mm: FloatArray, radius_mm: float) -> float:
    """Mean of the pixels within a square; NaN where it lies outside."""
    column, row = (
        slice(max(0, round(place) - reach), max(0, round(place) + reach + 1))
        for place, reach in zip(
            item.plane.to_px(at_mm).tolist(),
            (max(1, round(radius_mm / spacing)) for spacing in item.plane.spacing_mm),
            strict=True,
        )
    )
    shown = pixels[row, column]
    return float(shown.mean()) if shown.size else float("nan")


def _contradicts(series: Series, fluid: float | None) -> bool:
    if fluid is None:
        return False
    return fluid < _DARK_FOR_T2 if series.kind is SeriesKind.SAGITTAL_T2 else fluid > _BRIGHT_FOR_T1


def _as_other(series: Series) -> Series:
    assert series.kind is not None
    return replace(series, kind=_OTHER_KIND[series.kind], kind_source="image")


def _note(series: Series, study: Study, *, is_changed: bool = False) -> Rejection:
    """What is said of a series; one that was changed is given as it is now."""
    assert series.kind is not None
    named = _OTHER_KIND[series.kind] if is_changed else series.kind
    fluid = "bright" if named is SeriesKind.SAGITTAL_T1 else "dark"
    what = f"taken for {series.kind.value}" if is_changed else "read as it is called"
    message = f"called {named.value}, but fluid is {fluid}: {what}"
    return Rejection(Reason.KIND_DISAGREES, message, study.study_id, series.series_id)


def _with(study: Study, series: tuple[Series, ...], notes: list[Rejection]) -> Study:
    if not notes:
        return study
    return replace(study, series=series, rejections=(*study.rejections, *notes))
