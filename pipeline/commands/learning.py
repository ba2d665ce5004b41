"""``train``, ``export`` and ``score``: both stages on a data set, their networks, and the official metric."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from data_prep.problems import LumbarError
from pipeline.commands import console, summaries
from pipeline.commands.options import AsJson, BatchThreads, Data, Device, Output, Pretrained, Resamples, Run

if TYPE_CHECKING:
    import pandas as pd

_OF_BOTH = "--common scores the studies that both tables have"


def train(
    data: Data,
    output: Run,
    folds: Annotated[int | None, typer.Option(min=2, help="Folds by study; 5 if left out.")] = None,
    preset: Annotated[
        Literal["full", "laptop"],
        typer.Option(help="full: 1,975 studies on a GPU; laptop: 60 small studies on 2 cores."),
    ] = "full",
    config: Annotated[
        Path | None,
        typer.Option(
            help='JSON with changes to the preset, such as {"cleaning": {"noise": "off"}}.',
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of folds, trainings and intervals.")] = None,
    device: Device = "auto",
    processes: Annotated[
        int, typer.Option(min=1, help="Share the trainings among processes (not under torchrun).")
    ] = 1,
    workers: BatchThreads = 0,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder of decoded studies, shared by runs; RUN/cache if left out.", file_okay=False
        ),
    ] = None,
    pretrained: Pretrained = None,
    as_json: AsJson = False,
) -> None:
    """Train both stages on folds, judge them out of fold, and write report.html and the final weights.

    Started again after an interruption, it goes on where it was.
    """
    from pipeline.training.ranks import Ranks

    ranks = Ranks.taken_from_environment()
    # Only now: these bring ultralytics, which reads torchrun's variables when it is imported.
    from classifier.learn.devices import resolve_device
    from pipeline.training.plan import TrainSettings, load_plan
    from pipeline.training.run import train_all

    started = time.monotonic()

    def say(text: str) -> None:
        console.err.print(f"{(time.monotonic() - started) / 60:6.1f} min  {text}")

    try:
        resolve_device(device)
        settings = TrainSettings(
            data,
            output,
            load_plan(preset, config, {"folds": folds, "seed": seed}),
            cache=cache,
            device=device,
            processes=processes,
            workers=workers,
            pretrained=pretrained,
        )
        figures = train_all(settings, say, ranks)
    except LumbarError:
        raise
    except (ValueError, TypeError) as error:  # of the configuration
        console.fail(str(error))
    if figures is None:  # in torchrun's processes other than the first
        return
    if as_json:
        console.print_json(figures)
    else:
        summaries.print_training(figures, output)


def score(
    submission: Annotated[
        Path, typer.Argument(metavar="SUBMISSION", help="submission.csv", exists=True, dir_okay=False)
    ],
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="train.csv, or the folder that holds it.", exists=True)
    ],
    common: Annotated[
        bool,
        typer.Option("--common", help="Score the studies that both tables have, as of one fold; else all."),
    ] = False,
    unseen: Annotated[
        bool,
        typer.Option(
            "--unseen",
            help="Only studies that both tables have and the bundled research models neither learned from "
            "nor were chosen on.",
        ),
    ] = False,
    cases: Annotated[
        Path | None,
        typer.Option(
            help="CSV to write: every target with label, grade and loss, worst first.", dir_okay=False
        ),
    ] = None,
    resamples: Resamples = 400,
    as_json: AsJson = False,
) -> None:
    """The official metric with all its terms, and figures per condition and level, with 95 % intervals.

    A bad submission is refused, every problem listed. Figures other than the
    metric judge p ∝ q / (1, 2, 4).
    """
    from classifier.judge.quality import quality_tables, review_curve, score_with_intervals
    from classifier.judge.rows import GradedRows
    from classifier.metric import score as official_score
    from data_prep.rsna.known import said_of_known
    from pipeline.commands.summaries import print_review, print_tables

    label_file = labels / "train.csv" if labels.is_dir() else labels
    if cases is not None and cases.resolve() in (submission.resolve(), label_file.resolve()):
        raise typer.BadParameter("--cases would overwrite what is to be scored: name another file")
    try:
        frame, table = _submission_and_labels(submission, label_file, common=common, unseen=unseen)
        if said := said_of_known(table["study_id"].astype(str)):
            console.tell(f"note: {said}; --unseen leaves them out")
        report = official_score(frame, table)
        rows = GradedRows.from_tables(frame, table)
    except ValueError as error:
        console.fail(str(error))
    if cases is not None:
        from classifier.judge.rows import worst_cases
        from data_prep.base.files import write_whole

        write_whole(cases, worst_cases(rows).to_csv(index=False, lineterminator="\n"))
    intervals = score_with_intervals(rows, resamples=resamples)
    prior = score_with_intervals(rows.with_p(rows.prior), resamples=resamples if as_json else 0)
    tables, review = quality_tables(rows, resamples=resamples), review_curve(rows)
    if as_json:
        more = {"intervals": intervals, "level_prior": prior, "tables": tables, "review": review}
        console.print_json(report.to_dict() | more)
    else:
        summaries.print_score(report, intervals, prior)
        print_tables(tables)
        print_review(review)


def _submission_and_labels(
    submission: Path, label_file: Path, *, common: bool, unseen: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that are scored, and their labels. Raises ValueError: they cannot be."""
    import pandas as pd

    from data_prep.base.csv_files import EMPTY, read_text_table
    from data_prep.names import input_label, printable
    from data_prep.rsna.known import known_studies
    from pipeline.results.submission import (
        SubmissionError,
        lacks_studies,
        read_submission,
        rows_of_both,
        validate_submission,
    )

    try:
        table = read_text_table(label_file).replace(EMPTY, pd.NA)
    except ValueError as error:
        raise ValueError(f"{input_label(label_file.name)} {error}") from None
    if "study_id" not in table.columns:
        raise ValueError("the label table lacks the column study_id")
    ids = table["study_id"].dropna()
    if len(twice := ids[ids.duplicated()]):
        raise ValueError(f"the label table has study {printable(twice.iloc[0])} more than once")
    frame = read_submission(submission)
    if unseen:
        table = table[~table["study_id"].astype(str).isin(known_studies())]
        if table.empty:
            raise ValueError("--unseen leaves nothing: the research models know every study of the labels")
    if common or unseen:
        everything = len(table), len(frame)
        frame, table = rows_of_both(frame, table)
        left_out = everything[0] - len(table), everything[1] - len(frame)
        console.tell(f"left out: {left_out[0]} labelled studies, {left_out[1]} rows of the submission")
    try:
        validate_submission(frame, table["study_id"])
    except SubmissionError as refused:
        if not common and not unseen and lacks_studies(frame, table):
            raise ValueError(f"{refused}\nwhat to do: {_OF_BOTH}") from None
        raise
    return frame, table


def export(
    output: Output,
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="A run of `lumbar train`, or a folder of weights; the bundled weights if left out.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write detectors and graders as ONNX files, with a manifest of inputs, outputs and calibration.

    Each file is compared with torch by ONNX Runtime, where that is installed.
    """
    if find_spec("onnx") is None:  # before torch is waited for
        raise typer.BadParameter("onnx is not installed: pip install 'lumbar[export]'")
    from pipeline.export.bundle import count_models, export_weights, find_weights

    source = find_weights(run)
    with console.progress("networks", count_models(source)) as done:
        manifest = export_weights(source, output, progress=done)
    if as_json:
        console.print_json(manifest)
        return
    checked = manifest["checked_with_onnxruntime"]
    if checked is None:
        console.say("not compared with torch: onnxruntime is not installed")
    else:
        largest = max(checked["largest_difference"].values())
        console.say(f"compared    largest difference from torch {largest:.1e}")
    console.say(f"networks    {', '.join(manifest['models'])}")
    console.say(f"manifest    {output / 'manifest.json'}")
