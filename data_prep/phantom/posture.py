"""How a patient's spine is bent, and what is unusual about it: slips, fractures, a transitional vertebra.

Wear and oddities are drawn apart from the latents: they must not carry the grade.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import Float32Array, FloatArray
from data_prep.synthetic import Transitional

PLANE_NAMES = (
    "T3/T4", "T4/T5", "T5/T6", "T6/T7", "T7/T8",
    "T8/T9", "T9/T10", "T10/T11", "T11/T12", "T12/L1",
    "L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1",
    "S1/S2", "S2/S3", "S3/S4", "S4/S5", "S5/Co",
)  # fmt: skip
FIRST_LUMBAR = PLANE_NAMES.index("L1/L2")
LUMBOSACRAL = PLANE_NAMES.index("L5/S1")
N_PLANES = len(PLANE_NAMES)
# Distance (mm) from each disc centre to the next: lumbar about 36, T12 and above and the sacrum from the
# vertebral heights of docs/phantom.md and of sacral anatomy.
_DISC_GAPS_MM = np.array(
    [23.5, 24, 25, 25.5, 26, 27, 28, 29.5, 31.5, 34, 35.5, 36, 36, 36, 29, 25, 22, 19, 17], dtype=float
)
# Tilt of the downward direction towards the back (degrees). With a canal point 24 mm behind the disc centre
# these give the published canal gaps 34 33 31 25 mm and segment angles −12 −8 +2.5 +16.5° (docs/phantom.md).
_TILT_DEG = np.array(
    [24, 21, 17, 13, 8.5, 4, 1, -3.5, -8, -12.5, -14, -10.5, -3.5, 7, 28, 43, 54, 52, 38, 15], dtype=float
)
TRANSITIONAL_SHARE = 0.10
SLIP_SHARE = 0.08
FRACTURE_SHARE = 0.05
# One row per disc plane T3/T4 … S5/Co; lumbar values from docs/phantom.md ("Published measures").
_DISC_FRONT = [
    2.8, 2.9, 3.1, 3.2, 3.4, 3.5, 3.8, 4.2, 5.2, 6.8,
    8.5, 10.2, 11.3, 13.0, 14.0, 4.0, 2.0, 1.2, 1, 1,
]  # fmt: skip
_DISC_MIDDLE = [
    3.2, 3.3, 3.5, 3.7, 3.9, 4.0, 4.4, 5.0, 6.2, 7.8,
    9.2, 10.6, 11.5, 12.4, 11.6, 4.4, 2.2, 1.2, 1, 1,
]  # fmt: skip
_DISC_BACK = [
    2.6, 2.7, 2.8, 3.0, 3.1, 3.2, 3.5, 4.0, 5.0, 6.0,
    6.8, 7.8, 8.4, 8.8, 7.0, 3.2, 1.8, 1.0, 1, 1,
]  # fmt: skip
# The lowest discs wear first.
_WEAR = [
    0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.02, 0.05, 0.0,
    0.0, 0.02, 0.05, 0.15, 0.15, 0, 0, 0, 0, 0,
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Transition:
    """A lumbosacral transitional vertebra, numbered so that L5/S1 is the last well-formed disc.

    Attributes:
        rudiment: how far S1 and the S1/S2 disc look lumbar, 0–1.
        shift: levels by which conus, vessels and muscles lie lower (+) or higher (−) than usual: a sixth
            lumbar vertebra moves them up, a sacralised fifth moves them down.
    """

    rudiment: float
    shift: float


@dataclass(frozen=True, eq=False)
class Posture:
    """The bent spine before it is laid out in space.

    Attributes:
        stature: scale of all lengths.
        gaps_mm: (planes − 1,) from disc centre to disc centre.
        tilt, side_tilt: (planes,) radians, of the downward direction to the back and to the left.
        slip: disc plane and millimetres by which all above it has slid forwards, or None.
        fracture: the collapsed vertebra (index of the plane above it) and its share of height, or None.
        transition: of the lumbosacral junction, or None.
    """

    stature: float
    gaps_mm: FloatArray
    tilt: FloatArray
    side_tilt: FloatArray
    slip: tuple[int, float] | None
    fracture: tuple[int, float] | None
    transition: Transition | None


def draw_posture(rng: np.random.Generator, transitional: Transitional = "natural") -> Posture:
    """Draw lordosis (50 ± 12°), sacral slope, scoliosis (tail to 40°), stature (± 8 %) and anomalies.

    ``transitional`` forces or forbids a transitional vertebra (10 %, docs/phantom.md).
    """
    stature = float(np.clip(rng.normal(1.0, 0.06), 0.85, 1.15))
    gaps = _DISC_GAPS_MM * stature * rng.normal(1.0, 0.03, N_PLANES - 1)
    tilt = _draw_tilts(rng)
    transition = _draw_transition(rng, transitional)
    if transition is not None:
        # A squared S1 carries on the lumbar curve: the kink lies lower.
        gaps[LUMBOSACRAL] *= 1.0 + 0.10 * transition.rudiment
        tilt[LUMBOSACRAL] -= 7.0 * transition.rudiment
        tilt[LUMBOSACRAL + 1] -= 5.0 * transition.rudiment
    fracture = _draw_fracture(rng)
    if fracture is not None:
        vertebra, left_over = fracture
        gaps[vertebra] *= left_over
        tilt[: vertebra + 1] += 35.0 * (1.0 - left_over)
    slipped, plane, slip_mm = rng.random() < SLIP_SHARE, rng.integers(2), rng.uniform(3.0, 8.0)
    return Posture(
        stature=stature,
        gaps_mm=gaps,
        tilt=np.deg2rad(tilt),
        side_tilt=_draw_scoliosis(rng, np.concatenate([[0.0], np.cumsum(gaps)])),
        slip=(LUMBOSACRAL - int(plane), float(slip_mm) * stature) if slipped else None,
        fracture=fracture,
        transition=transition,
    )


def _draw_tilts(rng: np.random.Generator) -> FloatArray:
    middle = _TILT_DEG[FIRST_LUMBAR : LUMBOSACRAL + 1].mean()
    lordosis = np.clip(rng.normal(1.0, 0.25), 0.35, 1.7)
    tilt = middle + (_TILT_DEG - middle) * lordosis
    sacral = slice(LUMBOSACRAL + 1, None)
    tilt[sacral] = _TILT_DEG[sacral] + (tilt[LUMBOSACRAL] - _TILT_DEG[LUMBOSACRAL]) + rng.normal(0, 6)
    # The apex of the lordosis lies higher or lower from patient to patient; some L5/S1 are steep.
    position = np.arange(N_PLANES) - (FIRST_LUMBAR + 2)
    tilt += rng.normal(0.0, 2.5) * np.clip(position, -2, 3)
    return tilt + np.clip(rng.normal(0.0, 6.5), -14, 14) + rng.normal(0.0, 2.2, N_PLANES)


def _draw_transition(rng: np.random.Generator, transitional: Transitional) -> Transition | None:
    present, rudiment, shift = rng.random() < TRANSITIONAL_SHARE, rng.uniform(0.4, 1.0), rng.random()
    if transitional == "never" or (transitional == "natural" and not present):
        return None
    moved = 0.0 if shift < 0.4 else (-1.0 if shift < 0.7 else 1.0)
    # A sixth lumbar vertebra lies on an ordinary sacrum.
    return Transition(float(rudiment) if moved >= 0 else 0.1, moved)


def _draw_fracture(rng: np.random.Generator) -> tuple[int, float] | None:
    present, vertebra, left_over = (
        rng.random() < FRACTURE_SHARE,
        rng.integers(FIRST_LUMBAR - 2, LUMBOSACRAL),
        rng.uniform(0.68, 0.88),
    )
    return (int(vertebra), float(left_over)) if present else None


def _draw_scoliosis(rng: np.random.Generator, along: FloatArray) -> FloatArray:
    """Side tilt (radians) at each plane; the Cobb angle is about twice its amplitude, mostly < 10°."""
    degrees = rng.gamma(1.4, 1.6)
    if rng.random() < 0.12:
        degrees += rng.exponential(6.0)
    amplitude = np.deg2rad(np.clip(degrees, 0.0, 20.0)) * rng.choice([-1, 1])
    phase, wave = rng.uniform(0, 2 * np.pi), rng.uniform(220, 400)
    tilt = amplitude * np.sin(2 * np.pi * along / wave + phase)
    fade = np.clip((along[LUMBOSACRAL] - along) / 60.0, 0.2, 1.0)
    return tilt * fade


def draw_discs(rng: np.random.Generator, posture: Posture) -> dict[str, Float32Array]:
    """Draw every disc and the bone beside it.

    Returns float32 arrays (planes,): front, middle, back height (mm), worn (0–1), bulge (mm), vacuum (0–1),
    marrow (fat share of the vertebra under the plane), osteophyte (mm); and (planes, 2) for the bone above
    and below: modic_fat (change of the fat share), modic_fluid (0–1), modic_depth (mm), schmorl_depth,
    schmorl_left, schmorl_back (mm).
    """
    scale = posture.stature
    age = rng.beta(1.3, 1.5)
    worn = np.clip(1.3 * age * rng.beta(1.6, 1.6, N_PLANES) + np.array(_WEAR) + rng.normal(0, 0.1), 0.0, 1.0)
    worn[LUMBOSACRAL + 1 :] = 0.8
    # Up to 60 % lower (docs/phantom.md); some dark discs keep their height, some collapse.
    collapse = np.clip(worn**2 + rng.normal(0.0, 0.15, N_PLANES) * worn, 0.0, 1.0)
    height = scale * (1.0 - 0.6 * collapse) * rng.normal(1.0, 0.06, N_PLANES)
    front = np.array(_DISC_FRONT) * height * rng.normal(1.0, 0.08, N_PLANES)
    middle, back = np.array(_DISC_MIDDLE) * height, np.array(_DISC_BACK) * height
    height_rudiment = rng.uniform(0.5, 1.5)
    for values in (front, middle, back):
        values[LUMBOSACRAL + 1] *= height_rudiment
    if posture.transition is not None:
        # A rudimentary S1/S2 disc: at most half as high as a lumbar one.
        for values, full in ((front, 6.0), (middle, 6.5), (back, 4.8)):
            values[LUMBOSACRAL + 1] = max(values[LUMBOSACRAL + 1], full * posture.transition.rudiment * scale)
        worn[LUMBOSACRAL + 1] = rng.uniform(0.0, 0.9)
    fatty = np.clip(rng.normal(0.5, 0.13) + rng.normal(0, 0.03, N_PLANES), 0.2, 0.8)
    if posture.fracture is not None:
        vertebra, left_over = posture.fracture
        middle[vertebra] += 12.0 * (1.0 - left_over)
        if rng.random() < 0.5:  # a fresh fracture: the marrow is full of water
            fatty[vertebra] = 0.12
    values = {
        "front": front,
        "middle": middle,
        "back": back,
        "worn": worn,
        "marrow": fatty,
        "bulge": rng.uniform(0.0, 1.0, N_PLANES) + 0.8 * worn,
        "vacuum": (worn > 0.75) * (rng.random(N_PLANES) < 0.3),
        "osteophyte": np.clip(4.5 * age * worn * rng.beta(1.5, 2.0, N_PLANES), 0.0, 4.5),
        **_draw_endplates(rng, worn),
    }
    return {name: np.asarray(value, dtype=np.float32) for name, value in values.items()}


def _draw_endplates(rng: np.random.Generator, worn: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Modic changes of worn discs (type 1 water, 2 fat, 3 sclerosis) and Schmorl nodes."""
    shape = (N_PLANES, 2)
    kind = rng.choice([1, 2, 3], p=[0.3, 0.6, 0.1], size=(N_PLANES, 1))
    present = (rng.random((N_PLANES, 1)) < 0.35 * (worn[:, None] > 0.45)) & (rng.random(shape) < 0.85)
    node = rng.random(shape) < 0.06
    lumbar = np.arange(N_PLANES)[:, None] <= LUMBOSACRAL
    return {
        "modic_fat": present * np.choose(kind - 1, [-0.2, 0.35, -0.25]),
        "modic_fluid": present * (kind == 1) * 0.7,
        "modic_depth": rng.uniform(3.0, 11.0, shape),
        "schmorl_depth": node * lumbar * rng.uniform(2.0, 6.0, shape),
        "schmorl_left": rng.normal(0.0, 6.0, shape),
        "schmorl_back": rng.normal(0.0, 5.0, shape),
    }


def draw_haemangioma(rng: np.random.Generator, stature: float) -> tuple[float, float, float, float, float]:
    """Position along the spine, left, back (mm), radius (mm; 0 for none) and change of the fat share."""
    present = rng.random() < 0.12
    vertebra = int(rng.integers(FIRST_LUMBAR - 2, LUMBOSACRAL))
    left, back = rng.normal(0.0, [8.0, 5.0])
    radius = rng.uniform(3.0, 9.0) * stature * present
    return vertebra + rng.uniform(0.35, 0.65), float(left), float(back), float(radius), rng.uniform(0.2, 0.4)
