"""``lumbar annotations``: points out to annotation tools, and corrected ones back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from data_prep.names import printable
from pipeline.commands import console
from pipeline.commands.options import AsJson, Input, Output

app = typer.Typer(
    help="Points out to annotation tools (COCO keypoints, YOLO pose), and corrected ones back.",
    no_args_is_help=True,
)


@app.command(epilog="Example: lumbar annotations export DATA -o to-correct")
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


@app.command("import", epilog="Example: lumbar annotations import corrected -o train_label_coordinates.csv")
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
