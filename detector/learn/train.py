"""Trains one detector with ultralytics' trainer on views that we make ourselves."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import ultralytics
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.utils import LOGGER, RANK

from data_prep.base.files import arrays_digest, write_whole
from data_prep.base.networks import save_network
from data_prep.base.version import git_revision
from detector.figures import draw_training
from detector.learn.dataset import LevelDataset, views_ahead
from detector.learn.slices import LabelledSlice, SlicesUnusable
from detector.learn.views import IGNORED, AugmentConfig, plain_view
from detector.look.network import LevelPoseModel, build_network, network_from_bytes
from detector.spec import SPECS, DetectorKind, DetectorSpec

_BEGUN_FILE = Path("training") / "begun.json"
_MACHINE = ("threads", "workers", "device")
OKS_SIGMA = 0.1  # per keypoint; ultralytics' default for few keypoints converges badly


@dataclass(frozen=True)
class TrainConfig:
    """Everything that shapes a detector training.

    Attributes:
        samples_per_epoch: random views per epoch.
        initial_rate, final_rate_fraction: AdamW learning rate, cosine to this fraction.
        threads: torch threads; ultralytics would take cores − 1.
        workers: processes that make views ahead, for one GPU: about one per core. 0 makes them in between.
        device: ``cpu``, the number of a GPU, or several numbers (``0,1``) in a process per GPU that torchrun
            started; ``batch_size_slices`` is shared out among them.
    """

    kind: DetectorKind = DetectorKind.SAGITTAL
    epochs: int = 15
    samples_per_epoch: int = 1200
    batch_size_slices: int = 8
    initial_rate: float = 1.5e-3
    final_rate_fraction: float = 0.02
    weight_decay: float = 5e-4
    warmup_epochs: float = 1.0
    pose_gain: float = 12.0
    seed: int = 0
    threads: int = 2
    workers: int = 0
    device: str = "cpu"
    augment: AugmentConfig = field(default_factory=AugmentConfig)


class LevelTrainer(PoseTrainer):
    """ultralytics' trainer with our data set, our network and our validation."""

    def __init__(
        self,
        config: TrainConfig,
        sources: list[tuple[float, list[LabelledSlice]]],
        validation: list[LabelledSlice],
        overrides: dict[str, Any],
        start_from: bytes | None,
    ) -> None:
        self.config, self.sources, self.validation = config, sources, validation
        self.spec: DetectorSpec = SPECS[config.kind]
        self.start_from = start_from
        super().__init__(overrides=overrides)
        self.add_callback("on_train_epoch_start", _start_epoch)

    def run_callbacks(self, event: str) -> None:
        """Only ours: those that ultralytics adds would tell loggers and its servers of a training."""
        for callback in self.callbacks.get(event, ()):
            if not callback.__module__.startswith("ultralytics."):
                callback(self)

    def get_dataset(self) -> dict[str, Any]:
        """What ultralytics reads from a data.yaml."""
        spec = self.spec
        return {
            "nc": len(spec.class_names),
            "names": dict(enumerate(spec.class_names)),
            "channels": 1,
            "kpt_shape": [len(spec.keypoints), 3],
            "kpt_oks_sigmas": [OKS_SIGMA] * len(spec.keypoints),
            "flip_idx": list(spec.flip_idx),
            "train": "train",
            "val": "val",
        }

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> LevelDataset:
        """Random views for training; a token set for the unused built-in validation."""
        samples = self.config.samples_per_epoch if mode == "train" else self.config.batch_size_slices
        return LevelDataset(
            self.sources, self.spec, self.config.augment, samples_per_epoch=samples, seed=self.config.seed
        )

    def get_dataloader(
        self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train"
    ) -> Any:
        """ultralytics' batches, or those that our workers make ahead."""
        if mode == "train" and self.config.workers and rank == -1:
            return views_ahead(self.build_dataset(dataset_path, mode), batch_size, self.config.workers)
        return super().get_dataloader(dataset_path, batch_size, rank, mode)

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> LevelPoseModel:
        """The network of the spec, with the weights of a checkpoint when resuming, or those to start from."""
        model = build_network(self.spec)
        if weights is None and self.start_from is not None:
            model = network_from_bytes(self.spec, self.start_from).train().requires_grad_(True)
        if weights is not None:
            model.load(weights)
        return model

    def validate(self) -> tuple[dict[str, float], float]:
        """Share of annotated keypoints of the validation slices found within 6 mm by single maxima."""
        assert self.ema is not None
        share = 0.0
        if self.validation:
            share = share_within(self.ema.ema, self.validation, self.spec, radius_mm=6.0)
        if self.best_fitness is None or self.best_fitness < share:
            self.best_fitness = share
        return {"metrics/within_6mm": share}, share

    def save_model(self) -> Any:
        """The checkpoint, whole or not at all: a full disk or a kill must not take the one before."""
        checkpoint, self.last = self.last, self.last.with_suffix(".partial")
        try:
            done = super().save_model()
            if self.last.is_file():
                self.last.replace(checkpoint)
        finally:
            self.last.unlink(missing_ok=True)
            self.last = checkpoint
        return done

    def final_eval(self) -> None:
        """Nothing: ``validate`` has run after every epoch."""


