"""Networks that OpenVINO has compiled for the processor, converted once and kept in the user's cache.

It knows nothing of what a network is for: arrays in, arrays out. OpenVINO is imported when a network is
compiled, torch when one is converted, so that a program whose networks lie in the cache starts without torch.

A cache entry is one file, written whole or not at all, that starts with the SHA-256 of the rest. The digest
finds damage, and a damaged entry is made anew; a cache that cannot be written costs a conversion each time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from platformdirs import user_cache_path

from data_prep.base.backend import available_threads
from data_prep.base.files import atomic_write

_FORMAT = "lumbar-openvino/1"
_SUFFIX = ".openvino"
_DIGEST_BYTES, _LENGTH_BYTES = 32, 8
# Every weights folder of one's own adds up to six files of 1 to 11 MB; the least recently used ones go.
_MAX_ENTRIES = 48
# What a converted network depends on besides its weights and its code.
_VERSIONED = ("openvino", "torch", "ultralytics", "timm")

Arrays = Sequence[NDArray[Any]]


def cache_folder() -> Path:
    """Where this user's caches lie on this platform; it need not exist."""
    return user_cache_path("lumbar", appauthor=False, opinion=False)


def network_key(identity: Mapping[str, Any], code: Iterable[Path]) -> str:
    """SHA-256 of what a converted network depends on.

    Args:
        identity: plain values: digest of the weights, configuration.
        code: source files that build and convert the network.
    """
    content = {
        "format": _FORMAT,
        "identity": identity,
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in (*code, Path(__file__))],
        "versions": {name: _version(name) for name in _VERSIONED},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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

    def read(self, key: str) -> tuple[bytes, bytes] | None:
        """(topology XML, weights) of a network; None if it is not here, or damaged."""
        try:
            content = self.path(key).read_bytes()
        except OSError:
            return None
        digest, rest = content[:_DIGEST_BYTES], memoryview(content)[_DIGEST_BYTES:]
        if len(rest) < _LENGTH_BYTES or hashlib.sha256(rest).digest() != digest:
            return None
        size = int.from_bytes(rest[:_LENGTH_BYTES], "little")
        topology, weights = rest[_LENGTH_BYTES : _LENGTH_BYTES + size], rest[_LENGTH_BYTES + size :]
        return bytes(topology), bytes(weights)

    def write(self, key: str, topology: bytes, weights: bytes) -> None:
        """Keep a network. A cache that cannot be written is no failure."""
        rest = len(topology).to_bytes(_LENGTH_BYTES, "little") + topology + weights
        # A name of its own, because other processes may be writing the same network.
        own = self.folder / f"{key}.{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with atomic_write(own, binary=True) as stream:
                stream.write(hashlib.sha256(rest).digest())
                stream.write(rest)
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

    def __init__(self, topology: bytes, weights: bytes, *, threads: int) -> None:
        import openvino

        self.threads = threads
        core = openvino.Core()
        # The model refers to the weights' memory.
        self._weights = openvino.Tensor(np.frombuffer(weights, np.uint8).copy())
        self._compiled = core.compile_model(
            core.read_model(topology, self._weights),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": threads,
                # Several processes on one machine would all be pinned to the same cores.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._requests = [self._compiled.create_infer_request() for _ in range(threads)]

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


def load_compiled(
    key: str,
    convert: Callable[[], tuple[bytes, bytes]],
    *,
    threads: int | None = None,
    cache: NetworkCache | None = None,
) -> CompiledNetwork:
    """A network from the cache, or converted now and kept there.

    Args:
        key: of ``network_key``.
        convert: makes (topology XML, weights); called if the cache has no sound entry.
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
        topology, weights = convert()
        network = CompiledNetwork(topology, weights, threads=threads)
        cache.write(key, topology, weights)
        return network


def _kept(key: str, threads: int, cache: NetworkCache) -> CompiledNetwork | None:
    """A network from the cache, if it is there, whole, and a network that this OpenVINO reads."""
    kept = cache.read(key)
    if kept is None:
        return None
    try:
        return CompiledNetwork(*kept, threads=threads)
    except RuntimeError:
        return None


def convert_torch(
    module: Any, example: tuple[Any, ...], shapes: Sequence[Sequence[int]]
) -> tuple[bytes, bytes]:
    """(topology XML, float32 weights) of a torch module.

    Args:
        module: in evaluation mode.
        example: inputs to trace it with.
        shapes: of the inputs, -1 where any size may come.
    """
    import tempfile
    import warnings

    import openvino
    import torch

    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, example, check_trace=False)
        model = openvino.convert_model(
            traced, example_input=example, input=[openvino.PartialShape(list(shape)) for shape in shapes]
        )
    with tempfile.TemporaryDirectory(prefix="lumbar-") as folder:
        path = Path(folder) / "network.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()
