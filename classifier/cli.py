"""``lumbar classifier``: train, calibrate and evaluate the graders alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from classifier.sources import Source
    from data_prep.vocabulary import ConditionGroup

app = typer.Typer(no_args_is_help=True, help="The graders alone: train, calibrate, evaluate.")
_stderr = Console(stderr=True)

# Seeds of phantoms: below for training, 100,000–199,999 for choosing and calibrating, then reporting.
_FIRST_CHOOSING_SEED = 100_000

Data = Annotated[
    Path | None, typer.Argument(help="Folder in the RSNA layout; leave out to use --phantoms.", exists=True)
]
Phantoms = Annotated[int, typer.Option(min=0, help="Use this many synthetic studies, made on the fly.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the first synthetic study.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes that cut crops.")]
Groups = Annotated[list[str] | None, typer.Option("--group", help="spinal, foraminal or subarticular.")]


@app.command()
def cut(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the crop cache.")],
    data: Data = None,
    phantoms: Phantoms = 0,
    seed: Seed = 0,
    enriched: Annotated[
        bool, typer.Option(help="Phantoms with all severities equally often, for training.")
    ] = False,
    jobs: Jobs = 1,
) -> None:
    """Cut and cache the crops of many studies; goes on where it stopped.

    Example: lumbar classifier cut --phantoms 200 --seed 0 --enriched -o runs/crops-train --jobs 2
    """
    _cut(data, phantoms, seed, enriched, output, jobs)


@app.command()
def train(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for weights, logs, checkpoints.")],
    data: Data = None,
    phantoms: Phantoms = 0,
    seed: Seed = 0,
    enriched: Annotated[bool, typer.Option(help="Phantoms with all severities equally often.")] = False,
    crops: Annotated[
        list[Path] | None, typer.Option(help="Crop cache from `cut`, instead of cutting; repeatable.")
    ] = None,
    choosing: Annotated[Path | None, typer.Option(help="Crop cache to watch while training.")] = None,
    group: Groups = None,
    config: Annotated[
        Path | None, typer.Option(help='JSON with changes, such as {"training": {"epochs": 5}}.')
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the crops.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch.")] = None,
    jobs: Jobs = 1,
) -> None:
    """Train the three graders (or one --group); an interrupted training goes on where it stopped.

    Example: lumbar classifier train --phantoms 100 --seed 0 -o runs/graders
    """
    from classifier.config import GraderConfig
    from classifier.train import EpochReport, TrainingFailed
    from classifier.workflow import train_groups

    changes = json.loads(config.read_text()) if config is not None else {}
    given = {"epochs": epochs, "threads": threads}
    changes["training"] = changes.get("training", {}) | {k: v for k, v in given.items() if v is not None}
    if phantoms and seed + phantoms > _FIRST_CHOOSING_SEED:
        raise typer.BadParameter("phantoms of seeds from 100,000 on are kept for choosing and reporting")
    caches = list(crops or [])
    if not caches:
        caches = [output / "crops"]
        _cut(data, phantoms, seed, enriched, caches[0], jobs)

    def report(name: ConditionGroup, row: EpochReport) -> None:
        watched = ""
        if row.choosing_loss is not None:
            watched = f", choosing {row.choosing_loss:.4f} (level prior {row.choosing_prior_loss:.4f})"
        _stderr.print(
            f"{name.value} epoch {row.epoch}: train {row.train_loss:.4f}{watched}, {row.seconds:.0f} s"
        )

    try:
        configs = [GraderConfig.from_dict({**changes, "group": name.value}) for name in _groups(group)]
        train_groups(configs, caches, choosing, output, report=report)
    except (TrainingFailed, ValueError) as error:
        raise _failed(error) from None
    _stderr.print("weights written; next: lumbar classifier calibrate")


@app.command()
def calibrate(
    run: Annotated[Path, typer.Argument(help="Folder that `train` wrote.", exists=True, file_okay=False)],
    choosing: Annotated[Path, typer.Option(help="Crop cache of choosing phantoms, from `cut`.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: the run itself.")] = None,
    group: Groups = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.")] = False,
) -> None:
    """Fit temperature and bias on phantoms that were not trained on, and write the finished weights.

    Example: lumbar classifier calibrate runs/graders --choosing runs/crops-choosing -o classifier/weights
    """
    from classifier.workflow import calibrate_groups
    from data_prep.manifest import WeightsRejected

    try:
        figures = calibrate_groups(run, _groups(group), choosing, output or run)
    except (WeightsRejected, ValueError) as error:
        raise _failed(error) from None
    _print_figures(figures, as_json)


@app.command()
def evaluate(
    data: Data = None,
    phantoms: Phantoms = 0,
    seed: Seed = 200_000,
    weights: Annotated[Path | None, typer.Option(help="Weights folder; default: the bundled one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.")] = False,
) -> None:
    """Grade at the annotated points and compare with the labels: score, accuracy, kappa, AUC, calibration.

    Example: lumbar classifier evaluate path/to/rsna --json
    """
    from classifier.evaluate import evaluate as figures_of
    from classifier.evaluate import grade_labelled
    from classifier.predict import Grader
    from data_prep.manifest import WeightsRejected

    try:
        grader = Grader.load(weights) if weights is not None else Grader.load_bundled()
        sources = _sources(data, phantoms, seed, False)
        figures = figures_of(grade_labelled(grader, (load for _, load in sources)))
    except (WeightsRejected, ValueError) as error:
        raise _failed(error) from None
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
        return
    for name in ("score", "prior_score", "oracle_score"):
        if figures[name] is not None:
            terms = ", ".join(f"{key} {value:.4f}" for key, value in figures[name].items() if key != "score")
            typer.echo(f"{name:<12} {figures[name]['score']:.4f}  ({terms})")
    _print_figures(figures["groups"], False)


def _cut(data: Path | None, phantoms: int, seed: int, enriched: bool, folder: Path, jobs: int) -> None:
    from rich.progress import Progress

    from classifier.workflow import cut_crops

    sources = _sources(data, phantoms, seed, enriched)
    with Progress(console=_stderr, transient=True) as progress:
        task = progress.add_task("cutting crops", total=len(sources))
        try:
            cut_crops(
                sources,
                folder,
                natural_grades=not enriched,
                jobs=jobs,
                progress=lambda done, _: progress.update(task, completed=done),
            )
        except ValueError as error:
            raise _failed(error) from None


def _sources(data: Path | None, phantoms: int, seed: int, enriched: bool) -> list[Source]:
    from classifier.sources import phantom_sources, rsna_sources
    from data_prep.study_types import DicomRejected
    from data_prep.table_problems import TablesInvalid

    if (data is None) == (phantoms == 0):
        raise typer.BadParameter("give either a DATA folder or --phantoms N")
    if data is None:
        return phantom_sources(phantoms, seed, enriched=enriched)
    try:
        return rsna_sources(data)
    except (ValueError, TablesInvalid, DicomRejected) as error:
        raise _failed(error) from None


def _groups(names: list[str] | None) -> list[ConditionGroup]:
    from data_prep.vocabulary import ConditionGroup

    try:
        return [ConditionGroup(name) for name in names] if names else list(ConditionGroup)
    except ValueError as error:
        raise typer.BadParameter(f"{error}: spinal, foraminal or subarticular") from None


def _failed(error: Exception) -> typer.Exit:
    _stderr.print(f"[red]error:[/red] {error}", highlight=False)
    return typer.Exit(1)


def _print_figures(figures: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
        return
    table = Table("", *figures)
    for name in next(iter(figures.values()), {}):
        table.add_row(name, *(_text(part[name]) for part in figures.values()))
    Console().print(table)


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_text(item) for item in value)
    return f"{value:.4f}" if isinstance(value, float) else str(value)
