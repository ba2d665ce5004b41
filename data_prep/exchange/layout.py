"""Names, order and coordinates that export and import share.

Folder: ``images/train/{study}_{series}_{instance}.png``, ``images.csv`` (which image is which slice),
``annotations/person_keypoints_train.json`` (COCO; the name is the one that CVAT looks for),
``labels/train/*.txt`` and ``data.yaml`` (YOLO pose).

Coordinates: tables count pixels from the CENTRE of the first one, annotation tools from its corner, so half a
pixel is added on the way out and taken off on the way in.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data_prep.base.csv_files import write_table
from data_prep.problems import LumbarError
from data_prep.vocabulary import CONDITIONS, LEVELS, Condition, Level

IMAGES_FOLDER: Final = Path("images/train")
LABELS_FOLDER: Final = Path("labels/train")
COCO_FILE: Final = Path("annotations/person_keypoints_train.json")
YOLO_FILE: Final = Path("data.yaml")
IMAGES_FILE: Final = Path("images.csv")

KEYPOINTS: Final = CONDITIONS
CLASSES: Final = LEVELS
HALF_PIXEL: Final = 0.5
MAX_FILE_BYTES: Final = 64 * 1024 * 1024

_COLUMNS = ("file", "study_id", "series_id", "instance_number", "width", "height")
_FILE_NAME = re.compile(r"(?P<study>.+)_(?P<series>[^_]+)_(?P<instance>[0-9]{1,9})\.png")
_RENAMED = re.compile(r"(?:_(?:png|jpe?g))?\.rf\.[0-9A-Za-z]+(\.\w+)?$")
# An image that was scaled to whole pixels.
_SAME_SHAPE = 0.02
UNCUT: Final = "export it without cutting or padding"
_NAMED = 20


def mirrored(condition: Condition) -> Condition:
    """The condition that it becomes when left and right are swapped."""
    return condition if condition.side is None else Condition.of(condition.group, condition.side.other)


FLIP_INDEX: Final = tuple(KEYPOINTS.index(mirrored(condition)) for condition in KEYPOINTS)


class AnnotationsInvalid(LumbarError, ValueError):
    """Annotations that cannot be read. ``problems`` has one sentence for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        named = "\n".join(f"- {text}" for text in self.problems[:_NAMED])
        more = f"\n- and {len(self.problems) - _NAMED} more" if len(self.problems) > _NAMED else ""
        super().__init__(f"the annotations are refused:\n{named}{more}")


@dataclass(frozen=True)
class ImageRecord:
    """Which slice an exported image shows.

    Attributes:
        file: bare name.
        width, height: pixels; 0 when not known.
    """

    file: str
    study_id: str
    series_id: str
    instance_number: int
    width: int = 0
    height: int = 0

    @classmethod
    def of(cls, study_id: str, series_id: str, instance_number: int, shape: tuple[int, int]) -> ImageRecord:
        """The record of a slice; ``shape`` is (rows, columns)."""
        file = f"{study_id}_{series_id}_{instance_number}.png"
        return cls(file, study_id, series_id, instance_number, shape[1], shape[0])

    @classmethod
    def of_name(cls, file: str) -> ImageRecord | None:
        """What the name alone tells, or None."""
        found = _FILE_NAME.fullmatch(file)
        if found is None:
            return None
        return cls(file, found["study"], found["series"], int(found["instance"]))


def is_renamed(file: str) -> bool:
    """Whether an annotation tool gave the image a name of its own, as Roboflow does, which also resizes."""
    return _RENAMED.search(file) is not None


def record_of(file: str, known: Mapping[str, ImageRecord]) -> ImageRecord | None:
    """The exported slice that an annotation tool calls ``file``; None if it is none.

    Roboflow writes ``1_2_3_png.rf.0a1b2c.jpg`` for ``1_2_3.png``, and a dash for a dot in the name.
    """
    exported = _RENAMED.sub(".png", file)
    plain = _plain(exported)
    alike = [image for name, image in known.items() if _plain(name) == plain] if exported != file else []
    return (
        known.get(file)
        or known.get(exported)
        or (alike[0] if len(alike) == 1 else None)
        or (ImageRecord.of_name(file) or ImageRecord.of_name(exported))
    )


def _plain(file: str) -> str:
    return re.sub(r"[^0-9A-Za-z_]+", "-", file.removesuffix(".png"))


def is_same_shape(size: tuple[float, float], image: ImageRecord) -> bool:
    """Whether (width, height) are those of the exported image, scaled; cut or padded ones are not."""
    return abs((image.width / size[0]) / (image.height / size[1]) - 1) <= _SAME_SHAPE


@dataclass(frozen=True)
class LabelledPoint:
    """One keypoint: table coordinates, (column, row), zero at the centre of the first pixel.

    ``confidence``: of a prediction; None for what a person has annotated.
    """

    image: ImageRecord
    level: Level
    condition: Condition
    xy_px: tuple[float, float]
    confidence: float | None = None


Objects = Mapping[tuple[ImageRecord, Level], Mapping[Condition, tuple[float, float]]]


def objects_of(points: Iterable[LabelledPoint]) -> Objects:
    """The points of each level on each image, in the order of images and levels."""
    found: dict[tuple[ImageRecord, Level], dict[Condition, tuple[float, float]]] = {}
    for point in points:
        found.setdefault((point.image, point.level), {})[point.condition] = point.xy_px
    order = sorted(found, key=lambda key: (key[0].file, key[1].index))
    return {key: found[key] for key in order}


def box_of(
    image: ImageRecord, points: Iterable[tuple[float, float]], margin_px: tuple[float, float]
) -> tuple[float, float, float, float]:
    """(left, top, width, height) around points, from the corner of the image, within the image."""
    xs, ys = zip(*points, strict=True)
    left = max(0.0, min(xs) + HALF_PIXEL - margin_px[0])
    top = max(0.0, min(ys) + HALF_PIXEL - margin_px[1])
    right = min(float(image.width), max(xs) + HALF_PIXEL + margin_px[0])
    bottom = min(float(image.height), max(ys) + HALF_PIXEL + margin_px[1])
    return left, top, right - left, bottom - top


def write_images_table(images: Iterable[ImageRecord], path: Path) -> None:
    """Write ``images.csv``."""
    write_table(path, _COLUMNS, map(vars, images))


def read_images_table(path: Path) -> dict[str, ImageRecord]:
    """File name → record of ``images.csv``; empty when there is none.

    Raises:
        AnnotationsInvalid: it is not what export wrote.
    """
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return {
                row["file"]: ImageRecord(
                    row["file"],
                    row["study_id"],
                    row["series_id"],
                    int(row["instance_number"]),
                    int(row["width"]),
                    int(row["height"]),
                )
                for row in csv.DictReader(stream)
            }
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise AnnotationsInvalid(
            [f"{path.name} is not the table of an export ({type(error).__name__})"]
        ) from None


def read_text(path: Path) -> str:
    """The text of a file of a bounded size. Raises AnnotationsInvalid."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise AnnotationsInvalid([f"{path.name} is larger than {MAX_FILE_BYTES} bytes"])
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise AnnotationsInvalid([f"{path.name} cannot be read ({type(error).__name__})"]) from None
