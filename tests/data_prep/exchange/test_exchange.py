"""Points out to annotation tools and back: the same table, and everything unclear refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from data_prep.exchange import (
    AnnotationsInvalid,
    ExportReport,
    export_annotations,
    import_annotations,
    read_points,
    write_coordinates,
)
from data_prep.exchange.layout import FLIP_INDEX, KEYPOINTS
from data_prep.phantom import write_dataset
from data_prep.problems import Reason
from data_prep.read.entry import StudyEntry
from data_prep.read.find import find_studies
from data_prep.vocabulary import Condition

TABLE = "train_label_coordinates.csv"
COCO = "annotations/person_keypoints_train.json"
KEYS = ["study_id", "condition", "level"]
FORMATS = ["coco", "yolo"]
HEADER = "study_id,series_id,instance_number,condition,level,x,y"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, studies=1, seed=5)
    return folder


@pytest.fixture(scope="module")
def exported(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportReport]:
    folder = tmp_path_factory.mktemp("exported")
    return folder, export_annotations(find_studies(data), read_points(data / TABLE), folder)


@pytest.fixture
def copy(exported: tuple[Path, ExportReport], tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported[0], tmp_path / "copy"))


def sorted_table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path).sort_values(KEYS).reset_index(drop=True)


def edit_coco(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / COCO).read_text())
    change(content)
    (folder / COCO).write_text(json.dumps(content))


@pytest.mark.parametrize("kind", FORMATS)
def test_what_goes_out_comes_back_the_same(
    data: Path, exported: tuple[Path, ExportReport], tmp_path: Path, kind: Any
) -> None:
    folder, report = exported
    assert report.points == 25 and not report.problems and not report.rejections
    write_coordinates(import_annotations(folder, kind), tmp_path / TABLE)
    before, after = sorted_table(data / TABLE), sorted_table(tmp_path / TABLE)
    assert list(after.columns) == list(before.columns)
    assert np.abs(before[["x", "y"]] - after[["x", "y"]]).to_numpy().max() < 1e-3
    pd.testing.assert_frame_equal(before.drop(columns=["x", "y"]), after.drop(columns=["x", "y"]))


@pytest.mark.parametrize("kind", FORMATS)
def test_real_points_come_back_the_same(real_rsna: Path, tmp_path: Path, kind: Any) -> None:
    entries = [e for e in find_studies(real_rsna) if e.study_id in ("4003253", "100206310")]
    report = export_annotations(entries, read_points(real_rsna / TABLE), tmp_path / "out")
    assert report.points == 50 and not report.problems
    write_coordinates(import_annotations(tmp_path / "out", kind), tmp_path / TABLE)
    after = sorted_table(tmp_path / TABLE)
    before = sorted_table(real_rsna / TABLE)
    before = before[before.study_id.isin(after.study_id.unique())].reset_index(drop=True)
    assert np.abs(before[["x", "y"]] - after[["x", "y"]]).to_numpy().max() < 1e-3
    pd.testing.assert_frame_equal(before.drop(columns=["x", "y"]), after.drop(columns=["x", "y"]))


def test_pictures_are_the_slices_pixel_for_pixel_in_eight_bits(
    data: Path, exported: tuple[Path, ExportReport]
) -> None:
    folder, report = exported
    (study,) = [entry.load() for entry in find_studies(data)]
    slices = {
        f"{study.study_id}_{series.series_id}_{item.instance_number}.png": item
        for series in study.series
        for item in series.slices
    }
    pictures = sorted((folder / "images" / "train").iterdir())
    assert len(pictures) == report.images
    for path in pictures:
        with Image.open(path) as picture:
            pixels = np.asarray(picture)
        signal = slices[path.name].pixels()
        assert pixels.dtype == np.uint8 and pixels.shape == signal.shape
        assert np.corrcoef(pixels.ravel(), signal.ravel())[0, 1] > 0.95


def test_the_same_table_gives_the_same_bytes(
    data: Path, exported: tuple[Path, ExportReport], tmp_path: Path
) -> None:
    export_annotations(find_studies(data), read_points(data / TABLE), tmp_path)
    for path in (path for path in exported[0].rglob("*") if path.is_file()):
        assert (tmp_path / path.relative_to(exported[0])).read_bytes() == path.read_bytes()


def test_neighbouring_slices_come_along_when_asked(data: Path, tmp_path: Path) -> None:
    alone = export_annotations(find_studies(data), read_points(data / TABLE), tmp_path / "0")
    wider = export_annotations(find_studies(data), read_points(data / TABLE), tmp_path / "1", neighbours=1)
    assert wider.images > alone.images and wider.points == alone.points
    labels = list((tmp_path / "1" / "labels").rglob("*.txt"))
    assert len(labels) == wider.images and any(not path.read_text() for path in labels)


def test_detections_go_out_too_and_rows_without_a_slice_are_named(data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data / TABLE)
    table["confidence"], table["source"] = 0.9, "seen"
    table.loc[0, "instance_number"] = 999
    table.to_csv(tmp_path / "levels.csv", index=False)
    report = export_annotations(find_studies(data), read_points(tmp_path / "levels.csv"), tmp_path / "out")
    assert report.points == 24
    assert [problem.split(":")[0] for problem in report.problems] == ["instance_not_found"]


def test_a_study_that_cannot_be_read_is_done_too(data: Path, tmp_path: Path) -> None:
    """Or a bar would never reach its end."""
    table = read_points(data / TABLE)
    table = pd.concat([table.head(1).assign(study_id="7"), table])
    entries, told = [StudyEntry("7"), *find_studies(data)], list[str]()
    report = export_annotations(entries, table, tmp_path, progress=told.append)
    assert told == [entry.study_id for entry in entries]
    assert [(item.reason, item.study_id) for item in report.rejections] == [(Reason.NO_IMAGES, "7")]


def test_a_flip_swaps_left_and_right() -> None:
    flipped = [KEYPOINTS[place] for place in FLIP_INDEX]
    assert flipped[0] is Condition.SPINAL_CANAL_STENOSIS
    assert [c.value.replace("left", "right") for c in flipped] == [
        c.value.replace("left", "right") for c in KEYPOINTS
    ]
    assert all(a.side is not b.side for a, b in zip(flipped[1:], KEYPOINTS[1:], strict=True))


def test_ultralytics_finds_nothing_wrong_with_the_labels(exported: tuple[Path, ExportReport]) -> None:
    from ultralytics.data.utils import verify_image_label

    folder, report = exported
    description = yaml.safe_load((folder / "data.yaml").read_text())
    assert (folder / description["train"]).is_dir()
    classes, (count, dimensions) = len(description["names"]), description["kpt_shape"]
    points = 0
    for image in sorted((folder / "images" / "train").iterdir()):
        label = folder / "labels" / "train" / f"{image.stem}.txt"
        task = (str(image), str(label), "", True, classes, count, dimensions, False)
        _, boxes, _, _, keypoints, _, found, _, corrupt, message = verify_image_label(task)
        assert (found, corrupt) == (1, 0), message
        points += int((keypoints[..., 2] > 0).sum())
        assert (boxes[:, 1:] >= 0).all() and (boxes[:, 1:] <= 1).all()
    assert points == report.points


def test_a_tool_may_order_categories_and_keypoints_as_it_likes(copy: Path) -> None:
    expected = import_annotations(copy, "coco")

    def reorder(content: dict[str, Any]) -> None:
        content["categories"].reverse()
        for category in content["categories"]:
            category["id"] += 100
            category["keypoints"] = category["keypoints"][::-1]
        for row in content["annotations"]:
            row["category_id"] += 100
            row["keypoints"] = np.reshape(row["keypoints"], (-1, 3))[::-1].ravel().tolist()
        for image in content["images"]:
            image["file_name"] = f"job_7/train/{image['file_name']}"

    edit_coco(copy, reorder)
    (copy / "images.csv").unlink()  # a tool does not give it back; the names of the images tell
    found = import_annotations(copy / COCO, "coco")
    assert [(p.level, p.condition, p.xy_px) for p in found] == [
        (p.level, p.condition, p.xy_px) for p in expected
    ]
    assert [p.image.instance_number for p in found] == [p.image.instance_number for p in expected]


def test_a_moved_point_comes_back_moved(copy: Path) -> None:
    before = import_annotations(copy, "coco")

    def move(content: dict[str, Any]) -> None:
        row = content["annotations"][0]
        place = next(place for place in range(0, 15, 3) if row["keypoints"][place + 2])
        row["keypoints"][place] += 2.5

    edit_coco(copy, move)
    after = import_annotations(copy, "coco")
    moved = [b.xy_px[0] - a.xy_px[0] for a, b in zip(before, after, strict=True) if a.xy_px != b.xy_px]
    assert moved == pytest.approx([2.5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["categories"][0].update(name="L6/S1"), "l6_s1"),
        (lambda c: c["categories"][0].update(keypoints=["nose"] * 5), "nose"),
        (lambda c: c["annotations"][0].update(keypoints=[1, 2]), "2 numbers for 5 keypoints"),
        (lambda c: c["annotations"][0].update(keypoints=[9999, 5, 2] + [0] * 12), "outside the image"),
        (lambda c: c["annotations"][0].update(keypoints=[float("nan"), 5, 2] + [0] * 12), "outside"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "a point for the same target"),
        (lambda c: c["annotations"][0].pop("image_id"), "incomplete"),
        (lambda c: c["images"][0].update(file_name="cat.jpg"), "'cat.jpg' is no slice"),
        (lambda c: c.pop("categories"), "not a COCO keypoint file"),
        (lambda c: c.update(annotations=[]), "no point was found"),
    ],
)
def test_what_is_unclear_is_refused_by_name(copy: Path, change: Callable[..., object], message: str) -> None:
    edit_coco(copy, change)
    with pytest.raises(AnnotationsInvalid, match=message):
        import_annotations(copy, "coco")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("data.yaml", "names: [cat]\nkpt_shape: [5, 3]\n", "does not describe"),
        ("data.yaml", "a: [", "does not describe"),
        ("labels/train/cat.txt", "0 0.5 0.5 0.1 0.1\n", "no slice that was exported"),
        ("labels/train/1_2_3.txt", "0 0.5 0.5 0.1 0.1\n", "the size of its image is not known"),
    ],
)
def test_yolo_files_that_are_unclear_are_refused(copy: Path, file: str, text: str, message: str) -> None:
    (copy / file).write_text(text)
    with pytest.raises(AnnotationsInvalid, match=message):
        import_annotations(copy, "yolo")


def test_yolo_lines_of_a_wrong_length_are_refused_with_their_number(copy: Path) -> None:
    label = next(path for path in sorted((copy / "labels").rglob("*.txt")) if path.read_text())
    label.write_text("0 0.5 0.5\n")
    with pytest.raises(AnnotationsInvalid, match=rf"{label.name} line 1: 3 numbers, expected 20"):
        import_annotations(copy, "yolo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "lacks study_id"),
        ("study_id;series_id\n1;2\n", "separates its columns by semicolons: save it with commas"),
        (f"{HEADER}\n1,2,3,Hip,L1/L2,1,1\n", "hip"),
        (f"{HEADER}\n1,2,3,Spinal Canal Stenosis,L1/L2,nan,1\n", "no numbers"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(AnnotationsInvalid, match=message):
        read_points(tmp_path / "table.csv")


def test_points_of_other_studies_are_refused(data: Path, tmp_path: Path) -> None:
    table = read_points(data / TABLE).assign(study_id="1")
    with pytest.raises(AnnotationsInvalid, match="no point of the table lies on a slice"):
        export_annotations(find_studies(data), table, tmp_path)
