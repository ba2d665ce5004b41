"""Any folder of images with a CSV of points can train the sagittal detector."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from detector.learn.point_slices import external_study
from detector.learn.slices import ExternalSlices, SlicesUnusable, split_patients


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two patients, three 0.5 mm slices each, five levels down a bright column."""
    (tmp_path / "images").mkdir()
    rows = []
    for patient in (1, 2):
        for index in (10, 11, 12):
            image = np.full((420, 300), 30 * (index - 9), np.uint8)
            name = f"00{patient}_0{index}.png"
            cv2.imwrite(str(tmp_path / "images" / name), image)
            for number, level in enumerate(("L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1")):
                y = 60 + 70 * number
                rows.append(
                    (patient, index, name, level, 100.0, y, 150.0 if index == 11 else np.nan, y + 4.0)
                )
    columns = ["patient", "slice_index", "file", "level", "disc_x", "disc_y", "canal_x", "canal_y"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "points.csv", index=False)
    return tmp_path


def test_points_are_scaled_with_the_image(folder: Path) -> None:
    (item, *_) = ExternalSlices(folder, folder / "points.csv", mm_per_px=0.5).load(frozenset({"1"}))
    assert item.image.shape == (210, 150)
    # Pixel centres: source 100.0 at half the scale is (100 + 0.5) / 2 - 0.5.
    np.testing.assert_allclose(item.keypoints_px[0, 0], [49.75, 29.75])
    assert np.isnan(item.keypoints_px[0, 1]).any(), "canal not annotated on this slice"


def test_thin_slices_are_averaged_with_their_neighbours(folder: Path) -> None:
    source = ExternalSlices(folder, folder / "points.csv", 0.5, average_slices=3)
    assert source.read_averaged("001_011.png").mean() == pytest.approx(60, abs=0.5)
    assert source.read_averaged("001_010.png").mean() == pytest.approx(45, abs=0.5)


def test_external_patient_becomes_a_study_with_annotated_canal_points(folder: Path) -> None:
    source = ExternalSlices(folder, folder / "points.csv", 0.5)
    study, points = external_study(source, "2", slice_gap_mm=0.9, every=1)
    assert len(study.series[0].slices) == 3
    assert [point.level.label for point in points] == ["L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1"]
    for point in points:
        assert point.sight is not None
        plane = study.slice_at(point.sight)[1].plane
        np.testing.assert_allclose(plane.to_px(point.xyz_mm), point.sight.xy_px, atol=1e-9)


def test_parts_of_the_split_share_no_patient() -> None:
    training, choosing = split_patients(tuple(str(i) for i in range(21)))
    assert not training & choosing
    assert len(choosing) == 4 and len(training) == 17


def test_a_patient_with_a_disc_below_the_lowest_label_is_misnumbered(folder: Path) -> None:
    source = ExternalSlices(folder, folder / "points.csv", 0.5)
    assert source.misnumbered() == frozenset()
    (folder / "masks").mkdir()
    for patient, overlooked in ((1, False), (2, True)):
        for index in (10, 11, 12):
            mask = np.zeros((420, 300), np.uint8)
            for number in range(6 if overlooked else 5):
                mask[56 + 70 * number : 64 + 70 * number, 80:120] = 1
            cv2.imwrite(str(folder / "masks" / f"00{patient}_0{index}.png"), mask)
    assert source.misnumbered() == frozenset({"2"})


def test_missing_columns_are_named(folder: Path) -> None:
    pd.read_csv(folder / "points.csv").drop(columns=["canal_x", "file"]).to_csv(folder / "points.csv")
    with pytest.raises(SlicesUnusable, match="file, canal_x"):
        ExternalSlices(folder, folder / "points.csv", 0.5).load(frozenset({"1"}))


def test_a_missing_image_is_named(folder: Path) -> None:
    (folder / "images" / "001_010.png").unlink()
    with pytest.raises(SlicesUnusable, match=r"images/001_010\.png"):
        ExternalSlices(folder, folder / "points.csv", 0.5).load(frozenset({"1"}))
