"""Protects: a data set is looked over to its end, whatever is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_prep.phantom import write_dataset
from data_prep.problems import Reason
from data_prep.rsna.check import CheckReport, check_data
from tests.data_prep.rsna.test_tables import write_tables
from tests.dicom_files import write_series, write_slice, write_study

BIG = np.full((300, 200), 7, np.uint16)


def counts(report: CheckReport) -> dict[str, int]:
    return {item.code: item.count for item in report.problems}


def test_a_clean_data_set(tmp_path: Path) -> None:
    write_study(write_tables(tmp_path) / "train_images" / "100", pixels=BIG)
    seen: list[tuple[int, int]] = []
    report = check_data(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert (report.studies, report.studies_loaded, report.series, report.slices) == (1, 1, 3, 15)
    assert report.points == 5
    assert counts(report) == {"label_without_point": 20}
    assert report.rejections == ()
    assert report.is_usable
    assert seen == [(1, 1)]


def test_what_is_odd_in_the_images_is_listed(tmp_path: Path) -> None:
    images = write_tables(tmp_path) / "train_images"
    study = write_study(images / "100")
    write_slice(study / "12" / "9.dcm", np.ones((8, 20), np.uint16), position=(-20, 0, 0), instance_number=9)
    (study / "11" / "1.dcm").write_text("no image")
    write_series(images / "200" / "1", description="T2")
    with (tmp_path / "train_series_descriptions.csv").open("a") as file:
        file.write("300,1,Axial T2\n")
    report = check_data(tmp_path)
    assert (report.studies, report.studies_loaded) == (3, 2)
    found = counts(report)
    assert found["outside_image"] == 5
    assert found["mixed_shapes"] == 1
    assert found["instance_order"] == 1
    assert found["listed_without_images"] == 1
    assert found["kind_not_from_table"] == 1
    assert found["kind_missing"] == 1
    named = [(item.place, item.reason) for item in report.rejections]
    assert named[0] == ("100/11/1.dcm", Reason.NOT_DICOM)
    assert set(named[1:]) == {("100/11", Reason.SLICES_MISSING), ("100/12", Reason.SLICES_MISSING)}
    assert report.is_usable
    assert json.loads(json.dumps(report.to_dict()))["rejections"][0]["reason"] == "not_dicom"


def test_pixels_that_cannot_be_decoded_are_found(tmp_path: Path) -> None:
    study = write_study(write_tables(tmp_path) / "train_images" / "100")
    write_slice(study / "12" / "3.dcm", instance_number=3, PixelData=b"\0" * 10)
    report = check_data(tmp_path)
    assert [(item.place, item.reason) for item in report.rejections] == [("100/12/3.dcm", Reason.BAD_PIXELS)]


@pytest.mark.parametrize(("times", "told"), [(1.0, False), (0.5, True), (1.7, True)])
def test_coordinates_that_are_no_pixels_are_told(tmp_path: Path, times: float, told: bool) -> None:
    """In millimetres, or of a picture of another size."""
    write_dataset(tmp_path, studies=3, seed=5, size="small")
    path = tmp_path / "train_label_coordinates.csv"
    table = pd.read_csv(path)
    table[["x", "y"]] *= times
    table.to_csv(path, index=False)
    assert ("levels_spacing" in counts(check_data(tmp_path))) is told


def test_bad_tables_do_not_hide_the_images(tmp_path: Path) -> None:
    write_study(write_tables(tmp_path, labels="study_id\n1\n") / "train_images" / "100")
    report = check_data(tmp_path)
    assert not report.is_usable
    assert counts(report) == {"missing_column": 25}
    assert report.studies_loaded == 1


def test_tables_alone(tmp_path: Path) -> None:
    report = check_data(write_tables(tmp_path), images=False)
    assert (report.studies, report.rejections) == (0, ())
    assert counts(report) == {"label_without_point": 20}


def test_an_empty_folder_has_neither(tmp_path: Path) -> None:
    report = check_data(tmp_path)
    assert counts(report) == {"no_tables": 1}
    assert [item.reason for item in report.rejections] == [Reason.NO_IMAGES]
    assert not report.is_usable


def test_the_real_data_set_is_usable(real_rsna: Path) -> None:
    report = check_data(real_rsna)
    assert (report.studies, report.studies_loaded, report.series, report.slices) == (1973, 2, 6, 169)
    assert report.points == 50
    assert report.rejections == ()
    assert report.is_usable
    found = counts(report)
    assert found["listed_without_images"] == 1971
    assert found["several_orientations"] == 2
