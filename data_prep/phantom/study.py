"""A synthetic study in memory: slices that render when asked, 25 annotated points and the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import FloatArray, SlicePlane
from data_prep.levels import LevelPoint, PointSource, Sight
from data_prep.phantom.body import Body, make_body
from data_prep.phantom.plan import SeriesPlan, plan_study
from data_prep.phantom.posture import FIRST_LUMBAR, PLANE_NAMES
from data_prep.phantom.render import render_tissue
from data_prep.phantom.scanner import USUAL_SCANNERS, Scanner, ScannerRange, draw_scanner
from data_prep.phantom.severity import draw_grading
from data_prep.phantom.tissue import Contrast
from data_prep.study import Series, Slice, Study
from data_prep.synthetic import Appearance, Size, Transitional, View
from data_prep.vocabulary import TARGETS, ConditionGroup, SeriesKind, Severity, Side, Target

FIRST_STUDY_ID = 900_000_000
ANNOTATED_DISCS = PLANE_NAMES[PLANE_NAMES.index("T10/T11") : PLANE_NAMES.index("S1/S2") + 1]
# Scatter of a human annotator in the plane (mm), and along the normal when a recess slice is chosen.
ANNOTATION_SCATTER_MM = 0.8
RECESS_SLICE_SCATTER_MM = 1.5
# A slice this near shows a structure as well as any other; one this far does not show it.
ANNOTATION_REACH_MM = 2.5
LOST_MM = 8.0


@dataclass(frozen=True, eq=False)
class PhantomDisc:
    """A disc: its name (``L4/L5``), centre and the middle of the sac behind it, (3,) patient LPS mm."""

    name: str
    disc_mm: FloatArray
    canal_mm: FloatArray


@dataclass(frozen=True, eq=False)
class PhantomStudy:
    """A synthetic patient's examination with all that is known of it.

    Attributes:
        study: series of the three kinds; pixels render on the first call and are kept.
        body: the patient, for other planes and contrasts (``render``).
        plans: how each series was made, in the order of ``study.series``.
        points: the annotated points, each on a slice of the series kind of its condition; 25 unless the view
            is cut.
        discs: T10/T11 … S1/S2.
        severities: the labels; oracle: (3,) unweighted probability of each severity, exact.
        latents: grade scale (1 and 2 are the boundaries between the severities).
        transitional: whether the lumbosacral vertebra is transitional.
    """

    study: Study
    body: Body
    plans: tuple[SeriesPlan, ...]
    points: tuple[LevelPoint, ...]
    discs: tuple[PhantomDisc, ...]
    severities: dict[Target, Severity]
    oracle: dict[Target, FloatArray]
    latents: dict[Target, float]
    transitional: bool


def make_study(
    seed: int,
    *,
    size: Size = "small",
    latents: Mapping[Target, float] | None = None,
    scanners: ScannerRange = USUAL_SCANNERS,
    appearance: Appearance = "physics",
    transitional: Transitional = "natural",
    view: View = "whole",
) -> PhantomStudy:
    """Make the patient ``seed``; nothing is rendered yet.

    ``latents`` forces some targets on the grade scale; all else about the patient stays the same.
    ``scanners`` is the range of noise, resolution and contrast that scanners are drawn from. ``appearance``
    ``randomised`` draws every tissue's signal at random instead, ``mixed`` does so for every other patient.
    ``transitional`` forces or forbids a transitional vertebra (10 %); levels are counted up from the last
    well-formed disc, L5/S1. ``view`` ``cut`` makes a field of view that lacks levels or shows most of the
    spine, ``mixed`` does so in 15 %: levels outside have labels but no points.
    """
    grading = draw_grading(seed, latents)
    body = make_body(seed, grading.latents, transitional)
    name = str(FIRST_STUDY_ID + seed)
    rng = np.random.default_rng([seed, 3])
    randomised = appearance == "randomised" or (appearance == "mixed" and rng.random() < 0.5)
    plans = plan_study(body, rng, size, scanners, view, randomised)
    series = tuple(_series(body, plan, name, [seed, 4, number]) for number, plan in enumerate(plans))
    study = Study(name, series)
    return PhantomStudy(
        study=study,
        body=body,
        plans=plans,
        points=_annotate(body, study, np.random.default_rng([seed, 5])),
        discs=tuple(_disc(body, disc) for disc in ANNOTATED_DISCS),
        severities=grading.severities,
        oracle=grading.oracle,
        latents=grading.latents,
        transitional=body.transitional,
    )


def repeat_series(phantom: PhantomStudy, number: int, rng: np.random.Generator) -> tuple[Series, SeriesPlan]:
    """Series ``number`` of a study acquired once more, with another scanner setting."""
    plan = phantom.plans[number]
    scanner = draw_scanner(rng, phantom.study.series[number].orientation)
    again = replace(plan, series_id=str(int(plan.series_id) + 1), scanner=scanner)
    seed = [int(rng.integers(2**31)), number]
    return _series(phantom.body, again, phantom.study.study_id, seed), again


def render(
    body: Body,
    plane: SlicePlane,
    contrast: Contrast,
    *,
    scanner: Scanner | None = None,
    thickness_mm: float = 4.0,
    cuts: int = 2,
    noise_seed: int = 0,
) -> NDArray[np.float32]:
    """Cut the body with any plane: float32 ``plane.shape``.

    Without a scanner the noise-free signal (0–1); with one the stored values (whole, 0–4095).
    ``thickness_mm`` is averaged over ``cuts`` parallel planes.
    """
    signal = render_tissue(body, plane, contrast, thickness_mm, cuts)
    if scanner is None:
        return signal
    return scanner.acquire(signal, plane, body, contrast, [noise_seed])


def _series(body: Body, plan: SeriesPlan, study_id: str, noise_seed: list[int]) -> Series:
    numbers = iter(plan.instance_numbers)
    stacks = tuple(
        tuple(_slice(body, plan, plane, next(numbers), noise_seed) for plane in stack)
        for stack in plan.stacks
    )
    return Series(study_id, plan.series_id, plan.kind, stacks, kind_source="phantom")


def _slice(
    body: Body, plan: SeriesPlan, plane: SlicePlane, instance_number: int, noise_seed: list[int]
) -> Slice:
    @cache
    def pixels() -> NDArray[np.float32]:
        signal = render_tissue(body, plane, plan.contrast, plan.thickness_mm)
        return plan.scanner.acquire(signal, plane, body, plan.contrast, [*noise_seed, instance_number])

    return Slice(plane, instance_number, pixels)


def _disc(body: Body, name: str) -> PhantomDisc:
    plane = PLANE_NAMES.index(name)
    return PhantomDisc(name, body.spine.to_patient(body.spine.centres_mm[plane]), body.canal_mm(plane))


def _annotate(body: Body, study: Study, rng: np.random.Generator) -> tuple[LevelPoint, ...]:
    return tuple(point for target in TARGETS if (point := _point(body, study, target, rng)) is not None)


def _point(body: Body, study: Study, target: Target, rng: np.random.Generator) -> LevelPoint | None:
    """Where a reader would click: on the nearest slice of the right kind, with a little scatter."""
    kind = target.condition.series_kind
    scatter = rng.normal(0.0, ANNOTATION_SCATTER_MM, 2)
    along = float(rng.normal(0.0, RECESS_SLICE_SCATTER_MM)) if kind is SeriesKind.AXIAL_T2 else 0.0
    candidates = study.of_kind(kind)
    if not candidates:
        return None
    where = _structure_mm(body, target)
    # Of several series, readers take the one with a slice through the structure.
    series = min(candidates, key=lambda item: max(abs(_gap_mm(item, where)) - ANNOTATION_REACH_MM, 0.0))
    item, _ = series.nearest(where)
    item, _ = series.nearest(where + along * item.plane.normal)
    xy = item.plane.to_px(where) + scatter / np.array(item.plane.spacing_mm)
    if not item.plane.contains_px(xy) or abs(float(item.plane.distance_mm(where))) > LOST_MM:
        return None
    return LevelPoint(
        condition=target.condition,
        level=target.level,
        xyz_mm=item.plane.to_mm(xy),
        source=PointSource.ANNOTATED,
        sight=Sight(series.series_id, item.instance_number, (float(xy[0]), float(xy[1]))),
    )


def _gap_mm(series: Series, where: FloatArray) -> float:
    item, _ = series.nearest(where)
    return float(item.plane.distance_mm(where))


def _structure_mm(body: Body, target: Target) -> FloatArray:
    side = target.condition.side
    if side is None:
        return body.canal_mm(FIRST_LUMBAR + target.level.index)
    if target.condition.group is ConditionGroup.FORAMINAL:
        return body.foramen_mm(target.level, Side(side))
    return body.recess_mm(target.level, Side(side))
