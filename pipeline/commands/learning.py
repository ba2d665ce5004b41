"""``train`` and ``score``: both stages on a data set, and the official metric."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.commands import console, summaries
from pipeline.commands.options import AsJson

_NO_LABEL = ["", "NA", "NaN", "nan"]  # how programs write that nobody labelled a target


def train(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder in the RSNA layout.", exists=True, file_okay=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.", file_okay=False)],
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
    from pipeline.commands.training import train_from_command_line

    figures = train_from_command_line(
        data,
        output,
        preset=preset,
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


def score(
    submission: Annotated[
        Path, typer.Argument(metavar="SUBMISSION", help="submission.csv", exists=True, dir_okay=False)
    ],
    labels: Annotated[
        Path,
        typer.Argument(metavar="LABELS", help="train.csv, or the folder that holds it.", exists=True),
    ],
    common: Annotated[
        bool,
        typer.Option("--common", help="Score the studies that both tables have, as of one fold; else all."),
    ] = False,
    resamples: Annotated[int, typer.Option(min=0, help="Draws of studies behind the intervals.")] = 400,
    as_json: AsJson = False,
) -> None:
    """The official metric with all its terms, and figures per condition and level, with 95 % intervals.

    A bad submission is refused, every problem listed. Figures other than the metric judge p ∝ q / (1, 2, 4).
    """
    import pandas as pd

    from classifier.judge.quality import quality_tables, review_curve, score_with_intervals
    from classifier.judge.rows import GradedRows
    from classifier.metric import score as official_score
    from data_prep.base.csv_files import read_text_table
    from data_prep.names import input_label
    from pipeline.commands.console_tables import print_review, print_tables
    from pipeline.results.submission import read_submission, rows_of_both, validate_submission

    try:
        label_file = labels / "train.csv" if labels.is_dir() else labels
        try:
            table = read_text_table(label_file).replace(_NO_LABEL, pd.NA)
        except ValueError as error:
            raise ValueError(f"{input_label(label_file.name)} {error}") from None
        if "study_id" not in table.columns:
            raise ValueError("the label table lacks the column study_id")
        frame = read_submission(submission)
        if common:
            everything = len(table), len(frame)
            frame, table = rows_of_both(frame, table)
            left_out = everything[0] - len(table), everything[1] - len(frame)
            console.tell(f"left out: {left_out[0]} labelled studies, {left_out[1]} rows of the submission")
        validate_submission(frame, table["study_id"])
        report = official_score(frame, table)
        rows = GradedRows.from_tables(frame, table)
    except ValueError as error:
        console.fail(str(error))
    intervals = score_with_intervals(rows, resamples=resamples)
    tables, review = quality_tables(rows, resamples=resamples), review_curve(rows)
    if as_json:
        prior = score_with_intervals(rows.with_p(rows.prior), resamples=resamples)
        more = {"intervals": intervals, "level_prior": prior, "tables": tables, "review": review}
        console.print_json(report.to_dict() | more)
    else:
        summaries.print_score(report, intervals)
        print_tables(tables)
        print_review(review)
