"""The graph of a network without its weights, from which OpenVINO runs it where torch is not installed.

A graph file lies beside a safetensors file. It holds the network's topology in OpenVINO's representation and,
for every constant in it, the name of the tensor that it is, or its bytes if it is none. It has some 40 KB,
belongs to the weights file beside it, and is made once, where torch is (``make graphs``).
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.problems import LumbarError

SUFFIX = ".graph"
_FORMAT = b"lumbar-graph/1"
# The bundled ones unpack to 0.7 MB.
_MAX_BYTES = 64 * 1024 * 1024
_CONSTANT = re.compile(rb'<data [^>]*?\boffset="(\d+)" size="(\d+)"')


class GraphRejected(LumbarError):
    """A graph file is none, or does not belong to the weights beside it. The message says what to do."""


def is_of(graph: bytes, weights: bytes) -> bool:
    """Whether a graph file was made for a safetensors file."""
    return graph.startswith(_head(weights))


def _head(weights: bytes) -> bytes:
    return b"%s %s\n" % (_FORMAT, hashlib.sha256(weights).hexdigest().encode())


def _content(graph: bytes) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        zlib.decompressobj().decompress(graph.partition(b"\n")[2], _MAX_BYTES)
    )
    return content


def assembled(graph: bytes, weights: bytes) -> tuple[bytes, bytes]:
    """(topology XML, float32 weights) of a graph and the safetensors file that it was made for.

    Raises:
        GraphRejected: not a graph, or of other weights.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        if not is_of(graph, weights):
            raise ValueError("another format, or other weights")
        content, tensors = _content(graph), load(weights)
        memory = bytearray(max(0, *(offset + size for offset, size, _ in content["constants"])))
        for offset, size, constant in content["constants"]:
            name = constant.get("tensor")
            part = bytes.fromhex(constant["bytes"]) if name is None else _plain(tensors[name]).tobytes()
            if len(part) != size:
                raise ValueError("a constant of another size")
            memory[offset : offset + size] = part
        return content["topology"].encode(), bytes(memory)
    except (zlib.error, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GraphRejected(
            f"a {SUFFIX} file does not belong to its weights ({type(error).__name__}): run `make graphs`"
        ) from None


def graph_of(topology: bytes, memory: bytes, weights: bytes) -> bytes:
    """The graph file of a converted network.

    Args:
        topology, memory: what ``convert_torch`` gave.
        weights: the safetensors file from which ``assembled`` will take the constants.
    """
    from safetensors.numpy import load

    by_content = {_plain(tensor).tobytes(): name for name, tensor in load(weights).items()}
    constants = []
    for offset, size in sorted({(int(a), int(b)) for a, b in _CONSTANT.findall(topology)}):
        part = memory[offset : offset + size]
        name = by_content.get(part)
        constants.append([offset, size, {"bytes": part.hex()} if name is None else {"tensor": name}])
    content = {"topology": topology.decode(), "constants": constants}
    return _head(weights) + zlib.compress(json.dumps(content, sort_keys=True).encode(), 9)


def own_bytes(graph: bytes) -> int:
    """Of the constants, the bytes that are no tensor of the weights file."""
    return sum(size for _, size, constant in _content(graph)["constants"] if "bytes" in constant)


def _plain(tensor: NDArray[Any]) -> NDArray[Any]:
    """Weights are stored in half precision and used in single."""
    return tensor.astype(np.float32) if tensor.dtype.kind == "f" else tensor


def convert_torch(
    module: Any, example: tuple[Any, ...], shapes: Sequence[Sequence[int]]
) -> tuple[bytes, bytes]:
    """(topology XML, constants) of a torch module, as OpenVINO's torch front end has them: nothing is folded.

    Args:
        module: in evaluation mode.
        example: inputs to trace it with.
        shapes: of the inputs, -1 where any size may come.
    """
    import tempfile
    import warnings
    from pathlib import Path

    import openvino
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, example, check_trace=False)
        front_end = FrontEndManager().load_by_framework("pytorch")
        # Named, because the front end does not keep the decoder alive.
        decoder = TorchScriptPythonDecoder(traced, example_input=example)
        model = front_end.convert(front_end.load(decoder))
        model.reshape({i: openvino.PartialShape(list(shape)) for i, shape in enumerate(shapes)})
        model.validate_nodes_and_infer_types()
    with tempfile.TemporaryDirectory(prefix="lumbar-") as folder:
        path = Path(folder) / "network.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()
