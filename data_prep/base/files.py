"""Writing files so that a killed run never leaves half of one, and folders that one run has to itself."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeGuard

from filelock import FileLock, Timeout

from data_prep.names import input_label
from data_prep.problems import LumbarError

if TYPE_CHECKING:  # files are opened by commands that load no numpy
    from numpy.typing import NDArray

_ABANDONED_S = 60.0
_PIECE_BYTES = 4096
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


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text or bytes as ``atomic_write`` does."""
    with atomic_write(path, binary=isinstance(content, bytes)) as stream:
        stream.write(content)


def write_json(path: Path, content: Any, **options: Any) -> None:
    """Write JSON and a line end as ``atomic_write`` does; the options are those of ``json.dumps``."""
    write_whole(path, json.dumps(content, **options) + "\n")


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a training as torch does, whole or not at all."""
    import torch

    # In memory first: into a file torch writes without saying that the disk is full.
    content = io.BytesIO()
    torch.save(state, content)
    write_whole(path, content.getvalue())


def file_state(path: Path) -> tuple[int, int, str]:
    """Bytes, time of change in nanoseconds, and SHA-256 of a piece of the start and of the middle of a file.

    Images of one scanner have one size, and archives and mirrors give all files one time: the pieces, which
    hold the identifiers and some pixels, tell another patient's images under the same names. -1 and nothing
    for what is not there, such as the target of a dead link; no piece of what is no file or cannot be read.
    """
    try:
        status = path.stat()
    except OSError:
        return -1, -1, ""
    pieces = hashlib.sha256()
    if stat.S_ISREG(status.st_mode):
        with suppress(OSError), path.open("rb", buffering=0) as file:
            for place in (0, status.st_size // 2):
                file.seek(place)
                pieces.update(file.read(_PIECE_BYTES))
    return status.st_size, status.st_mtime_ns, pieces.hexdigest()


def arrays_digest(arrays: Iterable[NDArray[Any]], *more: object) -> str:
    """SHA-256 of arrays, their shapes and types, and of what else made a thing."""
    import numpy as np

    digest = hashlib.sha256(repr(more).encode())
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


def without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null (nothing to average; a point is missing)."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_disk_error(error: BaseException) -> TypeGuard[OSError]:
    """Whether nothing more can be written: the run has to end, and goes on when it is started again."""
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


class FolderInUse(LumbarError):
    """Another process holds the lock of a folder."""

    advice = "wait until it ends, or choose another folder"


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, a file ``.lock`` in it that goes when the block ends.

    The lock ends with its process, however that ends.

    Raises:
        FolderInUse: another process, or another part of this one, holds it.
        OSError: the lock file cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    lock = FileLock(path, mode=0o600, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise FolderInUse(f"another run is writing into {input_label(folder.name)!r}") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # whoever opened it meanwhile sees that it is gone, and asks anew
        lock.release()


@contextmanager
def written_by_one(path: Path) -> Iterator[None]:
    """Wait until no other process is at this file of a cache that runs share, and keep others from it.

    What they have written meanwhile may serve: look again inside the block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.lock")
    with FileLock(place, mode=0o600, thread_local=False):
        try:
            yield
        finally:
            place.unlink(missing_ok=True)  # as in locked_folder


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder for as long as the block lasts; of a killed run, ``remove_abandoned`` removes it later."""
    with (
        tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name,
        locked_folder(Path(name)),
    ):
        inside = Path(name) / "files"
        inside.mkdir()
        yield inside


def remove_abandoned(prefix: str) -> None:
    """Remove temporary folders of killed runs: images of patients must not stay where nobody looks."""
    if not hasattr(os, "getuid"):  # without users
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            if time.time() - status.st_mtime < _ABANDONED_S:  # perhaps about to be locked
                continue
            with locked_folder(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except (OSError, FolderInUse):
            continue
