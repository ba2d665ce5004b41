"""Foramen points seen on sagittal T1 slices, where they agree with the geometry."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from data_prep.study_types import LevelPoint, PointSource, Series, Slice, Study
from data_prep.vocabulary import ConditionGroup, SeriesKind
from detector.candidates import CandidateConfig, SliceCandidate
from detector.inference import SlicePredictor
from detector.points import agreed
from detector.sightings import SliceSighting, look_at


@dataclass(frozen=True)
class ForamenConfig:
    """When a detection replaces the prediction of the geometry.

    Attributes:
        max_slice_distance_mm: slices farther from the expected point are not looked at.
        max_from_geometry_mm: in-plane distance of a detection from the expected point.
        full_trust_mm: within this distance the detection is taken as it is; up to the limit it is
            drawn back more and more to the expected point.
        slice_sd_mm: how far across the slices the expected point is trusted: a slice's score falls with
            its distance as a Gaussian of this width.
        min_score: of the detection.
        uncertainty_mm: expected error of a point that was seen.
    """

    max_slice_distance_mm: float = 7.0
    max_from_geometry_mm: float = 8.0
    full_trust_mm: float = 4.0
    slice_sd_mm: float = 4.0
    min_score: float = 0.3
    uncertainty_mm: float = 3.0
    candidates: CandidateConfig = field(default_factory=lambda: CandidateConfig(min_score=0.1, merge_mm=8.0))


def refine_foramina(
    study: Study, points: tuple[LevelPoint, ...], predictor: SlicePredictor, config: ForamenConfig
) -> tuple[LevelPoint, ...]:
    """Replace predicted foramen points by seen ones, on the slice that shows each best.

    A point stays on its side: only slices near to where geometry expects it are looked at.
    """
    wanted = [point for point in points if point.condition.group is ConditionGroup.FORAMINAL]
    seen = look_at(_slices_near(study, wanted, config), predictor, config.candidates)
    refined = {
        (point.condition, point.level): best
        for point in wanted
        if (best := _best(point, seen, config)) is not None
    }
    return tuple(refined.get((point.condition, point.level), point) for point in points)


def _slices_near(study: Study, wanted: list[LevelPoint], config: ForamenConfig) -> list[tuple[Series, Slice]]:
    """T1 slices that lie near to an expected foramen."""
    return [
        (series, item)
        for series in study.of_kind(SeriesKind.SAGITTAL_T1)
        for item in series.slices
        if any(
            abs(float(item.plane.distance_mm(point.xyz_mm))) <= config.max_slice_distance_mm
            for point in wanted
        )
    ]


def _best(point: LevelPoint, seen: list[SliceSighting], config: ForamenConfig) -> LevelPoint | None:
    """The detection with the highest score, weighed by the distance of its slice, near to a point."""
    best: tuple[float, SliceSighting, SliceCandidate] | None = None
    for sighting in seen:
        plane = sighting.item.plane
        distance = float(plane.distance_mm(point.xyz_mm))
        if abs(distance) > config.max_slice_distance_mm:
            continue
        in_plane = point.xyz_mm - distance * plane.normal
        for candidate in sighting.candidates:
            if candidate.score < config.min_score:
                continue
            if np.linalg.norm(candidate.points_mm[0] - in_plane) > config.max_from_geometry_mm:
                continue
            value = candidate.score * float(np.exp(-0.5 * (distance / config.slice_sd_mm) ** 2))
            if best is None or value > best[0]:
                best = (value, sighting, candidate)
    if best is None:
        return None
    _, sighting, candidate = best
    plane = sighting.item.plane
    decided = agreed(
        point.xyz_mm - float(plane.distance_mm(point.xyz_mm)) * plane.normal,
        candidate.points_mm[0],
        full_trust_mm=config.full_trust_mm,
        limit_mm=config.max_from_geometry_mm,
    )
    x, y = plane.to_px(decided)
    return replace(
        point,
        xyz_mm=decided,
        source=PointSource.SEEN,
        uncertainty_mm=config.uncertainty_mm,
        series_id=sighting.series.series_id,
        instance_number=sighting.item.instance_number,
        xy_px=(float(x), float(y)),
    )
