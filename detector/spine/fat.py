"""Whether fat is dark on what is called T1: it was suppressed, and nothing says so.

The graders of the foramina know the nerve within bright fat. Fat behind the canal and the fat of the marrow
are compared with discs, of which suppression takes nothing away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np

from data_prep.geometry import FloatArray
from data_prep.levels import SpineLevel, SpineLevels
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import LEVELS, Flag, Level, SeriesKind

# Over discs, on T1 of 600 RSNA studies at detected levels, none of which is without fat: the brightest fat
# behind the canal 1.39 and more (4.1 in the median), vertebrae 1.06 and more (1.6).
_DARK_FAT, _RATHER_DARK_FAT, _DARK_MARROW = 1.35, 2.0, 1.0
_SLICES, _FEWEST_LEVELS = 3, 3
# Behind the canal, and how much of it must be shown: farther there may be air.
_BEHIND_MM, _SHOWN_MM = np.arange(8.0, 110.0, 2.0), 50.0
_BLUR_MM = 2.0


def with_fat_doubted(study: Study, levels: SpineLevels) -> Study:
    """The study, and ``series_kind_disagrees`` for T1 on which fat is dark.

    Of a patient who seems to lie otherwise than the coordinates say, nobody knows what is behind the canal.
    """
    if Flag.ORIENTATION_DOUBTFUL in levels.flags:
        return study
    said = {note.series_id for note in study.rejections if note.reason is Reason.KIND_DISAGREES}
    message = "called Sagittal T1, but fat is dark, as where it is suppressed: read as it is called"
    notes = [
        Rejection(Reason.KIND_DISAGREES, message, series.study_id, series.series_id)
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
