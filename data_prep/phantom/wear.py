"""Wear and oddities of discs and vertebrae: drawn apart from the latents, they must not carry the grade."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import Float32Array
from data_prep.phantom.posture import FIRST_LUMBAR, LUMBOSACRAL, N_PLANES, Posture

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
