"""Training of one grader: a plain loop that reads top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from classifier.calibration import Calibration
from classifier.config import GraderConfig
from classifier.learn.batches import Batch, blended, crop_batch, steps_per_epoch, training_batches
from classifier.learn.crop_cache import CropCache
from classifier.learn.devices import mixed_dtype, mixed_precision
from classifier.learn.losses import any_severe_loss, weighted_loss
from classifier.learn.pretrained import load_pretrained
from classifier.model import GraderNetwork
from classifier.prior import competition_log_loss
from classifier.storage import read_grader, save_grader
from data_prep.base.csv_files import write_table
from data_prep.base.files import arrays_digest, write_checkpoint
from data_prep.base.manifest import WeightsRejected, file_sha256
from data_prep.problems import LumbarError
from data_prep.vocabulary import SEVERITIES

_GRADED_AT_ONCE = 64
_IN_CHECKPOINT = ("network", "averaged", "optimiser", "schedule", "scaler")


class TrainingFailed(LumbarError):
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


@dataclass(frozen=True)
class Machine:
    """What a training runs on; it shapes no result beyond rounding.

    Attributes:
        device: see ``classifier.learn.devices.resolve_device``.
        workers: threads that prepare batches ahead; for a GPU, about one per core.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0


def train_grader(
    config: GraderConfig,
    train: CropCache,
    validation: CropCache | None,
    folder: Path,
    *,
    report: Callable[[EpochReport], None] = lambda _: None,
    on_step: Callable[[float], None] = lambda _: None,
    machine: Machine | None = None,
    start_from: Mapping[str, Tensor] | None = None,
    pretrained: Path | None = None,
    notes: Mapping[str, Any] | None = None,
) -> GraderNetwork:
    """Train one grader and write its weights; goes on from ``{group}.checkpoint.pt`` when there is one.

    A finished training stays as it is, and so does a calibration that was fitted to it there.
    After every epoch the checkpoint and ``{group}.log.csv`` are written to ``folder``, in the end
    ``{group}.safetensors`` (fp16) and ``{group}.json`` (configuration, versions, metrics); all atomically.

    Args:
        train: crops to learn from.
        validation: crops to watch, apart from ``train``; never learnt from.
        report: called after every epoch.
        on_step: told after every step how many epochs are done: 0.5 for half of the first.
        machine: device and threads; the processor if left out.
        start_from: state dict of a grader of the same configuration to begin with.
        pretrained: file with weights of the timm backbone, see ``classifier.learn.pretrained``.
        notes: written among the metrics, such as where the crops are from.

    Raises:
        TrainingFailed: the loss is not finite.
        ValueError: a checkpoint of another configuration, or of other crops or weights to begin with, is in
            the folder; or the weights to begin with are of another network.
        PretrainedUnusable: the pretrained file does not fit.
    """
    machine = machine or Machine()
    settings = config.training
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    steps = steps_per_epoch(train, config)
    network = first_network(config, start_from, pretrained)
    learner = _Learner(config, network, settings.epochs * steps, machine.device)
    origin = made_of(train, pretrained, start_from)
    checkpoint = folder / f"{config.name.value}.checkpoint.pt"
    reports = learner.resume(checkpoint, origin) if checkpoint.exists() else []
    if len(reports) == settings.epochs and _is_saved(folder, config, origin):
        return learner.kept
    for epoch in range(len(reports), settings.epochs):
        started = time.monotonic()
        # The order and the jitter hang on seed and epoch alone: a resumed run equals an undisturbed one.
        torch.manual_seed(settings.seed * 10_007 + epoch)
        learner.network.train()
        total_loss, done = 0.0, 0
        for batch in training_batches(train, config, epoch, workers=machine.workers):
            loss = learner.learn(batch)
            if not math.isfinite(loss):
                raise TrainingFailed(
                    f"{config.name.value}: loss is {loss} in epoch {epoch}, step {done}; "
                    "lower training.learning_rate or look at these crops"
                )
            total_loss += loss
            done += 1
            on_step(epoch + done / steps)
        choosing_loss, prior_loss = _validation_losses(learner.kept, validation, config)
        reports.append(
            EpochReport(
                epoch=epoch,
                learning_rate=float(learner.schedule.get_last_lr()[0]),
                train_loss=total_loss / done,
                choosing_loss=choosing_loss,
                choosing_prior_loss=prior_loss,
                seconds=time.monotonic() - started,
            )
        )
        learner.save(checkpoint, origin, reports)
        write_table(folder / f"{config.name.value}.log.csv", list(vars(reports[0])), map(vars, reports))
        report(reports[-1])
    metrics = {
        "epochs": [vars(row) for row in reports],
        "train_crops": len(train),
        "made_of": origin,
        **(notes or {}),
    }
    if pretrained is not None:
        metrics["pretrained"] = {"file": pretrained.name, "sha256": file_sha256(pretrained)}
    save_grader(folder, config, learner.kept, Calibration(), metrics)
    return learner.kept


