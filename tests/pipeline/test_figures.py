"""The pictures: drawn for every study, with what was found in them, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.geometry import SlicePlane
from data_prep.studies import find_studies
from data_prep.study_types import DicomRejected, Reason, Rejection, Slice, SpineLevels
from pipeline.page import displayed, numbering_words
from pipeline.series_figures import draw_overlays
from pipeline.study_figures import draw_montage, middle_slice
from tests.pipeline.stand_in import stand_in_pipeline, write_study, write_table


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "test_images"
    write_study(folder, "501")
    write_table(folder, ["501", "502"])
    return folder


def test_a_montage_shows_slices_and_is_the_same_each_time(images: Path, tmp_path: Path) -> None:
    prediction, study = stand_in_pipeline().predict_entry(find_studies(images / "501")[0])
    assert study is not None
    for name in ("a.png", "b.png"):
        draw_montage(study, prediction, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.shape == (1030, 1540, 3)
    # Noise where the sagittal slice and a tile lie, a frame in colour, and white between them.
    assert picture[300:600, 150:350].std() > 20
    assert (picture[100:900, 542:552] == 255).all()


def test_a_rejected_study_has_a_page_that_says_so(images: Path, tmp_path: Path) -> None:
    entry = find_studies(images)[1]
    prediction, study = stand_in_pipeline().predict_entry(entry)
    assert study is None
    draw_montage(study, prediction, tmp_path / "page.png")
    picture = cv2.imread(str(tmp_path / "page.png"))
    assert (picture[40:70] < 128).any()
    assert (picture[300:400, 100:200] == 255).all()


def test_every_series_with_points_gets_its_overlay(images: Path, tmp_path: Path) -> None:
    prediction, study = stand_in_pipeline().predict_entry(find_studies(images / "501")[0])
    assert study is not None and prediction.levels is not None
    written = draw_overlays(study, prediction.levels, tmp_path / "overlays")
    assert sorted(path.name for path in written) == ["501_11.png", "501_12.png", "501_13.png"]
    assert all(cv2.imread(str(path)) is not None for path in written)
    assert draw_overlays(study, SpineLevels("501"), tmp_path / "none") == ()


def test_the_middle_slice_is_a_t2_slice_at_the_canal(images: Path) -> None:
    study = find_studies(images / "501")[0].load()
    levels = stand_in_pipeline().detector.predict(study)
    shown = middle_slice(study, levels)
    assert shown is not None
    assert shown.plane.origin_mm[0] == 0
    assert any(shown is item for item in study.series[0].slices)
    assert middle_slice(study, SpineLevels("501")) is shown


@pytest.mark.parametrize("flip", [1, -1])
def test_slices_are_shown_upright_in_their_true_proportions(flip: int) -> None:
    """A bright square of 30 mm at the top front corner, on pixels of 1 × 2 mm, stored either way up."""
    top = 90.0 if flip == 1 else -88.0
    plane = SlicePlane(
        np.array([0, 0, top]), np.array([0, 1, 0]), np.array([0, 0, -flip]), (1.0, 2.0), (90, 100)
    )
    pixels = np.zeros((90, 100), dtype=np.float32)
    pixels[:15, :30] = 1000
    image = displayed(Slice(plane, 1, lambda: pixels if flip == 1 else pixels[::-1].copy()), 400, 500)
    assert image is not None
    shown, grid = image
    assert shown.shape[0] <= 500 and shown.shape[1] <= 400
    assert shown.shape[0] / shown.shape[1] == pytest.approx(180 / 100, rel=0.05)
    bright = np.argwhere(shown > 0.5)
    height, width = np.ptp(bright, axis=0) + 1
    assert height / width == pytest.approx(1, rel=0.05)
    assert bright.min() == 0
    np.testing.assert_allclose(grid.to_px(plane.to_mm([0, 0] if flip == 1 else [0, 89])), [1, 2], atol=2.5)


def test_a_slice_that_cannot_be_decoded_is_not_shown() -> None:
    def refused() -> np.ndarray:
        raise DicomRejected(Rejection(Reason.BAD_PIXELS, "broken"))

    plane = SlicePlane(np.zeros(3), np.array([0, 1, 0]), np.array([0, 0, -1]), (1, 1), (9, 9))
    assert displayed(Slice(plane, 1, refused), 100, 100) is None


def test_no_caption_claims_a_certain_numbering() -> None:
    assert numbering_words(1.0) == "numbering over 99% sure"
    assert numbering_words(0.804) == "numbering 80% sure"
