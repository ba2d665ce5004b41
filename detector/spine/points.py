"""The point of every target: predicted from the levels by geometry, placed on the slice that shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_prep.geometry import FloatArray, SlicePlane
from data_prep.levels import LevelPoint, PointSource, Sight, SpineLevel
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import TARGETS, ConditionGroup, Level, SeriesKind
from detector.look.canonical import around
from detector.look.sightings import Part
from detector.spine.levels import UNCERTAINTY_MM, condition_point_mm


def all_points(study: Study, levels: Mapping[Level, SpineLevel], sagittal: Series) -> tuple[LevelPoint, ...]:
    """One point per target of every level that is present, in the order of ``TARGETS``.

    A target's point is placed on a slice of the series kind that its condition is read on; without one
    within a slice gap the point has a place in the patient but no slice.

    Args:
        sagittal: the series that decided the levels; canal points stay on it when it is a T2.
    """
    points = []
    for target in TARGETS:
        level = levels.get(target.level)
        if level is None:
            continue
        condition = target.condition
        spinal = condition.group is ConditionGroup.SPINAL
        xyz = condition_point_mm(condition, target.level, level.canal_mm, level.frame)
        extra = UNCERTAINTY_MM[condition.group]
        point = LevelPoint(
            condition=condition,
            level=target.level,
            xyz_mm=xyz,
            source=level.source if spinal else PointSource.PREDICTED,
            confidence=level.confidence,
            uncertainty_mm=float((level.uncertainty_mm**2 + extra**2) ** 0.5),
        )
        own = (
            (sagittal,)
            if spinal and sagittal.kind is SeriesKind.SAGITTAL_T2
            else study.of_kind(condition.series_kind)
        )
        points.append(placed(point, own))
    return tuple(points)


def moved_sideways(
    study: Study,
    levels: Mapping[Level, SpineLevel],
    points: tuple[LevelPoint, ...],
    sagittal: Series,
    aside_mm: Mapping[Level, float],
) -> tuple[dict[Level, SpineLevel], tuple[LevelPoint, ...]]:
    """Levels, canal points and foramina moved to where axial slices show the canal.

    Args:
        aside_mm: how far to the patient's left, by level; see ``detector.spine.axial.sideways_mm``.
    """
    moved = {at: level.moved(aside_mm.get(at, 0.0) * level.frame.left) for at, level in levels.items()}
    fresh = {(point.condition, point.level): point for point in all_points(study, moved, sagittal)}
    recess = ConditionGroup.SUBARTICULAR
    return moved, tuple(
        point if point.condition.group is recess else fresh[point.condition, point.level] for point in points
    )


def foramina_sideways(
    study: Study,
    levels: Mapping[Level, SpineLevel],
    points: tuple[LevelPoint, ...],
    aside_mm: Mapping[Level, float],
) -> tuple[LevelPoint, ...]:
    """Foramina expected beside where axial slices show the canal; other points as they are.

    Args:
        aside_mm: how far to the patient's left, by level.
    """
    return tuple(
        placed(
            replace(point, xyz_mm=point.xyz_mm + aside_mm[point.level] * levels[point.level].frame.left),
            study.of_kind(point.condition.series_kind),
        )
        if point.condition.group is ConditionGroup.FORAMINAL and point.level in aside_mm
        else point
        for point in points
    )


@dataclass(frozen=True)
class SeenConfig:
    """When a detection replaces the prediction of the geometry.

    Attributes:
        max_slice_distance_mm: slices farther from the expected point are not looked at.
        max_from_geometry_mm: in-plane distance of a detection from where geometry expects it.
        full_trust_mm: within this distance the detection is taken as it is; up to the limit it is
            drawn back more and more to where geometry expects it.
        uncertainty_mm: expected error of a point that was seen.
        min_score: of the detection.
        context_mm: how far around the expected points a slice is looked at; None looks at all of it.
    """

    max_slice_distance_mm: float
    max_from_geometry_mm: float
    full_trust_mm: float
    uncertainty_mm: float
    min_score: float = 0.3
    context_mm: float | None = 38.0

    def part_around(self, points_mm: Sequence[FloatArray], reach_mm: float) -> Part | None:
        """Which part of a slice is looked at: the points that lie so near to it, and the context."""
        if (context_mm := self.context_mm) is None:
            return None

        def part(item: Slice, grid: SlicePlane) -> SlicePlane:
            near = [xyz for xyz in points_mm if abs(float(item.plane.distance_mm(xyz))) <= reach_mm]
            return around(grid, near, context_mm)

        return part

    def seen(
        self, point: LevelPoint, expected_mm: FloatArray, seen_mm: FloatArray, series: Series, item: Slice
    ) -> LevelPoint:
        """The point (3,) where a slice shows it, drawn back to where geometry expects it in its plane."""
        xyz_mm = agreed(
            expected_mm, seen_mm, full_trust_mm=self.full_trust_mm, limit_mm=self.max_from_geometry_mm
        )
        return replace(
            point,
            xyz_mm=xyz_mm,
            source=PointSource.SEEN,
            uncertainty_mm=self.uncertainty_mm,
            sight=Sight.of(series, item, xyz_mm),
        )


def agreed(
    expected_mm: FloatArray, seen_mm: FloatArray, *, full_trust_mm: float, limit_mm: float
) -> FloatArray:
    """A seen point, drawn back to where geometry expects it as far as the two disagree.

    Within ``full_trust_mm`` of each other the image is believed; the share of the image then falls in a
    straight line to nothing at ``limit_mm``, so that a detection of the wrong structure does little harm.

    Args:
        expected_mm, seen_mm: (..., 3) in one plane.
    """
    apart = np.linalg.norm(seen_mm - expected_mm, axis=-1, keepdims=True)
    trust = np.clip((limit_mm - apart) / max(limit_mm - full_trust_mm, 1e-6), 0.0, 1.0)
    return np.asarray(expected_mm + trust * (seen_mm - expected_mm))


def placed(point: LevelPoint, series: tuple[Series, ...]) -> LevelPoint:
    """The point on the nearest slice, over several series, that shows it within one slice gap."""
    nearest_mm = np.inf
    for candidate in series:
        item, distance_mm = candidate.nearest(point.xyz_mm)
        sight = Sight.of(candidate, item, point.xyz_mm)
        shown = bool(item.plane.contains_px(sight.xy_px))
        if shown and distance_mm <= candidate.gap_mm(item) and distance_mm < nearest_mm:
            point, nearest_mm = replace(point, sight=sight), distance_mm
    return point
