"""Errors of detected points against annotated ones, per condition group, in millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_prep.levels import RECESSES, LevelPoint, PointSource, Sight, SpineLevels
from data_prep.rsna.annotations import contradict_themselves
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import ConditionGroup, Flag, Level, SeriesKind
from detector.look.sightings import look_at
from detector.predict import LevelDetector

RADII_MM = (4.0, 5.0, 6.0, 10.0)


@dataclass(frozen=True)
class PointErrors:
    """Errors of one condition group.

    ``missing`` counts annotated targets without a detected point; they count as errors in every share.
    In-plane distances are measured in the annotated slice's plane. ``slice_exact`` and
    ``slice_within_one`` compare slices of the same series only (``slice_n`` of them).
    """

    n: int
    missing: int
    median_in_plane_mm: float
    p95_in_plane_mm: float
    median_3d_mm: float
    p95_3d_mm: float
    within_in_plane: dict[str, float]
    within_3d: dict[str, float]
    wrong_level: int
    wrong_side: int
    slice_n: int
    slice_exact: float
    slice_within_one: float


@dataclass(frozen=True)
class NumberingReport:
    """How well the numbering confidence tells right from wrong.

    A study is numbered wrong when any detected point lies nearest to another level's annotated one. Studies
    whose annotations contradict themselves (``contradictory`` of them: left and right foramina numbered a
    level apart) say nothing about that and do not count.
    ``calibration_error`` is the mean difference between confidence and share right over ten bins,
    weighted by their size (expected calibration error). ``flagged_wrong`` and ``flagged_right`` are the
    shares of wrongly and rightly numbered studies with one of ``NUMBERING_FLAGS``; NaN without such a study.
    ``sacrum_unseen`` of the studies have that flag, ``sacrum_unseen_wrong`` of them are numbered wrong.
    """

    studies: int
    contradictory: int
    wrong: int
    mean_confidence: float
    calibration_error: float
    flagged_wrong: float
    flagged_right: float
    sacrum_unseen: int
    sacrum_unseen_wrong: int


NUMBERING_FLAGS = frozenset({Flag.NUMBERING_UNCERTAIN, Flag.TRANSITIONAL_SUSPECTED})


def numbering_report(errors: pd.DataFrame, detected: list[SpineLevels]) -> NumberingReport:
    """Calibration of the numbering over studies. ``errors``: rows of ``point_errors`` of these studies."""
    unknown = set(errors.loc[errors["contradictory"], "study_id"])
    contradictory = sum(levels.study_id in unknown for levels in detected)
    detected = [levels for levels in detected if levels.study_id not in unknown]
    wrong_by_study = errors.groupby("study_id")["wrong_level"].any()
    wrong = np.array([wrong_by_study.get(levels.study_id, False) for levels in detected], dtype=bool)
    confidence = np.array([levels.numbering_confidence for levels in detected])
    flagged = np.array([NUMBERING_FLAGS & set(levels.flags) for levels in detected], dtype=bool)
    unseen = np.array([Flag.SACRUM_UNSEEN in levels.flags for levels in detected], dtype=bool)
    bins = np.minimum((confidence * 10).astype(int), 9)
    gaps = [
        abs(float(confidence[bins == b].mean()) - float((~wrong[bins == b]).mean()))
        * float((bins == b).mean())
        for b in np.unique(bins)
    ]
    return NumberingReport(
        studies=len(detected),
        contradictory=contradictory,
        wrong=int(wrong.sum()),
        mean_confidence=round(float(confidence.mean()), 4) if detected else float("nan"),
        calibration_error=round(float(sum(gaps)), 4),
        flagged_wrong=round(float(flagged[wrong].mean()), 4) if wrong.any() else float("nan"),
        flagged_right=round(float(flagged[~wrong].mean()), 4) if (~wrong).any() else float("nan"),
        sacrum_unseen=int(unseen.sum()),
        sacrum_unseen_wrong=int((unseen & wrong).sum()),
    )


def is_axial_alone(study: Study) -> bool:
    """Whether a study has axial slices and no sagittal ones, as where crops of axial ones were published."""
    sagittal = (SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2)
    return not any(study.of_kind(kind) for kind in sagittal) and bool(study.of_kind(SeriesKind.AXIAL_T2))


def recesses_on_slices(
    detector: LevelDetector, study: Study, annotated: tuple[LevelPoint, ...]
) -> SpineLevels:
    """The recesses as the annotated axial slices show them: which level a slice shows is taken as known.

    Without sagittal slices no level can be told, so this says how well recesses are found, and no more.
    """
    points: list[LevelPoint] = []
    if detector.axial is None:
        return SpineLevels(study.study_id)
    slices = {
        (point.level.index, point.sight.series_id, point.sight.instance_number): (point.level, point.sight)
        for point in annotated
        if point.condition in RECESSES and point.sight is not None
    }
    for _, (level, sight) in sorted(slices.items()):
        points += _recesses_on(detector, *study.slice_at(sight), level)
    found = {(point.condition, point.level): point for point in points}
    refined = tuple(found.values())
    for refiner in detector.refiners:
        refined = refiner.refine(study, refined)
    return SpineLevels(study.study_id, points=refined)


def _recesses_on(detector: LevelDetector, series: Series, item: Slice, level: Level) -> list[LevelPoint]:
    assert detector.axial is not None
    (seen,) = look_at([(series, item)], detector.axial, detector.config.axial.candidates)
    if not seen.candidates:
        return []
    best = max(seen.candidates, key=lambda candidate: candidate.score)
    return [
        LevelPoint(condition, level, xyz, PointSource.SEEN, sight=Sight.of(series, item, xyz))
        for condition, xyz in zip(RECESSES, best.points_mm, strict=True)
    ]


def point_errors(study: Study, detected: SpineLevels, annotated: tuple[LevelPoint, ...]) -> pd.DataFrame:
    """One row per annotated target of a study.

    Columns: study_id, group, condition, level, missing, in_plane_mm, distance_mm, wrong_level, wrong_side,
    slice_steps (difference in spatial slice order; NaN across series), contradictory (of the study's
    annotations, see ``NumberingReport``).
    """
    rows = []
    contradictory = contradict_themselves(annotated)
    for truth in annotated:
        found = detected.point(truth.condition, truth.level)
        row: dict[str, object] = {
            "study_id": study.study_id,
            "group": truth.condition.group.value,
            "condition": truth.condition.value,
            "level": truth.level.value,
            "missing": found is None,
            "in_plane_mm": np.inf,
            "distance_mm": np.inf,
            "wrong_level": False,
            "wrong_side": False,
            "slice_steps": np.nan,
            "contradictory": contradictory,
        }
        if found is not None:
            row.update(_compare(study, truth, found, annotated))
        rows.append(row)
    return pd.DataFrame(rows)


def _compare(
    study: Study, truth: LevelPoint, found: LevelPoint, annotated: tuple[LevelPoint, ...]
) -> dict[str, object]:
    assert truth.sight is not None
    series, item = study.slice_at(truth.sight)
    plane = item.plane
    shown = found.xyz_mm
    if found.sight is not None and found.is_on(series):
        shown = series.by_instance(found.sight.instance_number).plane.to_mm(found.sight.xy_px)
    offset = shown - truth.xyz_mm
    in_plane = offset - plane.normal * float(offset @ plane.normal)
    same = [p for p in annotated if p.condition == truth.condition]
    nearest = min(same, key=lambda p: float(np.linalg.norm(p.xyz_mm - shown)))
    sides = [p for p in annotated if p.condition.group is truth.condition.group and p.level is truth.level]
    nearest_side = min(sides, key=lambda p: float(np.linalg.norm(p.xyz_mm - shown)))
    return {
        "in_plane_mm": float(np.linalg.norm(in_plane)),
        "distance_mm": float(np.linalg.norm(offset)),
        "wrong_level": nearest.level is not truth.level,
        "wrong_side": nearest_side.condition is not truth.condition,
        "slice_steps": _slice_steps(series, truth.sight, found.sight),
    }


def _slice_steps(series: Series, truth: Sight, found: Sight | None) -> float:
    """Slices between two points along one stack; NaN when they are not in one stack."""
    if found is None or found.series_id != series.series_id:
        return np.nan
    for stack in series.stacks:
        numbers = [item.instance_number for item in stack]
        if truth.instance_number in numbers and found.instance_number in numbers:
            return float(abs(numbers.index(truth.instance_number) - numbers.index(found.instance_number)))
    return np.nan


def summarise(errors: pd.DataFrame) -> dict[str, PointErrors]:
    """Figures per condition group that has annotated points."""
    report = {}
    for group in ConditionGroup:
        rows = errors[errors["group"] == group.value]
        if rows.empty:
            continue
        steps = rows["slice_steps"].dropna().to_numpy(float)
        plane, distance = rows["in_plane_mm"].to_numpy(float), rows["distance_mm"].to_numpy(float)
        report[group.value] = PointErrors(
            n=len(rows),
            missing=int(rows["missing"].sum()),
            median_in_plane_mm=round(float(np.median(plane)), 2),
            p95_in_plane_mm=_percentile(plane, 95),
            median_3d_mm=round(float(np.median(distance)), 2),
            p95_3d_mm=_percentile(distance, 95),
            within_in_plane={f"{r:g}": round(float((plane <= r).mean()), 4) for r in RADII_MM},
            within_3d={f"{r:g}": round(float((distance <= r).mean()), 4) for r in RADII_MM},
            wrong_level=int(rows["wrong_level"].sum()),
            wrong_side=int(rows["wrong_side"].sum()),
            slice_n=len(steps),
            slice_exact=round(float((steps == 0).mean()), 4) if len(steps) else float("nan"),
            slice_within_one=round(float((steps <= 1).mean()), 4) if len(steps) else float("nan"),
        )
    return report


def _percentile(values: np.ndarray, percent: float) -> float:
    """Upper percentile that does not interpolate towards a missing point's infinity."""
    return round(float(np.percentile(values, percent, method="higher")), 2)
