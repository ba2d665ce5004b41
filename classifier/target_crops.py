"""From the point of a target to the crop that its grader looks at."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from classifier.config import CropConfig, GraderName
from data_prep.crops import WHITE_PERCENTILE, Crop, extract_crop, percentiles
from data_prep.levels import RECESSES, LevelPoint, SpineLevels, aside_along_a_line_mm
from data_prep.study import Series, Study
from data_prep.vocabulary import Condition, Flag, Level, SeriesKind, Side, Target

# A void of this radius, its middle this near to the point: as beside screws of 13 mm, whose bright rim
# changes grades 4 to 6 mm away, too. No target of 40 synthetic patients, half of them noisy, is taken for a
# void; at 11 mm one of the 1,000 would be.
_VOID_RADIUS_MM = 4.0
_VOID_REACH_MM = 10.0
# Where more than this share of what lies farther than a rim around the void is as dark, the image is dark
# (bright fat, few grey values), and such a place is no void; one of the large radius is, whatever the image.
_DARK_IMAGE_SHARE = 0.15
_RIM_MM = 3.0
_LARGE_VOID_RADIUS_MM = 9.0
# Of the crop's white, after its noise was smoothed; fluid on T1 has more.
_VOID_MAX = 0.05
_VOID_SMOOTHING_PX = 1.5
# Detectors move a level themselves that lies farther aside.
_MOST_ASIDE_MM = 7.0


def series_for(study: Study, point: LevelPoint, kind: SeriesKind | None = None) -> Series | None:
    """The series on which a point is graded: its own if of the right kind, else the one that shows it best.

    ``kind`` asks for another kind than the condition is read on. None when the study has no such series.
    """
    candidates = study.of_kind(kind or point.condition.series_kind)
    for series in candidates:
        if point.is_on(series):
            return series

    def cost(series: Series) -> tuple[bool, float]:
        item, distance_mm = series.nearest(point.xyz_mm)
        return not item.plane.shows(point.xyz_mm), distance_mm

    return min(candidates, key=cost, default=None)


def grader_point(grader: GraderName, levels: SpineLevels, target: Target) -> LevelPoint | None:
    """Where a grader looks for a target of its group; None when nothing is known of it."""
    if grader is GraderName.SPINAL_AXIAL:
        return axial_canal_point(levels, target.level)
    return levels.point(target.condition, target.level)


def reading_point(grader: GraderName, levels: SpineLevels, target: Target) -> LevelPoint | None:
    """Where a grader reads a target of a study that detectors looked at; see ``grader_point``.

    The canal's point lies in the middle of the sagittal slices, where readers mark it: which slice that is
    depends on how they were planned. The canal itself lies midway between its recesses: where these were
    seen, it is read on the sagittal slice there.
    """
    point = grader_point(grader, levels, target)
    if grader is not GraderName.SPINAL or point is None or target.level not in levels.levels:
        return point
    aside_mm = aside_along_a_line_mm(levels.levels, levels.points).get(target.level, 0.0)
    aside_mm = float(np.clip(aside_mm, -_MOST_ASIDE_MM, _MOST_ASIDE_MM))
    return replace(point, xyz_mm=point.xyz_mm + aside_mm * levels.levels[target.level].frame.left)


def axial_canal_point(levels: SpineLevels, level: Level) -> LevelPoint | None:
    """Where the canal of a level is looked at on axial slices: midway between its recesses.

    It is graded on the series of the left one. Without both of them the level's canal point, if there is one.
    """
    canal = levels.point(Condition.SPINAL_CANAL_STENOSIS, level)
    right, left = (levels.point(condition, level) for condition in RECESSES)
    if left is None or right is None:
        return canal
    own = canal or replace(left, condition=Condition.SPINAL_CANAL_STENOSIS)
    middle = (left.xyz_mm + right.xyz_mm) / 2
    return replace(own, xyz_mm=middle, sight=left.sight)


def target_crop(
    study: Study,
    point: LevelPoint,
    config: CropConfig,
    *,
    cached: bool = False,
    kind: SeriesKind | None = None,
) -> Crop | str:
    """Cut the crop of one target; right sides are mirrored onto the left.

    Args:
        cached: cut the larger crop that training jitters in.
        kind: look at the place in this kind of series instead of the one on which the condition is read.

    Returns:
        The crop, or why there is none: ``no_series``; ``no_slice`` when no readable slice shows the point
        within one slice gap; ``no_signal`` when that slice is blank or has a void at the point, as near metal
        (a training crop is not asked for signal).
    """
    series = series_for(study, point, kind)
    if series is None:
        return Flag.NO_SERIES
    nearest, distance_mm = found = series.nearest(point.xyz_mm)
    if distance_mm > series.gap_mm(nearest):
        return Flag.NO_SLICE
    crop = extract_crop(
        series,
        point.xyz_mm,
        size_mm=config.cached_size_mm if cached else config.size_mm,
        size_px=config.cached_size_px if cached else config.size_px,
        slices=config.cached_slices if cached else config.slices,
        mirror=point.condition.side is Side.RIGHT,
        slice_step_mm=config.slice_step_mm,
        resolution_mm=config.resolution_mm,
        seen_height_mm=None if cached else config.seen_height_mm,
        nearest=found,
    )
    if not crop.inside or not crop.valid[len(crop.valid) // 2]:
        return Flag.NO_SLICE
    if cached:
        return crop
    # Magnitude images have no negative signal: a rescale intercept has moved zero to the darkest pixel.
    zero = min(0.0, nearest.darkest)
    return crop if has_signal(crop.signal - np.float32(zero), config.step_mm) else Flag.NO_SIGNAL


def has_signal(shown: NDArray[np.float32], step_mm: float) -> bool:
    """Whether a slice around a point is neither blank nor void at the point.

    Args:
        shown: (size, size) signal, any scale; the point is its middle. Not black-subtracted: the darkest
            tissue has signal, too.
        step_mm: millimetres per pixel.
    """
    if not np.isfinite(shown).all():  # hardly ever, and much faster to find out
        shown = np.nan_to_num(shown)
    if shown.max() == shown.min():
        return False
    (white,) = percentiles(shown, (WHITE_PERCENTILE,))
    void = cv2.GaussianBlur(shown, (0, 0), _VOID_SMOOTHING_PX) < _VOID_MAX * white
    near = _near_middle(len(shown), step_mm)
    if not (void & near).any():
        return True
    padded = np.zeros((len(shown) + 2, len(shown) + 2), np.uint8)
    padded[1:-1, 1:-1] = void
    depth_mm = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1] * step_mm
    row, column = np.unravel_index(np.where(near, depth_mm, 0).argmax(), depth_mm.shape)
    radius_mm = float(depth_mm[row, column])
    if radius_mm < _VOID_RADIUS_MM or radius_mm >= _LARGE_VOID_RADIUS_MM:
        return radius_mm < _VOID_RADIUS_MM
    rows, columns = np.ogrid[: len(shown), : len(shown)]
    beyond = np.hypot(rows - row, columns - column) * step_mm > radius_mm + _RIM_MM
    return bool(void[beyond].mean() > _DARK_IMAGE_SHARE)


@cache
def _near_middle(size: int, step_mm: float) -> NDArray[np.bool_]:
    """Pixels (size, size) within reach of the point."""
    across = (np.arange(size) - (size - 1) / 2) * step_mm
    return np.asarray(np.hypot(across[:, None], across[None]) <= _VOID_REACH_MM)
