"""The command line ``lumbar``: thin, and importing what a command needs only when it runs.

Exit codes: 0 all done; 3 done, but a file, series or study was rejected; 2 usage; 1 nothing done.
Progress and what was rejected go to stderr, results to stdout. ``--quiet`` and ``--verbose`` work with every
command, before or after its name.
"""

from __future__ import annotations

import errno
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

import classifier.cli
import detector.cli
import pipeline.annotations_cli
import pipeline.service.command
from data_prep import console
from pipeline import summaries

if TYPE_CHECKING:
    pass


class LumbarGroup(typer.core.TyperGroup):
    """Takes ``--quiet`` and ``--verbose`` wherever they stand, so that every command has them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        given = {"--quiet", "--verbose"} & set(args[:end])
        verbosity = console.Verbosity.NORMAL
        if "--verbose" in given:
            verbosity = console.Verbosity.VERBOSE
        if "--quiet" in given:
            verbosity = console.Verbosity.QUIET
        console.set_verbosity(verbosity)
        kept = [item for item in args[:end] if item not in given]
        return super().parse_args(ctx, kept + args[end:])


app = typer.Typer(
    name="lumbar",
    cls=LumbarGroup,
    help="Finds the five lumbar levels on MRI and grades stenosis at each: 25 targets per study.\n\n"
    "Every command takes --quiet (errors and rejections alone) and --verbose (what was found, by which "
    "models).",
    epilog="Exit codes: 0 done · 3 done, but something was rejected · 2 usage · 1 nothing done. "
    "Not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)
app.add_typer(detector.cli.app, name="detector")
app.add_typer(classifier.cli.app, name="classifier")
app.add_typer(pipeline.annotations_cli.app, name="annotations")


# Of the reporting range; chosen by its labels alone: every severity occurs in every condition group.
DEMO_SEED = 200_127


class PhantomSize(StrEnum):
    """Matrix sizes and slice counts of synthetic studies."""

    SMALL = "small"
    FULL = "full"


class PhantomAppearance(StrEnum):
    """How bright tissues are on synthetic images."""

    PHYSICS = "physics"
    RANDOMISED = "randomised"
    MIXED = "mixed"


class PhantomView(StrEnum):
    """Whether every lumbar level is in the sagittal field of view."""

    WHOLE = "whole"
    CUT = "cut"
    MIXED = "mixed"


class PhantomTransitional(StrEnum):
    """Whether patients have a transitional lumbosacral vertebra."""

    NATURAL = "natural"
    NEVER = "never"
    ALWAYS = "always"


class PhantomHeaders(StrEnum):
    """Headers of synthetic studies: bare as in the RSNA data, or complete for an archive."""

    RSNA = "rsna"
    PACS = "pacs"


class Truth(StrEnum):
    """Whose levels and points are drawn."""

    NONE = "none"
    ONLY = "only"
    BESIDE = "beside"


class PhantomQuirks(StrEnum):
    """Oddities of real data sets in synthetic ones."""

    NONE = "none"
    REAL = "real"
    ALL = "all"


class TrainPreset(StrEnum):
    """Plans of a training for known machines."""

    FULL = "full"
    LAPTOP = "laptop"


Input = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        help="RSNA images folder, one study, any tree of DICOM files, or a zip of one of these.",
        exists=True,
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.", file_okay=False)]
SeriesTable = Annotated[
    Path | None,
    typer.Option(
        help="CSV with study_id, series_id, series_description; RSNA names are looked for if left out.",
        exists=True,
        dir_okay=False,
    ),
]
DetectorWeights = Annotated[
    Path | None,
    typer.Option(
        help="Weights folder of `lumbar detector bundle`; the bundled one if left out.",
        exists=True,
        file_okay=False,
    ),
]
ClassifierWeights = Annotated[
    Path | None,
    typer.Option(
        help="Weights folder of `lumbar classifier calibrate`; the bundled one if left out.",
        exists=True,
        file_okay=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.")]


def main() -> None:
    """Entry point of ``lumbar`` and ``python -m pipeline``."""
    try:
        app(prog_name="lumbar")
    except OSError as error:  # a full disk, a folder that must not be written
        console.err.print(f"{error.strerror or type(error).__name__}: {error.filename or 'input or output'}")
        advice = _ADVICE.get(error.errno or 0)
        if advice is not None:
            console.err.print(f"what to do: {advice}")
        sys.exit(console.NOTHING_DONE)


_ADVICE = {
    errno.ENOSPC: "make room on the disk, or write to another one with -o",
    errno.EDQUOT: "make room on the disk, or write to another one with -o",
    errno.EACCES: "choose a place that you may read and write",
    errno.EPERM: "choose a place that you may read and write",
    errno.EROFS: "choose a folder on a disk that can be written, with -o",
    errno.ENOTDIR: "a file is in the way: choose another folder with -o",
    errno.EISDIR: "a folder is in the way: choose another name with -o",
    errno.ENOENT: "check that it is still there",
}


@app.command(epilog="Example: lumbar predict train_images/100206310 -o graded")
def predict(
    path: Input,
    output: Output,
    series_table: SeriesTable = None,
    pictures: Annotated[bool, typer.Option(help="Draw a picture of each study.")] = True,
    sr: Annotated[
        bool, typer.Option("--sr", help="A DICOM structured report per study; it names the patient.")
    ] = False,
    sc: Annotated[
        bool, typer.Option("--sc", help="The picture as DICOM, too; it names the patient.")
    ] = False,
    report: Annotated[
        bool, typer.Option(help="Write report.html for each study, and index.html over them.")
    ] = True,
    detector_weights: DetectorWeights = None,
    classifier_weights: ClassifierWeights = None,
    as_json: AsJson = False,
) -> None:
    """Grade every study under INPUT: submission.csv, predictions.json, reports, pictures.

    Started again after an interruption, it does what is missing.
    """
    from pipeline.steps import grade_all

    done = grade_all(
        path,
        output,
        series_table=series_table,
        pictures=pictures,
        reports=report,
        detector_weights=detector_weights,
        classifier_weights=classifier_weights,
        report_objects=sr,
        capture_objects=sc,
    )
    if as_json:
        console.print_json(done.to_dict())
    else:
        summaries.print_batch(done)
    console.exit_by(done.rejections)


@app.command(epilog="Example: lumbar demo -o demo-output")
def demo(
    output: Output = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Which synthetic patient.", min=0)] = DEMO_SEED,
) -> None:
    """Make one synthetic study, grade it, and put truth beside prediction."""
    from pipeline.demo import make_demo_study, truth_beside_prediction
    from pipeline.steps import grade_all

    phantom = output / "phantom"
    with console.progress("making a synthetic patient", 1) as done:
        study = make_demo_study(phantom, seed)
        done()
    report = grade_all(study, output)
    rows = truth_beside_prediction(phantom, report.predictions)
    console.print_rows("truth beside prediction", rows)
    summaries.print_batch(report)
    console.exit_by(report.rejections)


@app.command(epilog="Example: lumbar show train_images/100206310 -o pictures --truth beside")
def show(
    path: Input,
    output: Output,
    series_table: SeriesTable = None,
    truth: Annotated[
        Truth,
        typer.Option(
            help="none: what is detected; only: the annotations of the data set, no model is loaded; "
            "beside: both, side by side."
        ),
    ] = Truth.NONE,
    detector_weights: DetectorWeights = None,
    classifier_weights: ClassifierWeights = None,
) -> None:
    """Draw the levels on the slices of every series, and a montage per study.

    Names, points, uncertainty in millimetres, scale bar and the patient's directions, sharp enough to print.
    Annotations come from train_label_coordinates.csv and train.csv, in INPUT or up to three folders above.
    """
    from pipeline.show import draw_all

    rejections = draw_all(
        path,
        output,
        series_table=series_table,
        detected=truth is not Truth.ONLY,
        annotated=truth is not Truth.NONE,
        detector_weights=detector_weights,
        classifier_weights=classifier_weights,
    )
    console.say(f"pictures    {output}")
    console.exit_by(rejections)


@app.command(epilog="Example: lumbar train rsna-2024-lumbar -o runs/rsna --preset full --device cuda")
def train(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder in the RSNA layout.", exists=True, file_okay=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.", file_okay=False)],
    folds: Annotated[int | None, typer.Option(min=2, help="Folds by study; 5 if left out.")] = None,
    preset: Annotated[
        TrainPreset, typer.Option(help="full: 1,975 studies on a GPU; laptop: 60 small studies on 2 cores.")
    ] = TrainPreset.FULL,
    config: Annotated[
        Path | None,
        typer.Option(
            help='JSON with changes to the preset, such as {"cleaning": {"noise": "off"}}.',
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of folds, trainings and intervals.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    processes: Annotated[
        int, typer.Option(min=1, help="Share the trainings among processes (not under torchrun).")
    ] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Threads that prepare batches for a GPU.")] = 0,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder of decoded studies, shared by runs; RUN/cache if left out.", file_okay=False
        ),
    ] = None,
    pretrained: Annotated[
        Path | None,
        typer.Option(
            help="Weights of the graders' timm backbone, a local file.", exists=True, dir_okay=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train both stages on folds, judge them out of fold, and write report.html and the final weights.

    Started again after an interruption, it goes on where it was.
    """
    from pipeline.training.command import train_from_command_line

    figures = train_from_command_line(
        data,
        output,
        preset=preset.value,
        changes=config,
        given={"folds": folds, "seed": seed},
        device=device,
        processes=processes,
        workers=workers,
        cache=cache,
        pretrained=pretrained,
    )
    if figures is None:
        return
    if as_json:
        console.print_json(figures)
    else:
        summaries.print_training(figures, output)


