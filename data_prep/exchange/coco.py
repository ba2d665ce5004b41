"""COCO keypoints: one category per level, one keypoint per condition (cocodataset.org, "Data format")."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from data_prep.exchange.layout import (
    CLASSES,
    HALF_PIXEL,
    KEYPOINTS,
    AnnotationsInvalid,
    ImageRecord,
    LabelledPoint,
    Objects,
    box_of,
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
        objects: the points of each level on each image.
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
        text: the file.
        known: file name → slice; a name that is not in it must tell the slice itself.

    Raises:
        AnnotationsInvalid: with every problem found.
    """
    try:
        content = json.loads(text)
        images = {row["id"]: PurePosixPath(str(row["file_name"])).name for row in content["images"]}
        categories = {row["id"]: row for row in content["categories"]}
        rows = list(content["annotations"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AnnotationsInvalid([f"not a COCO keypoint file ({type(error).__name__})"]) from None
    problems: list[str] = []
    points: list[LabelledPoint] = []
    for row in rows:
        try:
            file = images[row["image_id"]]
            image = known.get(file) or ImageRecord.of_name(file)
            if image is None:
                raise ValueError(f"image {file!r} is no slice that was exported")
            points += _points_of(row, categories[row["category_id"]], image)
        except (KeyError, ValueError, TypeError) as error:
            what = str(error) if isinstance(error, ValueError) else f"incomplete ({type(error).__name__})"
            problems.append(f"annotation {row.get('id') if isinstance(row, dict) else '?'}: {what}")
    if problems:
        raise AnnotationsInvalid(problems)
    return points


def _points_of(row: Any, category: Any, image: ImageRecord) -> list[LabelledPoint]:
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
            xy_px = (x - HALF_PIXEL, y - HALF_PIXEL)
            found.append(LabelledPoint(image, level, Condition.parse(name), xy_px))
    return found
