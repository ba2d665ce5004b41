"""From cached crops to the batches that a network sees: order, jitter, mixing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classifier.config import GraderConfig, TrainingConfig
from classifier.learn.crop_cache import CropCache
from classifier.learn.jitter import central_crop, jittered_crop
from classifier.model import GraderNetwork
from data_prep.vocabulary import ConditionGroup

# Seeds of what is drawn for a batch: the second view and the mixing have streams of their own.
_SECOND_VIEW, _MIXING = 2, 3


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops with what is known of them.

    Attributes:
        pixels, valid: (B, S, H, W) float32 in [0, 1] and (B, S) bool.
        level, sequence: (B,) int64, as in ``GraderNetwork.forward``.
        truth, log_prior: (B, 3) float32.
        second, second_valid: the other view, or None.
    """

    pixels: Tensor
    valid: Tensor
    level: Tensor
    sequence: Tensor
    truth: Tensor
    log_prior: Tensor
    second: Tensor | None = None
    second_valid: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {k: v if v is None else v.to(device) for k, v in vars(self).items()}
        return Batch(**moved)

    def logits(self, network: GraderNetwork) -> Tensor:
        """(B, 3) evidence of a network that is on the batch's device."""
        logits: Tensor = network(
            self.pixels, self.valid, self.level, self.sequence, self.second, self.second_valid
        )
        return logits


def crop_batch(
    cache: CropCache, chosen: NDArray[np.int64], config: GraderConfig, seed: tuple[int, ...] | None
) -> Batch:
    """Some crops: central ones, or jittered; ``seed`` and the crop's index fix the jitter."""
    spinal = config.group is ConditionGroup.SPINAL
    pixels, valid = _view(cache.crops, cache.valid, chosen, config, seed, may_reverse_slices=spinal)
    second, second_valid = None, None
    if config.crop.second_view:
        if cache.second is None or cache.second_valid is None:
            raise ValueError(f"the {config.group.value} grader needs crops of the second view")
        other = None if seed is None else (*seed, _SECOND_VIEW)
        second, second_valid = _view(
            cache.second, cache.second_valid, chosen, config, other, may_reverse_slices=False
        )
    return Batch(
        pixels=pixels,
        valid=valid,
        level=torch.from_numpy(cache.level[chosen]),
        sequence=torch.from_numpy(cache.sequence[chosen]),
        truth=torch.from_numpy(cache.truth[chosen]),
        log_prior=torch.from_numpy(cache.log_prior[chosen]),
        second=second,
        second_valid=second_valid,
    )


def _view(
    crops: NDArray[np.uint8],
    valid: NDArray[np.bool_],
    chosen: NDArray[np.int64],
    config: GraderConfig,
    seed: tuple[int, ...] | None,
    *,
    may_reverse_slices: bool,
) -> tuple[Tensor, Tensor]:
    made = [
        central_crop(crops[index], valid[index], config.crop)
        if seed is None
        else jittered_crop(
            crops[index],
            valid[index],
            config.crop,
            config.jitter,
            np.random.default_rng((*seed, int(index))),
            may_reverse_slices=may_reverse_slices,
        )
        for index in chosen
    ]
    return torch.from_numpy(np.stack([m[0] for m in made])), torch.from_numpy(np.stack([m[1] for m in made]))


def training_batches(
    cache: CropCache, config: GraderConfig, epoch: int, *, workers: int = 0
) -> Iterator[Batch]:
    """The batches of an epoch, the same whatever the number of workers.

    Args:
        workers: threads that prepare batches ahead, for a GPU that would have to wait; 0 makes them in turn.
    """
    seed = (config.training.seed, epoch)

    def make(job: tuple[int, NDArray[np.int64]]) -> Batch:
        number, chosen = job
        batch = crop_batch(cache, chosen, config, seed)
        return mixed(batch, config.training, np.random.default_rng((*seed, _MIXING, number)))

    jobs = list(enumerate(epoch_order(cache, config, epoch)))
    if workers < 1:
        yield from map(make, jobs)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from _ahead(pool, make, jobs, 2 * workers)


def _ahead(
    pool: ThreadPoolExecutor,
    make: Callable[[tuple[int, NDArray[np.int64]]], Batch],
    jobs: list[tuple[int, NDArray[np.int64]]],
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


def mixed(batch: Batch, training: TrainingConfig, generator: np.random.Generator) -> Batch:
    """The batch, or, in ``mix_share`` of the cases, one whose crops are mixed with a partner of their level.

    Truth and level prior are mixed in the same proportion; slices count as valid when either crop has them.
    """
    if training.mix_share <= 0 or generator.random() >= training.mix_share:
        return batch
    partner = _partners(batch.level.numpy(), generator)
    share = float(generator.beta(training.mix_alpha, training.mix_alpha))
    share = max(share, 1 - share)
    if generator.random() < 0.5:
        pixels = share * batch.pixels + (1 - share) * batch.pixels[partner]
    else:
        pixels, share = _pasted(batch.pixels, partner, share, generator)
    return replace(
        batch,
        pixels=pixels,
        valid=batch.valid | batch.valid[partner],
        truth=share * batch.truth + (1 - share) * batch.truth[partner],
        log_prior=(share * batch.log_prior.exp() + (1 - share) * batch.log_prior[partner].exp()).log(),
    )


def _partners(level: NDArray[np.int64], generator: np.random.Generator) -> Tensor:
    """(B,) for every crop one of the same level, perhaps itself."""
    partner = np.arange(len(level))
    for value in np.unique(level):
        mine = np.flatnonzero(level == value)
        partner[mine] = generator.permutation(mine)
    return torch.from_numpy(partner)


def _pasted(
    pixels: Tensor, partner: Tensor, share: float, generator: np.random.Generator
) -> tuple[Tensor, float]:
    """Crops with a box of the partner's, and the share of the picture that is left."""
    rows, columns = pixels.shape[-2:]
    height, width = (max(1, round(side * (1 - share) ** 0.5)) for side in (rows, columns))
    top, left = int(generator.integers(rows - height + 1)), int(generator.integers(columns - width + 1))
    out = pixels.clone()
    box = (..., slice(top, top + height), slice(left, left + width))
    out[box] = pixels[partner][box]
    return out, 1 - height * width / (rows * columns)
