"""``lumbar classifier``: cut crops, train, calibrate and evaluate the graders. Importable without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classifier.config import GraderName
from data_prep.base.bundles import weights_folder
from data_prep.partition import Part, part_of
from pipeline.commands import console
from pipeline.commands.console_tables import print_review, print_tables
from pipeline.commands.options import AsJson

if TYPE_CHECKING:
    from classifier.config import GraderConfig
    from classifier.learn.crop_cache import Source
    from data_prep.problems import Rejection


class ScannerName(StrEnum):
    """Ranges of scanners, see ``data_prep.phantom.scanner.SCANNER_RANGES``."""

    USUAL = "usual"
    SHIFTED = "shifted"
    UNSEEN = "unseen"


app = typer.Typer(no_args_is_help=True, help="The graders alone: cut crops, train, calibrate, evaluate.")

# Seeds of phantoms: below for training, 100,000–199,999 for choosing and calibrating, then reporting.
_FIRST_CHOOSING_SEED = 100_000
_FIRST_REPORTING_SEED = 200_000

Data = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="Folder in the RSNA layout; leave out to use --phantoms.",
        exists=True,
        file_okay=False,
    ),
]
Phantoms = Annotated[int, typer.Option(min=0, help="Use this many synthetic studies, made on the fly.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the first synthetic study.")]
Enriched = Annotated[
    bool, typer.Option(help="Synthetic studies with all severities equally often, for training.")
]
Scanners = Annotated[
    ScannerName,
    typer.Option(help="Noise, resolution and contrast of synthetic studies; usual: as trained on."),
]
Jobs = Annotated[int, typer.Option(min=1, help="Processes that cut crops; the crops are the same.")]
Graders = Annotated[list[GraderName] | None, typer.Option("--grader", help="Only this grader; repeatable.")]
Config = Annotated[
    Path | None,
    typer.Option(
        help="JSON with changes for all graders, or below the name of one, such as "
        '{"training": {"epochs": 5}, "spinal": {"crop": {"slices": 1}}}.',
        exists=True,
        dir_okay=False,
    ),
]
PartOption = Annotated[
    Part | None,
    typer.Option(
        help="Only the studies of this part: a study's identifier alone decides which; the bundled models "
        "learned from train, were chosen and calibrated on validation, and are reported on test."
    ),
]
Resamples = Annotated[int, typer.Option(min=0, help="Draws of studies behind the intervals.")]
Pictures = Annotated[
    Path | None,
    typer.Option(help="Folder for plots of reliability, ROC and confusion.", file_okay=False),
]


@app.command(
    epilog="Example: lumbar classifier cut --phantoms 200 --seed 0 --enriched -o runs/crops --jobs 2"
)
def cut(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the crop cache.")],
    data: Data = None,
    phantoms: Phantoms = 0,
    seed: Seed = 0,
    enriched: Enriched = False,
    scanners: Scanners = ScannerName.USUAL,
    grader: Graders = None,
    config: Config = None,
    jobs: Jobs = 1,
) -> None:
    """Cut and cache the crops of many studies; goes on where it stopped."""
    configs = _configs(grader or list(GraderName), config, {})
    console.exit_by(_cut(data, phantoms, seed, enriched, output, jobs, configs, scanners))


@app.command(epilog="Example: lumbar classifier train --phantoms 100 --seed 0 -o runs/graders")
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for weights, logs, checkpoints.")],
    data: Data = None,
    phantoms: Phantoms = 0,
    seed: Seed = 0,
    enriched: Enriched = False,
    crops: Annotated[
        list[Path] | None, typer.Option(help="Crop cache from `cut`, instead of cutting; repeatable.")
    ] = None,
    validation: Annotated[
        list[Path] | None, typer.Option(help="Crop cache to watch while training; repeatable.")
    ] = None,
    grader: Graders = None,
    config: Config = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the crops.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the training.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "cpu",
    workers: Annotated[int, typer.Option(min=0, help="Threads that prepare batches for a GPU.")] = 0,
    pretrained: Annotated[
        Path | None,
        typer.Option(help="Weights of the timm backbone, a local file.", exists=True, dir_okay=False),
    ] = None,
    jobs: Jobs = 1,
) -> None:
    """Train the graders (or one --grader); an interrupted training goes on where it stopped.

    Of DATA, the studies of the train part are learned from and those of the validation part watched: a
        study's identifier alone decides its part, the same in every data set.
    """
    from classifier.learn.devices import resolve_device
    from classifier.learn.train import EpochReport, Machine, TrainingFailed
    from classifier.learn.workflow import train_groups

    if phantoms and seed + phantoms > _FIRST_CHOOSING_SEED:
        raise typer.BadParameter("phantoms of seeds from 100,000 on are kept for choosing and reporting")
    configs = _configs(grader or list(GraderName), config, {"epochs": epochs, "threads": threads})
    rejections: list[Rejection] = []
    if not crops:
        crops = [output / "crops"]
        rejections = _cut(data, phantoms, seed, enriched, crops[0], jobs, configs)

    def report(name: GraderName, row: EpochReport) -> None:
        watched = ""
        if row.choosing_loss is not None:
            watched = f", validation {row.choosing_loss:.4f} (level prior {row.choosing_prior_loss:.4f})"
        console.err.print(
            f"{name.value} epoch {row.epoch}: train {row.train_loss:.4f}{watched}, {row.seconds:.0f} s"
        )

    try:
        machine = Machine(resolve_device(device), workers)
        train_groups(
            configs, crops, validation or [], output, report=report, machine=machine, pretrained=pretrained
        )
    except (TrainingFailed, ValueError) as error:
        console.fail(str(error))
    console.err.print("weights written; next: lumbar classifier calibrate")
    console.exit_by(rejections)


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
        Path | None, typer.Option("--output", "-o", help="Weights folder to write; default: the run itself.")
    ] = None,
    shifted: Annotated[
        Path | None,
        typer.Option(help="Crop cache of another scanner range: fits a share of the level prior on it."),
    ] = None,
    pictures: Pictures = None,
    grader: Graders = None,
    as_json: AsJson = False,
) -> None:
    """Fit temperature, bias and share of the prior on studies that were not trained on; write the weights."""
    from classifier.learn.workflow import calibrate_groups
    from data_prep.base.manifest import WeightsRejected

    try:
        figures, rows = calibrate_groups(
            runs, grader or _trained(runs), validation, output or runs[0], shifted=shifted
        )
    except (WeightsRejected, ValueError) as error:
        console.fail(str(error))
    if pictures is not None:
        from classifier.judge.plots import save_figures

        save_figures(rows, pictures)
    if as_json:
        console.print_json(figures)
    else:
        _print_groups("calibration", figures)


@app.command(epilog="Example: lumbar classifier evaluate path/to/rsna --json")
def evaluate(
    data: Data = None,
    phantoms: Phantoms = 0,
    seed: Seed = _FIRST_REPORTING_SEED,
    scanners: Scanners = ScannerName.USUAL,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="research|open|FOLDER", help="Bundled graders by name (default: research), or a folder's."
        ),
    ] = None,
    part: PartOption = None,
    resamples: Resamples = 400,
    pictures: Pictures = None,
    as_json: AsJson = False,
) -> None:
    """Grade at the annotated points and compare with the labels: score, accuracy, kappa, AUC, calibration.

    Per condition and level, with 95 % intervals over studies.
    """
    from classifier.judge.evaluate import as_rows, grade_labelled
    from classifier.judge.evaluate import evaluate as figures_of
    from classifier.judge.quality import quality_tables, review_curve, score_with_intervals
    from classifier.predict import Grader
    from classifier.storage import BUNDLED_WEIGHTS
    from data_prep.base.manifest import WeightsRejected

    sources = _sources(data, phantoms, seed, enriched=False, scanners=scanners)
    if part is not None:
        sources = [source for source in sources if part_of(source[0]) is part]
    rejections: list[Rejection] = []
    try:
        grader = Grader.load(weights_folder(weights, BUNDLED_WEIGHTS))
        with console.progress("grading", len(sources)) as done:
            graded = []
            for name, load in sources:
                graded += grade_labelled(grader, load, rejections)
                done(name)
        figures = figures_of(graded)
    except (WeightsRejected, ValueError) as error:
        console.list_rejections(rejections)
        console.fail(str(error))
    console.list_rejections(rejections)
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


def _trained(runs: list[Path]) -> list[GraderName]:
    """The graders that some run holds, in their order: the sagittal canal before the axial one."""
    stems = {name: f"{name.value}.safetensors" for name in GraderName}
    return [name for name in GraderName if any((run / stems[name]).is_file() for run in runs)]


def _configs(
    groups: list[GraderName], file: Path | None, training: Mapping[str, int | None]
) -> list[GraderConfig]:
    """Default configurations with the changes of a JSON file, then those of the command line."""
    from classifier.config import default_config, merged

    given = {name: value for name, value in training.items() if value is not None}
    try:
        changes = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
        of_one = {name.value: changes.pop(name.value, {}) for name in GraderName}
        base = [merged(default_config(name), changes) for name in groups]
        found = [merged(config, of_one[config.name.value]) for config in base]
        return [merged(config, {"training": given}) for config in found]
    except (ValueError, TypeError, AttributeError) as error:
        console.fail(f"configuration: {error}")


def _cut(
    data: Path | None,
    phantoms: int,
    seed: int,
    enriched: bool,
    folder: Path,
    jobs: int,
    configs: list[GraderConfig],
    scanners: ScannerName = ScannerName.USUAL,
) -> list[Rejection]:
    """Cut crops into a folder; what was rejected is printed and returned."""
    from classifier.learn.workflow import cut_crops

    sources = _sources(data, phantoms, seed, enriched=enriched, scanners=scanners)
    with console.progress("cutting crops", len(sources)) as done:
        try:
            rejections = cut_crops(
                sources,
                folder,
                configs=configs,
                natural_grades=not enriched,
                parted=data is not None,
                jobs=jobs,
                progress=done,
            )
        except ValueError as error:
            console.fail(str(error))
    console.list_rejections(rejections)
    return rejections


def _sources(
    data: Path | None, phantoms: int, seed: int, *, enriched: bool, scanners: ScannerName
) -> list[Source]:
    from classifier.learn.sources import phantom_sources, rsna_sources
    from data_prep.problems import DicomRejected

    if (data is None) == (phantoms == 0):
        raise typer.BadParameter("give either a DATA folder or --phantoms N")
    if data is None:
        return phantom_sources(phantoms, seed, enriched=enriched, scanners=scanners.value)
    try:
        return rsna_sources(data)
    except (ValueError, DicomRejected) as error:
        console.fail(str(error))


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
