"""Training of the refiners: crops around annotated points, moved as the detectors err."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data_prep.base.files import arrays_digest, write_checkpoint, write_json
from data_prep.base.networks import save_network
from data_prep.base.version import git_revision
from data_prep.crops import normalise, seen_rows
from detector.learn.point_crops import PointCrops
from detector.learn.slices import SlicesUnusable
from detector.look.refiner_network import RefinerNetwork
from detector.spec import RefinerSpec

_WEIGHT_DECAY = 0.01
_WARMUP_SHARE = 0.15
# Errors well below this many millimetres weigh by their square, well above it by their size.
_KNEE_MM = 0.5
_LOOKED_AT_ONCE = 64
_WATCHING_SEED = 7


@dataclass(frozen=True)
class RefinerTraining:
    """The training loop, and how far crops lie from where their point was annotated.

    Attributes:
        epochs, batch_size_crops, learning_rate, seed, threads: as usual.
        shift_sd_mm: of the detectors' error, per axis.
        tail_share, tail_sd_mm: share of crops with a larger one.
        rotation_deg, scale: uniform within ± this (scale: fraction).
        gamma: log of the exponent is uniform within ± log(this).
        noise_sd: largest standard deviation of added noise, as a fraction of white.
    """

    epochs: int = 10
    batch_size_crops: int = 32
    learning_rate: float = 2e-3
    seed: int = 0
    threads: int = 1
    shift_sd_mm: float = 2.5
    tail_share: float = 0.1
    tail_sd_mm: float = 5.0
    rotation_deg: float = 8.0
    scale: float = 0.1
    gamma: float = 1.35
    noise_sd: float = 0.03


@dataclass(frozen=True)
class Errors:
    """Distances from the annotated point in mm, of crops moved at random."""

    median_mm: float
    median_before_mm: float
    within_5mm: float
    within_6mm: float


def moved_crop(
    crop: NDArray[np.uint8], spec: RefinerSpec, training: RefinerTraining, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A crop as the detectors would have given it, and where its point is.

    Args:
        crop: (side, side) with the point in the middle.

    Returns:
        float32 (size_px, size_px) in [0, 1]; float32 (2,) mm rightwards and downwards from its middle.
    """
    tail = generator.random() < training.tail_share
    sd_px = (training.tail_sd_mm if tail else training.shift_sd_mm) / spec.step_mm
    limit_px = spec.limit_mm / spec.step_mm
    bias_px = np.array(spec.bias_mm) / spec.step_mm
    shift = np.clip(bias_px + generator.normal(0, sd_px, 2), -limit_px, limit_px)
    angle = math.radians(generator.uniform(-training.rotation_deg, training.rotation_deg))
    scale = 1 + generator.uniform(-training.scale, training.scale)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle, centre = (len(crop) - 1) / 2, (spec.size_px - 1) / 2
    origin = middle + shift - turn @ np.array([centre, centre])
    pixels = cv2.warpAffine(
        crop,
        np.column_stack([turn, origin]),
        (spec.size_px, spec.size_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)
    seen = seen_rows(spec.size_mm, spec.size_px, spec.seen_height_mm)
    shown = normalise(pixels[None], np.ones(1, np.bool_), seen)[0]
    shown **= np.float32(math.exp(generator.uniform(-1, 1) * math.log(training.gamma)))
    noise = generator.standard_normal(shown.shape, dtype=np.float32)[seen]
    shown[seen] += noise * np.float32(generator.uniform(0, training.noise_sd))
    place = np.linalg.solve(turn, middle - origin) - centre
    return np.clip(shown, 0, 1), (place * spec.step_mm).astype(np.float32)


def train_refiner(
    spec: RefinerSpec,
    train: PointCrops,
    watched: PointCrops,
    folder: Path,
    training: RefinerTraining,
    *,
    report: Callable[[int, Errors | None], None] = lambda *_: None,
) -> RefinerNetwork:
    """Train a refiner and write ``{group}_point.safetensors`` and ``.json``; goes on from its checkpoint.

    Args:
        watched: crops of other patients, never learned from.
        report: called after every epoch with its number and the errors on ``watched``.

    Raises:
        SlicesUnusable: a checkpoint of another training is in the folder.
    """
    torch.set_num_threads(training.threads)
    torch.manual_seed(training.seed)
    network = RefinerNetwork(spec).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=training.learning_rate, weight_decay=_WEIGHT_DECAY)
    steps = max(1, len(train) // training.batch_size_crops)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, training.learning_rate, total_steps=training.epochs * steps, pct_start=_WARMUP_SHARE
    )
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{spec.stem}.checkpoint.pt"
    origin = arrays_digest([train.pixels, train.level, train.study])
    described = json.dumps({**asdict(training), "crops": len(train), "made_of": origin})
    done, errors = 0, None
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["training"] != described:
            raise SlicesUnusable(f"'{checkpoint.name}' is of another training: choose a new folder")
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        done = state["done"]
    for epoch in range(done, training.epochs):
        network.train()
        # Order and moves hang on seed and epoch alone: a resumed run equals an undisturbed one.
        order = np.random.default_rng((training.seed, epoch)).permutation(len(train))
        for step in range(steps):
            chosen = order[step * training.batch_size_crops : (step + 1) * training.batch_size_crops]
            pixels, level, place = _batch(train, chosen, spec, training, (training.seed, epoch))
            offset = network(pixels, level) - place
            loss = (offset.square().sum(dim=1) + _KNEE_MM**2).sqrt().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
        errors = judge(network, watched, spec, training) if len(watched) else None
        state = {
            "training": described,
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "schedule": schedule.state_dict(),
            "done": epoch + 1,
        }
        write_checkpoint(checkpoint, state)
        report(epoch + 1, errors)
    network.eval()
    save_network(network, folder / f"{spec.stem}.safetensors")
    description = {
        "training": asdict(training),
        "crops": len(train),
        "studies": len(set(train.study.tolist())),
        "watched": None if errors is None else asdict(errors),
        "git_revision": git_revision(),
    }
    write_json(folder / f"{spec.stem}.json", description, indent=1)
    return network


