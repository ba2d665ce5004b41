"""Synthetic patients beside published measures: is the phantom's anatomy that of people?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from data_prep.geometry import FloatArray
from data_prep.phantom.body import Body, make_body
from data_prep.phantom.posture import FIRST_LUMBAR, LUMBOSACRAL
from data_prep.phantom.severity import GRADE_SHARES, Grading, draw_grading
from data_prep.phantom.spine import SAMPLES_PER_LEVEL
from data_prep.vocabulary import (
    LEVELS,
    SEVERITIES,
    TARGETS,
    Condition,
    ConditionGroup,
    Level,
    Severity,
    Side,
    Target,
)

_LUMBAR = slice(FIRST_LUMBAR, LUMBOSACRAL + 1)
_HEALTHY_WEAR = 0.3
# Labels alone cost nothing, so that their rates are taken from more patients than the anatomy.
_LABELS_PER_STUDY = 10


@dataclass(frozen=True)
class Measure:
    """One line of the comparison; values as text because they are lists, ranges and shares alike."""

    name: str
    measured: str
    published: str
    source: str


def measure(studies: int, seed: int = 0) -> tuple[Measure, ...]:
    """Measure patients ``seed … seed + studies − 1``; nothing is rendered.

    Published values: docs/phantom.md.

    Raises:
        ValueError: fewer than 10 studies.
    """
    if studies < 10:
        raise ValueError(f"need at least 10 studies, but got {studies}")
    gradings = [draw_grading(number) for number in range(seed, seed + studies)]
    bodies = [
        make_body(number, grading.latents)
        for number, grading in zip(range(seed, seed + studies), gradings, strict=True)
    ]
    more = [draw_grading(number) for number in range(seed, seed + studies * _LABELS_PER_STUDY)]
    return (
        *_disc_heights(bodies),
        *_canal(bodies),
        *_sac_area(bodies, gradings),
        *_foramina(bodies, gradings),
        *_posture(bodies),
        *_labels(more),
    )


def _row(values: FloatArray, digits: int = 1) -> str:
    return " ".join(f"{value:.{digits}f}" for value in np.atleast_1d(values))


def _disc_heights(bodies: list[Body]) -> list[Measure]:
    published = {
        "front": "10.8 13.1 15.2 18.1 18.7 (patients: L3/4 9.3, L4/5 10.9, L5/S1 12.4)",
        "middle": "10.0 11.6 12.5 13.8 13.0",
        "back": "7.3 8.6 9.1 10.1 8.5",
    }
    worn = np.array([body.discs["worn"][_LUMBAR] for body in bodies])
    rows = []
    for place, expected in published.items():
        heights = np.array([body.discs[place][_LUMBAR] for body in bodies])
        healthy = np.ma.masked_where(worn > _HEALTHY_WEAR, heights).mean(axis=0).filled(np.nan)
        name = f"disc height {place}, healthy, L1/2→L5/S1 (mm)"
        rows.append(Measure(name, f"{_row(healthy)} (all: {_row(heights.mean(axis=0))})", expected, "MRI"))
    return rows


def _canal(bodies: list[Body]) -> list[Measure]:
    samples = np.arange(FIRST_LUMBAR, LUMBOSACRAL + 1) * SAMPLES_PER_LEVEL
    depth = np.array(
        [
            (p["sac_centre"] + p["sac_depth_normal"] + 1.2 - p["half_depth"])[samples]
            for p in (body.profile for body in bodies)
        ]
    )
    sac = np.array([2 * body.profile["sac_depth_normal"][samples] for body in bodies])
    return [
        Measure(
            "canal depth L1/2→L5/S1 (mm)", _row(depth.mean(axis=0)), "15.6 … 11.6–12.8; 16.7 [13–20.4]", "CT"
        ),
        Measure("dural sac : canal", _row((sac / depth).mean(axis=0), 2), "about .7", "MRI"),
    ]


def _by_grade(values: dict[Severity, list[float]]) -> str:
    parts = []
    for severity in SEVERITIES:
        found = values[severity]
        text = f"{np.mean(found):.0f} ± {np.std(found):.0f} (n {len(found)})" if found else "none"
        parts.append(f"{severity.value} {text}")
    return " · ".join(parts)


def _sac_area(bodies: list[Body], gradings: list[Grading]) -> list[Measure]:
    areas: dict[Severity, list[float]] = {severity: [] for severity in SEVERITIES}
    target = Target(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
    sample = (FIRST_LUMBAR + Level.L4_L5.index) * SAMPLES_PER_LEVEL
    for body, grading in zip(bodies, gradings, strict=True):
        area = np.pi * body.profile["sac_depth"][sample] * body.profile["sac_width"][sample]
        areas[grading.severities[target]].append(float(area))
    expected = "controls 152 ± 54 · stenosis 80 ± 35 · cut-off 111"
    return [Measure("dural sac area at L4/5 (mm²)", _by_grade(areas), expected, "MRI")]


def _foramina(bodies: list[Body], gradings: list[Grading]) -> list[Measure]:
    width: dict[Severity, list[float]] = {severity: [] for severity in SEVERITIES}
    height: dict[Severity, list[float]] = {severity: [] for severity in SEVERITIES}
    for body, grading in zip(bodies, gradings, strict=True):
        for row, side in enumerate((Side.RIGHT, Side.LEFT)):
            for level in LEVELS:
                severity = grading.severities[Target(Condition.of(ConditionGroup.FORAMINAL, side), level)]
                half_back, half_up = body.foramen[row, FIRST_LUMBAR + level.index, :2]
                width[severity].append(2 * float(half_back))
                height[severity].append(2 * float(half_up))
    return [
        Measure("foramen width (mm)", _by_grade(width), "6.0–8.1", "CT"),
        Measure(
            "foramen height (mm)",
            _by_grade(height),
            "normal ≥ 15 · mild 12–15 · moderate 8–12 · severe < 8",
            "CT",
        ),
    ]


def _posture(bodies: list[Body]) -> list[Measure]:
    canal = np.array([[body.canal_mm(FIRST_LUMBAR + level.index) for level in LEVELS] for body in bodies])
    steps = np.diff(canal, axis=1)
    gaps = np.linalg.norm(steps, axis=2)
    angles = np.degrees(np.arctan2(steps[..., 1], -steps[..., 2]))
    up = np.array([body.spine.up for body in bodies])
    tilt = np.degrees(np.arctan2(-up[..., 1], up[..., 2]))
    aside = np.degrees(np.arcsin(up[:, FIRST_LUMBAR - 3 : LUMBOSACRAL, 0]))
    # Upper endplate of L1 to upper endplate of S1.
    lordosis = tilt[:, LUMBOSACRAL] - tilt[:, FIRST_LUMBAR - 1]
    cobb = aside.max(axis=1) - aside.min(axis=1)
    transitional = np.mean([body.transitional for body in bodies])
    ratios = (gaps / gaps.mean(axis=1, keepdims=True)).mean(axis=0)
    curve = f"{lordosis.mean():.0f} ± {lordosis.std():.0f}"
    bends = _row(np.percentile(cobb, [50, 95, 100]))
    return [
        Measure("canal gaps (mm)", _row(gaps.mean(axis=0)), "34 33 31 25", "RSNA points"),
        Measure("canal gaps, ratios", _row(ratios, 2), "1.08 1.06 1.00 .86", "RSNA points"),
        Measure("canal segment angles (°)", _row(angles.mean(axis=0)), "−12 −8 +2.5 +16.5", "RSNA points"),
        Measure("their sd (°)", _row(angles.std(axis=0)), "7–11", "RSNA points"),
        Measure("disc angle L5/S1 − T12/L1 (°)", curve, "50 ± 12 (endplates L1–S1)", "X-ray"),
        Measure("scoliosis, Cobb (°): median, 95 %, most", bends, "mostly < 10, tail to 40", "X-ray"),
        Measure("transitional vertebra", f"{transitional:.0%}", "10–15 %", "docs/phantom.md"),
    ]


_CANAL, _LEFT_RECESS = Condition.SPINAL_CANAL_STENOSIS, Condition.LEFT_SUBARTICULAR_STENOSIS
_LEFT_FORAMEN = Condition.LEFT_NEURAL_FORAMINAL_NARROWING
_PAIRS = (
    ("canal – left recess", _CANAL, _LEFT_RECESS, ".50–.60, L5/S1 .26"),
    ("canal – left foramen", _CANAL, _LEFT_FORAMEN, ".13–.35"),
    ("left – right foramen", _LEFT_FORAMEN, Condition.RIGHT_NEURAL_FORAMINAL_NARROWING, ".20→.40"),
    ("left – right recess", _LEFT_RECESS, Condition.RIGHT_SUBARTICULAR_STENOSIS, ".40–.60"),
)


def _labels(gradings: list[Grading]) -> list[Measure]:
    labels = {
        target: np.array([grading.severities[target].index for grading in gradings]) for target in TARGETS
    }
    rows = []
    for group, shares in GRADE_SHARES.items():
        of_group = [condition for condition in Condition if condition.group is group]
        for grade in (1, 2):
            found = [
                100 * np.mean([labels[Target(condition, level)] == grade for condition in of_group])
                for level in LEVELS
            ]
            expected = 100 * np.array([share[grade - 1] for share in shares])
            name = f"{group.value} {SEVERITIES[grade].value}, L1/2→L5/S1 (%)"
            rows.append(Measure(name, _row(np.array(found)), _row(expected), "train.csv"))
    for name, one, other, published in _PAIRS:
        found = [spearmanr(labels[Target(one, lv)], labels[Target(other, lv)])[0] for lv in LEVELS]
        measured = _row(np.array(found), 2)
        rows.append(Measure(f"Spearman {name}, L1/2→L5/S1", measured, published, "train.csv"))
    return rows
