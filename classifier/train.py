"""Training of one grader: a plain loop that reads top to bottom."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classifier.calibration import Calibration
from classifier.config import CropConfig, GraderConfig
from classifier.dataset import CropCache
from classifier.jitter import central_crop, jittered_crop
from classifier.losses import competition_log_loss, weighted_loss
from classifier.model import GraderNetwork
from classifier.storage import save_grader
from data_prep.files import atomic_write
from data_prep.vocabulary import ConditionGroup


class TrainingFailed(RuntimeError):
    """The loss became NaN or infinite; the message says where."""


@dataclass(frozen=True)
class EpochReport:
    """One line of the training log; losses are under the competition's weights, lower is better."""

    epoch: int
    learning_rate: float
    train_loss: float
    choosing_loss: float | None
    choosing_prior_loss: float | None
    seconds: float


def train_grader(
    config: GraderConfig,
    train: CropCache,
    choosing: CropCache | None,
    folder: Path,
    *,
    report: Callable[[EpochReport], None] = lambda _: None,
) -> GraderNetwork:
    """Train one grader and write its weights; goes on from ``{group}.checkpoint.pt`` when there is one.

    After every epoch the checkpoint and ``{group}.log.csv`` are written to ``folder``, in the end
    ``{group}.safetensors`` (fp16) and ``{group}.json`` (configuration, versions, metrics); all atomically.

    Args:
        train: crops to learn from.
        choosing: crops to watch, apart from ``train``; never learnt from.
        report: called after every epoch.

    Raises:
        TrainingFailed: the loss is not finite.
        ValueError: a checkpoint of another configuration is in the folder.
    """
    settings = config.training
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    network = GraderNetwork(config.network, config.crop).to(memory_format=torch.channels_last)
    averaged = _AveragedWeights(network, settings.ema_decay)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps_per_epoch = max(1, len(train) // settings.batch_size_crops)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, _warmup_then_cosine(settings.epochs * steps_per_epoch, settings.warmup_share)
    )
    weights = torch.tensor(settings.severity_weights)
    reports: list[EpochReport] = []

    checkpoint = folder / f"{config.group.value}.checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["config"] != json.dumps(config.to_dict()):
            raise ValueError(f"'{checkpoint.name}' is of another configuration: choose a new folder")
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        reports = [EpochReport(**row) for row in state["reports"]]

    for epoch in range(len(reports), settings.epochs):
        started = time.monotonic()
        # The order and the jitter hang on seed and epoch alone: a resumed run equals an undisturbed one.
        torch.manual_seed(settings.seed * 10_007 + epoch)
        order = np.random.default_rng((settings.seed, epoch)).permutation(len(train))
        network.train()
        total_loss = 0.0
        for step in range(steps_per_epoch):
            chosen = order[step * settings.batch_size_crops : (step + 1) * settings.batch_size_crops]
            pixels, valid = jittered_batch(train, chosen, config, (settings.seed, epoch))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bfloat16):
                logits = network(pixels, valid, torch.from_numpy(train.level[chosen]))
            loss = weighted_loss(
                logits.float(),
                torch.from_numpy(train.log_prior[chosen]),
                torch.from_numpy(train.truth[chosen]),
                weights,
            )
            if not math.isfinite(loss.item()):
                raise TrainingFailed(
                    f"{config.group.value}: loss is {loss.item()} in epoch {epoch}, step {step}; "
                    "lower training.learning_rate or look at these crops"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_norm)
            optimiser.step()
            schedule.step()
            averaged.update(network)
            total_loss += loss.item()
        choosing_loss, prior_loss = _choosing_losses(averaged.network, choosing, config)
        reports.append(
            EpochReport(
                epoch=epoch,
                learning_rate=float(schedule.get_last_lr()[0]),
                train_loss=total_loss / steps_per_epoch,
                choosing_loss=choosing_loss,
                choosing_prior_loss=prior_loss,
                seconds=time.monotonic() - started,
            )
        )
        _save_checkpoint(checkpoint, config, network, averaged, optimiser, schedule, reports)
        _write_log(folder / f"{config.group.value}.log.csv", reports)
        report(reports[-1])
    save_grader(
        folder,
        config,
        averaged.network,
        Calibration(),
        metrics={"epochs": [vars(row) for row in reports], "train_crops": len(train)},
    )
    return averaged.network