def _batch(
    crops: PointCrops,
    chosen: NDArray[np.int64],
    spec: RefinerSpec,
    training: RefinerTraining,
    seed: tuple[int, ...],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    made = [
        moved_crop(crops.pixels[index], spec, training, np.random.default_rng((*seed, int(index))))
        for index in chosen
    ]
    pixels = torch.from_numpy(np.stack([crop for crop, _ in made]))[:, None]
    places = torch.from_numpy(np.stack([place for _, place in made]))
    level = torch.from_numpy(crops.level[chosen])
    return pixels.contiguous(memory_format=torch.channels_last), level, places


@torch.inference_mode()
def judge(network: RefinerNetwork, crops: PointCrops, spec: RefinerSpec, training: RefinerTraining) -> Errors:
    """Errors on crops that are moved the same way each time."""
    network.eval()
    before, after = [], []
    for first in range(0, len(crops), _LOOKED_AT_ONCE):
        chosen = np.arange(first, min(first + _LOOKED_AT_ONCE, len(crops)))
        pixels, level, place = _batch(crops, chosen, spec, training, (_WATCHING_SEED,))
        before.append(np.linalg.norm(place.numpy(), axis=1))
        after.append(np.linalg.norm((network(pixels, level) - place).numpy(), axis=1))
    left, start = np.concatenate(after), np.concatenate(before)
    return Errors(
        median_mm=round(float(np.median(left)), 3),
        median_before_mm=round(float(np.median(start)), 3),
        within_5mm=round(float((left <= 5).mean()), 4),
        within_6mm=round(float((left <= 6).mean()), 4),
    )
