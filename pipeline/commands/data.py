"""``phantom``, ``phantom-check``, ``check``, ``annotations``: data sets, made, looked over and corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from data_prep.names import printable
from data_prep.synthetic import Appearance, HeaderVariant, QuirkMode, ScannerName, Size, Transitional, View
from pipeline.commands import console, summaries
from pipeline.commands.options import AsJson, Data, Input, Output

annotations_app = typer.Typer(
    help="Points out to annotation tools (COCO keypoints, YOLO pose), and corrected ones back.",
    no_args_is_help=True,
)


def phantom(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write into.", file_okay=False)],
    studies: Annotated[int, typer.Option(help="How many patients.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Patient k is made from seed + k alone.", min=0)] = 0,
    size: Annotated[Size, typer.Option(help="full: real matrix sizes and slice counts.")] = "small",
    jobs: Annotated[int, typer.Option(help="Processes; the files are the same.", min=1)] = 1,
    appearance: Annotated[
        Appearance, typer.Option(help="randomised: every tissue of random brightness.")
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
        QuirkMode, typer.Option(help="Oddities of real data; real: at their real rates, all: often.")
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
        summaries.print_check(report, images=images)
    console.list_rejections(report.rejections)
    if not report.is_usable:
        raise typer.Exit(console.NOTHING_DONE)
    console.exit_by(report.rejections)


@annotations_app.command(epilog="Example: lumbar annotations export DATA -o to-correct")
def export(
    path: Input,
    output: Output,
    points: Annotated[
        Path | None,
        typer.Option(
            help="train_label_coordinates.csv, or levels.csv of `lumbar detector predict`; "
            "the table in INPUT if left out.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    neighbours: Annotated[
        int, typer.Option(help="Slices beside each that has a point are exported, too.", min=0)
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Write points and their slices as pictures, for CVAT, FiftyOne or a YOLO training.

    The pictures show the patient: keep them where the DICOM files may be.
    """
    from data_prep.exchange import export_annotations, read_points
    from data_prep.rsna.tables import COORDINATES_FILE
    from pipeline.commands.grading_steps import find_entries

    table = points or path / COORDINATES_FILE
    if not table.is_file():
        console.fail(f"no {COORDINATES_FILE} in the input: name a table of points with --points")
    # A table names thousands of studies, of which only some may be on this disk.
    entries = [entry for entry in find_entries([path], None) if not entry.is_only_listed]
    with console.progress("studies", len(entries)) as done:
        report = export_annotations(entries, read_points(table), output, neighbours=neighbours, progress=done)
    for text in report.problems:
        console.err.print(f"no point for {printable(text)}")
    console.list_rejections(report.rejections)
    if as_json:
        counts = {"images": report.images, "points": report.points, "left_out": len(report.problems)}
        console.print_json(counts)
    else:
        console.out.print(f"{report.points} points on {report.images} images")
        console.out.print(f"folder      {output}")
    if report.problems:
        raise typer.Exit(console.SOME_REJECTED)
    console.exit_by(report.rejections)


@annotations_app.command(
    "import", epilog="Example: lumbar annotations import corrected -o train_label_coordinates.csv"
)
def import_(
    path: Annotated[
        Path,
        typer.Argument(metavar="INPUT", help="COCO file, or the unpacked folder of a tool.", exists=True),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV to write.", dir_okay=False)],
    kind: Annotated[Literal["coco", "yolo"], typer.Option("--format", help="Which files to read.")] = "coco",
    images: Annotated[
        Path | None,
        typer.Option(help="images.csv of the export; looked for in INPUT.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Write the table that training reads. Anything unclear is refused, every problem listed."""
    from data_prep.exchange import import_annotations, write_coordinates

    found = import_annotations(path, kind, images_table=images)
    write_coordinates(found, output)
    if predicted := sum(point.confidence is not None for point in found):
        console.tell(f"{predicted} points have confidences: a network predicted them, no person set them")
    console.out.print(f"{len(found)} points of {len({point.image.study_id for point in found})} studies")
    console.out.print(f"coordinates {output}")
