"""YOLO pose labels: one class per level, one keypoint per condition (docs.ultralytics.com, "Pose")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from data_prep.exchange.layout import (
    CLASSES,
    FLIP_INDEX,
    HALF_PIXEL,
    IMAGES_FOLDER,
    KEYPOINTS,
    UNCUT,
    YOLO_FILE,
    AnnotationsInvalid,
    ImageRecord,
    LabelledPoint,
    Objects,
    box_of,
    is_renamed,
    is_same_shape,
    read_text,
    record_of,
)
from data_prep.vocabulary import Condition, Level

_DECIMALS = 7
_VISIBLE = 2


def yolo_yaml() -> str:
    """``data.yaml``; a flip swaps left and right."""
    content = {
        "train": str(IMAGES_FOLDER),
        "val": str(IMAGES_FOLDER),
        "names": {number: level.label for number, level in enumerate(CLASSES)},
        "kpt_shape": [len(KEYPOINTS), 3],
        "flip_idx": list(FLIP_INDEX),
        "kpt_names": {number: [condition.value for condition in KEYPOINTS] for number in range(len(CLASSES))},
    }
    return yaml.safe_dump(content, sort_keys=False)


def yolo_text(image: ImageRecord, objects: Objects, margin_px: tuple[float, float]) -> str:
    """The label file of one image: a line per level, everything as a share of width and height."""
    size = (image.width, image.height)
    lines = []
    for (where, level), points in objects.items():
        if where != image:
            continue
        left, top, width, height = box_of(image, points.values(), margin_px)
        numbers = [
            (left + width / 2) / size[0],
            (top + height / 2) / size[1],
            width / size[0],
            height / size[1],
        ]
        words = [str(CLASSES.index(level)), *(f"{number:.{_DECIMALS}f}" for number in numbers)]
        for condition in KEYPOINTS:
            xy = points.get(condition)
            if xy is None:
                words += ["0", "0", "0"]
            else:
                shares = ((value + HALF_PIXEL) / extent for value, extent in zip(xy, size, strict=True))
                words += [*(f"{share:.{_DECIMALS}f}" for share in shares), str(_VISIBLE)]
        lines.append(" ".join(words))
    return "".join(f"{line}\n" for line in lines)


def points_of_yolo(folder: Path, known: Mapping[str, ImageRecord]) -> list[LabelledPoint]:
    """The keypoints of all label files of a data set, whoever wrote it.

    Args:
        folder: with ``data.yaml``, ``labels/`` and, for images that are not known, ``images/``.
        known: file name → slice.

    Raises:
        AnnotationsInvalid: with every problem found.
    """
    classes, keypoints, dimensions = _description(folder / YOLO_FILE)
    problems: list[str] = []
    points: list[LabelledPoint] = []
    for path in sorted((folder / "labels").rglob("*.txt")):
        try:
            image = _image_of(folder, path, known)
            for number, line in enumerate(read_text(path).splitlines(), start=1):
                try:
                    points += _points_of(line.split(), image, classes, keypoints, dimensions)
                except (ValueError, KeyError, IndexError) as error:
                    problems.append(f"{path.name} line {number}: {error}")
        except AnnotationsInvalid as invalid:
            problems += invalid.problems
    if problems:
        raise AnnotationsInvalid(problems)
    return points


def _description(path: Path) -> tuple[dict[int, Level], Sequence[Condition], int]:
    """Class number → level, conditions in the order of the keypoints, and numbers per keypoint."""
    try:
        content: Any = yaml.safe_load(read_text(path))
        names = content["names"]
        numbered = names.items() if isinstance(names, dict) else enumerate(names)
        classes = {int(number): Level.parse(name) for number, name in numbered}
        listed = next(iter(content.get("kpt_names", {}).values()), [c.value for c in KEYPOINTS])
        keypoints = [Condition.parse(name) for name in listed]
        count, dimensions = (int(value) for value in content["kpt_shape"])
        if count != len(keypoints) or dimensions not in (2, 3):
            raise ValueError(f"kpt_shape must be [{len(keypoints)}, 2 or 3]")
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, AnnotationsInvalid):
            raise
        raise AnnotationsInvalid([f"{path.name} does not describe levels and conditions ({error})"]) from None
    return classes, keypoints, dimensions


def _image_of(folder: Path, label: Path, known: Mapping[str, ImageRecord]) -> ImageRecord:
    image = record_of(f"{label.stem}.png", known)
    if image is None:
        raise AnnotationsInvalid([f"{label.name}: no slice that was exported"])
    size = _size_of_picture(folder / "images" / label.relative_to(folder / "labels"))
    if image.width and image.height:
        if size is not None and not is_same_shape(size, image):
            sizes = f"{image.width} x {image.height} to {size[0]} x {size[1]}"
            raise AnnotationsInvalid([f"{label.name}: its image was resized from {sizes}: {UNCUT}"])
        return image
    if size is None:
        raise AnnotationsInvalid([f"{label.name}: the size of its image is not known"])
    if is_renamed(label.name):
        problem = "its image may have been resized: give images.csv of the export with --images"
        raise AnnotationsInvalid([f"{label.name}: {problem}"])
    return replace(image, width=size[0], height=size[1])


def _size_of_picture(path: Path) -> tuple[int, int] | None:
    """(width, height) of the picture beside a label file; None if there is none that can be read."""
    for suffix in (".png", ".jpg", ".jpeg"):
        try:
            with Image.open(path.with_name(f"{path.stem}{suffix}")) as picture:
                return picture.size
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
    return None


def _points_of(
    words: Sequence[str],
    image: ImageRecord,
    classes: Mapping[int, Level],
    keypoints: Sequence[Condition],
    dimensions: int,
) -> list[LabelledPoint]:
    if not words:
        return []
    expected = 5 + dimensions * len(keypoints)
    confidence = float(words[-1]) if len(words) == expected + 1 else None
    if confidence is not None:
        words = words[:-1]
    if len(words) != expected:
        raise ValueError(f"{len(words)} numbers, expected {expected}")
    level = classes[int(words[0])]
    found = []
    for place, condition in enumerate(keypoints):
        values = [float(word) for word in words[5 + dimensions * place :][:dimensions]]
        # Without a visibility, a keypoint in the corner is one that is not there.
        if (values[2] if dimensions == 3 else any(values)) != 0:
            xy_px = (values[0] * image.width - HALF_PIXEL, values[1] * image.height - HALF_PIXEL)
            found.append(LabelledPoint(image, level, condition, xy_px, confidence))
    return found
