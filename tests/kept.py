"""What was computed once for all tests, workers and the processes that they start."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from filelock import FileLock

# Where that lies, for processes that tests start.
KEPT_VARIABLE = "LUMBAR_TEST_KEPT"


class Kept:
    """Arrays that were computed once for all tests and workers, by what they were computed from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, content: Any, compute: Callable[[], Any]) -> Any:
        """The array of a content (a hash from ``hashlib``): read, or else computed and written."""
        import numpy as np

        path = self._folder / f"{content.hexdigest()}.npy"
        if not path.is_file():
            with FileLock(f"{path}.lock"):  # another worker that needs the same waits for it
                if not path.is_file():
                    array = compute()
                    with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as unfinished:
                        np.save(unfinished, array)
                    Path(unfinished.name).replace(path)
                    return array
        return np.load(path)


class _Later:
    """A network that is prepared when something has to be computed that is not kept."""

    def __init__(self, prepare: Callable[[], Any]) -> None:
        self._prepare = cache(prepare)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prepare(), name)


def compute_once(kept: Kept, *, lazily: bool = False) -> None:
    """From now on, ONNX Runtime prepares a network once in this process, and computes it once for all.

    Args:
        lazily: networks that compute nothing new are not prepared at all.
    """
    import numpy as np

    import data_prep.base.networks as networks

    prepare, ready, digests = networks._ready, dict[bytes, Any](), dict[int, bytes]()
    compute = networks.CompiledNetwork._output

    def prepared(model: bytes, constants: Any) -> Any:
        content = hashlib.sha256(model)
        for name, values in constants.items():
            content.update(f"{name} {values.dtype} {values.shape}".encode())
            content.update(values.data)
        key = content.digest()
        if key not in ready:
            later = partial(prepare, model, constants)
            ready[key] = _Later(later) if lazily else later()
            digests[id(ready[key])] = key
        return ready[key]

    def computed(network: Any, arrays: Any) -> Any:
        content = hashlib.sha256(digests[id(network._ready())])
        for values in arrays:
            content.update(f"{values.dtype} {values.shape}".encode())
            content.update(np.ascontiguousarray(values).data)
        return kept.get(content, lambda: compute(network, arrays))

    networks._ready = prepared
    networks.CompiledNetwork._output = computed  # type: ignore[method-assign]
