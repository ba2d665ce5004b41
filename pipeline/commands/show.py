"""``lumbar show``: pictures of every series and a montage per study, detected, annotated, or both."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.base.files import is_disk_error
from data_prep.names import input_label, safe_id
from data_prep.problems import DicomRejected, Rejection
from data_prep.read.entry import StudyEntry
from data_prep.read.own import is_result
from data_prep.study import Study
from pipeline.batch.output import OutputTaken
from pipeline.commands import console
from pipeline.commands.grading_steps import find_entries, load_pipeline, make_writable, opened
from pipeline.commands.options import ChosenModels
from pipeline.grade import Pipeline, failure_of
from pipeline.results.pictures.canvas import PRINT_SCALE
from pipeline.results.pictures.montage import draw_readings
from pipeline.results.pictures.overlays import draw_overlays
from pipeline.results.pictures.readings import (
    COORDINATES_FILE,
    Reading,
    data_set_of,
    reading_of_annotations,
    reading_of_prediction,
)

if TYPE_CHECKING:  # only with --truth
    from data_prep.rsna.tables import RsnaTables


def draw_all(
    paths: Sequence[Path],
    output: Path,
    chosen: ChosenModels | None,
    *,
    series_table: Path | None,
    annotated: bool,
) -> tuple[Rejection, ...]:
    """Draw every study under some paths, or in zips, into a folder; what was rejected is printed.

    Args:
        chosen: draw what these models find; None: no model is loaded.
        annotated: draw what the tables of the data set say.

    Returns:
        Everything that was not used.
    """
    with ExitStack() as stack:
        inputs = [(path, *stack.enter_context(opened(path))) for path in paths]
        rejections = [rejection for _, _, rejected in inputs for rejection in rejected]
        tables = _tables_of([(folder, path) for path, folder, _ in inputs]) if annotated else None
        entries = find_entries([folder for _, folder, _ in inputs], series_table)
        make_writable(output)
        for path in (path for entry in entries for path in _pictures_of(entry.study_id, output)):
            if not is_result(path):
                raise OutputTaken(output, path.name)
        pipeline = None if chosen is None else load_pipeline(chosen)
        with console.progress("studies", len(entries)) as done:
            for entry in entries:
                rejections += _draw_study(entry, output, tables, pipeline)
                done(entry.study_id)
    console.list_rejections(rejections)
    return tuple(rejections)


def _pictures_of(study_id: str, output: Path) -> list[Path]:
    """Pictures in a folder that are called as those of a study."""
    name = glob.escape(safe_id(study_id))
    return sorted([*output.glob(f"{name}.png"), *output.glob(f"{name}_*.png")])


def _tables_of(inputs: Sequence[tuple[Path, Path]]) -> RsnaTables:
    """Those of the one data set that the inputs, each with its place once unpacked, are of."""
    from data_prep.rsna.tables import read_tables

    found = set()
    for folder, path in inputs:
        data = data_set_of(folder) or data_set_of(path)
        if data is None:
            console.fail(
                f"{COORDINATES_FILE} was found neither in {input_label(path.name)!r} nor above it\n"
                "what to do: give a folder of the data set that holds the annotations, or leave --truth out"
            )
        found.add(data)
    if len(found) > 1:
        console.fail("with --truth all inputs must be of one data set\nwhat to do: draw each by itself")
    return read_tables(found.pop())


def _draw_study(
    entry: StudyEntry, output: Path, tables: RsnaTables | None, pipeline: Pipeline | None
) -> tuple[Rejection, ...]:
    readings: list[Reading] = []
    study: Study | None
    if pipeline is None:
        try:
            study = entry.load()
        except DicomRejected as rejected:
            return (*rejected.rejections, rejected.rejection)
        except Exception as error:
            return (failure_of(error, "reading", entry.study_id),)
        rejections = study.rejections
    else:
        prediction, study = pipeline.predict_entry(entry)
        rejections = prediction.rejections
        readings.append(reading_of_prediction(prediction))
    if tables is not None and study is not None:
        readings.insert(0, reading_of_annotations(study, tables))
    try:
        draw_readings(study, readings, output / f"{safe_id(entry.study_id)}.png", scale=PRINT_SCALE)
        if study is not None:
            draw_overlays(study, readings, output, scale=PRINT_SCALE)
    except Exception as error:
        if is_disk_error(error):
            raise
        rejections = (*rejections, failure_of(error, "drawing", entry.study_id))
    for reading in readings:
        console.note(f"{entry.study_id} {reading.who}: {reading.summary}")
    return rejections
