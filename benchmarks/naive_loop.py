"""The loop that public notebooks use, with this project's weights: what ``benchmarks.speed`` compares with.

Every slice of every series is read with pydicom, stretched to 8 bits, resized, and given alone to
ultralytics' ``YOLO.predict``; the best detections are cropped, and each crop is graded alone, by every member
of its grader. Nothing is known of geometry.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import torch
from numpy.typing import NDArray

from benchmarks.speed import FURTHER_MEMBERS
from benchmarks.stopwatch import Stopwatch
from classifier.predict import Grader
from classifier.storage import StoredGrader
from data_prep.base.manifest import DEFAULT_BUNDLE, read_verified
from data_prep.vocabulary import LEVELS, SEVERITIES, SUBMISSION_COLUMNS, TARGETS, SeriesKind, Target
from detector import BUNDLED_WEIGHTS
from detector.look.network import network_from_bytes
from detector.spec import AXIAL, COARSEST, FORAMEN, SAGITTAL, DetectorSpec

CONFIDENCE = 0.1
DETECTOR_OF_KIND: dict[SeriesKind, DetectorSpec] = {
    SeriesKind.SAGITTAL_T2: SAGITTAL,
    SeriesKind.SAGITTAL_T1: FORAMEN,
    SeriesKind.AXIAL_T2: AXIAL,
}
# Where a detection is looked for: (slice, score, class, (x, y) of the last keypoint), pixels of the slice.
Found = tuple[int, float, int, tuple[float, float]]


def yolo_of(spec: DetectorSpec, folder: Path) -> Any:
    """An ultralytics YOLO object around a bundled detector, through a checkpoint that it accepts."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import PoseModel

    network = network_from_bytes(
        spec, read_verified(BUNDLED_WEIGHTS[DEFAULT_BUNDLE], f"{spec.kind.value}.safetensors")
    )
    network.__class__ = PoseModel  # the subclass differs in its training loss alone
    network.args = {"task": "pose"}
    path = folder / f"{spec.kind.value}.pt"
    torch.save({"model": network.half(), "train_args": {"task": "pose"}}, path)
    return YOLO(str(path), task="pose")


class NaiveLoop:
    """Detectors and graders of the naive loop, loaded once."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.yolos = {kind: yolo_of(spec, folder) for kind, spec in DETECTOR_OF_KIND.items()}
        self.graders = Grader.load_bundled(backend="torch").graders
        self.threads = threads
        for yolo in self.yolos.values():
            yolo.predict(np.zeros((64, 64, 1), np.uint8), imgsz=64, device="cpu", verbose=False)
        # ultralytics has set its own number at the first prediction.
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)

    def run(self, study: Path, kinds: Mapping[str, SeriesKind], out: Path, clock: Stopwatch) -> None:
        """Grade one study folder into a submission."""
        probabilities: dict[Target, NDArray[np.float64]] = {}
        for series, kind in kinds.items():
            volume, found = self._series(study / series, kind, clock)
            for target in TARGETS:
                if target.condition.series_kind is kind:
                    probabilities[target] = self._grade(target, volume, found, clock)
        with clock("writing"), out.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(SUBMISSION_COLUMNS)
            for target, p in probabilities.items():
                writer.writerow([target.row_id(study.name), *p])

    def _series(
        self, folder: Path, kind: SeriesKind, clock: Stopwatch
    ) -> tuple[list[NDArray[np.uint8]], list[Found]]:
        spec, volume, found = DETECTOR_OF_KIND[kind], [], []
        for number, path in enumerate(sorted(folder.glob("*.dcm"), key=lambda path: int(path.stem))):
            with clock("read and decode"):
                dataset = pydicom.dcmread(path)
                pixels = dataset.pixel_array.astype(np.float32)
                low, high = pixels.min(), pixels.max()
                image = ((pixels - low) / max(float(high - low), 1.0) * 255).astype(np.uint8)
                volume.append(image)
            with clock("detection"):
                found += self._detect(number, image, dataset.PixelSpacing, kind, spec)
        return volume, found

    def _detect(
        self, number: int, image: NDArray[np.uint8], spacing: Any, kind: SeriesKind, spec: DetectorSpec
    ) -> list[Found]:
        """On the canvas that our own detection pads the slice to: the same number of pixels."""
        size_mm = image.shape[0] * float(spacing[0]), image.shape[1] * float(spacing[1])
        height, width = (
            -(-min(round(side / spec.mm_per_px), spec.max_canvas_px) // COARSEST) * COARSEST
            for side in size_mm
        )
        canvas = cv2.resize(image, (width, height))[..., None]
        (result,) = self.yolos[kind].predict(
            canvas, imgsz=(height, width), conf=CONFIDENCE, device="cpu", verbose=False
        )
        scale = image.shape[1] / width, image.shape[0] / height
        points = result.keypoints.xy[:, -1].numpy()
        return [
            (number, float(score), int(index), (float(x * scale[0]), float(y * scale[1])))
            for score, index, (x, y) in zip(result.boxes.conf, result.boxes.cls, points, strict=True)
        ]

    def _grade(
        self, target: Target, volume: list[NDArray[np.uint8]], found: list[Found], clock: Stopwatch
    ) -> NDArray[np.float64]:
        """By every member of the target's grader; what the further ones take is counted apart."""
        logits = []
        for number, member in enumerate(self.graders[target.condition.group].members):
            with clock("crops" if number == 0 else FURTHER_MEMBERS):
                crop = _crop(member, *_place(target, volume, found), volume)
            with clock("grading" if number == 0 else FURTHER_MEMBERS), torch.inference_mode():
                shape = member.config.crop.slices
                logits.append(
                    member.network(
                        torch.from_numpy(crop)[None],
                        torch.ones(1, shape, dtype=torch.bool),
                        torch.tensor([target.level.index]),
                    )[:, : len(SEVERITIES)]
                )
        return torch.stack(logits).mean(dim=0).softmax(dim=1)[0].double().numpy()


def _crop(
    member: StoredGrader, middle: int, at: tuple[float, float], volume: list[NDArray[np.uint8]]
) -> NDArray[np.float32]:
    """(slices, size_px, size_px) in [0, 1]; slices beyond the ends are black."""
    config = member.config.crop
    crop = np.zeros((config.slices, config.size_px, config.size_px), np.float32)
    for position in range(config.slices):
        index = middle + position - config.slices // 2
        if 0 <= index < len(volume):
            half = config.size_px // 2
            part = cv2.getRectSubPix(volume[index], (2 * half, 2 * half), at)
            crop[position] = cv2.resize(part, (config.size_px, config.size_px)) / np.float32(255)
    return crop


def _place(
    target: Target, volume: list[NDArray[np.uint8]], found: list[Found]
) -> tuple[int, tuple[float, float]]:
    """Slice and pixel of a target: the best detection of its level, else of any, else the middle."""
    first = SAGITTAL.level_names.index(LEVELS[0].label)
    own = [item for item in found if item[2] == first + target.level.index]
    best = max(own or found, key=lambda item: item[1], default=None)
    if best is None:
        rows, columns = volume[0].shape
        return len(volume) // 2, (columns / 2, rows / 2)
    return best[0], best[3]
