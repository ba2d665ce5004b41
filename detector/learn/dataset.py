"""Random views of labelled slices as the batches that ultralytics trains on."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from ultralytics.data.dataset import YOLODataset

from data_prep.geometry import FloatArray
from detector.learn.slices import LabelledSlice
from detector.learn.views import AugmentConfig, View, augmented_view
from detector.spec import DetectorSpec

CANAL_TO_DISC = 0.65  # horizontal distance disc centre → canal point, in box sides (about 23 of 36 mm)


class LevelDataset(Dataset[dict[str, Any]]):
    """``samples_per_epoch`` random views; sample i of epoch e depends on (seed, e, i) alone.

    Sources are drawn with their weights; within a source every slice is as likely.
    """

    rect = False
    collate_fn = staticmethod(YOLODataset.collate_fn)

    def __init__(
        self,
        sources: list[tuple[float, list[LabelledSlice]]],
        spec: DetectorSpec,
        augment: AugmentConfig,
        *,
        samples_per_epoch: int,
        seed: int,
    ) -> None:
        self.sources = [slices for _, slices in sources]
        weights = np.array([weight for weight, _ in sources], dtype=float)
        self.weights = weights / weights.sum()
        self.spec, self.augment, self.seed = spec, augment, seed
        self.samples_per_epoch = samples_per_epoch
        self.epoch = 0

    def __len__(self) -> int:
        return self.samples_per_epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        source = self.sources[int(rng.choice(len(self.sources), p=self.weights))]
        item = source[int(rng.integers(len(source)))]
        view = augmented_view(item, self.spec, self.augment, rng)
        return to_sample(view, self.spec, item.name, counting=item.counting)


def views_ahead(dataset: LevelDataset, batch_size: int, workers: int) -> DataLoader[dict[str, Any]]:
    """Batches that processes prepare ahead, started anew for every epoch: one that outlived it would not hear
    of the next, and make the same views again."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=dataset.collate_fn,
        worker_init_fn=_one_thread,
        pin_memory=torch.cuda.is_available(),
    )


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def to_sample(
    view: View, spec: DetectorSpec, name: str = "", *, counting: tuple[int, ...] = ()
) -> dict[str, Any]:
    """A view as ultralytics wants it: image uint8 (1, rows, columns), boxes xywh and keypoints in 0–1.

    Keypoints of the places ``counting`` are not learned (``LabelledSlice``).
    """
    rows, columns = view.image.shape
    size = np.array([columns, rows], dtype=np.float32)
    count = len(view.classes)
    learned = ~np.isin(np.arange(len(spec.keypoints)), counting)
    seen = np.isfinite(view.keypoints_px).all(axis=-1) & learned
    keypoints = np.concatenate(
        [np.nan_to_num(view.keypoints_px) / size, np.where(seen, 2.0, 0.0)[..., None]], axis=-1
    )
    centres = object_centres(view, spec)
    half = view.box_px / 2
    low = np.clip(centres - half, 0, size - 1)
    high = np.clip(centres + half, 1, size)
    boxes = np.concatenate([(low + high) / 2, high - low], axis=-1) / np.tile(size, 2)
    return {
        "img": torch.from_numpy(view.image[None].copy()),
        "cls": torch.from_numpy(view.classes.astype(np.float32).reshape(count, 1)),
        "bboxes": torch.from_numpy(boxes.astype(np.float32).reshape(count, 4)),
        "keypoints": torch.from_numpy(keypoints.astype(np.float32).reshape(count, len(spec.keypoints), 3)),
        "batch_idx": torch.zeros(count),
        "im_file": name,
        "ori_shape": (rows, columns),
        "resized_shape": (rows, columns),
    }


def object_centres(view: View, spec: DetectorSpec) -> FloatArray:
    """Box centres (n, 2) px. Sagittal: the disc, or where it must be in front of the canal point when
    only that is annotated (as in the RSNA tables). Axial: midway between the recesses."""
    if spec.disc_class is None:
        return view.keypoints_px.mean(axis=1)
    disc, canal = view.keypoints_px[:, 0], view.keypoints_px[:, 1]
    return np.where(np.isfinite(disc), disc, canal - [CANAL_TO_DISC * view.box_px, 0.0])
