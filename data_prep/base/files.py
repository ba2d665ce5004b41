"""Writing files so that a killed run never leaves half of one, and folders that one run has to itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


@contextmanager
def atomic_write(path: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """Open a file that takes its name only when the block ends without an error.

    The content goes to ``.{name}.partial`` in the same folder, is flushed to the disk and renamed. The
    partial name is fixed, so that a run that is started again after a kill overwrites what was left.

    Args:
        path: the file to write; missing folders are made.
        binary: bytes, else UTF-8 text with ``\\n`` line ends on every platform.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") if binary else open(partial, "w", encoding="utf-8", newline="\n") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def is_disk_error(error: BaseException) -> bool:
    """Whether nothing more can be written: the run has to end, and goes on when it is started again."""
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


class FolderInUse(Exception):
    """Another process holds the lock of a folder."""


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, a file ``.lock`` in it that goes when the block ends.

    The lock ends with its process, however that ends. Where the file system has no locks, none is held.

    Raises:
        FolderInUse: another process holds it.
        OSError: the lock file cannot be made.
    """
    try:
        import fcntl
    except ImportError:  # not on every platform that reads studies
        yield
        return
    path = folder / ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse from None
        except OSError:  # a file system without locks
            pass
        # Whoever held the lock before may have removed the file just now: another one is there then, or none.
        try:
            is_there = os.path.samestat(os.fstat(descriptor), path.stat())
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise FolderInUse
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
