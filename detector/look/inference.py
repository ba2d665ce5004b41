"""Runs one detector over canonical images; no image's result depends on its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data_prep.base.backend import Backend, resolve_backend
from data_prep.base.graph import SUFFIX
from data_prep.base.manifest import read_listed, read_verified
from data_prep.base.networks import load_network, torch_outputs
from detector.spec import COARSEST, STRIDE, DetectorSpec

if TYPE_CHECKING:
    from detector.look.network import LevelPoseModel

GPU_BATCH = 16
# Measured with ONNX Runtime on AVX2, ms per image alone and four together: 19.6 and 18.5 at 320 × 288,
# 5.3 and 4.2 at 160 × 128.
CPU_BATCH = 4
# (rows of one image, columns) in, and how many there are, if known; raw evidence out; see EvidenceNetwork.
Padded = NDArray[np.float32]
Evidence = NDArray[np.float32]
Run = Callable[[Iterable[Padded], int | None], list[Evidence]]


class SlicePredictor:
    """A detector network with its spec.

    Attributes:
        backend: what runs it.
    """

    def __init__(self, spec: DetectorSpec, run: Run, backend: Backend) -> None:
        self.spec, self.backend, self._run = spec, backend, run

    @classmethod
    def load(
        cls,
        folder: Path,
        spec: DetectorSpec,
        device: str = "cpu",
        *,
        backend: Backend | str = Backend.TORCH,
        threads: int | None = None,
    ) -> SlicePredictor:
        """Weights ``{kind}.safetensors`` of a folder, checked against its manifest.

        Args:
            threads: of ONNX Runtime; torch has its own setting.

        Raises:
            WeightsRejected: not there, or not what the manifest says.
            BackendUnusable: the backend cannot run here.
        """
        content = read_verified(folder, f"{spec.kind.value}.safetensors")
        chosen = resolve_backend(backend, device=device)
        if chosen is Backend.ONNX:
            graph = read_listed(folder, f"{spec.kind.value}{SUFFIX}")
            return cls(spec, _compiled(spec, content, graph, threads), chosen)
        from detector.look.network import network_from_bytes

        return cls.of_network(network_from_bytes(spec, content), spec, device)

    @classmethod
    def of_network(cls, model: LevelPoseModel, spec: DetectorSpec, device: str = "cpu") -> SlicePredictor:
        """A network in memory, run by torch."""
        from detector.look.network import EvidenceNetwork

        network = EvidenceNetwork(model).eval().to(device)

        # On a processor one by one: the same bytes whatever stands beside an image. A GPU wants batches.
        size = 1 if device == "cpu" else GPU_BATCH

        def run(images: Iterable[Padded], count: int | None) -> list[Evidence]:
            outputs = torch_outputs(network, ([batch] for batch in _batches(images, size)))
            return [evidence for output in outputs for evidence in output]

        return cls(spec, run, Backend.TORCH)

    def predict(
        self, images: Iterable[NDArray[np.uint8]], count: int | None = None
    ) -> list[tuple[Evidence, tuple[int, int]]]:
        """Predictions per image.

        Args:
            images: uint8 (rows, columns), canonical, any sizes; drawn one after the other.
            count: how many at most, if known, to share them out among threads. Results do not depend on it.

        Returns:
            Per image: (classes + 3 × keypoints, anchors) float32, class probabilities and keypoints (x, y in
            pixels of the padded image, and what the head says of its visibility), and the (left, top) padding
            in pixels.
        """
        places: list[tuple[tuple[int, int], tuple[int, int]]] = []

        def padded() -> Iterator[Padded]:
            for image in images:
                canvas, pad = _padded(image)
                places.append((canvas.shape, pad))
                yield canvas

        found = self._run(padded(), count)
        return [
            (decode_keypoints(evidence, self.spec, shape), pad)
            for evidence, (shape, pad) in zip(found, places, strict=True)
        ]


def decode_keypoints(evidence: Evidence, spec: DetectorSpec, shape: tuple[int, int]) -> Evidence:
    """The evidence of an image of ``shape`` (rows, columns) with its keypoints in pixels.

    As ultralytics decodes them: pixel = (2 × output + column of the anchor's cell) × stride. Graph files that
    earlier versions wrote go on with coarser grids, on which nothing is found.
    """
    columns, rows = _anchors(shape)
    decoded = evidence[:, : columns.size].copy()
    first = len(spec.class_names)
    for keypoint in range(len(spec.keypoints)):
        x, y = first + 3 * keypoint, first + 3 * keypoint + 1
        decoded[x] = (decoded[x] * np.float32(2) + columns) * np.float32(STRIDE)
        decoded[y] = (decoded[y] * np.float32(2) + rows) * np.float32(STRIDE)
    return decoded


@lru_cache(maxsize=64)
def _anchors(shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Column and row (anchors,) of each anchor's cell."""
    height, width = (side // STRIDE for side in shape)
    columns = np.tile(np.arange(width, dtype=np.float32), height)
    return columns, np.repeat(np.arange(height, dtype=np.float32), width)


def _compiled(spec: DetectorSpec, content: bytes, graph: bytes | None, threads: int | None) -> Run:
    def convert() -> bytes:
        from detector.look.network import converted_network

        return converted_network(spec, content)

    network = load_network(content, graph, convert, threads=threads)

    def run(images: Iterable[Padded], count: int | None) -> list[Evidence]:
        together = min(CPU_BATCH, max(1, -(-count // network.threads))) if count is not None else CPU_BATCH
        stacked = ([batch] for batch in _batches(images, together))
        return [evidence for output in network(stacked) for evidence in output]

    return run


def _batches(images: Iterable[Padded], size: int) -> Iterator[NDArray[np.float32]]:
    """Up to ``size`` neighbouring images of one shape together (n, 1, rows, columns), drawn when needed."""
    for _, alike in groupby(images, key=np.shape):
        while waiting := list(islice(alike, size)):
            yield np.stack(waiting)[:, None]


def _padded(image: NDArray[np.uint8]) -> tuple[Padded, tuple[int, int]]:
    """The image in [0, 1] in the middle of a canvas that the coarsest stride divides, and its (left, top)."""
    height, width = (-(-side // COARSEST) * COARSEST for side in image.shape)
    left, top = (width - image.shape[1]) // 2, (height - image.shape[0]) // 2
    canvas = np.zeros((height, width), dtype=np.float32)
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image.astype(np.float32) / 255
    return canvas, (left, top)
