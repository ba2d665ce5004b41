"""The networks as ONNX graphs, and whether ONNX Runtime gives what torch gives.

A graph is the network alone: images are prepared, and results decoded and calibrated, as the manifest says.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from classifier.config import GraderConfig
from classifier.model import GraderNetwork, for_graph
from data_prep.base.graph import exported_torch
from data_prep.base.networks import CompiledNetwork, torch_outputs
from data_prep.vocabulary import LEVELS
from detector.look.refiner_network import RefinerNetwork
from detector.spec import DetectorSpec, RefinerSpec

# Sides of a detector's image are multiples of this: the coarsest grid of its anchors.
STRIDE = 32
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name, dtype: as ONNX Runtime wants them.
        shape: numbers, and names for axes that may have any length.
        meaning: in a sentence.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    meaning: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return {"name": self.name, "type": self.dtype, "shape": list(self.shape), "meaning": self.meaning}


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """A network ready to be written as a graph; called with its inputs in order, it gives one output."""

    network: nn.Module
    inputs: tuple[Port, ...]
    output: Port

    def to_onnx(self) -> bytes:
        """The graph, with the weights in it and every named axis free."""
        arguments = tuple(torch.from_numpy(value) for value in self.example(2, 0).values())
        axes = {
            port.name: {axis: name for axis, name in enumerate(port.shape) if isinstance(name, str)}
            for port in (*self.inputs, self.output)
        }
        return exported_torch(
            self.network,
            arguments,
            input_names=[port.name for port in self.inputs],
            output_names=[self.output.name],
            dynamic_axes=axes,
        )

    def example(self, batch: int, seed: int, side: int = 8 * STRIDE) -> dict[str, NDArray[Any]]:
        """Random inputs; ``side``: of free image axes, in pixels."""
        random = np.random.default_rng(seed)
        sizes = {"batch": batch, "height": side + STRIDE, "width": side}
        made: dict[str, NDArray[Any]] = {}
        for port in self.inputs:
            shape = [sizes[axis] if isinstance(axis, str) else axis for axis in port.shape]
            if port.dtype == "bool":
                made[port.name] = random.random(shape) < 0.8
            elif port.name == "level":
                made[port.name] = np.arange(batch, dtype=np.int64) % len(LEVELS)
            else:
                made[port.name] = random.random(shape, dtype=np.float32)
        return made


def detector_model(model: nn.Module, spec: DetectorSpec) -> ExportedModel:
    """The network of a detector (``LevelPoseModel``), with decoded boxes, scores and keypoints."""
    network: Any = copy.deepcopy(model)
    head = network.model[-1]
    head.export, head.dynamic, head.format = True, True, "onnx"
    rows = 4 + len(spec.class_names) + 3 * len(spec.keypoints)
    image = "canonical slices, 0 black to 1 white, padded with 0 to multiples of 32 pixels"
    return ExportedModel(
        network,
        (Port("images", "float32", ("batch", 1, "height", "width"), image),),
        Port("predictions", "float32", ("batch", rows, "anchors"), "one column per candidate, see rows"),
    )


def grader_model(network: GraderNetwork, config: GraderConfig) -> ExportedModel:
    """The network of a grader: logits, before calibration."""
    size = (config.crop.slices, config.crop.size_px, config.crop.size_px)
    pixels, valid = "crops, 0 black to 1 white, slices that do not exist 0", "which slices exist"
    inputs = [
        Port("pixels", "float32", ("batch", *size), pixels),
        Port("valid", "bool", ("batch", size[0]), valid),
        Port("level", "int64", ("batch",), "0 for L1/L2 … 4 for L5/S1"),
    ]
    traceable = _TraceableGrader(for_graph(network, config.crop), [port.name for port in inputs])
    return ExportedModel(
        traceable, tuple(inputs), Port("logits", "float32", ("batch", 3), "evidence, see calibration")
    )


def refiner_model(network: RefinerNetwork, spec: RefinerSpec) -> ExportedModel:
    """The network of a second look: how far a structure lies from the middle of a crop."""
    inputs = (
        Port("pixels", "float32", ("batch", 1, spec.size_px, spec.size_px), "crops, 0 black to 1 white"),
        Port("level", "int64", ("batch",), "0 for L1/L2 … 4 for L5/S1"),
    )
    output = Port("offset_mm", "float32", ("batch", 2), "rightwards, downwards")
    return ExportedModel(copy.deepcopy(network).eval(), inputs, output)


class _TraceableGrader(nn.Module):
    """A grader whose inputs come in the order of its ports, and whose graph takes any number of crops."""

    def __init__(self, network: GraderNetwork, names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.names = tuple(names)
        self.eval()  # the exporter brings the parts back to the mode of the whole

    def forward(self, *inputs: Tensor) -> Tensor:
        """(B, 3) logits of ``GraderNetwork.forward``."""
        logits: Tensor = self.network(**dict(zip(self.names, inputs, strict=True)))
        return logits


def largest_difference(model: ExportedModel, graph: bytes) -> float:
    """Between ONNX Runtime and torch, on random inputs of other sizes than the graph was traced with."""
    found, runtime = 0.0, CompiledNetwork(graph, threads=1)
    for batch, side in ((1, 5 * STRIDE), (7, 6 * STRIDE)):
        inputs = [list(model.example(batch, batch, side).values())]
        (output,), (reference,) = runtime(inputs), torch_outputs(model.network, inputs)
        found = max(found, float(np.abs(output - reference).max()))
    return found