def _start_epoch(trainer: LevelTrainer) -> None:
    """Give the data set its epoch and take the threads back that ultralytics re-set."""
    trainer.train_loader.dataset.epoch = trainer.epoch
    torch.set_num_threads(trainer.config.threads)


@torch.inference_mode()
def share_within(
    model: torch.nn.Module, slices: list[LabelledSlice], spec: DetectorSpec, *, radius_mm: float
) -> float:
    """Share of annotated last keypoints (canal; left recess; foramen) that the best-scoring anchor finds."""
    was_training = model.training
    model = model.eval()
    hits = total = 0
    number = len(spec.class_names)
    for item in slices:
        view = plain_view(item, spec)
        image = torch.from_numpy(view.image)[None, None].float() / 255
        output = model(image.to(next(model.parameters())))  # its dtype and its device
        prediction = (output[0] if isinstance(output, tuple) else output)[0].float().cpu().numpy()
        keypoints = prediction[4 + number :].reshape(len(spec.keypoints), 3, -1)
        for class_index, truth in zip(view.classes, view.keypoints_px[:, -1], strict=True):
            if class_index == IGNORED or not np.isfinite(truth).all():
                continue
            errors_mm = np.linalg.norm(keypoints[-1, :2].T - truth, axis=1) * spec.mm_per_px
            scores = prediction[4 + class_index]
            if not spec.level_names:  # several objects of one class: each is looked for around its place
                scores = np.where(errors_mm <= 3 * radius_mm, scores, 0.0)
            hits += bool(errors_mm[scores.argmax()] <= radius_mm)
            total += 1
    model.train(was_training)
    return hits / max(total, 1)


def train_detector(
    config: TrainConfig,
    sources: list[tuple[float, list[LabelledSlice]]],
    validation: list[LabelledSlice],
    run: Path,
    *,
    resume: bool = False,
    start_from: bytes | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda *_: None,
    on_batch: Callable[[float], None] = lambda _: None,
    talkative: bool = False,
) -> Path:
    """Train, and write ``{kind}.safetensors`` and ``{kind}.json`` into ``run``.

    Args:
        sources: (weight, slices) pairs to draw training views from.
        validation: slices of other patients; scored after every epoch, never trained on.
        resume: go on from the last checkpoint in ``run`` when there is one; a finished training stays as it
            is.
        start_from: a safetensors file of the same kind to begin with, instead of random weights.
        on_epoch: told after every epoch its number from 1 and its figures.
        on_batch: told after every batch how many epochs are done: 0.5 for half of the first.
        talkative: let ultralytics print its settings and its bar.

    Returns:
        Path of the weight file.

    Raises:
        SlicesUnusable: no source has a slice, or the checkpoint to go on from is of another training or
            broken.
    """
    sources = [(weight, slices) for weight, slices in sources if slices and weight > 0]
    if not sources:
        raise SlicesUnusable("no labelled slice to train on: check the coordinates and the images")
    run = run.resolve()
    checkpoint = run / "training" / "weights" / "last.pt"
    overrides = _overrides(config, run)
    described = _described(config, sources, start_from)
    weights = run / f"{config.kind.value}.safetensors"
    if resume and checkpoint.is_file():
        if (begun := run / _BEGUN_FILE).is_file() and begun.read_text() != described:
            raise SlicesUnusable(
                "the checkpoint is of a training with other options or slices: choose a new folder, "
                "or begin anew without --resume"
            )
        if not can_go_on(checkpoint, config.epochs):
            if weights.is_file():  # it was finished
                return weights
            raise SlicesUnusable(
                f"'{checkpoint.name}' cannot be gone on from: it was cut off while it was written, or has no "
                "epoch left; begin anew without --resume"
            )
        overrides["resume"] = str(checkpoint)
    if RANK in {-1, 0}:
        write_whole(run / _BEGUN_FILE, described)
    with _library_at(logging.INFO if talkative else logging.WARNING):
        trainer = LevelTrainer(config, sources, validation, overrides, start_from)
        _train(trainer, on_epoch, on_batch)
    if RANK in {-1, 0}:
        _export(trainer, run)
    return weights


