"""Milliseconds by stage, on the clock and of the processor; a stage within another is taken out of it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any


class Stopwatch:
    """Adds up wall time, and processor time of all threads, by the name of the innermost stage.

    Where threads overlap, the stage that began last has the time: the sum over stages is always that on the
    clock.
    """

    def __init__(self) -> None:
        self.ms: dict[str, float] = defaultdict(float)
        self.cpu_ms: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = time.perf_counter(), time.process_time()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block as a stage."""
        self._turn()
        self._open.append(stage)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time counted as a stage."""

        @wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            with self(stage):
                return function(*args, **kwargs)

        return inner

    def _turn(self) -> None:
        now = time.perf_counter(), time.process_time()
        if self._open:
            self.ms[self._open[-1]] += (now[0] - self._since[0]) * 1e3
            self.cpu_ms[self._open[-1]] += (now[1] - self._since[1]) * 1e3
        self._since = now
