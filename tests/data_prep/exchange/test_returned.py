"""Annotations that a tool resized, renamed or predicted come back to their place, or are refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_prep.exchange import AnnotationsInvalid, import_annotations
from data_prep.exchange.coco import coco_text
from data_prep.exchange.layout import (
    COCO_FILE,
    IMAGES_FILE,
    IMAGES_FOLDER,
    LABELS_FOLDER,
    YOLO_FILE,
    ImageRecord,
    record_of,
    write_images_table,
)
from data_prep.exchange.yolo import yolo_text, yolo_yaml
from data_prep.vocabulary import CONDITIONS, LEVELS
from pipeline.cli import app

SHAPE = (384, 256)  # rows, columns
POINTS = {CONDITIONS[0]: (100.0, 200.0), CONDITIONS[1]: (120.0, 210.0)}
# Two patients; the second's identifiers are UIDs.
IMAGES = (ImageRecord.of("100", "11", 7, SHAPE), ImageRecord.of("1.2.840.5", "1.2.840.5.1", 3, SHAPE))
OBJECTS = {(image, LEVELS[0]): POINTS for image in IMAGES}
MARGINS = {image.file: (5.0, 5.0) for image in IMAGES}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    for folder in (COCO_FILE.parent, LABELS_FOLDER, IMAGES_FOLDER):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / COCO_FILE).write_text(coco_text(IMAGES, OBJECTS, MARGINS))
    (tmp_path / YOLO_FILE).write_text(yolo_yaml())
    write_images_table(IMAGES, tmp_path / IMAGES_FILE)
    for image in IMAGES:
        label = tmp_path / LABELS_FOLDER / f"{image.file.removesuffix('.png')}.txt"
        label.write_text(yolo_text(image, OBJECTS, MARGINS[image.file]))
        picture(tmp_path / IMAGES_FOLDER / image.file, SHAPE[1], SHAPE[0])
    return tmp_path


def picture(path: Path, width: int, height: int) -> None:
    Image.fromarray(np.zeros((height, width), np.uint8)).save(path)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / COCO_FILE).read_text())
    change(content)
    (folder / COCO_FILE).write_text(json.dumps(content))


def scaled(content: dict[str, Any], across: float, down: float) -> None:
    """As a tool writes it that resizes pictures: sizes, points and boxes."""
    for image in content["images"]:
        image["width"], image["height"] = image["width"] * across, image["height"] * down
    for row in content["annotations"]:
        numbers = np.reshape(row["keypoints"], (-1, 3)) * [across, down, 1.0]
        row["keypoints"] = numbers.ravel().tolist()


def renamed(content: dict[str, Any]) -> None:
    """As Roboflow does: dots are dashes, the suffix a part of the name, and a hash behind it."""
    for number, image in enumerate(content["images"]):
        stem = image["file_name"].removesuffix(".png").replace(".", "-")
        image["file_name"] = f"{stem}_png.rf.{number}0f3ab.jpg"


def assert_where_they_were(folder: Path, kind: Any = "coco") -> None:
    found = import_annotations(folder, kind)
    assert [(p.image.study_id, p.image.series_id, p.image.instance_number) for p in found] == [
        ("1.2.840.5", "1.2.840.5.1", 3),
        ("1.2.840.5", "1.2.840.5.1", 3),
        ("100", "11", 7),
        ("100", "11", 7),
    ]
    for point in found:
        assert point.xy_px == pytest.approx(POINTS[point.condition], abs=0.01)


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.6])
def test_points_on_resized_pictures_are_scaled_back(exported: Path, factor: float) -> None:
    edit(exported, lambda content: scaled(content, factor, factor))
    assert_where_they_were(exported)


def test_pictures_that_were_cut_or_padded_are_refused(exported: Path) -> None:
    edit(exported, lambda content: scaled(content, 640 / 256, 640 / 384))
    with pytest.raises(AnnotationsInvalid, match="resized from 256 x 384 to 640 x 640"):
        import_annotations(exported, "coco")


@pytest.mark.parametrize("change", [lambda content: None, lambda content: scaled(content, 1.25, 1.25)])
def test_names_with_a_hash_are_matched(exported: Path, change: Callable[..., object]) -> None:
    edit(exported, renamed)
    edit(exported, change)
    assert_where_they_were(exported)


def test_the_name_before_a_tool_changed_it_counts(exported: Path) -> None:
    def hidden(content: dict[str, Any]) -> None:
        for number, image in enumerate(content["images"]):
            image["extra"] = {"name": image["file_name"]}
            image["file_name"] = f"upload-{number}.jpg"

    edit(exported, hidden)
    assert_where_they_were(exported)


def test_a_renamed_picture_of_unknown_size_is_refused(exported: Path) -> None:
    """Tools that rename also resize; what the size was stands in images.csv alone."""
    edit(exported, renamed)
    edit(exported, lambda content: scaled(content, 2.0, 2.0))
    (exported / IMAGES_FILE).unlink()
    with pytest.raises(AnnotationsInvalid, match=r"may have been resized .* images\.csv"):
        import_annotations(exported / COCO_FILE, "coco")


def test_two_slices_of_one_plain_name_are_not_guessed() -> None:
    known = {
        image.file: image
        for image in (ImageRecord.of("1.2", "3", 1, SHAPE), ImageRecord.of("1-2", "3", 1, SHAPE))
    }
    assert record_of("1-2_3_1_png.rf.ab.jpg", known) == known["1-2_3_1.png"]
    del known["1-2_3_1.png"]
    known |= {
        "1.2_3_1.png": ImageRecord.of("1.2", "3", 1, SHAPE),
        "1 2_3_1.png": ImageRecord.of("1 2", "3", 1, SHAPE),
    }
    found = record_of("1-2_3_1_png.rf.ab.jpg", known)
    assert found is not None and (found.study_id, found.width) == ("1-2", 0)


@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_yolo_labels_beside_resized_and_renamed_pictures(exported: Path, factor: float) -> None:
    for number, image in enumerate(IMAGES):
        stem = image.file.removesuffix(".png")
        name = f"{stem.replace('.', '-')}_png.rf.{number}0f3ab"
        (exported / LABELS_FOLDER / f"{stem}.txt").rename(exported / LABELS_FOLDER / f"{name}.txt")
        (exported / IMAGES_FOLDER / image.file).unlink()
        picture(exported / IMAGES_FOLDER / f"{name}.jpg", round(256 * factor), round(384 * factor))
    assert_where_they_were(exported, "yolo")


def test_yolo_labels_of_padded_pictures_are_refused(exported: Path) -> None:
    picture(exported / IMAGES_FOLDER / IMAGES[0].file, 640, 640)
    with pytest.raises(AnnotationsInvalid, match="resized from 256 x 384 to 640 x 640"):
        import_annotations(exported, "yolo")


def with_score(content: dict[str, Any]) -> None:
    content["annotations"] = [{**row, "score": 0.9} for row in content["annotations"]]


def twice(content: dict[str, Any]) -> None:
    with_score(content)
    content["annotations"] += [{**row, "score": 0.4} for row in content["annotations"]]


def test_several_predictions_of_one_target_are_refused_and_confidences_explained(exported: Path) -> None:
    edit(exported, twice)
    with pytest.raises(AnnotationsInvalid, match="what a network predicts") as caught:
        import_annotations(exported, "coco")
    assert "a point for the same target" in str(caught.value)


@pytest.mark.parametrize(("change", "says"), [(with_score, True), (lambda content: None, False)])
def test_single_predictions_come_in_with_a_word(
    exported: Path, tmp_path: Path, change: Callable[..., object], says: bool
) -> None:
    edit(exported, change)
    out = tmp_path / "coordinates.csv"
    done = CliRunner().invoke(app, ["annotations", "import", str(exported), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert ("4 points have confidences: a network predicted them" in done.stderr) is says
    assert len(out.read_text().splitlines()) == 5


def test_yolo_predictions_have_a_confidence_at_the_end_of_the_line(exported: Path) -> None:
    for path in (exported / LABELS_FOLDER).iterdir():
        path.write_text("".join(f"{line} 0.87\n" for line in path.read_text().splitlines()))
    assert {point.confidence for point in import_annotations(exported, "yolo")} == {0.87}


def test_a_list_of_predictions_is_named_as_what_it_is(exported: Path) -> None:
    rows: list[Mapping[str, Any]] = [{"image_id": 1, "category_id": 1, "keypoints": [], "score": 0.5}]
    (exported / COCO_FILE).write_text(json.dumps(rows))
    with pytest.raises(AnnotationsInvalid, match="list of predictions"):
        import_annotations(exported, "coco")
