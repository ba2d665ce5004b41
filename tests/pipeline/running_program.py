"""The program as a process of its own: what it says, and what its page answers."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.pipeline.warm_program import WarmProcess, start_warm


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[WarmProcess]:
    """A command of the program as a process of its own, every warning on, all that it says in ``log``."""
    process = start_warm(
        "tests.pipeline.stand_in_main", ["0", *command], out=log, err=log, environment=environment
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(60)


def said(log: Path, pattern: str, times: int = 1) -> str:
    """The last thing that a pattern finds in a log, once it is there so often."""
    for _ in range(6000):
        found = re.findall(pattern, log.read_text(errors="replace"))
        if len(found) >= times:
            return str(found[-1])
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {pattern!r}: {log.read_text(errors='replace')}")


def asking_app(log: Path) -> Callable[..., bytes]:
    """A function (method, path, body) that asks the page of ``lumbar app``. Raises HTTPError."""
    address = said(log, r"http://127\.0\.0\.1:\d+/")
    page = urllib.request.urlopen(address, timeout=30).read().decode()
    token = page.split('lumbar-token" content="')[1].split('"')[0]

    def ask(method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(
            address + path, data=body, method=method, headers={"x-lumbar-token": token}
        )
        answer: bytes = urllib.request.urlopen(request, timeout=60).read()
        return answer

    return ask
