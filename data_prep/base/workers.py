"""Processes and threads that work beside others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

_POLL_S = 0.5
_T = TypeVar("_T")
_R = TypeVar("_R")
# Files with one number of bytes, or "max": what a container's group may have, and has.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
P = ParamSpec("P")
T = TypeVar("T")


def in_order(work: Callable[[_T], _R], items: Iterable[_T], jobs: int) -> Iterator[_R]:
    """``work`` of every item, in their order: in this process, or in so many beside it."""
    if jobs == 1:
        yield from map(work, items)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # Not forked: a copy of a process whose threads are at work may wait for them for ever.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, items)


def end_with_parent(parent: int) -> None:
    """Let this process end when the one that started it is gone, however it went."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def spare_threads() -> None:
    """Let numpy multiply on one thread, unless the environment says otherwise; before numpy is imported.

    What grading multiplies is small: further threads of OpenBLAS only wait, and burn what the networks could
    use. Measured on two busy processors, the filters of a border took 6 ms instead of 42 of processor time.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def on_one_thread() -> None:
    """For a process beside others that do the same; before torch is imported."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import cv2

    cv2.setNumThreads(1)


def available_memory_mb() -> float:
    """Memory that this machine, or the container this process is in, has to give; infinite where unknown."""
    return min(_free_mb(Path("/proc/meminfo")), *(_left_mb(Path(most), Path(used)) for most, used in _GROUPS))


def _free_mb(meminfo: Path) -> float:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return float("inf")


def _left_mb(most: Path, used: Path) -> float:
    try:
        return (int(most.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii"))) / 2**20
    except (OSError, ValueError):
        return float("inf")


class Beside:
    """One thread beside the caller's; calls that are begun run in it one after the other.

    Networks and most of what prepares their images leave Python's lock to others: two such calls take little
    longer than the longer one.
    """

    def __init__(self, pool: ThreadPoolExecutor | None) -> None:
        self._pool = pool

    def begin(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
        """Begin a call, or make it now without a thread; what is returned waits for its result, or raises."""
        if self._pool is None:
            done = call(*args, **kwargs)
            return lambda: done
        return self._pool.submit(call, *args, **kwargs).result


@contextmanager
def beside(several: bool) -> Iterator[Beside]:
    """A thread beside the caller's, if ``several`` may compute; it is waited for at the end."""
    if not several:
        yield Beside(None)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="beside") as pool:
        yield Beside(pool)
