"""``lumbar classifier``: cut crops, train, calibrate and evaluate the graders. Importable without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classifier.config import GROUP_GRADERS, GraderName
from data_prep.base.files import locked_folder
from data_prep.base.manifest import weights_folder
from data_prep.partition import Part, part_of
from data_prep.synthetic import FIRST_REPORTING_SEED
from data_prep.vocabulary import SEVERITIES
from pipeline.commands import classifier_expectations, classifier_rooms, classifier_training, console
from pipeline.commands.classifier_training import Graders, Phantoms, Scanners, Seed, studies_of
from pipeline.commands.options import AsJson, NamedWeights, Resamples
from pipeline.commands.summaries import (
    learned_from_all,
    print_review,
    print_tables,
    tell_of_known,
    tell_of_points,
)

if TYPE_CHECKING:
    from data_prep.problems import Rejection


app = typer.Typer(
    no_args_is_help=True,
    help="The graders alone: cut crops, teach, train, calibrate, expect, join rooms, evaluate.",
)
for name, command, example in (
    ("cut", classifier_training.cut, "cut --phantoms 200 --seed 0 --enriched -o runs/crops --jobs 2"),
    ("train", classifier_training.train, "train --phantoms 100 --seed 0 -o runs/graders"),
    ("teach", classifier_training.teach, "teach runs/crops --grader foraminal -o runs/teachers/1"),
    ("expect", classifier_expectations.expect, "expect t2 t1 axial --labels rsna --weights runs/graders"),
    ("rooms", classifier_rooms.rooms, "rooms t1 --weights runs/graders"),
):
    app.command(name, epilog=f"Example: lumbar classifier {example}")(command)

PartOption = Annotated[
    Part | None,
    typer.Option(
        help="Only the studies of this part: a study's identifier alone decides which; the bundled models "
        "learned from train, were chosen and calibrated on validation, and are reported on test."
    ),
]
Pictures = Annotated[
    Path | None, typer.Option(help="Folder for plots of reliability, ROC and confusion.", file_okay=False)
]


@app.command(
    epilog="Example: lumbar classifier calibrate runs/graders --validation runs/crops-validation -o graders"
)
def calibrate(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders that `train` wrote; graders of one name become members of one grader.",
            exists=True,
            file_okay=False,
        ),
    ],
    validation: Annotated[
        list[Path],
        typer.Option(
            help="Crop cache from `cut`: validation phantoms, or data, of which the validation part counts."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Weights folder to write; of one run alone the run itself."),
    ] = None,
    shifted: Annotated[
        Path | None,
        typer.Option(help="Crop cache of another scanner range: fits a share of the level prior on it."),
    ] = None,
    weigh: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN=WEIGHT",
            help="How much the graders of a run count beside others of their name; 1 where nothing is said.",
        ),
    ] = None,
    pictures: Pictures = None,
    grader: Graders = None,
    as_json: AsJson = False,
) -> None:
    """Fit temperature, bias and share of the prior on studies that were not trained on; write the weights."""
    from classifier.learn.calibrate import calibrate_groups
    from data_prep.base.manifest import WeightsRejected
    from pipeline.export.graphs import write_graphs

    places = [run.resolve() for run in runs]
    if len(set(places)) < len(places):
        raise typer.BadParameter("a run is named twice: it would count twice")
    if len(runs) > 1 and (output is None or output.resolve() in places):
        # Calibrated once more, the members written into that run would be joined by themselves.
        raise typer.BadParameter("of several runs, name a folder with --output that is none of them")
    with locked_folder(output or runs[0]):
        try:
            figures, rows = calibrate_groups(
                runs,
                grader or _trained(runs),
                validation,
                output or runs[0],
                shifted=shifted,
                weigh=_weights(runs, weigh or []),
            )
        except (WeightsRejected, ValueError) as error:
            console.fail(str(error))
        write_graphs(output or runs[0])
    if any(learned_from_all(run) for run in runs):
        console.tell(
            "note: there are graders of lumbar train, which learned from all studies of its data and is "
            "calibrated out of fold: calibrate them on other data alone"
        )
    for name, part in figures.items():
        lacking = [item.value for item, n in zip(SEVERITIES, part["grades"], strict=True) if not n]
        if lacking:
            console.tell(f"note: no {name} crop here is {' or '.join(lacking)}: give more studies")
    if pictures is not None:
        from classifier.judge.plots import save_figures

        save_figures(rows, pictures)
    if as_json:
        console.print_json(figures)
    else:
        if all(part["oracle_log_loss"] < 1e-6 for part in figures.values()):  # labels that are certain
            for part in figures.values():
                del part["oracle_log_loss"]
        _print_groups("calibration, on the crops that it was fitted on", figures)
        console.tell(f"weights: {output or runs[0]}; next: {_next_step(output or runs[0])}")


@app.command(epilog="Example: lumbar classifier evaluate path/to/rsna --json")
def evaluate(
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DATA...",
            help="Folders in the RSNA layout, each of some series of some studies; or use --phantoms.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    phantoms: Phantoms = 0,
    seed: Seed = FIRST_REPORTING_SEED,
    scanners: Scanners = "usual",
    weights: NamedWeights = None,
    part: PartOption = None,
    resamples: Resamples = 400,
    pictures: Pictures = None,
    as_json: AsJson = False,
) -> None:
    """Grade at the annotated points and compare with the labels: score, accuracy, kappa, AUC, calibration.

    Per condition and level, with 95 % intervals over studies.
    """
    from classifier import BUNDLED_WEIGHTS
    from classifier.judge.evaluate import as_rows, grade_labelled
    from classifier.judge.evaluate import evaluate as figures_of
    from classifier.judge.quality import quality_tables, review_curve, score_with_intervals
    from classifier.predict import Grader
    from data_prep.base.manifest import WeightsRejected

    folders: list[Path | None] = [*data] if data else [None]
    sources = [
        source
        for folder in folders
        for source in studies_of(folder, phantoms, seed, enriched=False, scanners=scanners)
    ]
    if part is not None:
        sources = [source for source in sources if part_of(source.name) is part]
    if data:
        tell_of_known((source.name for source in sources), weights, graders=True)
    elif seed < FIRST_REPORTING_SEED:
        console.tell(
            f"note: graders learn from and are chosen on phantoms of seeds below {FIRST_REPORTING_SEED}"
        )
    rejections: list[Rejection] = []
    problems: list[str] = []
    try:
        grader = Grader.load(weights_folder(weights, BUNDLED_WEIGHTS))
        with console.progress("grading", len(sources)) as done:
            graded = []
            for source in sources:
                graded += grade_labelled(grader, source.load, rejections, problems)
                done(source.name)
        figures = figures_of(graded)
    except (WeightsRejected, ValueError) as error:
        console.list_rejections(rejections)
        console.fail(str(error))
    console.list_rejections(rejections)
    tell_of_points(problems)
    if figures["n_not_graded"]:
        counted = f"{figures['n_not_graded']} of {figures['n_targets']} targets"
        console.tell(f"note: {counted} were not graded, and count with what is expected, or the level prior")
    rows = as_rows(graded)
    figures["score_intervals"] = score_with_intervals(rows, resamples=resamples)
    figures["tables"], figures["review"] = quality_tables(rows, resamples=resamples), review_curve(rows)
    if pictures is not None:
        from classifier.judge.plots import save_figures

        save_figures(rows, pictures)
    if as_json:
        console.print_json(figures)
    else:
        _print_scores(figures)
        print_tables(figures["tables"])
        print_review(figures["review"])
        _print_groups("condition groups", figures["groups"])
    console.exit_by(rejections)


def _weights(runs: list[Path], given: list[str]) -> dict[Path, float]:
    """RUN=WEIGHT as a mapping."""
    found = {}
    for text in given:
        run, _, weight = text.rpartition("=")
        try:
            found[Path(run)] = float(weight)
        except ValueError:
            raise typer.BadParameter(f"--weigh needs RUN=WEIGHT, but got {text!r}") from None
        if Path(run) not in runs or not 0 < found[Path(run)] < math.inf:
            raise typer.BadParameter(f"--weigh needs one of the runs and a weight above 0, but got {text!r}")
    return found


def _trained(runs: list[Path]) -> list[GraderName]:
    """The graders that some run holds, in their order: the sagittal canal before the axial one."""
    stems = {name: f"{name.value}.safetensors" for name in GraderName}
    return [name for name in GraderName if any((run / stems[name]).is_file() for run in runs)]


def _next_step(weights: Path) -> str:
    """What to do with calibrated graders: one of each condition group is needed to grade."""
    lacking = [name.value for name in GROUP_GRADERS if not (weights / f"{name.value}.safetensors").is_file()]
    if lacking:
        return f"calibrate {' and '.join(lacking)} into it, too"
    return f"lumbar predict INPUT -o OUT --classifier-weights {weights}"


def _print_scores(figures: Mapping[str, Any]) -> None:
    """The official metric of the graders, the level prior and, where it is known, the truth."""
    shown = {"graders": "score", "level prior": "prior_score", "oracle": "oracle_score"}
    rows = [
        {"": name} | {term: f"{value:.4f}" for term, value in figures[key].items()}
        for name, key in shown.items()
        if figures[key] is not None
    ]
    if rows:
        console.print_rows("official metric, lower is better", rows)


def _print_groups(title: str, figures: Mapping[str, Mapping[str, Any]]) -> None:
    names = next(iter(figures.values()))
    console.print_rows(
        title,
        [{"": name} | {group: _text(part[name]) for group, part in figures.items()} for name in names],
    )


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_text(item) for item in value)
    return f"{value:.4f}" if isinstance(value, float) else str(value)
