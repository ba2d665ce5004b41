"""Random training crops out of the larger cached ones."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from classifier.config import CropConfig, JitterConfig
from data_prep.crops import normalise, seen_rows

Pixels = NDArray[np.float32]
Valid = NDArray[np.bool_]


def central_crop(cached: NDArray[np.uint8], valid: Valid, crop: CropConfig) -> tuple[Pixels, Valid]:
    """The crop without jitter: what the grader sees when the localiser makes no error.

    Args:
        cached: (cached_slices, cached_size_px, cached_size_px).
        valid: bool (cached_slices,).

    Returns:
        float32 (slices, size_px, size_px) in [0, 1] and bool (slices,).
    """
    first, edge = crop.margin_slices, crop.margin_px
    chosen = slice(first, first + crop.slices)
    inner = slice(edge, edge + crop.size_px)
    pixels = cached[chosen, inner, inner].astype(np.float32)
    return normalise(pixels, valid[chosen], _seen(crop)), valid[chosen].copy()


def _seen(crop: CropConfig) -> slice:
    return seen_rows(crop.size_mm, crop.size_px, crop.seen_height_mm)


def jittered_crop(
    cached: NDArray[np.uint8],
    valid: Valid,
    crop: CropConfig,
    jitter: JitterConfig,
    generator: np.random.Generator,
    *,
    may_reverse_slices: bool,
) -> tuple[Pixels, Valid]:
    """A crop as a localiser with errors, another scanner and another patient would have given it.

    Args:
        cached, valid: as in ``central_crop``.
        may_reverse_slices: the canal looks the same from both sides; foramen and recess do not.

    Returns:
        As ``central_crop``.
    """
    first = crop.margin_slices + _slice_shift(valid, crop, jitter, generator)
    chosen = np.arange(first, first + crop.slices)
    if may_reverse_slices and generator.random() < 0.5:
        chosen = chosen[::-1]
    kept = valid[chosen].copy()
    beside = np.flatnonzero(np.arange(crop.slices) != crop.slices // 2)
    if len(beside) and generator.random() < jitter.slice_drop_share:
        kept[generator.choice(beside)] = False
    if len(beside) and generator.random() < jitter.alone_share:
        kept[beside] = False
    affine = _affine(crop, jitter, generator)
    if jitter.mirror_share and generator.random() < jitter.mirror_share:
        affine[:, 2] += affine[:, 0] * (crop.size_px - 1)
        affine[:, 0] *= -1
    size = (crop.size_px, crop.size_px)
    pixels = np.zeros((crop.slices, *size), dtype=np.float32)
    for position, index in enumerate(chosen):
        if kept[position]:
            pixels[position] = cv2.warpAffine(
                cached[index],
                affine,
                size,
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
    return _change_appearance(pixels, kept, _seen(crop), jitter, generator), kept


def _slice_shift(valid: Valid, crop: CropConfig, jitter: JitterConfig, generator: np.random.Generator) -> int:
    one, two = jitter.slice_shift_1_share / 2, jitter.slice_shift_2_share / 2
    shift = int(generator.choice([-2, -1, 0, 1, 2], p=[two, one, 1 - 2 * (one + two), one, two]))
    shift = int(np.clip(shift, -crop.margin_slices, crop.margin_slices))
    # The localiser never names a slice that does not exist.
    return shift if valid[len(valid) // 2 + shift] else 0


def _affine(crop: CropConfig, jitter: JitterConfig, generator: np.random.Generator) -> NDArray[np.float64]:
    """(2, 3) map from crop pixels to pixels of the cached crop."""
    in_tail = generator.random() < jitter.shift_tail_share
    sd_px = (jitter.shift_tail_sd_mm if in_tail else jitter.shift_sd_mm) / crop.step_mm
    shift = np.clip(generator.normal(0, sd_px, 2), -3 * sd_px, 3 * sd_px)
    angle = np.radians(generator.uniform(-jitter.rotation_deg, jitter.rotation_deg))
    scale = 1 + generator.uniform(-jitter.scale, jitter.scale)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle_in, middle_out = (crop.cached_size_px - 1) / 2, (crop.size_px - 1) / 2
    offset = middle_in + shift - turn @ np.array([middle_out, middle_out])
    return np.column_stack([turn, offset])


def _change_appearance(
    pixels: Pixels, kept: Valid, seen: slice, jitter: JitterConfig, generator: np.random.Generator
) -> Pixels:
    if generator.random() < jitter.blur_share:
        sd_px = generator.uniform(0.3, jitter.blur_sd_px)
        for position in np.flatnonzero(kept):
            pixels[position] = cv2.GaussianBlur(pixels[position], (0, 0), sd_px)
    size = pixels.shape[-1]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    slope = generator.uniform(-jitter.brightness_slope, jitter.brightness_slope, 2).astype(np.float32)
    pixels *= 1 + slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    stretched = normalise(pixels, kept, seen)
    stretched **= np.float32(np.exp(generator.uniform(-1, 1) * np.log(jitter.gamma)))
    noise = generator.standard_normal(pixels.shape, dtype=np.float32)[:, seen]
    stretched[:, seen] += noise * np.float32(generator.uniform(0, jitter.noise_sd))
    stretched[~kept] = 0
    return np.clip(stretched, 0, 1)
