"""From the point of a target to the crop that its grader looks at."""

from __future__ import annotations

from classifier.config import CropConfig
from data_prep.crops import Crop, extract_crop
from data_prep.study_types import LevelPoint, Series, Study
from data_prep.vocabulary import ConditionGroup, SeriesKind, Side

# Where a level is looked at a second time. The recess is graded on axial slices, the others on sagittal ones.
SECOND_VIEW = {
    ConditionGroup.SPINAL: SeriesKind.AXIAL_T2,
    ConditionGroup.FORAMINAL: SeriesKind.AXIAL_T2,
    ConditionGroup.SUBARTICULAR: SeriesKind.SAGITTAL_T2,
}

NO_SERIES = "no_series"
NO_SLICE = "no_slice"


def series_for(study: Study, point: LevelPoint, kind: SeriesKind | None = None) -> Series | None:
    """The series on which a point is graded: its own if of the right kind, else the one that shows it best.

    ``kind`` asks for another kind than the condition is read on. None when the study has no such series.
    """
    candidates = study.of_kind(kind or point.condition.series_kind)
    for series in candidates:
        if series.series_id == point.series_id:
            return series

    def cost(series: Series) -> tuple[bool, float]:
        item, distance_mm = series.nearest(point.xyz_mm)
        return not item.plane.contains_px(item.plane.to_px(point.xyz_mm)), distance_mm

    return min(candidates, key=cost, default=None)


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
        The crop, or why there is none: ``no_series``, or ``no_slice`` when no readable slice shows the point
        within one slice gap.
    """
    series = series_for(study, point, kind)
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
