"""Calls that run beside the caller where there are threads for them, and in its place where there are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


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
