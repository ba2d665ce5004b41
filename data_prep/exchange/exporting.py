"""Points of a table, with the slices they lie on, into a folder that annotation tools open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from data_prep.base.csv_files import read_text_table
from data_prep.base.files import atomic_write, write_whole
from data_prep.exchange.coco import coco_text
from data_prep.exchange.layout import (
    COCO_FILE,
    IMAGES_FILE,
    IMAGES_FOLDER,
    LABELS_FOLDER,
    YOLO_FILE,
    AnnotationsInvalid,
    ImageRecord,
    LabelledPoint,
    objects_of,
    write_images_table,
)
from data_prep.exchange.yolo import yolo_text, yolo_yaml
from data_prep.names import input_label
from data_prep.problems import DicomRejected, Rejection
from data_prep.read.entry import StudyEntry
from data_prep.rsna.annotations import annotated_points
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import Condition, Level

POINT_COLUMNS = ("study_id", "series_id", "instance_number", "condition", "level", "x", "y")
_BOX_MARGIN_MM = 12.0
_DARKEST, _BRIGHTEST = 0.5, 99.5


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        images, points: how many.
        problems: rows of the table that gave no point, ``code: where``.
        rejections: files, series and studies that could not be read.
    """

    images: int
    points: int
    problems: tuple[str, ...]
    rejections: tuple[Rejection, ...]


def read_points(path: Path) -> pd.DataFrame:
    """Read ``train_label_coordinates.csv`` or the ``levels.csv`` of a detector.

    Returns:
        ``study_id, series_id`` text, ``instance_number`` int64, ``condition, level`` as the values of
        ``Condition`` and ``Level``, ``x, y`` float64; other columns are left out.

    Raises:
        AnnotationsInvalid: it is no such table.
    """
    name = input_label(path.name)
    try:
        table = read_text_table(path)
    except ValueError as error:
        raise AnnotationsInvalid([f"{name} {error}"]) from None
    if missing := [column for column in POINT_COLUMNS if column not in table.columns]:
        raise AnnotationsInvalid([f"{name} lacks {', '.join(missing)}"])
    try:
        table = table[list(POINT_COLUMNS)].assign(
            instance_number=table["instance_number"].astype("int64"),
            condition=table["condition"].map(lambda text: Condition.parse(text).value),
            level=table["level"].map(lambda text: Level.parse(text).value),
            x=table["x"].astype("float64"),
            y=table["y"].astype("float64"),
        )
    except ValueError as error:
        raise AnnotationsInvalid([f"{name} is no table of points ({error})"]) from None
    if not np.isfinite(table[["x", "y"]].to_numpy()).all():
        raise AnnotationsInvalid([f"{name} has points that are no numbers"])
    return table


def export_annotations(
    entries: Sequence[StudyEntry],
    points: pd.DataFrame,
    out: Path,
    *,
    neighbours: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Write images, COCO and YOLO files for every slice that has a point.

    The images are 8-bit pictures of the patient: they stay on the user's own disk. The same input gives the
    same bytes.

    Args:
        points: what ``read_points`` returned.
        neighbours: slices beside each that has a point, so that a point can be moved there.
        progress: called with each study id when it is done.

    Raises:
        AnnotationsInvalid: no point of the table lies on a slice of these studies.
    """
    labelled: list[LabelledPoint] = []
    margins: dict[str, tuple[float, float]] = {}
    images: dict[str, ImageRecord] = {}
    problems: list[str] = []
    rejections: list[Rejection] = []
    for entry in entries:
        mine = points[points["study_id"] == entry.study_id]
        study = None
        try:
            study = None if mine.empty else entry.load()
        except DicomRejected as rejected:
            rejections += [*rejected.rejections, rejected.rejection]
        if study is not None:
            rejections += study.rejections
            found, missed = _of_study(study, mine)
            problems += missed
            labelled += found
            wanted = {(point.image.series_id, point.image.instance_number) for point in found}
            for series, item in _slices(study, wanted, neighbours):
                try:
                    image = _write_image(series, item, out)
                except DicomRejected as rejected:
                    rejections.append(rejected.rejection)
                    continue
                images[image.file] = image
                x_mm, y_mm = item.plane.spacing_mm
                margins[image.file] = (_BOX_MARGIN_MM / x_mm, _BOX_MARGIN_MM / y_mm)
        progress(entry.study_id)
    labelled = [point for point in labelled if point.image.file in images]
    if not labelled:
        raise AnnotationsInvalid(["no point of the table lies on a slice of these studies", *problems])
    _write_tables(sorted(images.values(), key=lambda image: image.file), labelled, margins, out)
    return ExportReport(len(images), len(labelled), tuple(problems), tuple(rejections))


def _of_study(study: Study, points: pd.DataFrame) -> tuple[list[LabelledPoint], tuple[str, ...]]:
    found, problems = annotated_points(study, points)
    shapes = {
        (series.series_id, item.instance_number): item.plane.shape
        for series in study.series
        for item in series.slices
    }
    labelled = []
    for point in found:
        if (sight := point.sight) is None:
            continue
        key = (sight.series_id, sight.instance_number)
        image = ImageRecord.of(study.study_id, *key, shapes[key])
        labelled.append(LabelledPoint(image, point.level, point.condition, sight.xy_px))
    return labelled, problems


def _slices(study: Study, wanted: set[tuple[str, int]], neighbours: int) -> Iterable[tuple[Series, Slice]]:
    """The slices that are wanted, and those beside them in their stacks."""
    for series in study.series:
        for stack in series.stacks:
            numbers = [item.instance_number for item in stack]
            places = {place for place, n in enumerate(numbers) if (series.series_id, n) in wanted}
            for place, item in enumerate(stack):
                if any(abs(place - other) <= neighbours for other in places):
                    yield series, item


def _write_image(series: Series, item: Slice, out: Path) -> ImageRecord:
    image = ImageRecord.of(series.study_id, series.series_id, item.instance_number, item.plane.shape)
    picture = Image.fromarray(_eight_bits(item.pixels()))
    with atomic_write(out / IMAGES_FOLDER / image.file, binary=True) as stream:
        picture.save(stream, format="PNG")
    return image


def _eight_bits(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The pixel grid as it is, so that coordinates stay; the brightest and darkest 0.5 % are cut off."""
    low, high = np.percentile(pixels, (_DARKEST, _BRIGHTEST))
    shares = np.clip((pixels - low) / max(float(high - low), 1e-6), 0, 1)
    return np.asarray(np.round(255 * shares), dtype=np.uint8)


def _write_tables(
    images: Sequence[ImageRecord],
    labelled: Sequence[LabelledPoint],
    margins: dict[str, tuple[float, float]],
    out: Path,
) -> None:
    objects = objects_of(labelled)
    for image in images:
        text = yolo_text(image, objects, margins[image.file])
        write_whole((out / LABELS_FOLDER / image.file).with_suffix(".txt"), text)
    write_whole(out / YOLO_FILE, yolo_yaml())
    write_whole(out / COCO_FILE, coco_text(images, objects, margins))
    write_images_table(images, out / IMAGES_FILE)
