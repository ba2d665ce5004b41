"""From cached crops to the batches that a network sees: order and jitter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classifier.config import GraderConfig, GraderName
from classifier.learn.crop_cache import CropCache
from classifier.learn.jitter import central_crop, jittered_crop
from classifier.model import GraderNetwork


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
