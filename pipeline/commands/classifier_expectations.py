"""``lumbar classifier expect``: what is expected of a target that no slice shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep.base.files import locked_folder
from data_prep.partition import Part, part_of
from data_prep.vocabulary import ConditionGroup
from pipeline.commands import console
from pipeline.commands.classifier_training import studies_of
from pipeline.commands.options import AsJson
from pipeline.commands.summaries import learned_from_all, tell_of_points
from pipeline.results.words import PLACE_WORDS

if TYPE_CHECKING:
    from classifier.expected import Expectations
    from data_prep.problems import Rejection


def expect(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...",
            help="Folders in the RSNA layout, each of some series of some studies; of a target that several "
            "show, the first counts.",
            exists=True,
            file_okay=False,
        ),
    ],
    weights: Annotated[
        Path,
        typer.Option(
            help="Calibrated graders: they grade, and their folder gets `expected.json`.",
            exists=True,
            file_okay=False,
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Folder whose train.csv has the labels of targets that DATA have none of.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    part: Annotated[
        Part, typer.Option(help="Only the studies of this part: the graders must not have learned from them.")
    ] = Part.VALIDATION,
    as_json: AsJson = False,
) -> None:
    """Fit what is expected of a target that no slice shows, from the other grades of its level.

    Grades at the annotated points; what is told of each model is cross-validated.
    """
    from classifier.judge.evaluate import grade_labelled
    from classifier.learn.expect import fit_expectations, save_expectations, seen_and_labelled
    from classifier.learn.sources import labels_in
    from classifier.predict import Grader
    from data_prep.base.manifest import WeightsRejected

    sources = [
        source
        for folder in data
        for source in studies_of(folder, 0, 0, enriched=False, scanners="usual")
        if part_of(source.name) is part
    ]
    if learned_from_all(weights):
        console.tell("note: graders of lumbar train have learned from all studies of its data")
    rejections: list[Rejection] = []
    problems: list[str] = []
    graded = []
    with locked_folder(weights):
        try:
            grader = Grader.load(weights)
            known = {} if labels is None else labels_in(labels)
            with console.progress("grading", len(sources)) as done:
                for source in sources:
                    graded += grade_labelled(grader, source.load, rejections, problems)
                    done(source.name)
            found = fit_expectations(*seen_and_labelled(graded, known))
        except (WeightsRejected, ValueError) as error:
            console.list_rejections(rejections)
            console.fail(str(error))
        console.list_rejections(rejections)
        tell_of_points(problems)
        if not found.models:
            console.fail(f"the {part.value} part has too few studies, or too few targets of a severity")
        save_expectations(weights, found)
    if as_json:
        console.print_json(found.to_dict())
    else:
        console.print_rows("what is not seen, from what is; cross-validated", _rows(found))
        console.tell(f"weights: {weights}; next: lumbar predict INPUT -o OUT --classifier-weights {weights}")
    console.exit_by(rejections)


def _rows(found: Expectations) -> list[dict[str, str]]:
    """For a table: the target, what is known beside it, and figures of studies that were not fitted on."""
    return [
        {
            "of": PLACE_WORDS[model.group],
            "from": " + ".join(
                "other side" if group is model.group else PLACE_WORDS[group]
                for group in ConditionGroup
                if group in model.given
            ),
            "n": str(model.metrics["n"]),
            "log loss": f"{model.metrics['log_loss']:.3f}",
            "prior": f"{model.metrics['prior_log_loss']:.3f}",
            "AUC moderate+, severe": f"{model.metrics['auc_moderate_or_worse']:.3f} "
            f"{model.metrics['auc_severe']:.3f}",
        }
        for model in found.models
    ]
