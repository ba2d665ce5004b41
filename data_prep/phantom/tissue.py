"""Tissues and how they look: the spin-echo equation with published relaxation times.

Sources: fat, muscle and fluid: Gold et al., AJR 2004;183:343. Cord and nerve: Stanisz et al., MRM
2005;54:507. Marrow water and kidney: de Bazelaire et al., Radiology 2004;230:652. Disc: Stelzeneder et al.,
Eur Radiol 2012;22:1011 (T2), T1 as cartilage in Gold. Bone cortex and ligament have almost no signal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data_prep.vocabulary import SeriesKind

# tissue: (proton density, T1 ms at 1.5 T, T1 ms at 3 T, T2 ms at 1.5 T, T2 ms at 3 T)
TISSUES: dict[str, tuple[float, float, float, float, float]] = {
    "fat": (0.90, 288, 371, 165, 133),
    "muscle": (0.80, 1130, 1420, 38, 35),
    "csf": (1.00, 2850, 3620, 1210, 767),
    "cord": (0.75, 745, 993, 74, 78),
    "root": (0.75, 815, 1083, 65, 65),
    "marrow_water": (0.60, 700, 760, 48, 48),
    "nucleus": (0.95, 1060, 1240, 125, 115),
    "nucleus_worn": (0.75, 1000, 1150, 52, 48),
    "annulus": (0.60, 950, 1100, 38, 35),
    "ligament": (0.35, 800, 950, 22, 20),
    "cortex": (0.12, 700, 800, 15, 12),
    "kidney": (0.85, 966, 1142, 87, 76),
    "bowel": (0.75, 900, 1100, 70, 65),
    "vessel": (0.10, 1200, 1500, 50, 40),
    "skin": (0.50, 700, 800, 30, 28),
}


@dataclass(frozen=True)
class Contrast:
    """A pulse sequence.

    Attributes:
        kind: the series kind that it makes.
        tr_ms, te_ms: repetition and echo time; ti_ms: inversion time, None for plain spin echo.
        field_t: 1.5 or 3 tesla.
        tissue_factors: (tissue, factor) by which the signal differs from the textbook's.
    """

    kind: SeriesKind
    tr_ms: float
    te_ms: float
    ti_ms: float | None = None
    field_t: float = 1.5
    tissue_factors: tuple[tuple[str, float], ...] = ()

    def signal(self, tissue: str) -> float:
        """Magnitude signal of a tissue, about 0–1.

        S = PD·(1 − e^(−TR/T1))·e^(−TE/T2); with an inversion pulse the bracket is
        |1 − 2e^(−TI/T1) + e^(−TR/T1)|.
        """
        density, t1_low, t1_high, t2_low, t2_high = TISSUES[tissue]
        t1, t2 = (t1_low, t2_low) if self.field_t < 2 else (t1_high, t2_high)
        recovered = 1.0 - np.exp(-self.tr_ms / t1)
        if self.ti_ms is not None:
            recovered = abs(1.0 - 2.0 * np.exp(-self.ti_ms / t1) + np.exp(-self.tr_ms / t1))
        return float(density * recovered * np.exp(-self.te_ms / t2))

    @property
    def signals(self) -> dict[str, float]:
        """Signal of every tissue, times its factor."""
        factors = dict(self.tissue_factors)
        return {tissue: self.signal(tissue) * factors.get(tissue, 1.0) for tissue in TISSUES}


STIR_SHARE = 0.2
TISSUE_SPREAD = 0.08  # sd of the log of a tissue's signal between patients


def draw_contrast(
    kind: SeriesKind,
    rng: np.random.Generator,
    field_t: float,
    tissue_spread: float = TISSUE_SPREAD,
) -> Contrast:
    """Draw a sequence with TR and TE in the ranges of docs/phantom.md.

    ``tissue_spread`` is the log-normal scatter of each tissue's signal between patients; raise it (0.3–0.5)
    to train on contrasts that no textbook has.
    """
    factors = rng.lognormal(0.0, tissue_spread, len(TISSUES))
    tissue_factors = tuple(zip(TISSUES, (float(factor) for factor in factors), strict=True))
    if kind is SeriesKind.SAGITTAL_T1:
        return Contrast(kind, rng.uniform(400, 700), rng.uniform(8, 15), None, field_t, tissue_factors)
    if rng.random() < STIR_SHARE and kind is SeriesKind.SAGITTAL_T2:
        fat_t1 = TISSUES["fat"][1 if field_t < 2 else 2]
        # Fat is nulled at TI = T1·ln 2 for long TR; scanners are set a little beside it.
        inversion = fat_t1 * float(np.log(2)) * rng.uniform(0.85, 1.0)
        tr_ms, te_ms = rng.uniform(3500, 5000), rng.uniform(40, 70)
        return Contrast(kind, tr_ms, te_ms, inversion, field_t, tissue_factors)
    return Contrast(kind, rng.uniform(2500, 5000), rng.uniform(80, 120), None, field_t, tissue_factors)


def randomise_tissues(contrast: Contrast, rng: np.random.Generator) -> Contrast:
    """The same sequence with the signal of every tissue drawn anew, evenly over 0.02–0.9.

    As in SynthSeg (Billot et al., Med Image Anal 2023;86:102789): no tissue has a brightness to rely on.
    """
    wanted = rng.uniform(0.02, 0.9, len(TISSUES))
    factors = tuple(
        (tissue, float(value / max(contrast.signal(tissue), 1e-4)))
        for tissue, value in zip(TISSUES, wanted, strict=True)
    )
    return replace(contrast, tissue_factors=factors)
