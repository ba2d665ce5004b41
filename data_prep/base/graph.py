"""The graph of a network without its weights, from which ONNX Runtime runs it where torch is not installed.

A graph file lies beside a safetensors file. It holds the network as ONNX, in which a constant that is a
tensor of that file, or half of one, is a reference by name. It has some 15 KB, belongs to the weights file
beside it, and is made once, where torch is (``make graphs``).
"""

from __future__ import annotations

import hashlib
import json
import threading
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.problems import LumbarError

SUFFIX = ".graph"
OPSET = 17
Constants = dict[str, NDArray[Any]]
_FORMAT = b"lumbar-graph/2"
# The bundled ones unpack to 0.1 MB.
_MAX_BYTES = 64 * 1024 * 1024


class GraphRejected(LumbarError):
    """A graph file is none, or does not belong to the weights beside it. The message says what to do."""


def is_of(graph: bytes, weights: bytes) -> bool:
    """Whether a graph file was made for a safetensors file."""
    return graph.startswith(_head(weights))


def _head(weights: bytes) -> bytes:
    return b"%s %s\n" % (_FORMAT, hashlib.sha256(weights).hexdigest().encode())


def assembled(graph: bytes, weights: bytes) -> tuple[bytes, Constants]:
    """(ONNX model, the constants that it refers to) of a graph and the safetensors file that it was made for.

    Raises:
        GraphRejected: not a graph, or of other weights.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        if not is_of(graph, weights):
            raise ValueError("another format, or other weights")
        names, model = _content(graph)
        if not model:
            raise ValueError("no network")
        tensors = load(weights)
        return model, {constant: _named(tensors, name) for constant, name in names.items()}
    except (zlib.error, SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise GraphRejected(
            f"a {SUFFIX} file does not belong to its weights ({type(error).__name__}): run `make graphs`"
        ) from None


def _named(tensors: Constants, name: str | tuple[str, int]) -> NDArray[Any]:
    """A tensor, or of (its name, 0 or 1) the first or second half of its channels."""
    if isinstance(name, str):
        return _plain(tensors[name])
    tensor, half = name
    return _plain(_halves(tensors[tensor])[half])


def _halves(tensor: NDArray[Any]) -> list[NDArray[Any]]:
    return np.split(tensor, 2) if tensor.ndim and len(tensor) % 2 == 0 else []


def _content(graph: bytes) -> tuple[dict[str, str | tuple[str, int]], bytes]:
    """What of the weights file a constant is, see ``_named``, and the ONNX model."""
    content = zlib.decompressobj().decompress(graph.partition(b"\n")[2], _MAX_BYTES)
    names, _, model = content.partition(b"\n")
    return json.loads(names), model


def graph_of(model: bytes, weights: bytes) -> bytes:
    """The graph file of a converted network; needs onnx.

    Args:
        model: what ``convert_torch`` gave.
        weights: the safetensors file from which ``assembled`` will take the constants.
    """
    import onnx
    from onnx.external_data_helper import set_external_data
    from safetensors.numpy import load

    tensors = load(weights)
    by_content: dict[Any, str | tuple[str, int]] = {
        _key(_plain(half)): (name, number)
        for name, tensor in tensors.items()
        for number, half in enumerate(_halves(tensor))
    }
    by_content |= {_key(_plain(tensor)): name for name, tensor in tensors.items()}
    network = onnx.load_from_string(model)
    names = {}
    for constant in network.graph.initializer:
        tensor = by_content.get(_key(onnx.numpy_helper.to_array(constant)))
        if tensor is not None:
            names[constant.name] = tensor
            set_external_data(constant, location="weights")
            constant.ClearField("raw_data")
    # Who made it, with which version of what, would make other bytes of the same network.
    network.producer_version = ""
    content = json.dumps(names, sort_keys=True).encode() + b"\n" + network.SerializeToString()
    return _head(weights) + zlib.compress(content, 9)


def _key(tensor: NDArray[Any]) -> tuple[tuple[int, ...], str, bytes]:
    return tensor.shape, tensor.dtype.str, tensor.tobytes()


def _plain(tensor: NDArray[Any]) -> NDArray[Any]:
    """Weights are stored in half precision and used in single."""
    return tensor.astype(np.float32) if tensor.dtype.kind == "f" else tensor


# torch exports one module at a time, and detectors and graders are loaded side by side.
_EXPORTING = threading.Lock()


def convert_torch(
    module: Any, example: tuple[Any, ...], free_axes: Sequence[Sequence[int]], free_of_output: Sequence[int]
) -> bytes:
    """A torch module as ONNX, nothing of it folded: its constants are its weights.

    Args:
        module: in evaluation mode.
        example: inputs to trace it with.
        free_axes: of each input, the axes that may have any length.
        free_of_output: the same of the output.
    """
    import torch

    names = [f"input_{number}" for number in range(len(example))]
    axes = {name: list(free) for name, free in zip(names, free_axes, strict=True)}
    return exported_torch(
        module,
        example,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=names,
        output_names=["output"],
        dynamic_axes={**axes, "output": list(free_of_output)},
    )


def exported_torch(module: Any, example: tuple[Any, ...], **options: Any) -> bytes:
    """A torch module as ONNX, traced with ``example``; the options are those of ``torch.onnx.export``."""
    import tempfile
    import warnings
    from pathlib import Path

    import torch

    with (
        _EXPORTING,
        tempfile.TemporaryDirectory(prefix="lumbar-") as folder,
        warnings.catch_warnings(),
        torch.inference_mode(False),
        torch.no_grad(),
    ):
        # The exporter that traces needs no further package, and says at length that there is another.
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.onnx"
        torch.onnx.export(module, example, path, dynamo=False, opset_version=OPSET, **options)
        return path.read_bytes()
