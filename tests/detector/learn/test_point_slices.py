"""Protects: pictures with a table of points become training slices and cases, patients kept apart."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from data_prep.partition import Part, part_of
from data_prep.phantom import write_dataset
from data_prep.vocabulary import LEVELS, SeriesKind
from detector.learn.point_slices import (
    labelled_point_slices,
    patient_id,
    point_slice_cases,
    point_slice_table,
)
from detector.learn.slices import SlicesUnusable
from detector.learn.sources import SliceSources, training_slices
from detector.spec import SAGITTAL, DetectorKind

GAPS_PX = np.cumsum([0.0, 71.0, 72.4, 69.8, 61.0])  # 35.5 36.2 34.9 30.5 mm at half a millimetre


def write(folder: Path, patients: int, *, spacing: bool, discs: bool) -> None:
    (folder / "images").mkdir(parents=True)
    rows, boxes = [], []
    for patient in range(patients):
        for modality in ("T1", "T2"):
            name = f"{patient:04d}_{modality}.png"
            cv2.imwrite(str(folder / "images" / name), np.full((400, 300), 40 + patient, np.uint8))
            for level, down in zip(LEVELS, GAPS_PX, strict=True):
                row = {"slice": name, "patient": f"{patient:04d}", "modality": modality, "level": level.label}
                at = {"canal_x": 180.0, "canal_y": 60.0 + down}
                rows.append(row | at | ({"spacing_mm": 0.5} if spacing else {}))
                boxes.append({"slice": name, "level": level.label, "disc_x": 140.0, "disc_y": 62.0 + down})
    pd.DataFrame(rows).to_csv(folder / "level_points.csv", index=False)
    if discs:
        pd.DataFrame(boxes).to_csv(folder / "discs.csv", index=False)


def test_points_number_the_levels_and_boxes_are_the_discs(tmp_path: Path) -> None:
    folder = tmp_path / "hospital_a"
    write(folder, 30, spacing=False, discs=True)
    assert point_slice_table(folder)["spacing_mm"].iloc[0] == pytest.approx(0.5, abs=0.01)
    parts = {part: labelled_point_slices(folder, part) for part in Part}
    assert sum(map(len, parts.values())) == 60
    patients = {part: {item.patient for item in found} for part, found in parts.items()}
    assert not patients[Part.TRAIN] & (patients[Part.VALIDATION] | patients[Part.TEST])
    assert all(part_of(name) is part for part, names in patients.items() for name in names)
    item = parts[Part.TRAIN][0]
    assert item.names == tuple(level.label for level in LEVELS)
    assert np.isfinite(item.keypoints_px[:, 0]).all() and np.isnan(item.keypoints_px[:, 1]).all()
    steps_mm = np.diff(item.keypoints_px[:, 0, 1]) * SAGITTAL.mm_per_px
    np.testing.assert_allclose(steps_mm, [35.5, 36.2, 34.9, 30.5], atol=0.8)


def test_without_boxes_the_canal_points_are_learned(tmp_path: Path) -> None:
    folder = tmp_path / "hospital_b"
    write(folder, 20, spacing=True, discs=False)
    item = labelled_point_slices(folder, Part.TRAIN)[0]
    assert np.isnan(item.keypoints_px[:, 0]).all() and np.isfinite(item.keypoints_px[:, 1]).all()


def test_beside_annotated_studies_slices_of_other_sets_count_levels_alone(tmp_path: Path) -> None:
    write(tmp_path / "hospital_b", 12, spacing=True, discs=False)
    write_dataset(tmp_path / "data", studies=3, seed=4, size="small")
    alone, _ = training_slices(SliceSources(slices=(tmp_path / "hospital_b",)), DetectorKind.SAGITTAL)
    assert {item.counting for _, slices in alone for item in slices} == {()}
    both = SliceSources(data=(tmp_path / "data",), slices=(tmp_path / "hospital_b",))
    (_, shown), (_, annotated) = training_slices(both, DetectorKind.SAGITTAL)[0]
    assert {item.counting for item in shown} == {(1,)} and {item.counting for item in annotated} == {()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("slice;patient;modality;level;canal_x;canal_y\n", "semicolons"),
        ("slice,patient,modality,level,canal_x\n", "columns missing: canal_y"),
        ("slice,patient,modality,level,canal_x,canal_y\na.png,1,T2,L1/L2,left,5\n", "column canal_x holds"),
        ("", "cannot be read as a table"),
    ],
)
def test_a_broken_table_of_points_is_said(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "hospital").mkdir()
    (tmp_path / "hospital" / "level_points.csv").write_text(content)
    with pytest.raises(SlicesUnusable, match=said):
        point_slice_table(tmp_path / "hospital")


def test_every_slice_is_a_case_of_its_kind(tmp_path: Path) -> None:
    folder = tmp_path / "hospital_c"
    write(folder, 2, spacing=True, discs=False)
    cases = point_slice_cases(folder, None)
    assert [study.series[0].kind for study, _ in cases] == [
        SeriesKind.SAGITTAL_T1,
        SeriesKind.SAGITTAL_T2,
    ] * 2
    points = cases[0][1]
    assert len(points) == len(LEVELS)
    steps = np.diff([point.xyz_mm[2] for point in points])
    np.testing.assert_allclose(steps, [-35.5, -36.2, -34.9, -30.5], atol=1e-6)


def test_one_patient_has_one_name_in_every_folder_of_a_source(tmp_path: Path) -> None:
    one, other = tmp_path / "spider_slices", tmp_path / "spider_t2_space"
    assert patient_id(one, "007") == patient_id(other, "7") == "spider-7"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SlicesUnusable, match=r"level_points.csv not found"):
        point_slice_table(tmp_path)
    pd.DataFrame({"slice": ["a.png"]}).to_csv(tmp_path / "level_points.csv", index=False)
    with pytest.raises(SlicesUnusable, match="columns missing: patient, modality"):
        point_slice_table(tmp_path)
    folder = tmp_path / "hospital_d"
    write(folder, 12, spacing=True, discs=False)
    for path in (folder / "images").iterdir():
        path.unlink()
    with pytest.raises(SlicesUnusable, match="cannot be read"):
        labelled_point_slices(folder, Part.TRAIN)