@app.command("app", epilog="Example: lumbar app")
def local_app(
    port: Annotated[int, typer.Option(help="Port on this machine; 0: a free one.", min=0, max=65535)] = 8642,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    detector_weights: DetectorWeights = None,
    classifier_weights: ClassifierWeights = None,
) -> None:
    """A page on this machine where a folder or zip is dropped, graded, and the report appears.

    It listens on 127.0.0.1 alone: nothing leaves the machine. Images and results are removed when it ends.
    """
    from pipeline.app import serve

    serve(
        port=port,
        browser=browser,
        detector_weights=detector_weights,
        classifier_weights=classifier_weights,
    )


@app.command(epilog="Example: lumbar score submission.csv train.csv --json")
def score(
    submission: Annotated[
        Path, typer.Argument(metavar="SUBMISSION", help="submission.csv", exists=True, dir_okay=False)
    ],
    labels: Annotated[
        Path,
        typer.Argument(metavar="LABELS", help="train.csv, or the folder that holds it.", exists=True),
    ],
    resamples: Annotated[int, typer.Option(min=0, help="Draws of studies behind the intervals.")] = 400,
    as_json: AsJson = False,
) -> None:
    """The official metric with all its terms, and figures per condition and level, with 95 % intervals.

    A bad submission is refused, every problem listed. Figures other than the metric judge p ∝ q / (1, 2, 4).
    """
    import pandas as pd

    from classifier.console_tables import print_tables
    from classifier.metric import score as official_score
    from classifier.quality import GradedRows, quality_tables, score_with_intervals
    from pipeline.submission import read_submission, validate_submission

    try:
        table = pd.read_csv(labels / "train.csv" if labels.is_dir() else labels, dtype=str)
        if "study_id" not in table.columns:
            raise ValueError("the label table lacks the column study_id")
        frame = read_submission(submission)
        validate_submission(frame, table["study_id"])
        report = official_score(frame, table)
        rows = GradedRows.from_tables(frame, table)
    except ValueError as error:
        console.fail(str(error))
    intervals = score_with_intervals(rows, resamples=resamples)
    tables = quality_tables(rows, resamples=resamples)
    if as_json:
        prior = score_with_intervals(rows.with_p(rows.prior), resamples=resamples)
        more = {"intervals": intervals, "level_prior": prior, "tables": tables}
        console.print_json(report.to_dict() | more)
    else:
        summaries.print_score(report, intervals)
        print_tables(tables)


