"""From the point of a target to the crop that its grader looks at."""

from __future__ import annotations

from classifier.config import CropConfig
from data_prep.crops import Crop, extract_crop
from data_prep.study_types import LevelPoint, Series, Study
from data_prep.vocabulary import Side

NO_SERIES = "no_series"
NO_SLICE = "no_slice"


def series_for(study: Study, point: LevelPoint) -> Series | None:
    """The series on which a point is graded: its own if of the right kind, else the one that shows it best.

    None when the study has no series of the kind on which the condition is read.
    """
    candidates = study.of_kind(point.condition.series_kind)
    for series in candidates:
        if series.series_id == point.series_id:
            return series

    def cost(series: Series) -> tuple[bool, float]:
        item, distance_mm = series.nearest(point.xyz_mm)
        return not item.plane.contains_px(item.plane.to_px(point.xyz_mm)), distance_mm

    return min(candidates, key=cost, default=None)


def target_crop(study: Study, point: LevelPoint, config: CropConfig, *, cached: bool = False) -> Crop | str:
    """Cut the crop of one target; right sides are mirrored onto the left.

    Args:
        cached: cut the larger crop that training jitters in.

    Returns:
        The crop, or why there is none: ``no_series``, or ``no_slice`` when no readable slice shows the point
        within one slice gap.
    """
    series = series_for(study, point)
    if series is None:
        return NO_SERIES
    nearest, distance_mm = series.nearest(point.xyz_mm)
    if distance_mm > series.gap_mm(nearest):
        return NO_SLICE
    if not nearest.plane.contains_px(nearest.plane.to_px(point.xyz_mm)):
        return NO_SLICE
    crop = extract_crop(
        series,
        point.xyz_mm,
        size_mm=config.cached_size_mm if cached else config.size_mm,
        size_px=config.cached_size_px if cached else config.size_px,
        slices=config.cached_slices if cached else config.slices,
        mirror=point.condition.side is Side.RIGHT,
        slice_step_mm=config.slice_step_mm,
    )
    return crop if crop.valid[len(crop.valid) // 2] else NO_SLICE
