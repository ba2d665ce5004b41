"""What a scanner does to the ideal signal: coil shading, blur, saturation band, Rician noise, 12 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter

from data_prep.geometry import Float32Array, Orientation, SlicePlane
from data_prep.phantom.body import Body
from data_prep.phantom.soft_tissue import MUSCLE_BACK_MM
from data_prep.phantom.tissue import TISSUE_SPREAD, Contrast

MAX_STORED = 4095  # 12 bits
CANAL_MM = 24.0  # about how far behind the L3/L4 disc centre the canal lies


@dataclass(frozen=True)
class Scanner:
    """The appearance that a scanner gives to one series.

    Attributes:
        coil_reach_mm: distance from the spine towards the belly over which the coil's signal falls to 1/e.
        coil_corrected: share of that fall which the vendor's filter takes away, 0–1.
        coil_centre_mm, coil_half_mm: height of the coil's middle above the L3/L4 disc, and its half length.
        shading: (3,) linear drift of the gain per 100 mm along patient x, y, z.
        blur_px: standard deviation of the point spread.
        bandwidth: share of the pixel grid's frequencies that was acquired; below 1, edges ring.
        noise: standard deviation of the noise before the magnitude, as a share of ``white``.
        white: stored value of the brightest tissue at the spine.
        band_mm: saturation band in front of the spine: distance from the L3/L4 disc, or None.
        ghost: strength of the ghosts of motion, and ghost_px their distance; along rows if ghost_rows.
        fat_shift_px: displacement of fat along the other direction (chemical shift).
    """

    coil_reach_mm: float
    coil_corrected: float
    coil_centre_mm: float
    coil_half_mm: float
    shading: tuple[float, float, float]
    blur_px: float
    bandwidth: float
    noise: float
    white: float
    band_mm: float | None
    ghost: float
    ghost_px: int
    ghost_rows: bool
    fat_shift_px: float

    def acquire(
        self, signal: Float32Array, plane: SlicePlane, body: Body, contrast: Contrast, noise_seed: list[int]
    ) -> Float32Array:
        """Stored values, whole numbers 0–4095 as float32 (rows, columns), of a noise-free slice."""
        brightest = max(contrast.signals["fat"], contrast.signals["csf"])
        if self.fat_shift_px:
            signal = self._shift_fat(signal, contrast.signals["fat"])
        image = signal / np.float32(brightest) * self._gain(plane, body)
        if self.ghost > 0:
            image = self._with_ghosts(image)
        image = self._point_spread(image)
        rng = np.random.default_rng(noise_seed)
        # The magnitude of a complex signal with Gaussian noise in both parts is Rician.
        real = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(self.noise)
        imaginary = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(self.noise)
        stored = np.rint(np.hypot(real, imaginary) * np.float32(self.white))
        return np.clip(stored, 0, MAX_STORED).astype(np.float32)

    def _shift_fat(self, signal: Float32Array, fat: float) -> Float32Array:
        """Move what is as bright as fat by part of a pixel: borders darken here and brighten there."""
        share = np.clip(signal * np.float32(2.0 / max(fat, 1e-6)) - 1.0, 0.0, 1.0)
        part = signal * share
        axis = 1 if self.ghost_rows else 0
        moved = np.roll(part, int(np.sign(self.fat_shift_px)), axis=axis)
        return np.maximum(signal + np.float32(abs(self.fat_shift_px)) * (moved - part), 0.0)

    def _with_ghosts(self, image: Float32Array) -> Float32Array:
        axis = 0 if self.ghost_rows else 1
        total = image.copy()
        for order, sign in ((1, 1.0), (2, -0.5)):
            for step in (order * self.ghost_px, -order * self.ghost_px):
                total += np.float32(sign * self.ghost) * np.roll(image, step, axis=axis)
        return np.abs(total)

    def _point_spread(self, image: Float32Array) -> Float32Array:
        blurred = gaussian_filter(image, self.blur_px, truncate=3.0)
        if self.bandwidth >= 1.0:
            return blurred
        kernel = self.bandwidth * np.sinc(self.bandwidth * np.arange(-7, 8))
        kernel = (kernel / kernel.sum()).astype(np.float32)
        return np.abs(correlate1d(correlate1d(blurred, kernel, axis=0), kernel, axis=1))

    def _gain(self, plane: SlicePlane, body: Body) -> Float32Array:
        rows, columns = plane.shape
        corner = plane.to_mm([(0, 0), (columns - 1, 0), (0, rows - 1)]) - body.spine.to_patient(np.zeros(3))
        along_x = np.linspace(0, 1, columns, dtype=np.float32)[None, :]
        along_y = np.linspace(0, 1, rows, dtype=np.float32)[:, None]

        def over_image(values: NDArray[np.float64]) -> Float32Array:
            """A linear function of place, from its values in three corners."""
            start, right, down = values.astype(np.float32)
            return (start + along_x * (right - start)) + along_y * (down - start)

        y, z = over_image(corner[:, 1]), over_image(corner[:, 2])
        skin_y = 24.0 + MUSCLE_BACK_MM + body.soft["fat_back"]
        depth = np.maximum(skin_y - y, 0.0) - np.float32(skin_y - CANAL_MM)
        fall = depth * np.float32((1.0 - self.coil_corrected) / self.coil_reach_mm)
        drift = np.clip(over_image(corner @ np.array(self.shading) / 100.0), -0.8, 0.8)
        from_coil = (z - np.float32(self.coil_centre_mm)) / np.float32(self.coil_half_mm)
        gain = np.exp(drift - fall - np.minimum(np.square(np.square(from_coil)), np.float32(1.6)))
        if self.band_mm is not None:
            gain *= 0.12 + 0.88 / (1.0 + np.exp(np.clip((y + np.float32(self.band_mm)) / -5, -30, 30)))
        return gain


@dataclass(frozen=True)
class ScannerRange:
    """From what noise, resolution and contrast the scanners of a data set are drawn.

    Attributes:
        snr: lowest and highest signal-to-noise ratio at the spine.
        blur_px: lowest and highest standard deviation of the point spread.
        tissue_spread: sd of the log of a tissue's signal between patients.
    """

    snr: tuple[float, float]
    blur_px: tuple[float, float]
    tissue_spread: float


# Graders train on USUAL; the prior's share in their answers is fitted on SHIFTED; UNSEEN is only reported.
USUAL_SCANNERS = ScannerRange(snr=(11.0, 60.0), blur_px=(0.25, 0.75), tissue_spread=TISSUE_SPREAD)
SHIFTED_SCANNERS = ScannerRange(snr=(8.0, 12.0), blur_px=(0.65, 0.9), tissue_spread=0.2)
UNSEEN_SCANNERS = ScannerRange(snr=(6.0, 10.0), blur_px=(0.75, 1.0), tissue_spread=0.25)
SCANNER_RANGES = {"usual": USUAL_SCANNERS, "shifted": SHIFTED_SCANNERS, "unseen": UNSEEN_SCANNERS}


def draw_scanner(
    rng: np.random.Generator, orientation: Orientation, scanners: ScannerRange = USUAL_SCANNERS
) -> Scanner:
    """Draw the appearance of a series: SNR 8–60 at the spine (docs/phantom.md), coils far to very near."""
    sagittal = orientation is Orientation.SAGITTAL
    moved, ringing, shifted = rng.random(3)
    return Scanner(
        coil_reach_mm=rng.uniform(35, 130),
        coil_corrected=rng.beta(0.8, 1.2),
        coil_centre_mm=rng.normal(0.0, 25.0),
        coil_half_mm=rng.uniform(150, 320),
        shading=tuple(rng.normal(0.0, [0.10, 0.08, 0.15])),
        blur_px=rng.uniform(*scanners.blur_px),
        bandwidth=rng.uniform(0.6, 0.95) if ringing < 0.5 else 1.0,
        noise=float(np.exp(-rng.uniform(*np.log(scanners.snr)))),
        white=rng.uniform(250, 1500),
        band_mm=rng.uniform(25, 75) if rng.random() < (0.6 if sagittal else 0.35) else None,
        ghost=rng.uniform(0.01, 0.06) if moved < 0.25 else 0.0,
        ghost_px=int(rng.integers(8, 60)),
        ghost_rows=bool(rng.random() < (0.7 if sagittal else 0.3)),
        fat_shift_px=rng.uniform(-0.9, 0.9) if shifted < 0.5 else 0.0,
    )
