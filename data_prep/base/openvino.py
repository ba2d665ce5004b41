"""Networks that OpenVINO has compiled for this processor, once, and that are kept in the user's cache.

It knows nothing of what a network is for: arrays in, arrays out. A network comes from its graph file
(``data_prep.base.graph``) or, where there is none, from torch, which is imported only then.

A cache entry is one file, written whole or not at all, that starts with the SHA-256 of the rest. The digest
finds damage, and a damaged entry is made anew; a cache that cannot be written costs a compilation each time.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache as remembered
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from platformdirs import user_cache_path

from data_prep.base.backend import BackendUnusable, available_threads
from data_prep.base.files import atomic_write
from data_prep.base.graph import assembled, is_of

_FORMAT = "lumbar-openvino/2"
_SUFFIX = ".openvino"
_DIGEST_BYTES = 32
# Every weights folder of one's own adds up to six files of 1 to 11 MB; the least recently used ones go.
_MAX_ENTRIES = 48
# What a network that torch converts depends on besides its weights and its code.
_CONVERTERS = ("torch", "ultralytics", "timm")

Arrays = Sequence[NDArray[Any]]


def cache_folder() -> Path:
    """Where this user's caches lie on this platform; it need not exist."""
    return user_cache_path("lumbar", appauthor=False, opinion=False)


