"""Recess points seen on axial slices, where they agree with the geometry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from data_prep.geometry import FloatArray
from data_prep.levels import RECESSES, LevelPoint, PointSource, Sight, SpineLevel, seen_aside_mm
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import Condition, Level, SeriesKind
from detector.look.candidates import CandidateConfig, SliceCandidate
from detector.look.inference import SlicePredictor
from detector.look.sightings import SliceSighting, look_at
from detector.spine.points import SeenConfig


@dataclass(frozen=True)
class AxialConfig(SeenConfig):
    """When a detection replaces the prediction of the geometry.

    Attributes:
        slices_per_level: slices nearest to the level that are looked at.
        sideways_mm, sideways_score: a pair with this score may lie this far to the side of where geometry
            expects it, if it lies there in every other way: sagittal slices tell little of where a crooked
            spine is.
        both_from: a recess is read on the slices on both sides of it where it lies this part of the way
            between them, or more, from the one; the share of the other grows from nothing there to half
            midway.
    """

    max_slice_distance_mm: float = 6.0
    max_from_geometry_mm: float = 8.0
    full_trust_mm: float = 4.0
    uncertainty_mm: float = 2.5
    context_mm: float | None = 38.0
    slices_per_level: int = 2
    sideways_mm: float = 30.0
    sideways_score: float = 0.5
    both_from: float = 0.4
    candidates: CandidateConfig = field(default_factory=lambda: CandidateConfig(min_score=0.1))


def refine_recesses(
    study: Study,
    levels: dict[Level, SpineLevel],
    points: tuple[LevelPoint, ...],
    predictor: SlicePredictor,
    config: AxialConfig,
) -> tuple[LevelPoint, ...]:
    """Replace predicted recess points by seen ones, on the slice nearest to the level that shows them.

    Farther slices are looked at only for levels that the nearer ones do not show.
    """
    by_target = {(point.condition, point.level): point for point in points}
    near: dict[Level, list[tuple[Series, Slice]]] = {}
    for level in levels:
        middle_mm = np.mean([by_target[condition, level].xyz_mm for condition in RECESSES], axis=0)
        near[level] = _slices_near(study, middle_mm, config)
    recesses_mm = [point.xyz_mm for point in points if point.condition in RECESSES]
    part = config.part_around(recesses_mm, 2 * config.max_slice_distance_mm)
    seen: dict[int, SliceSighting | None] = {}
    for rank in range(config.slices_per_level):
        waiting = [
            (level, *slices[rank])
            for level, slices in near.items()
            if rank < len(slices) and not _is_seen(by_target, level)
        ]
        new = {id(item): (series, item) for _, series, item in waiting if id(item) not in seen}
        seen |= dict.fromkeys(new)  # None stays for what cannot be decoded
        sightings = look_at(list(new.values()), predictor, config.candidates, part)
        seen |= {id(sighting.item): sighting for sighting in sightings}
        for level, series, item in waiting:
            sighting = seen[id(item)]
            if sighting is not None:
                by_target |= _seen_pair(by_target, level, series, sighting, config)
    return tuple(by_target[point.condition, point.level] for point in points)


def read_between_slices(
    study: Study,
    expected: tuple[LevelPoint, ...],
    points: tuple[LevelPoint, ...],
    config: AxialConfig,
) -> tuple[LevelPoint, ...]:
    """Recesses that lie nearly midway between two slices of their series read on both (``LevelPoint.also``).

    A level that moves by a hair past the middle then changes no grade at a stroke.

    Args:
        expected: where geometry expects the targets of ``points``; midway between the two recesses is the
            place of their level between the slices.
    """
    places: dict[Level, list[FloatArray]] = {}
    for point in expected:
        if point.condition in RECESSES:
            places.setdefault(point.level, []).append(point.xyz_mm)
    return tuple(
        _read_on_both(study, np.mean(places[point.level], axis=0), point, config)
        if point.condition in RECESSES and point.source is PointSource.SEEN
        else point
        for point in points
    )


def _read_on_both(study: Study, middle_mm: FloatArray, point: LevelPoint, config: AxialConfig) -> LevelPoint:
    assert point.sight is not None
    series, item = study.slice_at(point.sight)
    stack = series.stack_of(item)
    place, away_mm = stack.index(item), float(item.plane.distance_mm(middle_mm))
    for other in (*stack[max(place - 1, 0) : place], *stack[place + 1 : place + 2]):
        beyond_mm = float(other.plane.distance_mm(middle_mm))
        if away_mm * beyond_mm >= 0:  # not between the two
            continue
        share = (away_mm / (away_mm - beyond_mm) - config.both_from) / (1 - 2 * config.both_from)
        xyz_mm = other.plane.projected(point.xyz_mm)
        if 0 < share < 1 and other.plane.shows(xyz_mm):
            there = replace(point, xyz_mm=xyz_mm, sight=Sight.of(series, other, xyz_mm), share=share)
            return replace(point, also=(there,), share=1.0 - share)
    return point


def _is_seen(by_target: Mapping[tuple[Condition, Level], LevelPoint], level: Level) -> bool:
    return any(by_target[condition, level].source is PointSource.SEEN for condition in RECESSES)


def _seen_pair(
    by_target: Mapping[tuple[Condition, Level], LevelPoint],
    level: Level,
    series: Series,
    sighting: SliceSighting,
    config: AxialConfig,
) -> dict[tuple[Condition, Level], LevelPoint]:
    """The two points of a level as a slice shows them; none if it does not show them where they should be."""
    item, pair = sighting.item, [by_target[condition, level] for condition in RECESSES]
    expected = item.plane.to_mm(item.plane.to_px(np.stack([point.xyz_mm for point in pair])))
    found_at = _agreeing(sighting.candidates, expected, config)
    if found_at is None:
        return {}
    match, expected = found_at
    return {
        (condition, level): config.seen(point, wanted, seen, series, item)
        for condition, point, wanted, seen in zip(RECESSES, pair, expected, match.points_mm, strict=True)
    }


def _slices_near(study: Study, middle_mm: np.ndarray, config: AxialConfig) -> list[tuple[Series, Slice]]:
    """Axial slices of every series that show the level, nearest first."""
    near = [
        (abs(float(item.plane.distance_mm(middle_mm))), series.series_id, item.instance_number, series, item)
        for series in study.of_kind(SeriesKind.AXIAL_T2)
        for item in series.slices
        if item.plane.shows(middle_mm)
    ]
    near = [entry for entry in near if entry[0] <= config.max_slice_distance_mm]
    near.sort(key=lambda entry: entry[:3])
    return [(series, item) for *_, series, item in near[: config.slices_per_level]]


def _agreeing(
    found: tuple[SliceCandidate, ...], expected_mm: FloatArray, config: AxialConfig
) -> tuple[SliceCandidate, FloatArray] | None:
    """The best candidate whose two recesses lie near to where geometry expects them in the slice, (2, 3).

    And where that is, moved to the candidate's side of the patient.
    """
    across = expected_mm[1] - expected_mm[0]  # from the right recess to the left one
    across = across / max(float(np.linalg.norm(across)), 1e-6)
    for candidate in sorted(found, key=lambda c: -c.score):
        if candidate.score < config.min_score:
            return None
        aside = float(np.mean((candidate.points_mm - expected_mm) @ across))
        reach = (
            config.sideways_mm if candidate.score >= config.sideways_score else config.max_from_geometry_mm
        )
        moved = expected_mm + float(np.clip(aside, -reach, reach)) * across
        if float(np.linalg.norm(candidate.points_mm - moved, axis=1).max()) <= config.max_from_geometry_mm:
            return candidate, moved
    return None


def sideways_mm(levels: Mapping[Level, SpineLevel], points: tuple[LevelPoint, ...]) -> dict[Level, float]:
    """How far to the left of its canal point each level's canal lies on axial slices.

    It lies midway between the recesses. Levels whose recesses were not seen get what the levels beside them
    have; empty when none was seen.
    """
    seen = seen_aside_mm(levels, points)
    if not seen:
        return {}
    known = sorted(level.index for level in seen)
    aside = [seen[level] for level in sorted(seen, key=lambda level: level.index)]
    return {level: float(np.interp(level.index, known, aside)) for level in levels}
