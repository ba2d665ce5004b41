"""Runs one detector over a batch of canonical images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep.manifest import read_verified
from detector.network import LevelPoseModel, network_from_bytes
from detector.spec import DetectorSpec

STRIDE = 32
MAX_BATCH = 16


class SlicePredictor:
    """A detector network with its spec."""

    def __init__(self, model: LevelPoseModel, spec: DetectorSpec, device: str = "cpu") -> None:
        self.model, self.spec, self.device = model.to(device), spec, device

    @classmethod
    def load(cls, folder: Path, spec: DetectorSpec, device: str = "cpu") -> SlicePredictor:
        """Weights ``{kind}.safetensors`` of a folder, checked against its manifest.

        Raises:
            WeightsRejected: not there, or not what the manifest says.
        """
        content = read_verified(folder, f"{spec.kind.value}.safetensors")
        return cls(network_from_bytes(spec, content), spec, device)

    @torch.inference_mode()
    def predict(self, images: list[NDArray[np.uint8]]) -> list[tuple[NDArray[np.float32], tuple[int, int]]]:
        """Raw predictions per image.

        Args:
            images: uint8 (rows, columns), canonical, any sizes.

        Returns:
            Per image: (4 + classes + 3 × keypoints, anchors) float32 in pixels of the padded image, and
            the (left, top) padding in pixels.
        """
        results: list[tuple[NDArray[np.float32], tuple[int, int]]] = []
        for start in range(0, len(images), MAX_BATCH):
            batch = images[start : start + MAX_BATCH]
            height = max(_padded(image.shape[0]) for image in batch)
            width = max(_padded(image.shape[1]) for image in batch)
            tensor = torch.zeros(len(batch), 1, height, width)
            pads = []
            for i, image in enumerate(batch):
                left, top = (width - image.shape[1]) // 2, (height - image.shape[0]) // 2
                tensor[i, 0, top : top + image.shape[0], left : left + image.shape[1]] = torch.from_numpy(
                    image.astype(np.float32) / 255
                )
                pads.append((left, top))
            output = self.model(tensor.to(self.device))
            prediction = output[0] if isinstance(output, tuple) else output
            results.extend(zip(prediction.float().cpu().numpy(), pads, strict=True))
        return results


def _padded(side: int) -> int:
    return (side + STRIDE - 1) // STRIDE * STRIDE
