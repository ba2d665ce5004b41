"""What a scanner does to the ideal signal: coil shading, blur, saturation band, Rician noise, 12 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from data_prep.geometry import Orientation, SlicePlane
from data_prep.phantom.body import Body
from data_prep.phantom.soft_tissue import MUSCLE_BACK_MM
from data_prep.phantom.tissue import Contrast

Float32Array = NDArray[np.float32]

MAX_STORED = 4095  # 12 bits


@dataclass(frozen=True)
class Scanner:
    """The appearance that a scanner gives to one series.

    Attributes:
        coil_reach_mm: distance from the skin of the back over which the surface coil's signal falls to 1/e.
        coil_corrected: share of that fall which the vendor's filter takes away, 0–1.
        shading: (3,) linear drift of the gain per 100 mm along patient x, y, z.
        blur_px: standard deviation of the point spread.
        noise: standard deviation of the noise before the magnitude, as a share of ``white``.
        white: stored value of the brightest tissue near the coil.
        band_mm: saturation band in front of the spine (sagittal only): distance from the L3/L4 disc, or None.
    """

    coil_reach_mm: float = 120.0
    coil_corrected: float = 0.5
    shading: tuple[float, float, float] = (0.0, 0.0, 0.0)
    blur_px: float = 0.45
    noise: float = 0.02
    white: float = 900.0
    band_mm: float | None = None

    def acquire(
        self, signal: Float32Array, plane: SlicePlane, body: Body, contrast: Contrast, noise_seed: list[int]
    ) -> Float32Array:
        """Stored values, whole numbers 0–4095 as float32 (rows, columns), of a noise-free slice."""
        brightest = max(contrast.signals["fat"], contrast.signals["csf"])
        gain = self._gain(plane, body)
        image = gaussian_filter(signal / np.float32(brightest) * gain, self.blur_px)
        rng = np.random.default_rng(noise_seed)
        # The magnitude of a complex signal with Gaussian noise in both parts is Rician.
        real = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(self.noise)
        imaginary = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(self.noise)
        stored = np.rint(np.hypot(real, imaginary) * np.float32(self.white))
        return np.clip(stored, 0, MAX_STORED).astype(np.float32)

    def _gain(self, plane: SlicePlane, body: Body) -> Float32Array:
        rows, columns = plane.shape
        corner = plane.to_mm([(0, 0), (columns - 1, 0), (0, rows - 1)]) - body.spine.to_patient(np.zeros(3))
        x = np.linspace(0, 1, columns, dtype=np.float32)[None, :, None]
        y = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
        step_x, step_y = corner[1] - corner[0], corner[2] - corner[0]
        place = (corner[0] + x * step_x + y * step_y).astype(np.float32)
        skin_y = 24.0 + MUSCLE_BACK_MM + body.soft["fat_back"]
        fall = np.maximum(skin_y - place[..., 1], 0.0) / self.coil_reach_mm * (1.0 - self.coil_corrected)
        drift = place @ (np.array(self.shading, dtype=np.float32) / 100.0)
        gain = np.exp(-fall + np.clip(drift, -0.8, 0.8))
        if self.band_mm is not None and plane.orientation is Orientation.SAGITTAL:
            gain *= 0.12 + 0.88 / (1.0 + np.exp(np.clip(-(place[..., 1] + self.band_mm) / 5.0, -30, 30)))
        return gain.astype(np.float32)


def draw_scanner(rng: np.random.Generator, orientation: Orientation) -> Scanner:
    """Draw the appearance of a series; noise as SNR 15–60 of white (PHANTOM.md: 8–60)."""
    sagittal = orientation is Orientation.SAGITTAL
    return Scanner(
        coil_reach_mm=rng.uniform(60, 160),
        coil_corrected=rng.uniform(0.1, 1.0),
        shading=tuple(rng.normal(0.0, [0.08, 0.05, 0.12])),
        blur_px=rng.uniform(0.3, 0.6),
        noise=1.0 / rng.uniform(15, 60),
        white=rng.uniform(350, 2200),
        band_mm=rng.uniform(38, 75) if sagittal and rng.random() < 0.6 else None,
    )
