"""From cached crops to the batches that a network sees: their order, and random crops out of larger ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classifier.config import CropConfig, GraderConfig, GraderName, JitterConfig
from classifier.learn.crop_cache import CropCache
from classifier.model import GraderNetwork
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


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops with what is known of them.

    Attributes:
        pixels, valid: (B, S, H, W) float32 in [0, 1] and (B, S) bool.
        level: (B,) int64, 0 for L1/L2 … 4 for L5/S1.
        sequence: (B,) int64, the same number for the levels of one study and side.
        truth, log_prior: (B, 3) float32.
    """

    pixels: Tensor
    valid: Tensor
    level: Tensor
    sequence: Tensor
    truth: Tensor
    log_prior: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        if device.type == "cpu":
            return self
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})

    def logits(self, network: GraderNetwork) -> Tensor:
        """(B, 3) evidence of a network that is on the batch's device."""
        logits: Tensor = network(self.pixels, self.valid, self.level)
        return logits


def crop_batch(
    cache: CropCache, chosen: NDArray[np.int64], config: GraderConfig, seed: tuple[int, ...] | None
) -> Batch:
    """Some crops: central ones, or jittered; ``seed`` and the crop's index fix the jitter."""
    sagittal_canal = config.name is GraderName.SPINAL
    made = [
        central_crop(cache.crops[index], cache.valid[index], config.crop)
        if seed is None
        else jittered_crop(
            cache.crops[index],
            cache.valid[index],
            config.crop,
            config.jitter,
            np.random.default_rng((*seed, int(index))),
            may_reverse_slices=sagittal_canal,
        )
        for index in chosen
    ]
    return Batch(
        pixels=torch.from_numpy(np.stack([pixels for pixels, _ in made])),
        valid=torch.from_numpy(np.stack([valid for _, valid in made])),
        level=torch.from_numpy(cache.level[chosen]),
        sequence=torch.from_numpy(cache.sequence[chosen]),
        truth=torch.from_numpy(cache.truth[chosen]),
        log_prior=torch.from_numpy(cache.log_prior[chosen]),
    )


def training_batches(
    cache: CropCache, config: GraderConfig, epoch: int, *, workers: int = 0
) -> Iterator[Batch]:
    """The batches of an epoch, the same whatever the number of workers.

    Args:
        workers: threads that prepare batches ahead, for a GPU that would have to wait; 0 makes them in turn.
    """
    seed = (config.training.seed, epoch)

    def make(chosen: NDArray[np.int64]) -> Batch:
        return crop_batch(cache, chosen, config, seed)

    jobs = epoch_order(cache, config, epoch)
    if workers < 1:
        yield from map(make, jobs)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from _ahead(pool, make, jobs, 2 * workers)


def _ahead(
    pool: ThreadPoolExecutor,
    make: Callable[[NDArray[np.int64]], Batch],
    jobs: list[NDArray[np.int64]],
    depth: int,
) -> Iterator[Batch]:
    """Results in order with at most ``depth`` prepared: an epoch of batches must not pile up."""
    waiting = [pool.submit(make, job) for job in jobs[:depth]]
    for job in jobs[depth:]:
        yield waiting.pop(0).result()
        waiting.append(pool.submit(make, job))
    for future in waiting:
        yield future.result()


def steps_per_epoch(cache: CropCache, config: GraderConfig) -> int:
    """Full batches in an epoch, at least one."""
    return max(1, len(cache) // config.training.batch_size_crops)


def epoch_order(cache: CropCache, config: GraderConfig, epoch: int) -> list[NDArray[np.int64]]:
    """Which crops each step of an epoch sees; whole studies stay together where the grader needs them."""
    size, steps = config.training.batch_size_crops, steps_per_epoch(cache, config)
    generator = np.random.default_rng((config.training.seed, epoch))
    if config.needs_whole_studies:
        _, number = np.unique(cache.sequence, return_inverse=True)
        place = generator.permutation(number.max() + 1)[number]
        order = np.argsort(place, kind="stable")
        # Cut where a study ends, near the even places.
        ends = np.flatnonzero(np.diff(place[order])) + 1
        wanted = np.arange(1, steps) * (len(order) / steps)
        cuts = {int(ends[np.abs(ends - at).argmin()]) for at in wanted} if len(ends) else set[int]()
        return [part for part in np.split(order, sorted(cuts)) if len(part)]
    order = generator.permutation(len(cache))
    return [order[step * size : (step + 1) * size] for step in range(steps)]


def blended(pixels: Tensor, truth: Tensor, largest_share: float) -> tuple[Tensor, Tensor]:
    """Half of the crops of a batch, each with up to ``largest_share`` of another one; the grades likewise.

    Args:
        pixels: (B, S, H, W).
        truth: (B, 3).
    """
    size, device = len(pixels), pixels.device
    share = torch.rand(size, device=device) * largest_share * (torch.rand(size, device=device) < 0.5)
    other = torch.randperm(size, device=device)
    in_pixels, in_truth = share[:, None, None, None], share[:, None]
    return (
        pixels * (1 - in_pixels) + pixels[other] * in_pixels,
        truth * (1 - in_truth) + truth[other] * in_truth,
    )