@app.command(epilog="Example: lumbar phantom synthetic --studies 100 --seed 0 --jobs 2")
def phantom(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write into.", file_okay=False)],
    studies: Annotated[int, typer.Option(help="How many patients.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Patient k is made from seed + k alone.", min=0)] = 0,
    size: Annotated[
        PhantomSize, typer.Option(help="full: real matrix sizes and slice counts.")
    ] = PhantomSize.SMALL,
    jobs: Annotated[int, typer.Option(help="Processes; the files are the same.", min=1)] = 1,
    appearance: Annotated[
        PhantomAppearance, typer.Option(help="randomised: every tissue as bright as chance has it.")
    ] = PhantomAppearance.PHYSICS,
    view: Annotated[
        PhantomView, typer.Option(help="cut: sagittal images lack levels; mixed: in 15 %.")
    ] = PhantomView.WHOLE,
    transitional: Annotated[
        PhantomTransitional, typer.Option(help="Transitional vertebrae; natural: in 10 %.")
    ] = PhantomTransitional.NATURAL,
    quirks: Annotated[
        PhantomQuirks, typer.Option(help="Oddities of real data: never, at their real rates, or all soon.")
    ] = PhantomQuirks.NONE,
    headers: Annotated[
        PhantomHeaders, typer.Option(help="pacs: valid UIDs and complete modules, which an archive accepts.")
    ] = PhantomHeaders.RSNA,
) -> None:
    """Make a synthetic data set in the RSNA layout, with oracle.csv."""
    from data_prep.phantom import write_dataset

    with console.progress("patients", studies) as done:
        write_dataset(
            output,
            studies=studies,
            seed=seed,
            size=size.value,
            jobs=jobs,
            progress=lambda _: done(),
            appearance=appearance.value,
            transitional=transitional.value,
            view=view.value,
            quirks=quirks.value,
            headers=headers.value,
        )
    console.say(f"data set    {output}")