def jittered_batch(
    cache: CropCache, chosen: NDArray[np.int64], config: GraderConfig, seed: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Pixels (B, S, H, W) float32 and valid (B, S) of some crops; ``seed`` and index fix the jitter."""
    made = [
        jittered_crop(
            cache.crops[index],
            cache.valid[index],
            config.crop,
            config.jitter,
            np.random.default_rng((*seed, int(index))),
            may_reverse_slices=config.group is ConditionGroup.SPINAL,
        )
        for index in chosen
    ]
    return torch.from_numpy(np.stack([m[0] for m in made])), torch.from_numpy(np.stack([m[1] for m in made]))


@torch.inference_mode()
def grade_cache(
    network: GraderNetwork, cache: CropCache, config: GraderConfig, *, jitter_seed: int | None = None
) -> NDArray[np.float64]:
    """Logits (n, 3) of all crops of a cache, central ones, or jittered with ``jitter_seed``."""
    network.eval()
    out = []
    for start in range(0, len(cache), 64):
        chosen = np.arange(start, min(start + 64, len(cache)))
        if jitter_seed is None:
            pixels, valid = _central_batch(cache, chosen, config.crop)
        else:
            pixels, valid = jittered_batch(cache, chosen, config, (jitter_seed,))
        out.append(network(pixels, valid, torch.from_numpy(cache.level[chosen])).double().numpy())
    return np.concatenate(out)


def _central_batch(cache: CropCache, chosen: NDArray[np.int64], crop: CropConfig) -> tuple[Tensor, Tensor]:
    made = [central_crop(cache.crops[index], cache.valid[index], crop) for index in chosen]
    return torch.from_numpy(np.stack([m[0] for m in made])), torch.from_numpy(np.stack([m[1] for m in made]))


def _choosing_losses(
    network: GraderNetwork, choosing: CropCache | None, config: GraderConfig
) -> tuple[float | None, float | None]:
    """Loss on the choosing crops, with fixed jitter, and the level prior's; None without such crops."""
    if choosing is None:
        return None, None
    logits = grade_cache(network, choosing, config, jitter_seed=0)
    truth = choosing.truth.astype(np.float64)
    return (
        competition_log_loss(Calibration().probabilities(logits, choosing.log_prior), truth),
        competition_log_loss(np.exp(choosing.log_prior.astype(np.float64)), truth),
    )


class _AveragedWeights:
    """Running mean of a network's weights and buffers; gentler at the start, when little is known."""

    def __init__(self, network: GraderNetwork, decay: float) -> None:
        self.network = copy.deepcopy(network)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, network: GraderNetwork) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        source = network.state_dict()
        for name, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(source[name], 1 - decay)
            else:
                value.copy_(source[name])

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.steps = state["steps"]


def _warmup_then_cosine(steps: int, warmup_share: float) -> Callable[[int], float]:
    warmup = max(1, round(steps * warmup_share))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, steps - warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor


def _save_checkpoint(
    path: Path,
    config: GraderConfig,
    network: GraderNetwork,
    averaged: _AveragedWeights,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    reports: list[EpochReport],
) -> None:
    state = {
        "config": json.dumps(config.to_dict()),
        "network": network.state_dict(),
        "averaged": averaged.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "reports": [vars(row) for row in reports],
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_write(path, binary=True) as stream:
        stream.write(buffer.getvalue())


def _write_log(path: Path, reports: list[EpochReport]) -> None:
    with atomic_write(path) as stream:
        writer = csv.DictWriter(stream, list(vars(reports[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(row) for row in reports)
