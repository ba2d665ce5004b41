"""How a technician plans a study: the planes of every series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_prep.geometry import FloatArray, Orientation, SlicePlane
from data_prep.phantom.body import Body
from data_prep.phantom.posture import FIRST_LUMBAR, LUMBOSACRAL
from data_prep.phantom.scanner import USUAL_SCANNERS, Scanner, ScannerRange, draw_scanner
from data_prep.phantom.tissue import Contrast, draw_contrast, randomise_tissues
from data_prep.synthetic import Size, View
from data_prep.vocabulary import LEVELS, SeriesKind, Side

Stack = tuple[SlicePlane, ...]

CUT_SHARE = 0.15  # of the studies of a mixed data set
LUMBAR_PLANES = tuple(range(FIRST_LUMBAR, LUMBOSACRAL + 1))


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
    """Field of view, matrix and slices of a sagittal series (mm, pixels).

    ``up_mm`` moves the field of view towards the head from the middle of the lumbar spine.
    """

    field_mm: tuple[float, float]
    shape: tuple[int, int]
    slices: int
    thickness_mm: float
    spacing_mm: float
    up_mm: float = 0.0


def draw_sagittal_plan(rng: np.random.Generator, size: Size) -> SagittalPlan:
    """Ranges of docs/phantom.md (field 240–350, thickness 3–5, gap 0.3–1); ``small``: 1.1–1.5 mm pixels."""
    field = rng.uniform(245, 345)
    if size == "small":
        rows = int(rng.choice([192, 208, 224]))
        slices = int(rng.integers(12, 15))
    else:
        rows = int(rng.choice([320, 384, 448, 512, 640]))
        slices = int(rng.integers(15, 20))
    narrow = 1.0 if rng.random() < 0.75 else rng.uniform(0.7, 0.95)
    # Few scanners store pixels that are not square.
    stretch = rng.uniform(1.1, 1.5) if rng.random() < 0.06 else 1.0
    thickness = rng.uniform(3.2, 4.6)
    # The stack must reach both rows of foramina.
    spacing = max(thickness + rng.uniform(0.3, 1.0), 54.0 / (slices - 1))
    shape = (rows, 2 * int(rows * narrow / stretch / 2))
    return SagittalPlan((field, field * narrow), shape, slices, thickness, spacing)


def cut_view(body: Body, plan: SagittalPlan, rng: np.random.Generator, size: Size) -> SagittalPlan:
    """A field of view that lacks the sacrum or upper lumbar levels, or that shows most of the spine."""
    lumbar_mm = float(np.linalg.norm(body.canal_mm(FIRST_LUMBAR) - body.canal_mm(LUMBOSACRAL)))
    half = plan.field_mm[0] / 2
    draw = rng.random()
    if draw < 0.4:
        # The lower edge lies between the L5/S1 disc and the L3/L4 disc.
        return replace(plan, up_mm=half - lumbar_mm / 2 + rng.uniform(8.0, 50.0))
    if draw < 0.7:
        return replace(plan, up_mm=lumbar_mm / 2 - half - rng.uniform(6.0, 70.0))
    height = rng.uniform(400, 500)
    rows = 224 if size == "small" else int(rng.choice([448, 512, 640]))
    width = height * rng.uniform(0.5, 0.9)
    shape = (rows, 2 * int(rows * width / height / 2))
    up_mm = height / 2 - lumbar_mm / 2 - rng.uniform(30, 110)
    return replace(plan, field_mm=(height, width), shape=shape, up_mm=up_mm)


def _reaching_foramina(body: Body, plan: SagittalPlan) -> SagittalPlan:
    """As many slices as both rows of foramina need; a bent spine needs more."""
    x = [body.foramen_mm(level, side)[0] for level in LEVELS for side in Side]
    needed = int(np.ceil((max(x) - min(x) + 8.0) / plan.spacing_mm)) + 1
    return replace(plan, slices=max(plan.slices, needed))


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
    foramina = np.array([body.foramen_mm(level, side) - middle for level in LEVELS for side in Side]) @ left
    aside = (foramina.max() + foramina.min()) / 2
    centre = middle + left * aside - down * plan.up_mm
    centre = centre + rng.normal(0, [1.0, 8.0, 10.0]) + back * rng.uniform(-40, 5)
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
    lumbar: Sequence[int] = LUMBAR_PLANES,
) -> tuple[Stack, ...]:
    """Disc-angled stacks of ``per_disc`` slices, lowest first, or one contiguous stack over all discs.

    ``lumbar`` are the indices of the disc planes to cover, from the head down.
    """
    spine = body.spine
    left = spine.rotation[:, 0] + rng.normal(0.0, 0.02, 3)
    if angled:
        stacks = []
        for plane in reversed(lumbar):
            up = spine.rotation @ spine.up[plane] + rng.normal(0.0, 0.03, 3)
            middle = body.canal_mm(plane) + up * rng.normal(0.0, 0.8)
            stacks.append(_axial_stack(middle, up, left, field_mm, shape, per_disc, spacing_mm))
        return tuple(stacks)
    top, bottom = body.canal_mm(lumbar[0]), body.canal_mm(lumbar[-1])
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
    body: Body,
    rng: np.random.Generator,
    size: Size = "small",
    scanners: ScannerRange = USUAL_SCANNERS,
    view: View = "whole",
    randomised: bool = False,
) -> tuple[SeriesPlan, ...]:
    """Plan sagittal T2 and T1 and one to four axial series (``small``: mostly one).

    Numeric series ids and everything else come from ``rng``. ``scanners``: noise, resolution and contrast.
    ``view``: whether the sagittal field holds all lumbar levels; ``mixed`` cuts 15 %.
    ``randomised`` gives every tissue a random brightness.
    """
    field_t = float(rng.choice([1.5, 3.0]))
    sagittal = draw_sagittal_plan(rng, size)
    cut = (rng.random() < CUT_SHARE) if view == "mixed" else view == "cut"
    if cut:
        sagittal = cut_view(body, sagittal, rng, size)
    sagittal = _reaching_foramina(body, sagittal)
    planes = sagittal_planes(body, sagittal, rng)
    series_ids = iter(str(value) for value in rng.choice(4_000_000_000, size=6, replace=False) + 10_000_000)
    plans = []
    for kind in (SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1):
        if kind is SeriesKind.SAGITTAL_T1 and rng.random() < 0.4:
            planes = sagittal_planes(body, sagittal, rng)
        plans.append(
            _series(
                rng,
                kind,
                next(series_ids),
                (planes,),
                thickness_mm=sagittal.thickness_mm,
                spacing_mm=sagittal.spacing_mm,
                scanners=scanners,
                contrast=_contrast(kind, rng, field_t, scanners.tissue_spread, randomised),
            )
        )
    if cut:  # coils reach as far as the field of view
        plans = [replace(plan, scanner=replace(plan.scanner, coil_half_mm=500.0)) for plan in plans]
    lumbar = _seen_levels(body, planes) if cut and rng.random() < 0.5 else LUMBAR_PLANES
    # 335 of 1,975 real studies have 2–4 axial series (docs/phantom.md).
    count = 1 if size == "small" else int(rng.choice([1, 2, 3, 4], p=[0.83, 0.12, 0.03, 0.02]))
    for number in range(count):
        part = lumbar if number == 0 else lumbar[int(rng.integers(len(lumbar))) :]
        contrast = _contrast(SeriesKind.AXIAL_T2, rng, field_t, scanners.tissue_spread, randomised)
        plans.append(_axial_plan(body, rng, size, next(series_ids), contrast, part, scanners))
    return tuple(plans)


def _seen_levels(body: Body, planes: Stack) -> tuple[int, ...]:
    """The lumbar disc planes whose canal point is in a sagittal field of view, at least one."""
    plane = planes[len(planes) // 2]
    seen = [i for i in LUMBAR_PLANES if plane.shows(body.canal_mm(i))]
    return tuple(seen) or LUMBAR_PLANES[2:3]


def _contrast(
    kind: SeriesKind, rng: np.random.Generator, field_t: float, tissue_spread: float, randomised: bool
) -> Contrast:
    contrast = draw_contrast(kind, rng, field_t, tissue_spread=tissue_spread)
    return randomise_tissues(contrast, rng) if randomised else contrast


def _axial_plan(
    body: Body,
    rng: np.random.Generator,
    size: Size,
    series_id: str,
    contrast: Contrast,
    lumbar: Sequence[int],
    scanners: ScannerRange,
) -> SeriesPlan:
    angled = bool(rng.random() < 0.5)
    side = int(rng.choice([136, 144, 160]) if size == "small" else rng.choice([256, 320, 384, 512]))
    field = rng.uniform(120, 140) if size == "small" else rng.uniform(160, 220)
    spacing = rng.uniform(4.2, 4.8) if angled or size == "full" else rng.uniform(5.5, 6.2)
    stacks = axial_stacks(
        body,
        rng,
        angled=angled,
        field_mm=field,
        shape=(side, side),
        per_disc=3 if size == "small" else int(rng.integers(4, 7)),
        spacing_mm=spacing,
        lumbar=lumbar,
    )
    return _series(
        rng,
        SeriesKind.AXIAL_T2,
        series_id,
        stacks,
        thickness_mm=spacing - 0.4,
        spacing_mm=spacing,
        scanners=scanners,
        contrast=contrast,
    )


def _series(
    rng: np.random.Generator,
    kind: SeriesKind,
    series_id: str,
    stacks: tuple[Stack, ...],
    *,
    thickness_mm: float,
    spacing_mm: float,
    scanners: ScannerRange,
    contrast: Contrast,
) -> SeriesPlan:
    orientation = Orientation.AXIAL if kind is SeriesKind.AXIAL_T2 else Orientation.SAGITTAL
    return SeriesPlan(
        kind=kind,
        series_id=series_id,
        contrast=contrast,
        scanner=draw_scanner(rng, orientation, scanners),
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