def network_key(identity: Mapping[str, Any], code: Iterable[Path] = ()) -> str:
    """SHA-256 of what a compiled network depends on; the processor is one of them.

    Args:
        identity: plain values: digest of the weights, of the graph or the configuration.
        code: source files that build and convert the network; none if it comes from a graph.
    """
    code = tuple(code)
    content = {
        "format": _FORMAT,
        "identity": identity,
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in (*code, Path(__file__))],
        "versions": {name: _version(name) for name in ("openvino", *(_CONVERTERS if code else ()))},
        "processor": _processor(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@remembered
def _core() -> Any:
    import openvino

    return openvino.Core()


@remembered
def _processor() -> str:
    """What a compiled network is compiled for."""
    properties = ("FULL_DEVICE_NAME", "DEVICE_ARCHITECTURE", "OPTIMIZATION_CAPABILITIES")
    return " ".join(str(_core().get_property("CPU", name)) for name in properties)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class NetworkCache:
    """A folder of converted networks.

    Attributes:
        folder: made when the first network is written.
    """

    folder: Path

    @classmethod
    def of_user(cls) -> NetworkCache:
        """In the user's cache folder."""
        return cls(cache_folder() / "networks")

    def path(self, key: str) -> Path:
        """The file of a network."""
        return self.folder / f"{key}{_SUFFIX}"

    def read(self, key: str) -> bytes | None:
        """A compiled network; None if it is not here, or damaged."""
        try:
            content = self.path(key).read_bytes()
        except OSError:
            return None
        digest, rest = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        return rest if rest and hashlib.sha256(rest).digest() == digest else None

    def write(self, key: str, compiled: bytes) -> None:
        """Keep a compiled network. A cache that cannot be written is no failure."""
        # A name of its own, because other processes may be writing the same network.
        own = self.folder / f"{key}.{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with atomic_write(own, binary=True) as stream:
                stream.write(hashlib.sha256(compiled).digest())
                stream.write(compiled)
            os.replace(own, self.path(key))
            self._drop_old()
        except OSError:
            return

    @contextmanager
    def converting(self) -> Iterator[None]:
        """Wait until no other process converts, and let none begin within the block.

        Workers that start together would all convert the same networks.
        """
        with ExitStack() as stack:
            with suppress(OSError):  # a folder that cannot be written keeps nothing to wait for
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                stack.enter_context(FileLock(self.folder / "converting.lock"))
            yield

    def _drop_old(self) -> None:
        entries = sorted(self.folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
        for path in entries[:-_MAX_ENTRIES]:
            path.unlink(missing_ok=True)


class CompiledNetwork:
    """A network on the processor in float32.

    The same input gives the same bytes whatever is computed beside it and on however many threads: every
    stream computes with one thread, and several inputs are spread over the streams.
    """

    def __init__(self, compiled: Any, threads: int) -> None:
        self.threads, self._compiled = threads, compiled
        self._requests = [compiled.create_infer_request() for _ in range(threads)]

    @classmethod
    def of_topology(cls, topology: bytes, weights: bytes, *, threads: int) -> CompiledNetwork:
        """Compile (topology XML, float32 weights) for this processor."""
        import openvino

        # The model refers to the weights' memory.
        memory = openvino.Tensor(np.frombuffer(weights, np.uint8).copy())
        model = _core().read_model(topology, memory)
        return cls(_core().compile_model(model, "CPU", _settings(threads)), threads)

    @classmethod
    def of_compiled(cls, compiled: bytes, *, threads: int) -> CompiledNetwork:
        """What ``exported`` gave. Raises RuntimeError for anything else."""
        return cls(_core().import_model(io.BytesIO(compiled), "CPU", _settings(threads)), threads)

    def exported(self) -> bytes:
        """The compiled network, for this processor and version of OpenVINO."""
        stream = io.BytesIO()
        self._compiled.export_model(stream)
        return stream.getvalue()

    def __call__(self, inputs: Iterable[Arrays]) -> list[NDArray[np.float32]]:
        """The first output for each set of inputs, in order; see ``start``."""
        return self.start(inputs)()

    def start(self, inputs: Iterable[Arrays]) -> Callable[[], list[NDArray[np.float32]]]:
        """Draw all sets of inputs; what is returned waits for the first output of each, in order.

        With more than one thread, an input is drawn while earlier ones are computed, and the last ones are
        computed while the caller does something else: what makes inputs (decoding, resampling) then costs no
        time of its own. The outputs have to be waited for before the next start.
        """
        if self.threads == 1:
            request = self._requests[0]
            done = [np.array(request.infer(list(arrays))[0]) for arrays in inputs]
            return lambda: done
        results: list[NDArray[np.float32]] = []
        running: list[Any] = []
        for number, arrays in enumerate(inputs):
            request = self._requests[number % self.threads]
            request.wait()  # also for what a start left behind whose inputs raised an error
            if number >= self.threads:
                results.append(self._result(request))
            request.start_async(list(arrays))
            running.append(request)
        return lambda: [*results, *(self._result(request) for request in running[len(results) :])]

    @staticmethod
    def _result(request: Any) -> NDArray[np.float32]:
        request.wait()
        return np.array(request.get_output_tensor(0).data)


def _settings(threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        # Several processes on one machine would all be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
    }


def load_compiled(
    key: str,
    build: Callable[[], tuple[bytes, bytes]],
    *,
    threads: int | None = None,
    cache: NetworkCache | None = None,
) -> CompiledNetwork:
    """A network from the cache, or compiled now and kept there.

    Args:
        key: of ``network_key``.
        build: makes (topology XML, weights); called if the cache has no sound entry.
        threads: None for all that this process may use.
        cache: None for the user's.
    """
    cache = cache or NetworkCache.of_user()
    threads = threads or available_threads()
    if (network := _kept(key, threads, cache)) is not None:
        return network
    with cache.converting():
        if (network := _kept(key, threads, cache)) is not None:  # another process was first
            return network
        network = CompiledNetwork.of_topology(*build(), threads=threads)
        cache.write(key, network.exported())
        return network


def load_network(
    weights: bytes,
    graph: bytes | None,
    convert: Callable[[], tuple[bytes, bytes]],
    *,
    described: Mapping[str, Any],
    code: Iterable[Path],
    threads: int | None = None,
) -> CompiledNetwork:
    """The network of a safetensors file, from the cache or compiled now.

    Args:
        weights: the file's bytes.
        graph: of the file beside it; None if there is none.
        convert: makes (topology XML, weights) by torch, for weights without a graph.
        described: configuration of the network, which a graph holds already.
        code: source files that build and convert the network.
        threads: None for all that this process may use.

    Raises:
        GraphRejected: the graph is damaged.
        BackendUnusable: there is no graph of these weights, and torch, which could convert them, is not
            installed.
    """
    identity = {"weights": hashlib.sha256(weights).hexdigest()}
    if graph is not None and is_of(graph, weights):
        key = network_key({**identity, "graph": hashlib.sha256(graph).hexdigest()})
        return load_compiled(key, lambda: assembled(graph, weights), threads=threads)
    if find_spec("torch") is None:
        raise BackendUnusable(
            "these weights have no graph file, and torch, which could convert them, is not installed: "
            "run `python -m pipeline.export.graphs FOLDER` where it is, or pip install 'lumbar[train]'"
        )
    return load_compiled(network_key({**identity, **described}, code), convert, threads=threads)


def _kept(key: str, threads: int, cache: NetworkCache) -> CompiledNetwork | None:
    """A network from the cache, if it is there, whole, and a network that this OpenVINO reads."""
    kept = cache.read(key)
    if kept is None:
        return None
    try:
        return CompiledNetwork.of_compiled(kept, threads=threads)
    except RuntimeError:
        return None
