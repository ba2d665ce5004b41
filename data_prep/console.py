"""What every command says in the same way: results on stdout, progress and rejections on stderr, exit codes.

Imports nothing heavy: it is loaded by ``lumbar --help``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from data_prep.files import printable

if TYPE_CHECKING:
    from data_prep.study_types import Rejection

NOTHING_DONE = 1
SOME_REJECTED = 3

# No markup: square brackets in identifiers and reason codes are text.
out = Console(highlight=False, markup=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A bar on stderr; the function that is handed out is called with the name of what is done."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(what, total=total)

        def done(name: str = "", of: int | None = total) -> None:
            bar.update(task, advance=1, total=of, description=f"{what} {printable(name)}".strip())

        yield done


def list_rejections(rejections: Iterable[Rejection]) -> None:
    """Name each on stderr, with its reason code."""
    for rejection in rejections:
        err.print(f"rejected {printable(str(rejection))}")


def fail(message: str) -> NoReturn:
    """Say why on stderr and end with exit code 1: nothing was done."""
    for line in message.splitlines():
        err.print(printable(line))
    raise typer.Exit(NOTHING_DONE)


def exit_by(rejections: Iterable[Rejection]) -> None:
    """End with exit code 3 if anything was rejected."""
    if any(True for _ in rejections):
        raise typer.Exit(SOME_REJECTED)


def without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null (nothing to average; a point is missing)."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
