"""Writing files so that a killed run never leaves half of one, and names that are safe to write."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
_EXPORTERS_WORD = re.compile(
    r"[a-z]|anon|archive|bad|broken|copy|csv|dcm|dicom|dir|empty|export|file|frame|im|ima|image|images|img|inner"
    r"|instance|junk|link|loose|missing|mr|mri|name|note|notes|part|readme|report|scan|se|ser|series|slice"
    r"|slices|study|test|text|truncated|txt|volume|zip"
)
# Cells that start so are formulas to spreadsheet programs (OWASP, "CSV Injection").
_FORMULA_STARTS = ("=", "+", "-", "@")


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


def safe_id(text: str) -> str:
    """An identifier from a header or a folder name, safe as a file name, in a CSV cell and on a terminal.

    Letters, digits, ``.``, ``_`` and ``-`` stay; an identifier that had anything else, or does not start
    with a letter or digit, gets eight characters of its SHA-256, so that two never become one.
    """
    if _PLAIN_ID.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = _NOT_PLAIN.sub("-", text).strip("._-")[:64]
    return f"{kept}-{digest}" if kept else f"id-{digest}"


def printable(text: str) -> str:
    """The text without control characters: what comes from a header or a disk must not drive a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def input_label(name: str) -> str:
    """The name of an input file as records and messages say it.

    Exporters number their files ("IM0001.dcm") or use identifiers, and these stay; a name with any word that
    exporters do not use may be a patient's. Of it eight characters of its SHA-256 are left, by which whoever
    has the file can find it.
    """
    words = re.findall(r"[^\W\d_]+", name.lower())
    if name.isprintable() and all(map(_EXPORTERS_WORD.fullmatch, words)):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    suffix = Path(name).suffix
    return f"name-{digest}{suffix if suffix.lower() in ('.dcm', '.ima', '.zip', '.csv') else ''}"


def csv_cell(text: str) -> str:
    """Text without control characters that no spreadsheet program takes for a formula."""
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
