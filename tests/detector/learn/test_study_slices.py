"""Labelled slices from studies: the labels lie on the anatomy that they name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_prep.phantom import make_study, write_dataset
from data_prep.problems import Reason
from detector.learn.slices import SlicesUnusable
from detector.learn.study_slices import LeftOut, phantom_slices, rsna_slices
from detector.spec import AXIAL, SAGITTAL, DetectorKind


def test_phantom_slices_name_their_discs_head_to_foot() -> None:
    slices = phantom_slices(DetectorKind.SAGITTAL, studies=1, seed=5)
    assert len(slices) >= 6, "several slices of T2 and of T1"
    for item in slices:
        heights = item.keypoints_px[:, 0, 1]
        order = [SAGITTAL.level_names.index(name) for name in item.names]
        assert order == sorted(order) and np.all(np.diff(heights) > 10)
        assert np.all(item.keypoints_px[:, 1, 0] > item.keypoints_px[:, 0, 0]), "canal behind disc"


def test_axial_phantom_slices_hold_right_and_left_recess() -> None:
    slices = phantom_slices(DetectorKind.AXIAL, studies=1, seed=5)
    assert slices
    for item in slices:
        right, left = item.keypoints_px[0]
        assert 10 < (left - right)[0] * AXIAL.mm_per_px < 30
        assert abs((left - right)[1]) * AXIAL.mm_per_px < 8


def test_slices_do_not_depend_on_the_number_of_processes() -> None:
    alone = phantom_slices(DetectorKind.AXIAL, studies=2, seed=5, jobs=1)
    together = phantom_slices(DetectorKind.AXIAL, studies=2, seed=5, jobs=2)
    assert [item.name for item in alone] == [item.name for item in together]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(alone, together, strict=True))


def test_data_set_gives_the_slices_that_its_studies_give(tmp_path: Path) -> None:
    write_dataset(tmp_path, studies=1, seed=5)
    from_files = rsna_slices(tmp_path, DetectorKind.SAGITTAL)
    assert all(np.isnan(item.keypoints_px[:, 0]).all() for item in from_files), (
        "only canal points are annotated"
    )
    phantom = make_study(5)
    canal = {point.level.label: point.xyz_mm for point in phantom.points if point.condition.side is None}
    t2 = next(item for item in from_files if len(item.names) == 5)
    assert set(t2.names) == set(canal)


def test_what_is_left_out_of_a_data_set_is_told(tmp_path: Path) -> None:
    write_dataset(tmp_path, studies=2, seed=5, size="small")
    one, other = sorted((tmp_path / "train_images").iterdir())
    table = pd.read_csv(tmp_path / "train_label_coordinates.csv", dtype=str)
    rows = table.index[(table["study_id"] == one.name) & table["condition"].str.contains("Canal")]
    table.loc[rows[0], "x"] = "-7"
    table[table["study_id"] == one.name].to_csv(tmp_path / "train_label_coordinates.csv", index=False)
    next(other.rglob("*.dcm")).write_text("no image")
    left_out = LeftOut()
    rsna_slices(tmp_path, DetectorKind.SAGITTAL, left_out=left_out)
    assert [text.split(":")[0] for text in left_out.problems] == ["outside_image"]
    assert {item.reason for item in left_out.rejections} >= {Reason.NOT_DICOM}
    assert left_out.studies == [f"[left_out] 1 x study without points ({other.name})"]


def test_data_without_coordinates_is_refused_with_what_to_do(tmp_path: Path) -> None:
    write_dataset(tmp_path, studies=1, seed=5)
    (tmp_path / "train_label_coordinates.csv").unlink()
    with pytest.raises(SlicesUnusable, match=r"train_label_coordinates\.csv is missing"):
        rsna_slices(tmp_path, DetectorKind.AXIAL)
