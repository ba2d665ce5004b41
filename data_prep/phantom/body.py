"""One patient: the spine, the profiles of every structure along it, and the soft tissue around it.

Severity acts here: the latent of a target (grade scale, see severity.py) changes the profile of one
structure near one disc plane and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_prep.geometry import Float32Array, FloatArray
from data_prep.phantom.posture import (
    FIRST_LUMBAR,
    LUMBOSACRAL,
    N_PLANES,
    Posture,
    draw_discs,
    draw_haemangioma,
    draw_posture,
)
from data_prep.phantom.spine import SAMPLES_PER_LEVEL, Spine, make_spine, slip_forward
from data_prep.synthetic import Transitional
from data_prep.vocabulary import Condition, ConditionGroup, Level, Side, Target

# One row per disc plane T3/T4 … S5/Co; lumbar values from docs/phantom.md ("Published measures").
_HALF_DEPTH = [
    9, 9.5, 10.2, 10.8, 11.4, 12, 12.5, 13, 13.5, 14,
    15, 15.8, 16.3, 16.7, 16.3, 11.5, 8, 6.5, 5.5, 4,
]  # fmt: skip
_HALF_WIDTH = [
    13, 13.4, 13.8, 14.2, 14.6, 15, 15.5, 16, 17.5, 19,
    20.5, 21.8, 23, 24, 25, 23, 20, 17, 12, 7,
]  # fmt: skip
_SAC_HALF_DEPTH = [
    6, 6.1, 6.2, 6.4, 6.5, 6.6, 6.6, 6.8, 7.0, 7.2,
    7.2, 7.0, 6.8, 6.6, 6.0, 4.6, 2.5, 0.5, 0.3, 0.3,
]  # fmt: skip
_SAC_HALF_WIDTH = [
    7.2, 7.4, 7.6, 7.8, 7.9, 8.0, 8.0, 8.2, 8.6, 9.0,
    9.0, 8.8, 8.7, 8.6, 8.2, 6.6, 3.5, 0.5, 0.3, 0.3,
]  # fmt: skip
_SAC_GAP = [
    1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2,
    1.2, 1.2, 1.3, 1.7, 3.3, 4.5, 5.0, 4.0, 3.0, 3.0,
]  # fmt: skip
_PSOAS = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0.1,
    0.35, 0.6, 0.85, 1.0, 0.95, 0.85, 0.7, 0.5, 0.3, 0.1,
]  # fmt: skip
# From the disc plane up to the middle of the foramen's root, and back from the canal point (mm): puts the
# annotated foramen where "Geometry of the annotations" (docs/phantom.md) has it.
FORAMEN_ABOVE_MM = (6.0, 6.0, 6.0, 6.0, 5.0)
FORAMEN_BACK_MM = (-3.0, -3.5, -4.0, -4.5, -6.5)
FORAMEN_SIDE_MM = 16.5
RECESS_SIDE_MM = 9.0
RECESS_BACK_MM = -2.6
ROOT_RADIUS_MM = (2.0, 2.15, 2.3, 2.5, 2.7)
# The latent range over which anatomy changes: below, a structure is simply normal, above, closed.
LATENT_RANGE = (-0.8, 3.2)


@dataclass(frozen=True, eq=False)
class Body:
    """A patient as implicit functions: cut it with ``render.render_tissue``.

    Attributes:
        spine: curve, frame and pose.
        profile: float32 (samples,) per structure along the spine; names in ``_profiles``.
        transitional: whether the lumbosacral vertebra is transitional.
        discs: float32 (planes,) or (planes, 2) per property, see ``wear.draw_discs``.
        haemangioma: position along the spine, left, back, radius (mm), change of the fat share.
        foramen, recess: float32 (2, planes, k) for right, left; columns in ``_foramina`` and ``_recesses``.
        roots: float32 (k, 2) places of the cauda equina roots in the unit disc of the sac.
        soft: scalars of the soft tissue (mm, or shares).
        noise_shift: (3,) where the patient lies in the noise volume.
    """

    spine: Spine
    transitional: bool
    profile: dict[str, Float32Array]
    discs: dict[str, Float32Array]
    haemangioma: tuple[float, float, float, float, float]
    foramen: Float32Array
    recess: Float32Array
    roots: Float32Array
    soft: dict[str, float]
    noise_shift: FloatArray

    def canal_mm(self, plane: int) -> FloatArray:
        """The patient point (3,) in the middle of the thecal sac behind a disc plane."""
        return self.spine.at_disc(plane, 0.0, self.sac_back_mm(plane), 0.0)

    def sac_back_mm(self, plane: int) -> float:
        """Distance from the disc centre back to the middle of the sac."""
        return float(self.profile["sac_centre"][plane * SAMPLES_PER_LEVEL])

    def recess_mm(self, level: Level, side: Side) -> FloatArray:
        """The patient point (3,) in the lateral recess."""
        plane, scale = FIRST_LUMBAR + level.index, self.spine.stature
        back = self.sac_back_mm(plane) + RECESS_BACK_MM * scale
        return self.spine.at_disc(plane, side.sign * RECESS_SIDE_MM * scale, back, -1.0)

    def foramen_mm(self, level: Level, side: Side) -> FloatArray:
        """The patient point (3,) in the neural foramen."""
        plane, scale = FIRST_LUMBAR + level.index, self.spine.stature
        back = self.sac_back_mm(plane) + FORAMEN_BACK_MM[level.index] * scale
        above = FORAMEN_ABOVE_MM[level.index] * scale
        return self.spine.at_disc(plane, side.sign * FORAMEN_SIDE_MM * scale, back, above)


def make_body(seed: int, latents: Mapping[Target, float], transitional: Transitional = "natural") -> Body:
    """Build the patient ``seed``; everything but the diseased structures depends on the seed alone.

    ``transitional`` forces or forbids a transitional vertebra; the rest of the patient changes with it.
    """
    rng = np.random.default_rng([seed, 2])
    posture = draw_posture(rng, transitional)
    spine = make_spine(rng, posture)
    profile = _profiles(rng, posture, latents)
    return Body(
        spine=spine,
        transitional=posture.transition is not None,
        profile={name: values.astype(np.float32) for name, values in profile.items()},
        discs=draw_discs(rng, posture),
        haemangioma=draw_haemangioma(rng, spine.stature),
        foramen=_foramina(spine.stature, latents),
        recess=_recesses(spine.stature, latents),
        roots=_draw_roots(rng),
        soft=_draw_soft(rng, spine.stature),
        noise_shift=rng.uniform(0, 1000, 3),
    )


def _severity(latents: Mapping[Target, float], condition: Condition, level: Level) -> float:
    """How far a structure is closed: 0 normal, 1.8 at the first boundary, 2.8 at the second, 4 at most."""
    low, high = LATENT_RANGE
    return float(np.clip(latents[Target(condition, level)], low, high) - low)


def _profiles(
    rng: np.random.Generator, posture: Posture, latents: Mapping[Target, float]
) -> dict[str, FloatArray]:
    scale = posture.stature
    position = np.arange((N_PLANES - 1) * SAMPLES_PER_LEVEL + 1) / SAMPLES_PER_LEVEL

    def along(values: list[float], factor: float = 1.0) -> FloatArray:
        return np.interp(position, np.arange(N_PLANES), np.array(values)) * scale * factor

    fraction = position % 1.0
    waist = 1.0 - 0.09 * np.sin(np.pi * fraction) ** 2
    half_depth = along(_HALF_DEPTH, rng.normal(1.0, 0.04))
    sac_size = float(np.clip(rng.normal(1.0, 0.08), 0.8, 1.2))
    sac_depth, sac_width = along(_SAC_HALF_DEPTH, sac_size), along(_SAC_HALF_WIDTH, sac_size)
    gap = along(_SAC_GAP)
    half_widths = along(_HALF_WIDTH, rng.normal(1.0, 0.04))
    moved = 0.0
    if posture.transition is not None:
        moved = posture.transition.shift
        square = posture.transition.rudiment * np.exp(-((position - LUMBOSACRAL - 0.9) ** 2) / 0.3)
        half_depth += 3.0 * square
        half_widths += 2.0 * square
    slide = np.zeros_like(position)
    if posture.slip is not None:
        # The sac bends over the step that the slip makes in the spine.
        slide = slip_forward(*posture.slip) - slip_forward(*posture.slip, over_levels=0.18)
    squeeze = np.zeros_like(position)
    for level in Level:
        closed = _severity(latents, Condition.SPINAL_CANAL_STENOSIS, level)
        from_disc_mm = (position - FIRST_LUMBAR - level.index) * 35.0
        squeeze += closed * np.exp(-((from_disc_mm / 7.0) ** 4))
    # Area of the sac: 1 at severity 0, .52 at the first boundary, .36 at the second (dural sac area at
    # L4/5: controls 152, cut-off 111, stenosis 80 ± 35 mm², docs/phantom.md).
    area = np.exp(-0.36 * squeeze)
    # The conus ends at T12–L2 (docs/phantom.md).
    conus = FIRST_LUMBAR - 0.6 + moved + float(np.clip(rng.normal(0.0, 0.45), -1.0, 1.0))
    return {
        "half_depth": half_depth * waist,
        "half_width": half_widths * waist,
        "back_wall": half_depth * (0.4 + 0.6 * waist),
        "sac_centre": half_depth + gap + sac_depth + slide,
        "sac_depth_normal": sac_depth,
        "sac_width_normal": sac_width,
        "sac_depth": sac_depth * area**0.55,
        "sac_width": sac_width * area**0.45,
        "squeeze": squeeze,
        "cord": np.clip((conus - position) / 0.9, 0.0, 1.0) ** 0.6 * scale,
        "vessel_position": position - moved,
        "psoas": np.interp(position - moved, np.arange(N_PLANES), _PSOAS),
    }


def _foramina(scale: float, latents: Mapping[Target, float]) -> Float32Array:
    """(2, planes, 6), mm, per foramen.

    Half depth and half height of the fat, its middle above the disc, its middle behind the canal point,
    radius of the root, half height when free.
    """
    table = np.zeros((2, N_PLANES, 6), dtype=np.float32)
    for row, side in enumerate((Side.RIGHT, Side.LEFT)):
        for plane in range(N_PLANES):
            index = int(np.clip(plane - FIRST_LUMBAR, 0, 4))
            closed = 0.0
            if FIRST_LUMBAR <= plane <= LUMBOSACRAL:
                condition = Condition.of(ConditionGroup.FORAMINAL, side)
                closed = _severity(latents, condition, list(Level)[index])
            # Width 8.8 and height 18 when free; 5.8 and 12.8 at the first boundary, where height counts as
            # narrowed (12–15, docs/phantom.md), 4.2 and 9.8 at the second, about the root's own size.
            table[row, plane] = (
                4.4 - 0.82 * closed,
                9.0 - 1.45 * closed,
                FORAMEN_ABOVE_MM[index] - 1.5 + 0.8 * closed,
                FORAMEN_BACK_MM[index],
                ROOT_RADIUS_MM[index],
                9.0,
            )
    return table * np.float32(scale)


def _recesses(scale: float, latents: Mapping[Target, float]) -> Float32Array:
    """(2, planes, 4): half depth and width of the open recess, radius of its root, share of fat lost."""
    table = np.zeros((2, N_PLANES, 4), dtype=np.float32)
    for row, side in enumerate((Side.RIGHT, Side.LEFT)):
        for level in Level:
            closed = _severity(latents, Condition.of(ConditionGroup.SUBARTICULAR, side), level)
            # Depth 7 when free, 4.4 at the first boundary, 3 at the second: stenosed at ≤ 3.
            table[row, FIRST_LUMBAR + level.index] = (
                3.5 - 0.72 * closed,
                3.3 - 0.45 * closed,
                1.3,
                0.2 * closed,
            )
    table[..., :3] *= np.float32(scale)
    return table


def _draw_roots(rng: np.random.Generator) -> Float32Array:
    """The roots of the cauda equina lie behind and to the sides in a person on the back."""
    angle = rng.uniform(np.deg2rad(-10), np.deg2rad(190), 22)
    radius = np.sqrt(rng.uniform(0.12, 0.72, 22))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)


def _draw_soft(rng: np.random.Generator, scale: float) -> dict[str, float]:
    fat = float(np.clip(rng.lognormal(np.log(17.0), 0.5), 5.0, 50.0))
    return {
        "fat_back": fat,
        "fat_side": 0.8 * fat + 4.0,
        "half_width": scale * rng.uniform(140, 170) + fat,
        "front": scale * rng.uniform(85, 120) + fat,
        "muscle_fat": float(np.clip(rng.beta(1.3, 6.0), 0.02, 0.8)),
        "flavum": float(np.clip(rng.normal(3.8, 0.8), 2.5, 6.5)) * scale,
        "aorta": rng.uniform(7.0, 9.5),
        "kidney_height": rng.normal(25.0, 12.0),
        "irregular": rng.uniform(0.3, 0.65),
        "facet": rng.uniform(0.88, 1.25),
        "marrow_texture": rng.uniform(0.04, 0.13),
        "spinous": scale * rng.uniform(24.0, 31.0),
    }
