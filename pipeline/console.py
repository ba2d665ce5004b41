"""What the commands say: results on stdout, progress and rejections on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from classifier.metric import ScoreReport
    from data_prep.check import CheckReport
    from data_prep.study_types import Rejection
    from pipeline.batch import BatchReport

NOTHING_DONE = 1
SOME_REJECTED = 3

out = Console(highlight=False, markup=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def on_terminal(text: str) -> str:
    """Text without control characters: identifiers come from headers and must not drive the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


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
            bar.update(task, advance=1, total=of, description=f"{what} {on_terminal(name)}".strip())

        yield done


def list_rejections(rejections: Iterable[Rejection]) -> None:
    """Name each on stderr, with its reason code."""
    for rejection in rejections:
        err.print(f"rejected {on_terminal(str(rejection))}")


def fail(message: str) -> NoReturn:
    """Say why on stderr and end with exit code 1: nothing was done."""
    for line in message.splitlines():
        err.print(on_terminal(line))
    raise typer.Exit(NOTHING_DONE)


def exit_by(rejections: Iterable[Rejection]) -> None:
    """End with exit code 3 if anything was rejected."""
    if any(True for _ in rejections):
        raise typer.Exit(SOME_REJECTED)


def print_json(figures: Mapping[str, Any]) -> None:
    """Figures for programs."""
    typer.echo(json.dumps(figures, indent=1))


def print_batch(report: BatchReport) -> None:
    """Where the results of a run are."""
    resumed = f", {report.n_resumed} of them by an earlier run" if report.n_resumed else ""
    out.print(f"{report.n_studies - report.n_rejected} of {report.n_studies} studies graded{resumed}")
    out.print(f"submission  {report.submission}")
    out.print(f"predictions {report.predictions}")
    if report.pictures is not None:
        out.print(f"pictures    {report.pictures}")


def print_check(report: CheckReport) -> None:
    """What a data set holds, and every quirk in it."""
    counts = f"{report.series} series, {report.slices} slices, {report.points} annotated points in images"
    out.print(f"{report.studies_loaded} of {report.studies} studies can be used: {counts}")
    for problem in report.problems:
        out.print(f"- {on_terminal(str(problem))}")


def print_score(report: ScoreReport) -> None:
    """The official metric, term by term."""
    print_rows(
        "RSNA 2024 lumbar spine, official metric",
        [
            {"": "spinal", "log loss": f"{report.spinal:.4f}", "n": f"{report.n_spinal} rows"},
            {"": "foraminal", "log loss": f"{report.foraminal:.4f}", "n": f"{report.n_foraminal} rows"},
            {
                "": "subarticular",
                "log loss": f"{report.subarticular:.4f}",
                "n": f"{report.n_subarticular} rows",
            },
            {
                "": "any severe spinal",
                "log loss": f"{report.any_severe_spinal:.4f}",
                "n": f"{report.n_any_severe_studies} studies",
            },
            {"": "score", "log loss": f"{report.score:.4f}", "n": f"{report.n_rows} rows"},
        ],
    )


def print_rows(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """A table of rows that share their columns."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(on_terminal, row.values()))
    out.print(table)
