"""Corrected annotations back into the table that training reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from data_prep.base.csv_files import write_table
from data_prep.exchange.coco import points_of_coco
from data_prep.exchange.exporting import POINT_COLUMNS
from data_prep.exchange.layout import (
    COCO_FILE,
    IMAGES_FILE,
    AnnotationsInvalid,
    ImageRecord,
    LabelledPoint,
    read_images_table,
    read_text,
)
from data_prep.exchange.yolo import points_of_yolo
from data_prep.vocabulary import Target

AnnotationFormat = Literal["coco", "yolo"]
_DECIMALS = 3


def import_annotations(
    path: Path, kind: AnnotationFormat, *, images_table: Path | None = None
) -> tuple[LabelledPoint, ...]:
    """Read the points that an annotation tool left.

    Args:
        path: ``coco``: the JSON file, or a folder with ``annotations/*.json``; ``yolo``: the folder with
            ``data.yaml`` and ``labels/``.
        images_table: ``images.csv`` of the export; looked for in the folder if left out. Without it, the file
            names of the images tell which slices they are.

    Returns:
        Points in the order of study, level, condition; at most one per study and target.

    Raises:
        AnnotationsInvalid: with every problem found: unknown levels or conditions, points outside their
            image, two points for one target, images that were not exported.
    """
    folder = path if path.is_dir() else path.parent
    known = read_images_table(images_table or folder / IMAGES_FILE)
    points = points_of_yolo(folder, known) if kind == "yolo" else _coco_points(path, known)
    problems = _problems(points)
    if not points and not problems:
        problems = ["no point was found"]
    if problems:
        raise AnnotationsInvalid(problems)
    return tuple(sorted(points, key=_order))


def write_coordinates(points: Sequence[LabelledPoint], path: Path) -> None:
    """Write ``train_label_coordinates.csv``."""
    rows = (
        vars(point.image)
        | {"condition": point.condition.label, "level": point.level.label}
        | dict(zip("xy", (round(value, _DECIMALS) for value in point.xy_px), strict=True))
        for point in points
    )
    write_table(path, POINT_COLUMNS, rows)


def _coco_points(path: Path, known: Mapping[str, ImageRecord]) -> list[LabelledPoint]:
    files = [path]
    if path.is_dir():
        files = sorted((path / COCO_FILE.parent).glob("*.json"))
        if not files:
            raise AnnotationsInvalid([f"no {COCO_FILE.parent}/*.json in {path.name!r}"])
    return [point for file in files for point in points_of_coco(read_text(file), known)]


def _problems(points: Sequence[LabelledPoint]) -> list[str]:
    problems = []
    seen: dict[tuple[str, Target], LabelledPoint] = {}
    for point in points:
        where = f"{point.image.file} {point.level.label} {point.condition.value}"
        x, y = point.xy_px
        width, height = point.image.width or math.inf, point.image.height or math.inf
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            problems.append(f"{where}: ({x:.1f}, {y:.1f}) lies outside the image")
        other = seen.setdefault((point.image.study_id, Target(point.condition, point.level)), point)
        if other is not point:
            problems.append(f"{where}: {other.image.file} has a point for the same target")
    if any(point.confidence is not None for point in points) and problems:
        problems.insert(
            0,
            "the points have confidences, so they are what a network predicts, often several for one target: "
            "keep the one of each that a person agrees with, and leave the confidences out",
        )
    return problems


def _order(point: LabelledPoint) -> tuple[str, int, str]:
    return point.image.study_id, point.level.index, point.condition.value
