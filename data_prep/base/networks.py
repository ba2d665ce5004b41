"""Networks that ONNX Runtime computes on the processor: arrays in, arrays out.

It knows nothing of what a network is for. A network comes from its graph file (``data_prep.base.graph``)
or, where there is none, from torch, which is imported only then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from data_prep.base.backend import BackendUnusable, available_threads
from data_prep.base.files import write_whole
from data_prep.base.graph import Constants, assembled, is_of
from data_prep.base.manifest import WeightsRejected

Arrays = Sequence[NDArray[Any]]

_NETWORKS: WeakSet[CompiledNetwork] = WeakSet()


class CompiledNetwork:
    """A network on the processor in float32.

    The same input gives the same bytes whatever is computed beside it and on however many threads: every
    input is computed by one thread, and several inputs are spread over the threads.
    """

    def __init__(
        self, model: bytes, constants: Mapping[str, NDArray[Any]] | None = None, *, threads: int
    ) -> None:
        """Begin to prepare an ONNX model for this processor: with several threads beside the caller.

        Args:
            threads: that compute inputs beside each other; networks with the same number share them.
        """
        self.threads = threads
        constants = dict(constants or {})
        self._ready: Callable[[], _Ready]
        if threads == 1:
            ready = _ready(model, constants)
            self._ready = lambda: ready
        else:  # the first networks look at a study while others are still made ready
            self._ready = _makers().submit(_ready, model, constants).result
        _NETWORKS.add(self)

    def await_ready(self) -> None:
        """Wait until it can compute. Raises BackendUnusable."""
        self._ready()

    def __call__(self, inputs: Iterable[Arrays]) -> list[NDArray[np.float32]]:
        """The first output for each set of inputs, in order; see ``start``."""
        return self.start(inputs)()

    def start(self, inputs: Iterable[Arrays]) -> Callable[[], list[NDArray[np.float32]]]:
        """Draw all sets of inputs; what is returned waits for the first output of each, in order.

        With more than one thread, an input is drawn while earlier ones are computed, and the last ones are
        computed while the caller does something else: what makes inputs (decoding, resampling) then costs no
        time of its own.
        """
        if self.threads == 1:
            done = [self._output(arrays) for arrays in inputs]
            return lambda: done
        results: list[NDArray[np.float32]] = []
        running: deque[Future[NDArray[np.float32]]] = deque()
        for arrays in inputs:
            if len(running) > self.threads:  # no more images in memory than are needed
                results.append(running.popleft().result())
            running.append(_workers(self.threads).submit(self._output, list(arrays)))
        return lambda: [*results, *(future.result() for future in running)]

    def _output(self, arrays: Arrays) -> NDArray[np.float32]:
        ready = self._ready()
        found: NDArray[np.float32] = ready.session.run(None, dict(zip(ready.inputs, arrays, strict=True)))[0]
        return found


@dataclass(frozen=True)
class _Ready:
    """A network that computes.

    Attributes:
        session: of ONNX Runtime.
        inputs: their names.
        constants: the session reads them where they are.
    """

    session: Any
    inputs: tuple[str, ...]
    constants: tuple[Any, ...]


def _ready(model: bytes, constants: Constants) -> _Ready:
    """An ONNX model, prepared. Raises BackendUnusable."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Images have many sizes: a plan of memory for each would be kept.
    options.enable_mem_pattern = False
    values = tuple(onnxruntime.OrtValue.ortvalue_from_numpy(part) for part in constants.values())
    if constants:
        options.add_external_initializers(list(constants), list(values))
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common kind
        raise BackendUnusable(
            f"ONNX Runtime {onnxruntime.__version__} cannot run a network ({type(error).__name__}): install "
            "the version of requirements.txt, or use --backend torch"
        ) from error
    return _Ready(session, tuple(port.name for port in session.get_inputs()), values)


def await_networks() -> None:
    """Wait until every network of this process is ready: who serves must not find out later.

    Raises:
        BackendUnusable: one of them cannot be run.
    """
    for network in list(_NETWORKS):
        network.await_ready()


@cache
def _makers() -> ThreadPoolExecutor:
    """Threads that make networks ready, which ONNX Runtime does outside of Python's lock."""
    return ThreadPoolExecutor(2, thread_name_prefix="making")


@cache
def _workers(threads: int) -> ThreadPoolExecutor:
    """Threads that compute; ONNX Runtime releases Python's lock."""
    return ThreadPoolExecutor(threads, thread_name_prefix="network")


def load_network(
    weights: bytes, graph: bytes | None, convert: Callable[[], bytes], *, threads: int | None = None
) -> CompiledNetwork:
    """The network of a safetensors file.

    Args:
        graph: of the file beside it; None if there is none.
        convert: makes an ONNX model by torch, for weights without a graph.
        threads: None for all that this process may use.

    Raises:
        GraphRejected: the graph is damaged.
        BackendUnusable: there is no graph of these weights, and torch, which could convert them, is not
            installed.
    """
    threads = threads or available_threads()
    if graph is not None and is_of(graph, weights):
        model, constants = assembled(graph, weights)
        return CompiledNetwork(model, constants, threads=threads)
    if find_spec("torch") is None:
        raise BackendUnusable(
            "these weights have no graph file, and torch, which could convert them, is not installed: "
            "run `python -m pipeline.export.graphs FOLDER` where it is, or pip install 'lumbar[train]'"
        )
    return CompiledNetwork(convert(), threads=threads)


def with_weights(network: Any, weights: bytes, name: str) -> Any:
    """A torch module with the weights of a safetensors file (fp16 there, fp32 here), ready for inference.

    Args:
        name: of the file, for messages.

    Raises:
        WeightsRejected: no safetensors, whatever a manifest says of them, or of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(weights)
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    except (SafetensorError, RuntimeError) as error:
        raise WeightsRejected(
            f"'{name}' does not fit its network ({type(error).__name__}): run `make models`"
        ) from None
    return network.eval().requires_grad_(False)


def save_network(network: Any, path: Path) -> None:
    """Write the weights of a torch module as fp16 safetensors. Buffers that are counters stay integers."""
    from safetensors.torch import save

    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in network.state_dict().items()
    }
    write_whole(path, save(tensors))


def torch_outputs(network: Any, inputs: Iterable[Arrays]) -> list[NDArray[np.float32]]:
    """The first output of a torch module for each set of inputs, on its device: the reference."""
    import torch

    device = next(network.parameters()).device
    with torch.inference_mode():
        found = (network(*(torch.from_numpy(array).to(device) for array in arrays)) for arrays in inputs)
        return [output.float().cpu().numpy() for output in found]
