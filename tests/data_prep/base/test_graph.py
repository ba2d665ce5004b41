"""Protects: a graph and its weights are the network that torch has, and no other weights pass with it."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save

from data_prep.base.backend import BackendUnusable
from data_prep.base.graph import GraphRejected, _content, assembled, convert_torch, graph_of, is_of
from data_prep.base.networks import CompiledNetwork, load_network


class Small(torch.nn.Module):
    """A convolution with normalisation, and a constant that is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(1, 32, 3), torch.nn.BatchNorm2d(32))
        self.head = torch.nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.body(x)).mean(dim=(2, 3))) * 0.37


@pytest.fixture(scope="module")
def module() -> Small:
    torch.manual_seed(0)
    module = Small().half().float().eval()
    module.body[1].running_mean += torch.rand(32).half().float()
    return module.half().float()


@pytest.fixture(scope="module")
def weights(module: Small) -> bytes:
    return save({name: value.half() for name, value in module.state_dict().items()})


@pytest.fixture(scope="module")
def graph(module: Small, weights: bytes) -> bytes:
    return graph_of(convert_torch(module, (torch.zeros(1, 1, 9, 9),), [(0, 2, 3)], (0,)), weights)


def test_graph_and_weights_are_the_network(module: Small, weights: bytes, graph: bytes) -> None:
    network = CompiledNetwork(*assembled(graph, weights), threads=1)
    image = np.random.default_rng(1).random((2, 1, 12, 17), dtype=np.float32)

    (found,) = network([[image]])

    with torch.inference_mode():
        np.testing.assert_allclose(found, module(torch.from_numpy(image)).numpy(), atol=1e-5)


def test_half_of_a_tensor_is_a_reference_too(module: Small, weights: bytes) -> None:
    whole, half = module.body[0], torch.nn.Conv2d(1, 16, 3)
    half.weight.data, half.bias.data = whole.weight[16:], whole.bias[16:]
    found = graph_of(convert_torch(half, (torch.zeros(1, 1, 9, 9),), [(0,)], (0,)), weights)

    model, constants = assembled(found, weights)

    assert sorted(constant.shape for constant in constants.values()) == [(16,), (16, 1, 3, 3)]
    (result,) = CompiledNetwork(model, constants, threads=1)([[np.ones((1, 1, 9, 9), np.float32)]])
    with torch.inference_mode():
        np.testing.assert_allclose(result, half(torch.ones(1, 1, 9, 9)).numpy(), atol=1e-5)


def test_a_half_that_does_not_exist_is_refused(weights: bytes, graph: bytes) -> None:
    names, model = _content(graph)
    changed = {constant: ["body.0.weight", 2] for constant in names}
    content = zlib.compress(json.dumps(changed).encode() + b"\n" + model)

    with pytest.raises(GraphRejected, match="make graphs"):
        assembled(graph.partition(b"\n")[0] + b"\n" + content, weights)


def test_a_graph_holds_no_weights(weights: bytes, graph: bytes) -> None:
    names, model = _content(graph)
    constants = onnx.load_from_string(model).graph.initializer
    assert names and sum(len(constant.raw_data) for constant in constants if constant.name not in names) < 100
    assert len(graph) < 8_000


def test_other_weights_are_refused(weights: bytes, graph: bytes) -> None:
    other = weights[:-2] + bytes([weights[-2] ^ 1, weights[-1]])

    assert not is_of(graph, other)
    with pytest.raises(GraphRejected, match="make graphs"):
        assembled(graph, other)


@pytest.mark.parametrize("part", [b"", zlib.compress(b"{}"), zlib.compress(b"no json"), b"garbage"])
def test_a_damaged_graph_is_refused(part: bytes, weights: bytes, graph: bytes) -> None:
    head = graph.partition(b"\n")[0]

    with pytest.raises(GraphRejected):
        assembled(head + b"\n" + part, weights)


def test_without_graph_and_torch_the_user_is_told_what_to_do(
    weights: bytes, graph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.base.networks.find_spec", lambda name: None)

    with pytest.raises(BackendUnusable, match=r"pip install 'lumbar\[train\]'"):
        load_network(weights, None, lambda: b"")


def test_assembling_imports_no_torch() -> None:
    program = "import sys, data_prep.base.graph, data_prep.base.networks; print('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_modules_are_converted_one_at_a_time_whoever_asks() -> None:
    """Detectors and graders of one's own, which have no graph, are loaded in threads."""
    module = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3) for _ in range(12))).eval()
    example = (torch.zeros(1, 3, 64, 64),)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: convert_torch(module, example, [[0]], [0]), range(8)))
    assert len(set(found)) == 1
