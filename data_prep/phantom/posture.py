"""How a patient's spine is bent, and what is unusual about it: slips, fractures, a transitional vertebra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.geometry import FloatArray
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
