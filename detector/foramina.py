"""Foramen points seen on sagittal T1 slices, where they agree with the geometry."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from data_prep.study_types import DicomRejected, LevelPoint, PointSource, Series, Slice, Study
from data_prep.vocabulary import ConditionGroup, SeriesKind
from detector.candidates import CandidateConfig, SliceCandidate, slice_candidates
from detector.canonical import CanonicalImage, canonical_image
from detector.inference import SlicePredictor
from detector.spec import FORAMEN


@dataclass(frozen=True)
class ForamenConfig:
    """When a detection replaces the prediction of the geometry.

    Attributes:
        max_slice_distance_mm: slices farther from the expected point are not looked at.
        max_from_geometry_mm: in-plane distance of a detection from the expected point.
        slice_sd_mm: how far across the slices the expected point is trusted: a slice's score falls with
            its distance as a Gaussian of this width.
        min_score: of the detection.
        uncertainty_mm: expected error of a point that was seen.
    """

    max_slice_distance_mm: float = 7.0
    max_from_geometry_mm: float = 8.0
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
    seen = _look(study, wanted, predictor, config)
    refined = {
        (point.condition, point.level): best
        for point in wanted
        if (best := _best(point, seen, config)) is not None
    }
    return tuple(refined.get((point.condition, point.level), point) for point in points)


_Seen = tuple[Series, Slice, list[SliceCandidate]]


def _look(
    study: Study, wanted: list[LevelPoint], predictor: SlicePredictor, config: ForamenConfig
) -> list[_Seen]:
    """Candidates of every T1 slice that lies near to an expected foramen, in one batch."""
    looked_at: list[tuple[Series, Slice, CanonicalImage]] = []
    for series in study.of_kind(SeriesKind.SAGITTAL_T1):
        for item in series.slices:
            nearest = min(
                (abs(float(item.plane.distance_mm(point.xyz_mm))) for point in wanted), default=np.inf
            )
            if nearest > config.max_slice_distance_mm:
                continue
            try:
                pixels = item.pixels()
            except DicomRejected:
                continue
            image = canonical_image(
                item.plane, pixels, mm_per_px=FORAMEN.mm_per_px, max_side_px=FORAMEN.max_canvas_px
            )
            looked_at.append((series, item, image))
    predictions = predictor.predict([image.image for *_, image in looked_at])
    return [
        (
            series,
            item,
            slice_candidates(
                prediction,
                image,
                FORAMEN,
                config.candidates,
                series_id=series.series_id,
                instance_number=item.instance_number,
                pad_px=pad,
            ),
        )
        for (series, item, image), (prediction, pad) in zip(looked_at, predictions, strict=True)
    ]


def _best(point: LevelPoint, seen: list[_Seen], config: ForamenConfig) -> LevelPoint | None:
    """The detection with the highest score, weighed by the distance of its slice, near to a point."""
    best: tuple[float, Series, Slice, SliceCandidate] | None = None
    for series, item, candidates in seen:
        distance = float(item.plane.distance_mm(point.xyz_mm))
        if abs(distance) > config.max_slice_distance_mm:
            continue
        in_plane = point.xyz_mm - distance * item.plane.normal
        for candidate in candidates:
            if candidate.score < config.min_score:
                continue
            if np.linalg.norm(candidate.points_mm[0] - in_plane) > config.max_from_geometry_mm:
                continue
            value = candidate.score * float(np.exp(-0.5 * (distance / config.slice_sd_mm) ** 2))
            if best is None or value > best[0]:
                best = (value, series, item, candidate)
    if best is None:
        return None
    _, series, item, candidate = best
    x, y = item.plane.to_px(candidate.points_mm[0])
    return replace(
        point,
        xyz_mm=candidate.points_mm[0],
        source=PointSource.SEEN,
        uncertainty_mm=config.uncertainty_mm,
        series_id=series.series_id,
        instance_number=item.instance_number,
        xy_px=(float(x), float(y)),
    )
