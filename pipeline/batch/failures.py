"""What ends a run, and how it is said; importable before anything that takes time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.commands import console


class EngineFailed(RuntimeError):
    """No worker can be had. The message says why; what was finished stays."""


@contextmanager
def engine_failures_named() -> Iterator[None]:
    """End the program with what to do where workers cannot be had."""
    try:
        yield
    except EngineFailed as failed:
        console.fail(f"{failed}\nwhat to do: start it again when that is mended; it goes on where it was")


# SIGHUP is not everywhere.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block by an exception, so that what was unpacked is removed."""
    owner = os.getpid()

    def end(number: int, _: object) -> None:
        if os.getpid() != owner:  # a worker that inherited this has nothing to remove
            os._exit(128 + number)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
