"""``phantom``, ``phantom-check`` and ``check``: data sets, made and looked over."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import console, summaries
from pipeline.commands.options import AsJson


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


class PhantomScanners(StrEnum):
    """Noise, resolution and contrast of synthetic images."""

    USUAL = "usual"
    SHIFTED = "shifted"
    UNSEEN = "unseen"


class PhantomQuirks(StrEnum):
    """Oddities of real data sets in synthetic ones."""

    NONE = "none"
    REAL = "real"
    ALL = "all"


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
    scanners: Annotated[
        PhantomScanners,
        typer.Option(
            help="unseen: noise, blur and contrasts that no bundled grader was trained or fitted on."
        ),
    ] = PhantomScanners.USUAL,
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
            scanners=scanners.value,
            transitional=transitional.value,
            view=view.value,
            quirks=quirks.value,
            headers=headers.value,
        )
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
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder in the RSNA layout.", exists=True, file_okay=False),
    ],
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
