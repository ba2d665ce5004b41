"""``phantom``, ``phantom-check`` and ``check``: data sets, made and looked over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_prep.synthetic import Appearance, HeaderVariant, QuirkMode, ScannerName, Size, Transitional, View
from pipeline.commands import console, summaries
from pipeline.commands.options import AsJson, Data


def phantom(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write into.", file_okay=False)],
    studies: Annotated[int, typer.Option(help="How many patients.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Patient k is made from seed + k alone.", min=0)] = 0,
    size: Annotated[Size, typer.Option(help="full: real matrix sizes and slice counts.")] = "small",
    jobs: Annotated[int, typer.Option(help="Processes; the files are the same.", min=1)] = 1,
    appearance: Annotated[
        Appearance, typer.Option(help="randomised: every tissue as bright as chance has it.")
    ] = "physics",
    view: Annotated[View, typer.Option(help="cut: sagittal images lack levels; mixed: in 15 %.")] = "whole",
    scanners: Annotated[
        ScannerName,
        typer.Option(
            help="unseen: noise, blur and contrasts that no bundled grader was trained or fitted on."
        ),
    ] = "usual",
    transitional: Annotated[
        Transitional, typer.Option(help="Transitional vertebrae; natural: in 10 %.")
    ] = "natural",
    quirks: Annotated[
        QuirkMode, typer.Option(help="Oddities of real data: never, at their real rates, or all soon.")
    ] = "none",
    headers: Annotated[
        HeaderVariant, typer.Option(help="pacs: valid UIDs and complete modules, which an archive accepts.")
    ] = "rsna",
) -> None:
    """Make a synthetic data set in the RSNA layout, with oracle.csv."""
    from data_prep.phantom import write_dataset

    with console.progress("patients", studies) as done:
        write_dataset(
            output,
            studies=studies,
            seed=seed,
            size=size,
            jobs=jobs,
            progress=lambda _: done(),
            appearance=appearance,
            scanners=scanners,
            transitional=transitional,
            view=view,
            quirks=quirks,
            headers=headers,
        )
    others = sum(path.is_dir() for path in (output / "train_images").iterdir()) - studies
    if others > 0:
        console.tell(f"note: the folder also holds images of {others} earlier patients, which no table names")
    console.say(f"data set    {output}")


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


def check(
    data: Data,
    images: Annotated[bool, typer.Option(help="Read the DICOM files too.")] = True,
    as_json: AsJson = False,
) -> None:
    """Validate tables and images, and list every quirk found."""
    from data_prep.rsna.check import check_data

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
