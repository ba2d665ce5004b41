"""COCO keypoints: one category per level, one keypoint per condition (cocodataset.org, "Data format")."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from data_prep.exchange.layout import (
    CLASSES,
    HALF_PIXEL,
    KEYPOINTS,
    UNCUT,
    AnnotationsInvalid,
    ImageRecord,
    LabelledPoint,
    Objects,
    box_of,
    is_renamed,
    is_same_shape,
    record_of,
)
from data_prep.vocabulary import Condition, Level

_DECIMALS = 3
_VISIBLE = 2


def coco_text(
    images: Sequence[ImageRecord], objects: Objects, margins_px: Mapping[str, tuple[float, float]]
) -> str:
    """The JSON file; the same content gives the same text.

    Args:
        images: in the order of their ids, which count from 1.
        margins_px: file name → width of the rim of a box beyond its points, (x, y).
    """
    ids = {image.file: number for number, image in enumerate(images, start=1)}
    annotations = []
    for number, ((image, level), points) in enumerate(objects.items(), start=1):
        keypoints: list[float] = []
        for condition in KEYPOINTS:
            xy = points.get(condition)
            keypoints += (
                [0, 0, 0] if xy is None else [*(round(v + HALF_PIXEL, _DECIMALS) for v in xy), _VISIBLE]
            )
        box = [round(v, _DECIMALS) for v in box_of(image, points.values(), margins_px[image.file])]
        annotations.append(
            {
                "id": number,
                "image_id": ids[image.file],
                "category_id": CLASSES.index(level) + 1,
                "keypoints": keypoints,
                "num_keypoints": len(points),
                "segmentation": [],
                "bbox": box,
                "area": round(box[2] * box[3], _DECIMALS),
                "iscrowd": 0,
            }
        )
    content = {
        "info": {"description": "lumbar annotations export"},
        "licenses": [],
        "categories": [
            {
                "id": CLASSES.index(level) + 1,
                "name": level.label,
                "supercategory": "lumbar level",
                "keypoints": [condition.value for condition in KEYPOINTS],
                "skeleton": [[1, other] for other in range(2, len(KEYPOINTS) + 1)],
            }
            for level in CLASSES
        ],
        "images": [
            {"id": ids[image.file], "file_name": image.file, "width": image.width, "height": image.height}
            for image in images
        ],
        "annotations": annotations,
    }
    return json.dumps(content, indent=1) + "\n"


def points_of_coco(text: str, known: Mapping[str, ImageRecord]) -> list[LabelledPoint]:
    """The keypoints of a COCO file, whoever wrote it: categories and keypoints count by their names.

    Args:
        known: file name → slice; a name that is not in it must tell the slice itself.

    Raises:
        AnnotationsInvalid: with every problem found.
    """
    try:
        content = json.loads(text)
        if isinstance(content, list):
            problem = "a list of predictions (COCO results), no data set: save it with images and categories"
            raise AnnotationsInvalid([problem])
        images = {row["id"]: row for row in content["images"]}
        names = {number: _names_of(row) for number, row in images.items()}
        categories = {row["id"]: row for row in content["categories"]}
        rows = list(content["annotations"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, AnnotationsInvalid):
            raise
        raise AnnotationsInvalid([f"not a COCO keypoint file ({type(error).__name__})"]) from None
    problems: list[str] = []
    points: list[LabelledPoint] = []
    for row in rows:
        try:
            files = names[row["image_id"]]
            image = next(filter(None, (record_of(file, known) for file in files)), None)
            if image is None:
                raise ValueError(f"image {files[0]!r} is no slice that was exported")
            if not image.width and is_renamed(files[0]):
                raise ValueError(
                    f"image {files[0]!r} may have been resized by the tool that renamed it: give "
                    "images.csv of the export, which tells its size, with --images"
                )
            size = _size_of(images[row["image_id"]])
            scale = _scale(size, image)
            if not image.width:
                image = replace(image, width=round(size[0]), height=round(size[1]))
            points += _points_of(row, categories[row["category_id"]], image, scale)
        except (KeyError, ValueError, TypeError) as error:
            what = str(error) if isinstance(error, ValueError) else f"incomplete ({type(error).__name__})"
            problems.append(f"annotation {row.get('id') if isinstance(row, dict) else '?'}: {what}")
    if problems:
        raise AnnotationsInvalid(problems)
    return points


def _names_of(row: Any) -> list[str]:
    """What the image may have been called when it was exported."""
    extra = row.get("extra")
    given = [row["file_name"], *([extra["name"]] if isinstance(extra, dict) and extra.get("name") else [])]
    return [PurePosixPath(str(name)).name for name in given]


def _size_of(row: Any) -> tuple[float, float]:
    """(width, height) of the annotated image as the file states them; 0 where it does not."""
    return float(row.get("width") or 0), float(row.get("height") or 0)


def _scale(size: tuple[float, float], image: ImageRecord) -> tuple[float, float]:
    """Pixels of the exported image per pixel of the one that was annotated, along x and y.

    Raises:
        ValueError: it was resized to another shape: cut, or padded, nobody knows where.
    """
    width, height = size
    if not (width and height and image.width and image.height):
        return 1.0, 1.0
    if not is_same_shape((width, height), image):
        sizes = f"{image.width} x {image.height} to {width:g} x {height:g}"
        raise ValueError(f"image {image.file!r} was resized from {sizes}: {UNCUT}")
    return image.width / width, image.height / height


def _points_of(
    row: Any, category: Any, image: ImageRecord, scale: tuple[float, float]
) -> list[LabelledPoint]:
    names, values = category.get("keypoints", ()), row.get("keypoints", ())
    if not values:  # a box without points, or a category of somebody else's
        return []
    level = Level.parse(category["name"])
    if len(values) != 3 * len(names):
        raise ValueError(f"{len(values)} numbers for {len(names)} keypoints")
    found = []
    for place, name in enumerate(names):
        x, y, visible = (float(value) for value in values[3 * place : 3 * place + 3])
        if visible:
            xy_px = (x * scale[0] - HALF_PIXEL, y * scale[1] - HALF_PIXEL)
            found.append(LabelledPoint(image, level, Condition.parse(name), xy_px, row.get("score")))
    return found
