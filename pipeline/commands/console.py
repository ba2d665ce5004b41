"""What every command says in the same way: results on stdout, progress and rejections on stderr, exit codes.

How much it says is set once for each command: quiet (results asked for, rejections and errors), normal, or
verbose (also what was found in each study and which models were used).

Imports nothing heavy: it is loaded by ``lumbar --help``.
"""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from data_prep.names import input_label, printable
from data_prep.problems import LumbarError, Reason, Rejection, counted

_LONGEST_NAME = 30
# A table of a thousand studies may come with the images of a few.
NAMED_OF_A_CODE = 20
NOTHING_DONE = 1
SOME_REJECTED = 3
# No markup: square brackets in identifiers and reason codes are text.
out = Console(highlight=False, markup=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
_ADVICE = {
    errno.ENOSPC: "make room on the disk, or write to another one",
    errno.EDQUOT: "make room on the disk, or write to another one",
    errno.EACCES: "choose a place that you may read and write",
    errno.EPERM: "choose a place that you may read and write",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.ENOTDIR: "a file is in the way: choose another folder",
    errno.EEXIST: "a file is in the way: choose another folder",
    errno.EISDIR: "a folder is in the way: choose another name",
    errno.ENOENT: "check that it is still there",
}
# SIGHUP is not everywhere.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Verbosity(IntEnum):
    """How much the program says."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_verbosity = Verbosity.NORMAL


def set_verbosity(verbosity: Verbosity) -> None:
    """Until it is set again."""
    global _verbosity
    _verbosity = verbosity


def verbosity() -> Verbosity:
    """What was set last."""
    return _verbosity


def say(text: str = "") -> None:
    """A line for people on stdout; not when quiet."""
    if _verbosity > Verbosity.QUIET:
        out.print(text)


def tell(text: str) -> None:
    """A line for people on stderr, beside results on stdout; not when quiet."""
    if _verbosity > Verbosity.QUIET:
        err.print(printable(text))


def note(text: str) -> None:
    """A line on stderr for those who want to know more; only when verbose."""
    if _verbosity >= Verbosity.VERBOSE:
        err.print(printable(text))


@contextmanager
def status(text: str) -> Iterator[None]:
    """Something short is going on, on stderr; not when quiet."""
    with nullcontext() if _verbosity == Verbosity.QUIET else err.status(text):
        yield


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A bar on stderr with an estimate of what is left; nothing when quiet.

    The function that is handed out is called with the name of what is done, as often as ``total`` says.
    """
    with _bar(MofNCompleteColumn()) as bar:
        task = bar.add_task(what, total=total)

        def done(name: str = "", of: int | None = total) -> None:
            bar.update(task, advance=1, total=of, description=f"{what} {_short(name)}".strip())

        yield done


@contextmanager
def progress_of_parts(what: str, total: int) -> Iterator[Callable[[float, str], None]]:
    """A bar like ``progress`` for few long things: it also moves while one of them is under way.

    The function that is handed out is called with how many are done, 0.5 for half of the first, and with
    what is going on now.
    """
    counter = TextColumn("{task.fields[whole]}/{task.total}", markup=False)
    with _bar(counter) as bar:
        task = bar.add_task(what, total=total, whole=0)

        def at(completed: float, name: str = "") -> None:
            bar.update(
                task,
                completed=completed,
                whole=math.floor(completed + 1e-6),
                description=f"{what} {_short(name)}".strip(),
            )

        yield at


def _short(name: str) -> str:
    """A name that leaves room for the bar on 80 columns: of a long UID its beginning and its end."""
    name = printable(name)
    return name if len(name) <= _LONGEST_NAME else f"{name[:13]}…{name[-16:]}"


def _bar(counter: MofNCompleteColumn | TextColumn) -> Progress:
    is_quiet = _verbosity == Verbosity.QUIET
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        counter,
        TimeElapsedColumn(),
        TextColumn("left", markup=False),
        TimeRemainingColumn(),
        # Before rich 15 a bar that is not shown ends with an empty line.
        console=Console(quiet=True) if is_quiet else err,
        disable=is_quiet,
        # Elsewhere the end alone is written: nothing need be drawn ten times a second.
        auto_refresh=err.is_terminal,
    )


def list_rejections(rejections: Iterable[Rejection], table: Path | None = None) -> None:
    """Name each on stderr, with its reason code; then, once per code, what can be done about it.

    Of many copies of images of a series the first is named, with their number; the record has all.

    Args:
        table: a file that has them all: of each code no more than ``NAMED_OF_A_CODE`` are then named here.
    """
    found = Counter[Reason]()
    for rejection, more in counted(rejections):
        found[rejection.reason] += 1
        if table is not None and found[rejection.reason] > NAMED_OF_A_CODE:
            continue
        also = f" (so are {more} more files of it)" if more else ""
        err.print(f"{rejection.standing} {printable(str(rejection))}{also}")
    for reason, count in found.items():
        if table is not None and count > NAMED_OF_A_CODE:
            err.print(f"and {count - NAMED_OF_A_CODE} more [{reason.value}], named in {table}")
        err.print(f"what to do about {reason.value}: {reason.advice}")


def fail(message: str) -> NoReturn:
    """Say why on stderr and end with exit code 1: nothing was done."""
    for line in message.splitlines():
        err.print(printable(line))
    raise typer.Exit(NOTHING_DONE)


def fail_because(error: LumbarError) -> NoReturn:
    """End with exit code 1: what led to it, why, and what to do."""
    list_rejections(error.rejections)
    fail(f"{error}\nwhat to do: {error.advice}" if error.advice else str(error))


def say_what_files_lack(error: OSError) -> int:
    """Say on stderr what a full disk or a folder that must not be written is; returns exit code 1."""
    # The last part alone: the folders above may be named after a patient.
    place = input_label(Path(str(error.filename)).name) if error.filename else "input or output"
    err.print(printable(f"{error.strerror or type(error).__name__}: {place}"))
    advice = _ADVICE.get(error.errno or 0)
    if advice is not None:
        err.print(f"what to do: {advice}")
    return NOTHING_DONE


def exit_by(rejections: Iterable[Rejection]) -> None:
    """End with exit code 3 if anything was rejected."""
    if any(True for _ in rejections):
        raise typer.Exit(SOME_REJECTED)


def print_json(figures: Mapping[str, Any]) -> None:
    """Figures for programs; raises ValueError for NaN and infinity, which JSON does not have."""
    typer.echo(json.dumps(figures, indent=1, allow_nan=False))


def print_rows(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """A table of rows that share their columns."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(printable, row.values()))
    out.print(table)


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
