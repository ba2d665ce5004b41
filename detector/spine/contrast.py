"""Whether fluid and fat are as bright as the names of series say: T1 may be T2, or have its fat suppressed.

The graders of the foramina know the nerve within bright fat. Fat behind the canal and the fat of the marrow
are compared with discs, of which suppression takes nothing away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray
from data_prep.levels import SpineLevel, SpineLevels
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import LEVELS, Flag, Level, SeriesKind

# Brightness of the canal over that of the vertebra before it, looked at in all parts of the data: nothing is
# trained here. Mid-sagittal slices of 390 patients (Sudirman) at given points: T1 .28 to .94, .61 in 95 % (of
# five above, three are T2, and the points of two lie beside the canal), T2 1.2 to 4.9; where both are there,
# that of T2 is 3 times as large and more in 95 %, and never smaller. RSNA T2 at detected points: 316 from .75
# on; 318 on which no limit was chosen from .67 on, but for .49 of one, which is a T1.
_EXCHANGED = 1.5
# On T1 the fluid is darker than the vertebrae: without this, a T1 that ends beside the canal may pass for T2.
_BRIGHTEST_OF_T1 = 0.9
# Of a series alone: metal in the vertebrae makes fluid look bright on T1, roots that fill the sac dark on T2.
_DARK_FOR_T2, _BRIGHT_FOR_T1 = 0.6, 1.5
# Below .75 where the canal is darker than the discs, too, which is rare on T2. A slice each of Sudirman,
# SPIDER and (T2 alone) RSNA, all called T2, at detected points. Train and validation, on which .75 was
# chosen: 415 of 419 T1 are told (405 by .6 alone), and one of 590 T2, as before; test: 54 of 56 (50), and
# none of 198.
_RATHER_DARK_FOR_T2, _DARKER_THAN_DISCS = 0.75, 1.0
# Canal over disc at discs, sagittal slices of the same patients: T1 .46 to .87, T2 1.2 and more. Axial T2 of
# 26 patients, most of them synthetic: .89 and more.
_DARK_FOR_AXIAL_T2 = 0.75
_LEAST_PLACES = 2
_FARTHEST_SAGITTAL_MM, _FARTHEST_AXIAL_MM = 3.0, 4.0
_CANAL_RADIUS_MM, _BEFORE_RADIUS_MM = 1.0, 3.0
_AS_CALLED = "read as it is called"
_DOUBTS = {Flag.ORIENTATION_DOUBTFUL, Flag.AXIAL_DISAGREES, Flag.SERIES_TURNED}
_OTHER_KIND = {
    SeriesKind.SAGITTAL_T1: SeriesKind.SAGITTAL_T2,
    SeriesKind.SAGITTAL_T2: SeriesKind.SAGITTAL_T1,
}
# Over discs, on T1 of 600 RSNA studies at detected levels, none of which is without fat: the brightest fat
# behind the canal 1.39 and more (4.1 in the median), vertebrae 1.06 and more (1.6).
_DARK_FAT, _RATHER_DARK_FAT, _DARK_MARROW = 1.35, 2.0, 1.0
_SLICES, _FEWEST_LEVELS = 3, 3
# Behind the canal, and how much of it must be shown: farther there may be air.
_BEHIND_MM, _SHOWN_MM = np.arange(8.0, 110.0, 2.0), 50.0
_BLUR_MM = 2.0


def kinds_as_seen(study: Study, levels: SpineLevels) -> Study:
    """The study with its series as what their images show; the same object where nothing contradicts.

    A sagittal T1 and T2 under each other's name change places. An axial series that is taken for T2 because
    nothing says what it is, and shows dark fluid, is not used (``series_kind_unknown``). Of a series that is
    called what it is not, and has no other to change places with, this is told alone. What contradicts its
    name is told as ``series_kind_disagrees``.
    """
    return _axial_as_seen(_sagittal_as_seen(study, levels), levels)


def _sagittal_as_seen(study: Study, levels: SpineLevels) -> Study:
    t1, t2 = (study.of_kind(kind) for kind in _OTHER_KIND)
    fluid = {
        item.series_id: seen
        for item in (*t1, *t2)
        if (seen := fluid_over_vertebra(item, levels.levels)) is not None
    }
    dark, bright = (next((fluid[s.series_id] for s in of if s.series_id in fluid), None) for of in (t1, t2))
    if dark is None or bright is None:
        notes = [
            _note(item, f"{item.kind}, but fluid is {shown}: {_AS_CALLED}")
            for item in (*t1, *t2)
            if (shown := _contradicts(item, fluid.get(item.series_id), levels.levels))
        ]
        return _with(study, study.series, notes)
    if dark < _EXCHANGED * bright or bright > _BRIGHTEST_OF_T1:
        return study
    middle = (dark * bright) ** 0.5
    changed = {
        item.series_id: replace(item, kind=_OTHER_KIND[item.kind], kind_source="image")
        for item in (*t1, *t2)
        if item.kind is not None
        and item.series_id in fluid
        and (item.kind is SeriesKind.SAGITTAL_T2) != (fluid[item.series_id] > middle)
    }
    notes = []
    for item in (*t1, *t2):
        if (other := changed.get(item.series_id)) is not None:
            shown = "bright" if other.kind is SeriesKind.SAGITTAL_T2 else "dark"
            notes.append(_note(item, f"{item.kind}, but fluid is {shown}: taken for {other.kind}"))
    return _with(study, tuple(changed.get(item.series_id, item) for item in study.series), notes)


def _axial_as_seen(study: Study, levels: SpineLevels) -> Study:
    if _DOUBTS.intersection(levels.flags):  # discs and canal may lie elsewhere on them
        return study
    series, notes = list(study.series), []
    for item in study.of_kind(SeriesKind.AXIAL_T2):
        fluid = fluid_over_disc(item, levels.levels)
        if fluid is None or fluid >= _DARK_FOR_AXIAL_T2:
            continue
        if item.kind_source == "assumed":
            series[series.index(item)] = replace(item, kind=None)
            message = "nothing says what it shows, and its fluid is dark, as on no T2"
            notes.append(Rejection(Reason.UNKNOWN_KIND, message, item.study_id, item.series_id))
        else:
            notes.append(_note(item, f"{item.kind}, but fluid is dark: {_AS_CALLED}"))
    return _with(study, tuple(series), notes)


def fluid_over_vertebra(series: Series, levels: Mapping[Level, SpineLevel]) -> float | None:
    """How bright the canal of a sagittal series is over the vertebra before it, between neighbouring discs.

    Returns:
        The median; None where fewer than two vertebrae are shown by a slice through the canal.
    """
    places = [
        ((one.canal_mm + other.canal_mm) / 2, (one.disc_mm + other.disc_mm) / 2)
        for upper, lower in pairwise(LEVELS)
        if (one := levels.get(upper)) is not None and (other := levels.get(lower)) is not None
    ]
    return _brightness(series, places, _FARTHEST_SAGITTAL_MM)


def fluid_over_disc(
    series: Series, levels: Mapping[Level, SpineLevel], farthest_mm: float = _FARTHEST_AXIAL_MM
) -> float | None:
    """How bright the canal of a series is over the disc before it: the median.

    None where fewer than two discs are shown by slices that lie no farther from the canal.
    """
    return _brightness(series, [(at.canal_mm, at.disc_mm) for at in levels.values()], farthest_mm)


def _brightness(
    series: Series, places: Sequence[tuple[FloatArray, FloatArray]], farthest_mm: float
) -> float | None:
    """The median of the brightness at the first of two points over that at the second."""
    found = []
    for canal_mm, before_mm in places:
        item, distance_mm = series.nearest(canal_mm)
        if distance_mm > farthest_mm:
            continue
        try:
            pixels = item.pixels()
        except DicomRejected:
            continue
        zero = min(0.0, float(pixels[::8, ::8].min()))  # a rescale intercept moves it
        canal = _mean_around(item, pixels, canal_mm, _CANAL_RADIUS_MM) - zero
        before = _mean_around(item, pixels, before_mm, _BEFORE_RADIUS_MM) - zero
        if np.isfinite(canal) and before > 0:
            found.append(canal / before)
    return median(found) if len(found) >= _LEAST_PLACES else None


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


def _contradicts(series: Series, fluid: float | None, levels: Mapping[Level, SpineLevel]) -> str:
    """How fluid looks on a sagittal series alone, if that is not as its name says."""
    if fluid is None:
        return ""
    if series.kind is SeriesKind.SAGITTAL_T2:
        if _DARK_FOR_T2 <= fluid < _RATHER_DARK_FOR_T2:
            beside = fluid_over_disc(series, levels, _FARTHEST_SAGITTAL_MM)
            return "dark" if beside is not None and beside < _DARKER_THAN_DISCS else ""
        return "dark" if fluid < _DARK_FOR_T2 else ""
    return "bright" if fluid > _BRIGHT_FOR_T1 else ""


def _note(series: Series, what: str) -> Rejection:
    return Rejection(Reason.KIND_DISAGREES, f"called {what}", series.study_id, series.series_id)


def _with(study: Study, series: tuple[Series, ...], notes: list[Rejection]) -> Study:
    """The study with what the images say of its series, in place of what their headers said of the table."""
    if not notes:
        return study
    told = {(note.reason, note.series_id) for note in notes}
    before = [item for item in study.rejections if (item.reason, item.series_id) not in told]
    return replace(study, series=series, rejections=(*before, *notes))


def with_fat_doubted(study: Study, levels: SpineLevels) -> Study:
    """The study, and ``series_kind_disagrees`` for T1 on which fat is dark.

    Of a patient who seems to lie otherwise than the coordinates say, nobody knows what is behind the canal.
    """
    if Flag.ORIENTATION_DOUBTFUL in levels.flags:
        return study
    said = {note.series_id for note in study.rejections if note.reason is Reason.KIND_DISAGREES}
    notes = [
        _note(series, f"{series.kind}, but fat is dark, as where it is suppressed: {_AS_CALLED}")
        for series in study.of_kind(SeriesKind.SAGITTAL_T1)
        if series.series_id not in said and fat_is_dark(series, levels.levels)
    ]
    return replace(study, rejections=(*study.rejections, *notes)) if notes else study


def fat_is_dark(series: Series, levels: Mapping[Level, SpineLevel]) -> bool:
    """Whether fat is hardly brighter than discs on the slices nearest to the canal."""
    found = [levels[level] for level in LEVELS if level in levels]
    if len(found) < _FEWEST_LEVELS:
        return False
    middle_mm = np.mean([level.canal_mm for level in found], axis=0)
    slices = sorted(series.main_stack, key=lambda item: abs(float(item.plane.distance_mm(middle_mm))))
    seen = [told for item in slices[:_SLICES] if (told := _over_discs(item, found)) is not None]
    if not seen:
        return False
    fat, marrow = np.median(seen, axis=0)
    return bool(fat < _DARK_FAT or (fat < _RATHER_DARK_FAT and marrow < _DARK_MARROW))


def _over_discs(item: Slice, levels: list[SpineLevel]) -> tuple[float, float] | None:
    """How bright fat behind the canal and vertebrae are over discs; None where that is not shown."""
    try:
        pixels = item.pixels()
    except DicomRejected:
        return None
    x_mm, y_mm = item.plane.spacing_mm
    image = cv2.GaussianBlur(pixels - pixels.min(), (0, 0), sigmaX=_BLUR_MM / x_mm, sigmaY=_BLUR_MM / y_mm)

    def at(points_mm: FloatArray) -> FloatArray:
        """NaN outside of the image."""
        columns, rows = np.rint(item.plane.to_px(points_mm)).astype(int).T
        inside = (columns >= 0) & (rows >= 0) & (columns < image.shape[1]) & (rows < image.shape[0])
        return np.where(inside, image[rows * inside, columns * inside], np.nan)

    discs_mm = np.stack([level.disc_mm for level in levels])
    canal_mm = np.stack([level.canal_mm for level in levels])
    backward = canal_mm - discs_mm
    backward /= np.linalg.norm(backward, axis=1, keepdims=True)
    behind_mm = canal_mm[:, None] + _BEHIND_MM[:, None] * backward[:, None]
    discs = at(discs_mm)
    vertebrae = at(np.stack([(one + other) / 2 for one, other in pairwise(discs_mm)]))
    behind = at(behind_mm.reshape(-1, 3)).reshape(len(levels), -1)
    if (
        not (discs > 0).all()
        or not np.isfinite([*vertebrae, *behind[:, _BEHIND_MM <= _SHOWN_MM].ravel()]).all()
    ):
        return None
    fat = np.fmax.reduce(behind, axis=1)
    return float(np.median(fat / discs)), float(np.median(2 * vertebrae / (discs[1:] + discs[:-1])))