def _overrides(config: TrainConfig, run: Path) -> dict[str, Any]:
    """The training as ultralytics names its settings; nothing that it would do to images by itself."""
    return {
        "model": SPECS[config.kind].architecture,
        "task": "pose",
        "mode": "train",
        "epochs": config.epochs,
        "batch": config.batch_size_slices,
        "nbs": config.batch_size_slices,  # one optimiser step per batch
        "imgsz": SPECS[config.kind].train_canvas_px[0],
        "optimizer": "AdamW",
        "lr0": config.initial_rate,
        "lrf": config.final_rate_fraction,
        "cos_lr": True,
        "weight_decay": config.weight_decay,
        "warmup_epochs": config.warmup_epochs,
        "warmup_bias_lr": 0.0,
        "pose": config.pose_gain,
        "seed": config.seed,
        "deterministic": True,
        "device": config.device,
        # Not of project and name: a copied or moved run that is gone on with would write where it was.
        "save_dir": str(run / "training"),
        "amp": False,
        "val": True,
        "plots": False,
        "workers": 0,
        "mosaic": 0.0,
        "close_mosaic": 0,
        "fliplr": 0.0,
        "verbose": False,
        "pretrained": False,
        "patience": 0,
    }


def can_go_on(checkpoint: Path, epochs: int) -> bool:
    """Whether a checkpoint of this program's can be read, and an epoch is left after it."""
    try:
        # ultralytics keeps whole objects in it.
        epoch = torch.load(checkpoint, map_location="cpu", weights_only=False)["epoch"]
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError, ValueError, AttributeError):
        return False
    return bool(0 <= epoch < epochs - 1)


@contextlib.contextmanager
def _library_at(level: int) -> Iterator[None]:
    """What ultralytics says on stderr, from a level on; its bar is drawn at INFO alone."""
    before = LOGGER.level
    LOGGER.setLevel(level)
    try:
        yield
    finally:
        LOGGER.setLevel(before)


def _train(
    trainer: LevelTrainer,
    on_epoch: Callable[[int, dict[str, float]], None],
    on_batch: Callable[[float], None],
) -> None:
    batches = 0

    def count(t: LevelTrainer) -> None:
        nonlocal batches
        batches += 1
        size = len(t.train_loader)
        on_batch(t.epoch + ((batches - 1) % size + 1) / size)

    trainer.add_callback("on_train_batch_end", count)
    trainer.add_callback(
        "on_fit_epoch_end", lambda t: on_epoch(t.epoch + 1, {**(t.metrics or {}), "epochs": t.epochs})
    )
    with contextlib.redirect_stdout(sys.stderr):  # ultralytics draws its bar on stdout, which is for results
        trainer.train()


def _described(
    config: TrainConfig, sources: list[tuple[float, list[LabelledSlice]]], start_from: bytes | None
) -> str:
    """What a training learns from and how; not on what it runs."""
    options = {name: value for name, value in asdict(config).items() if name not in _MACHINE}
    slices = [item for _, part in sources for item in part]
    shown = [(item.patient, item.name, item.names, item.counting) for item in slices]
    arrays = [array for item in slices for array in (item.image, item.keypoints_px)]
    begun = None if start_from is None else hashlib.sha256(start_from).hexdigest()
    made_of = arrays_digest(arrays, shown, [weight for weight, _ in sources], begun)
    return json.dumps({"options": options, "made_of": made_of}, default=str)


def _export(trainer: LevelTrainer, run: Path) -> None:
    """Averaged weights of the last epoch as safetensors; configuration, log and its plot beside them."""
    spec = trainer.spec
    assert trainer.ema is not None
    weights = run / f"{spec.kind.value}.safetensors"
    save_network(trainer.ema.ema, weights)
    network_from_bytes(spec, weights.read_bytes())  # what was written can be read
    description = {
        "kind": spec.kind.value,
        "classes": spec.class_names,
        "keypoints": spec.keypoints,
        "mm_per_px": spec.mm_per_px,
        "architecture": spec.architecture,
        "training": asdict(trainer.config),
        "sources": [
            {"weight": weight, "slices": len(slices), "patients": sorted({item.patient for item in slices})}
            for weight, slices in trainer.sources
        ],
        "started_from_sha256": hashlib.sha256(trainer.start_from).hexdigest() if trainer.start_from else None,
        "choosing_patients": sorted({item.patient for item in trainer.validation}),
        "within_6mm_choosing_single_maxima": trainer.fitness,
        "git_revision": git_revision(),
        "versions": {"torch": torch.__version__, "ultralytics": ultralytics.__version__},
    }
    (run / f"{spec.kind.value}.json").write_text(json.dumps(description, indent=1, default=str))
    results = run / "training" / "results.csv"
    if results.is_file():
        shutil.copyfile(results, run / f"{spec.kind.value}_results.csv")
        draw_training(results, run / f"{spec.kind.value}_results.png")