class _Learner:
    """A network and all that changes with it while it learns, which a checkpoint holds.

    Attributes:
        kept: the running mean of the network's weights, which a training is for.
    """

    def __init__(
        self, config: GraderConfig, network: GraderNetwork, n_steps: int, device: torch.device
    ) -> None:
        settings = config.training
        self.config, self.device = config, device
        self.network = network.to(device).to(memory_format=torch.channels_last)
        averaged = AveragedModel(self.network, avg_fn=_running_mean(settings.ema_decay), use_buffers=True)
        self.averaged = averaged
        self.kept: GraderNetwork = averaged.module  # type: ignore[assignment]
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, _warmup_then_cosine(n_steps, settings.warmup_share)
        )
        # float16 needs its gradients scaled; bfloat16 has the range of float32.
        is_scaled = settings.bfloat16 and mixed_dtype(device) is torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=is_scaled)
        self.weights = torch.tensor(settings.severity_weights, device=device)

    def learn(self, batch: Batch) -> float:
        """One step; its loss."""
        settings = self.config.training
        batch = batch.to(self.device)
        if settings.blend:
            pixels, truth = blended(batch.pixels, batch.truth, settings.blend)
            batch = replace(batch, pixels=pixels, truth=truth)
        with mixed_precision(self.device, enabled=settings.bfloat16):
            logits = batch.logits(self.network)
        loss = self._loss(logits.float(), batch)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.gradient_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()
        self.averaged.update_parameters(self.network)
        return loss.item()

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        loss = weighted_loss(logits, batch.log_prior, batch.truth, self.weights)
        if self.config.any_severe_weight > 0:
            severe = any_severe_loss(logits, batch.log_prior, batch.truth, self.weights, batch.sequence)
            loss = loss + self.config.any_severe_weight * severe
        return loss

    def _parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _IN_CHECKPOINT}

    def save(self, checkpoint: Path, origin: str, reports: list[EpochReport]) -> None:
        """Write all of it, and what it was made of, to a file."""
        state = {
            "config": json.dumps(self.config.to_dict()),
            "made_of": origin,
            **{name: part.state_dict() for name, part in self._parts().items()},
            "reports": [vars(row) for row in reports],
        }
        write_checkpoint(checkpoint, state)

    def resume(self, checkpoint: Path, origin: str) -> list[EpochReport]:
        """Go on from what ``save`` wrote; the reports so far.

        Raises:
            ValueError: it is of another configuration, or of other crops or weights to begin with.
        """
        state = torch.load(checkpoint, weights_only=True, map_location=self.device)
        if state["config"] != json.dumps(self.config.to_dict()):
            raise ValueError(f"'{checkpoint.name}' is of another configuration: choose a new folder")
        if state.get("made_of", origin) != origin:
            raise ValueError(
                f"'{checkpoint.name}' has learned from other crops, or begun with other weights: "
                "choose a new folder"
            )
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        return [EpochReport(**row) for row in state["reports"]]


def first_network(
    config: GraderConfig, start_from: Mapping[str, Tensor] | None = None, pretrained: Path | None = None
) -> GraderNetwork:
    """The network that a training begins with; see ``train_grader``.

    Raises:
        ValueError: ``start_from`` is of another network.
        PretrainedUnusable: the pretrained file does not fit.
    """
    network = GraderNetwork(config.network, config.crop)
    if pretrained is not None:
        load_pretrained(network, pretrained)
    if start_from is not None:
        try:
            network.load_state_dict(dict(start_from))
        except RuntimeError:
            raise ValueError(
                f"the {config.name.value} grader to begin with is of another network than the configuration "
                "says: give the --config that it was trained with"
            ) from None
    return network


def _is_saved(folder: Path, config: GraderConfig, origin: str) -> bool:
    """Whether a folder holds the grader of a training."""
    try:
        stored = read_grader(folder, config.name)
    except WeightsRejected:
        return False
    return stored.config == config and stored.metrics.get("made_of") == origin


def made_of(
    train: CropCache, pretrained: Path | None = None, start_from: Mapping[str, Tensor] | None = None
) -> str:
    """Digest of what a training learns from and begins with."""
    begun = [] if start_from is None else [value.cpu().numpy() for value in start_from.values()]
    weights = None if pretrained is None else file_sha256(pretrained)
    return arrays_digest([*train.columns().values(), *begun], weights)


@torch.inference_mode()
def grade_cache(
    network: GraderNetwork, cache: CropCache, config: GraderConfig, *, jitter_seed: int | None = None
) -> NDArray[np.float64]:
    """Logits (n, 3) of all crops of a cache, central ones, or jittered with ``jitter_seed``.

    The levels of a study stay together, for graders that look at the neighbours.
    """
    network.eval()
    device = next(network.parameters()).device
    seed = None if jitter_seed is None else (jitter_seed,)
    order = np.argsort(cache.sequence, kind="stable")
    # Where a sequence ends; none has more than five crops.
    ends = np.append(np.flatnonzero(np.diff(cache.sequence[order])) + 1, len(order))
    logits = np.empty((len(cache), len(SEVERITIES)))
    first = 0
    while first < len(order):
        last = int(ends[(ends > first) & (ends <= max(first + _GRADED_AT_ONCE, ends[ends > first][0]))].max())
        chosen = order[first:last]
        batch = crop_batch(cache, chosen, config, seed).to(device)
        logits[chosen] = batch.logits(network).double().cpu().numpy()
        first = last
    return logits


def _validation_losses(
    network: GraderNetwork, validation: CropCache | None, config: GraderConfig
) -> tuple[float | None, float | None]:
    """Loss on the validation crops, with fixed jitter, and the level prior's; None without such crops."""
    if validation is None:
        return None, None
    logits = grade_cache(network, validation, config, jitter_seed=0)
    truth = validation.truth.astype(np.float64)
    return (
        competition_log_loss(Calibration().probabilities(logits, validation.log_prior), truth),
        competition_log_loss(np.exp(validation.log_prior.astype(np.float64)), truth),
    )


def _warmup_then_cosine(steps: int, warmup_share: float) -> Callable[[int], float]:
    warmup = max(1, round(steps * warmup_share))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, steps - warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor


def _running_mean(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Of weights and buffers, but not of counts; it forgets faster at the start, when little is known."""

    def mean(before: Tensor, now: Tensor, steps: Tensor | int) -> Tensor:
        share = min(decay, (2 + int(steps)) / (11 + int(steps)))
        return torch.lerp(before, now, 1 - share) if now.is_floating_point() else now

    return mean
