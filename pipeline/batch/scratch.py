"""Folders in which workers make files that are not yet where they belong."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

_SCRATCH = "lumbar-worker-"


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for as long as the block lasts."""
    with TemporaryDirectory(prefix=_SCRATCH) as name:
        folder = Path(name) / "out"
        folder.mkdir()
        with (Path(name) / "lock.new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.rename(Path(name) / "lock.new", Path(name) / "lock")
            yield folder


def clean_scratch() -> None:
    """Remove what killed workers of this machine left behind: pictures and reports show the images."""
    for folder in Path(gettempdir()).glob(f"{_SCRATCH}*"):
        # The lock of a living worker, or a folder of somebody else's.
        with suppress(OSError), (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
