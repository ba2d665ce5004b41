"""Small synthetic crops and studies whose grade can be seen: a bright disc that shrinks with severity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from classifier.calibration import Calibration
from classifier.config import GraderConfig, GraderName, NetworkConfig, TrainingConfig, default_config
from classifier.learn.crop_cache import CropCache
from classifier.model import GraderNetwork
from classifier.storage import save_grader
from data_prep.geometry import SlicePlane
from data_prep.levels import LevelPoint, PointSource
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import CONDITIONS, LEVELS, ConditionGroup, SeriesKind

AXIAL_AXES = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
SAGITTAL_AXES = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]])

TINY_NETWORK = NetworkConfig(
    backbone_channels=(8, 8, 16), attention_heads=2, level_channels=4, hidden_channels=16, dropout=0.0
)


def tiny_config(group: GraderName, *, epochs: int = 2, size_px: int = 32) -> GraderConfig:
    """A configuration small enough to train within seconds."""
    config = default_config(group)
    return replace(
        config,
        crop=replace(config.crop, size_px=size_px, margin_px=6, slices=3, margin_slices=1),
        network=TINY_NETWORK,
        jitter=replace(config.jitter, slice_shift_2_share=0.0, shift_sd_mm=1.0, shift_tail_share=0.0),
        training=TrainingConfig(
            epochs=epochs, batch_size_crops=16, learning_rate=5e-3, ema_decay=0.8, bfloat16=False
        ),
    )


def write_tiny(
    folder: Path, name: GraderName, seed: int, *, size_px: int = 32, channels: bool = False, **options: Any
) -> None:
    """An untrained grader whose logits are large enough to differ between crops; see ``save_grader``."""
    torch.manual_seed(seed)
    config = tiny_config(name, size_px=size_px)
    if channels:
        config = replace(config, network=replace(config.network, slices_as="channels"))
    network = GraderNetwork(config.network, config.crop)
    torch.nn.init.normal_(network.head[-1].weight, std=3.0)
    save_grader(folder, config, network, Calibration(), {}, **options)


def disc_cache(config: GraderConfig, count: int, seed: int) -> CropCache:
    """Crops with a bright disc in the middle: large when mild, small when severe."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, count)
    side, depth = config.crop.cached_size_px, config.crop.cached_slices
    rows, columns = np.indices((side, side)) - (side - 1) / 2
    radius = side * np.array([0.22, 0.14, 0.06])[label]
    inside = np.hypot(rows, columns)[None] < radius[:, None, None]
    noise = generator.integers(0, 60, (count, depth, side, side))
    crops = np.clip(inside[:, None] * 180 + noise, 0, 255).astype(np.uint8)
    level = generator.integers(0, 5, count)
    return CropCache(
        crops=crops,
        valid=np.ones((count, depth), dtype=np.bool_),
        level=level,
        truth=np.eye(3, dtype=np.float32)[label],
        label=label,
        log_prior=np.log(np.full((count, 3), 1 / 3, dtype=np.float32)),
        row_ids=np.array([f"{k}_spinal_canal_stenosis_{LEVELS[level[k]].value}" for k in range(count)]),
    )


def textured_study(*, mirrored: bool = False, kinds: tuple[SeriesKind, ...] = tuple(SeriesKind)) -> Study:
    """A study with one series per kind that shows smooth random blobs; ``mirrored`` swaps left and right."""
    generator = np.random.default_rng(3)
    centres = generator.uniform((-40, -40, -90), (40, 40, 90), (150, 3))
    reflection = np.array([-1.0, 1.0, 1.0]) if mirrored else np.ones(3)

    def show(plane: SlicePlane) -> NDArray[np.float32]:
        # A Gaussian is the product of those along columns, along rows and across the plane.
        offsets = centres * reflection - plane.origin_mm
        x, y = (
            np.exp(-((np.arange(count) * spacing - (offsets @ axis)[:, None]) ** 2) / 50)
            for count, spacing, axis in zip(
                plane.shape[::-1], plane.spacing_mm, (plane.x_axis, plane.y_axis), strict=True
            )
        )
        across = np.exp(-((offsets @ plane.normal) ** 2) / 50)
        image = (y * across[:, None]).T @ x
        return (1000 * image + 100).astype(np.float32)  # tissue between the blobs has signal, too

    def stack(kind: SeriesKind) -> tuple[Slice, ...]:
        slices = []
        for number in range(-5, 6) if kind is not SeriesKind.AXIAL_T2 else range(-20, 21):
            if kind is SeriesKind.AXIAL_T2:
                axes, shape, origin = AXIAL_AXES, (61, 61), np.array([-45.0, -45.0, number * 4.5])
            else:
                axes, shape, origin = SAGITTAL_AXES, (121, 61), np.array([number * 4.5, -45.0, 90.0])
            plane = SlicePlane(origin, *axes, (1.5, 1.5), shape)
            slices.append(Slice(plane, number + 21, lambda plane=plane: show(plane)))
        return tuple(slices)

    return Study("7", tuple(Series("7", str(n), kind, (stack(kind),)) for n, kind in enumerate(kinds)))


def point_at(x_mm: float, condition_index: int, level_index: int) -> LevelPoint:
    """A seen point at ``x_mm`` on the level's height."""
    height_mm = 64.0 - 32.0 * level_index
    return LevelPoint(
        condition=CONDITIONS[condition_index],
        level=LEVELS[level_index],
        xyz_mm=np.array([x_mm, 3.0, height_mm]),
        source=PointSource.SEEN,
    )


def all_points() -> tuple[LevelPoint, ...]:
    """A point for each of the 25 targets: canal at x = 0, foramina at ± 16, recesses at ± 9."""
    distance_mm = {
        ConditionGroup.SPINAL: 0.0,
        ConditionGroup.FORAMINAL: 16.0,
        ConditionGroup.SUBARTICULAR: 9.0,
    }
    offsets = [
        distance_mm[condition.group] * (condition.side.sign if condition.side else 0)
        for condition in CONDITIONS
    ]
    return tuple(point_at(offsets[c], c, k) for c in range(len(CONDITIONS)) for k in range(len(LEVELS)))
