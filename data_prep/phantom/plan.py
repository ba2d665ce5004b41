"""How a technician plans a study: the planes of every series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import Orientation, SlicePlane
from data_prep.phantom.body import Body
from data_prep.phantom.scanner import Scanner, draw_scanner
from data_prep.phantom.spine import FIRST_LUMBAR, LUMBOSACRAL
from data_prep.phantom.tissue import TISSUE_SPREAD, Contrast, draw_contrast
from data_prep.vocabulary import SeriesKind

FloatArray = NDArray[np.float64]
Size = Literal["small", "full"]
Stack = tuple[SlicePlane, ...]


@dataclass(frozen=True, eq=False)
class SeriesPlan:
    """One acquisition, before it is made.

    Attributes:
        stacks: planes in spatial order: sagittal right to left, axial foot to head.
        instance_numbers: of the slices, stack after stack; no promise of spatial order.
        thickness_mm, spacing_mm: of the slices.
    """

    kind: SeriesKind
    series_id: str
    contrast: Contrast
    scanner: Scanner
    stacks: tuple[Stack, ...]
    instance_numbers: tuple[int, ...]
    thickness_mm: float
    spacing_mm: float


@dataclass(frozen=True)
class SagittalPlan:
    """Field of view, matrix and slices of a sagittal series (mm, pixels)."""

    field_mm: tuple[float, float]
    shape: tuple[int, int]
    slices: int
    thickness_mm: float
    spacing_mm: float


def draw_sagittal_plan(rng: np.random.Generator, size: Size) -> SagittalPlan:
    """Ranges of PHANTOM.md (field 240–350, thickness 3–5, gap 0.3–1); ``small`` has 1.1–1.5 mm pixels."""
    field = rng.uniform(250, 320)
    if size == "small":
        rows = int(rng.choice([192, 208, 224]))
        slices = int(rng.integers(12, 15))
    else:
        rows = int(rng.choice([320, 384, 448, 512]))
        slices = int(rng.integers(15, 20))
    narrow = 1.0 if rng.random() < 0.75 else 0.8
    thickness = rng.uniform(3.4, 4.2)
    # The stack must reach both rows of foramina.
    spacing = max(thickness + rng.uniform(0.3, 0.9), 54.0 / (slices - 1))
    shape = (rows, 2 * int(rows * narrow / 2))
    return SagittalPlan((field, field * shape[1] / rows), shape, slices, thickness, spacing)


def sagittal_planes(body: Body, plan: SagittalPlan, rng: np.random.Generator) -> Stack:
    """Parallel sagittal planes, turned along the spine, in the order right to left."""
    spine = body.spine
    top, bottom = body.canal_mm(FIRST_LUMBAR - 1), body.canal_mm(LUMBOSACRAL)
    middle = (body.canal_mm(FIRST_LUMBAR) + bottom) / 2
    left = spine.rotation[:, 0] + rng.normal(0.0, 0.015, 3)
    along = top - bottom
    # The technician lays the plane along the lumbar canal.
    left = left - 0.7 * along * float(left @ along) / float(along @ along)
    left /= np.linalg.norm(left)
    down = np.array([0.0, 0.0, -1.0]) + left * left[2]
    down /= np.linalg.norm(down)
    back = np.cross(left, down)
    centre = middle + rng.normal(0, [1.0, 8.0, 10.0]) + back * rng.uniform(-40, 5)
    spacing = (plan.field_mm[1] / plan.shape[1], plan.field_mm[0] / plan.shape[0])
    corner = centre - back * (plan.field_mm[1] - spacing[0]) / 2 - down * (plan.field_mm[0] - spacing[1]) / 2
    offsets = (np.arange(plan.slices) - (plan.slices - 1) / 2) * plan.spacing_mm
    return tuple(SlicePlane(corner + left * offset, back, down, spacing, plan.shape) for offset in offsets)


def axial_stacks(
    body: Body,
    rng: np.random.Generator,
    *,
    angled: bool,
    field_mm: float,
    shape: tuple[int, int],
    per_disc: int,
    spacing_mm: float,
) -> tuple[Stack, ...]:
    """Disc-angled stacks of ``per_disc`` slices, L5/S1 first, or one contiguous stack over all discs."""
    spine = body.spine
    lumbar = range(FIRST_LUMBAR, LUMBOSACRAL + 1)
    left = spine.rotation[:, 0] + rng.normal(0.0, 0.02, 3)
    if angled:
        stacks = []
        for plane in reversed(lumbar):
            up = spine.rotation @ spine.up[plane] + rng.normal(0.0, 0.03, 3)
            middle = body.canal_mm(plane) + up * rng.normal(0.0, 0.8)
            stacks.append(_axial_stack(middle, up, left, field_mm, shape, per_disc, spacing_mm))
        return tuple(stacks)
    top, bottom = body.canal_mm(FIRST_LUMBAR), body.canal_mm(LUMBOSACRAL)
    up = np.mean([spine.rotation @ spine.up[plane] for plane in lumbar], axis=0) + rng.normal(0, 0.03, 3)
    up /= np.linalg.norm(up)
    heights = [float((body.canal_mm(plane) - bottom) @ up) for plane in lumbar]
    length = max(heights) - min(heights) + rng.uniform(16, 30)
    count = int(np.ceil(length / spacing_mm)) + 1
    return (_axial_stack((top + bottom) / 2, up, left, field_mm, shape, count, spacing_mm),)


def _axial_stack(
    middle: FloatArray,
    up: FloatArray,
    left: FloatArray,
    field_mm: float,
    shape: tuple[int, int],
    count: int,
    spacing_mm: float,
) -> Stack:
    up = up / np.linalg.norm(up)
    left = left - up * float(left @ up)
    left /= np.linalg.norm(left)
    back = np.cross(up, left)
    step = field_mm / shape[1]
    corner = middle - left * (shape[1] - 1) / 2 * step - back * (shape[0] - 1) * 0.55 * step
    offsets = (np.arange(count) - (count - 1) / 2) * spacing_mm
    return tuple(SlicePlane(corner + up * offset, left, back, (step, step), shape) for offset in offsets)


def plan_study(
    body: Body, rng: np.random.Generator, size: Size = "small", tissue_spread: float = TISSUE_SPREAD
) -> tuple[SeriesPlan, ...]:
    """Plan one series of each kind. Numeric series ids and everything else come from ``rng``."""
    field_t = float(rng.choice([1.5, 3.0]))
    sagittal = draw_sagittal_plan(rng, size)
    planes = sagittal_planes(body, sagittal, rng)
    series_ids = [str(value) for value in rng.choice(4_000_000_000, size=3, replace=False) + 10_000_000]
    plans = []
    for kind, series_id in zip((SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1), series_ids[:2], strict=True):
        if kind is SeriesKind.SAGITTAL_T1 and rng.random() < 0.4:
            planes = sagittal_planes(body, sagittal, rng)
        plans.append(
            _series(
                rng,
                kind,
                series_id,
                (planes,),
                thickness_mm=sagittal.thickness_mm,
                spacing_mm=sagittal.spacing_mm,
                contrast=draw_contrast(kind, rng, field_t, tissue_spread=tissue_spread),
            )
        )
    angled = bool(rng.random() < 0.5)
    side = int(rng.choice([136, 144, 160]) if size == "small" else rng.choice([256, 320, 384]))
    field = rng.uniform(120, 140) if size == "small" else rng.uniform(160, 220)
    spacing = rng.uniform(4.2, 4.8) if angled or size == "full" else rng.uniform(5.5, 6.2)
    per_disc = 3 if size == "small" else int(rng.integers(5, 7))
    stacks = axial_stacks(
        body, rng, angled=angled, field_mm=field, shape=(side, side), per_disc=per_disc, spacing_mm=spacing
    )
    plans.append(
        _series(
            rng,
            SeriesKind.AXIAL_T2,
            series_ids[2],
            stacks,
            thickness_mm=spacing - 0.4,
            spacing_mm=spacing,
            contrast=draw_contrast(SeriesKind.AXIAL_T2, rng, field_t, tissue_spread=tissue_spread),
        )
    )
    return tuple(plans)


def _series(
    rng: np.random.Generator,
    kind: SeriesKind,
    series_id: str,
    stacks: tuple[Stack, ...],
    *,
    thickness_mm: float,
    spacing_mm: float,
    contrast: Contrast,
) -> SeriesPlan:
    orientation = Orientation.AXIAL if kind is SeriesKind.AXIAL_T2 else Orientation.SAGITTAL
    return SeriesPlan(
        kind=kind,
        series_id=series_id,
        contrast=contrast,
        scanner=draw_scanner(rng, orientation),
        stacks=stacks,
        instance_numbers=_number(sum(len(stack) for stack in stacks), rng),
        thickness_mm=float(thickness_mm),
        spacing_mm=float(spacing_mm),
    )


def _number(count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Instance numbers: rising, falling or, in a tenth of the series, in no order at all."""
    numbers = np.arange(1, count + 1)
    draw = rng.random()
    if draw < 0.45:
        numbers = numbers[::-1]
    elif draw > 0.9:
        numbers = rng.permutation(numbers)
    return tuple(int(number) for number in numbers)