@app.command("phantom-check", epilog="Example: lumbar phantom-check --studies 200")
def phantom_check(
    studies: Annotated[int, typer.Option(help="How many patients.", min=10)] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the first patient.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Anatomy and labels of synthetic patients beside published figures. Nothing is drawn."""
    from dataclasses import asdict

    from data_prep.phantom.plausibility import measure

    with console.status("making patients"):
        rows = [asdict(item) for item in measure(studies, seed)]
    if as_json:
        console.print_json({"studies": studies, "seed": seed, "measures": rows})
    else:
        console.print_rows(f"{studies} synthetic patients beside published figures", rows)


@app.command(epilog="Example: lumbar check rsna-2024-lumbar --no-images")
def check(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder in the RSNA layout.", exists=True, file_okay=False),
    ],
    images: Annotated[bool, typer.Option(help="Read the DICOM files too.")] = True,
    as_json: AsJson = False,
) -> None:
    """Validate tables and images, and list every quirk found."""
    from data_prep.check import check_data

    with console.progress("studies", None) as done:
        report = check_data(data, images=images, progress=lambda _, total: done(of=total))
    if as_json:
        console.print_json(report.to_dict())
    else:
        summaries.print_check(report)
    console.list_rejections(report.rejections)
    if not report.is_usable:
        raise typer.Exit(console.NOTHING_DONE)
    console.exit_by(report.rejections)


app.command(epilog="Example: lumbar serve /var/spool/lumbar --to PACS@127.0.0.1:4242")(
    pipeline.service.command.serve
)
