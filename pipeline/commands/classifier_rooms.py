"""``lumbar classifier rooms``: what the measured room of a foramen says of its grade."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep.base.files import locked_folder
from data_prep.partition import Part, part_of
from data_prep.problems import DicomRejected
from data_prep.synthetic import FIRST_CHOOSING_SEED
from pipeline.commands import console
from pipeline.commands.classifier_training import studies_of
from pipeline.commands.options import AsJson

if TYPE_CHECKING:
    from classifier.learn.crop_cache import LabelledStudy, Source
    from data_prep.problems import Rejection


def loaded(
    sources: Iterable[Source], rejections: list[Rejection], done: Callable[[str], None]
) -> Iterator[LabelledStudy]:
    """Studies one after the other; those that cannot be used are added to ``rejections``."""
    for source in sources:
        try:
            yield source.load()
        except DicomRejected as rejected:
            rejections += (*rejected.rejections, rejected.rejection)
        done(source.name)


def rooms(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...",
            help="Folders in the RSNA layout with sagittal T1 and graded foramina.",
            exists=True,
            file_okay=False,
        ),
    ],
    weights: Annotated[
        Path,
        typer.Option(
            help="Calibrated graders: their evidence is joined, and their folder gets `rooms.json`.",
            exists=True,
            file_okay=False,
        ),
    ],
    phantoms: Annotated[
        int, typer.Option(min=0, help="As many synthetic patients count as much as the patients of DATA.")
    ] = 80,
    part: Annotated[
        Part, typer.Option(help="Only the studies of this part: the graders must not have learned from them.")
    ] = Part.VALIDATION,
    as_json: AsJson = False,
) -> None:
    """Fit how the measured room of a foramen is joined with the evidence of its grader.

    For graders that know little of patients, as those of the `open` bundle; `research` gains nothing.
    """
    from classifier.learn.rooms import figures_of, fit_rooms, room_rows, save_rooms
    from classifier.learn.sources import phantom_sources
    from classifier.predict import Grader
    from data_prep.base.manifest import WeightsRejected

    found = [
        source
        for folder in data
        for source in studies_of(folder, 0, 0, enriched=False, scanners="usual")
        if part_of(source.name) is part
    ]
    made = phantom_sources(phantoms, FIRST_CHOOSING_SEED)
    rejections: list[Rejection] = []
    with locked_folder(weights):
        try:
            grader = Grader.load(weights)
            with console.progress("grading", len(found) + len(made)) as done:
                rows = [
                    room_rows(grader, loaded(sources, rejections, done))
                    for sources in (found, made)
                    if sources
                ]
            joint, figures = fit_rooms(rows), figures_of(rows, grader)
        except (WeightsRejected, ValueError) as error:
            console.list_rejections(rejections)
            console.fail(str(error))
        console.list_rejections(rejections)
        save_rooms(weights, joint, figures)
    if as_json:
        console.print_json({"joint": joint.to_dict(), "cross_validated": figures})
    else:
        table = [
            {
                "of": name,
                "foramina": str(row["foramina"]),
                "log loss": f"{row['log_loss']:.3f}",
                "grader alone": f"{row['log_loss_of_the_grader_alone']:.3f}",
                "prior": f"{row['prior_log_loss']:.3f}",
            }
            for name, row in zip(("patients", "synthetic patients"), figures, strict=False)
        ]
        console.print_rows("foramina, from evidence and room; cross-validated", table)
        console.tell(f"weights: {weights}; next: lumbar predict INPUT -o OUT --classifier-weights {weights}")
    console.exit_by(rejections)
