"""The pictures: drawn for every study, with what was found in them, the same bytes each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.crops import resample
from data_prep.geometry import SlicePlane
from data_prep.levels import PointSource, SpineLevels
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.find import find_studies
from data_prep.rsna.tables import read_tables
from data_prep.study import Slice, Study
from data_prep.vocabulary import SeriesKind
from pipeline.extras import what_is_missing
from pipeline.prediction import StudyPrediction
from pipeline.results.pictures import canvas
from pipeline.results.pictures.canvas import Page
from pipeline.results.pictures.displayed import displayed, edge_letters
from pipeline.results.pictures.montage import (
    COLUMNS,
    _draw_reading,
    crop_at,
    draw_montage,
    draw_readings,
    middle_slice,
)
from pipeline.results.pictures.overlays import draw_overlays
from pipeline.results.pictures.readings import reading_of_annotations, reading_of_prediction
from pipeline.results.words import numbering_words
from tests.pipeline.stand_in import stand_in_pipeline, write_studies


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_studies(tmp_path / "test_images", ["501"], listed=["502"])


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
    reading = reading_of_prediction(prediction)
    written = draw_overlays(study, [reading], tmp_path / "overlays")
    assert sorted(path.name for path in written) == ["501_11.png", "501_12.png", "501_13.png"]
    assert all(cv2.imread(str(path)) is not None for path in written)
    nothing = replace(reading, levels=SpineLevels("501"))
    assert draw_overlays(study, [nothing], tmp_path / "none") == ()


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
    bright = np.argwhere(shown > 127)
    height, width = np.ptp(bright, axis=0) + 1
    assert height / width == pytest.approx(1, rel=0.05)
    assert bright.min() == 0
    np.testing.assert_allclose(grid.to_px(plane.to_mm([0, 0] if flip == 1 else [0, 89])), [1, 2], atol=2.5)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("across", [1, -1])
@pytest.mark.parametrize("down", [1, -1])
def test_a_slice_stored_any_way_round_is_shown_as_it_lies(turned: bool, across: int, down: int) -> None:
    """The same as read point by point, finer and coarser than it is stored."""
    x, y = np.array([0.0, across, 0]), np.array([0.0, 0, -down])
    axes = (y, x) if turned else (x, y)
    plane = SlicePlane(np.array([5.0, 40, 30]), *axes, (1.5, 1.0), (60, 80))
    pixels = cv2.GaussianBlur(np.random.default_rng(3).random((60, 80)).astype(np.float32), (0, 0), 3)
    for room in (50, 400):
        image = displayed(Slice(plane, 1, lambda: pixels), room, room)
        assert image is not None
        shown, grid = image
        assert grid.x_axis @ [0, 1, 0] == 1 and grid.y_axis @ [0, 0, -1] == 1
        expected = resample(pixels, plane, grid)
        assert shown.shape == expected.shape
        assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.99


def test_a_slice_that_cannot_be_decoded_is_not_shown() -> None:
    def refused() -> np.ndarray:
        raise DicomRejected(Rejection(Reason.BAD_PIXELS, "broken"))

    plane = SlicePlane(np.zeros(3), np.array([0, 1, 0]), np.array([0, 0, -1]), (1, 1), (9, 9))
    assert displayed(Slice(plane, 1, refused), 100, 100) is None


def test_no_caption_claims_a_certain_numbering() -> None:
    assert numbering_words(1.0) == "numbering over 99% sure"
    assert numbering_words(0.804) == "numbering 80% sure"


@pytest.mark.parametrize(
    ("x_axis", "y_axis", "letters"),
    [
        ([0, 1, 0], [0, 0, -1], "APHF"),
        ([1, 0, 0], [0, 1, 0], "RLAP"),
        ([-0.9, 0.1, 0], [0, 0.3, -0.95], "LRHF"),
    ],
)
def test_the_edges_of_a_slice_are_named_by_the_patient(
    x_axis: list[float], y_axis: list[float], letters: str
) -> None:
    x, y = np.array(x_axis), np.array(y_axis)
    y = y - x * (x @ y) / (x @ x)
    plane = SlicePlane(np.zeros(3), x / np.linalg.norm(x), y / np.linalg.norm(y), (1, 1), (9, 9))
    assert "".join(edge_letters(plane)) == letters


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_ring_and_scale_bar_are_as_large_as_they_say(scale: float) -> None:
    """A ring of 10 mm and a bar of 50 mm on a slice of 180 × 100 mm with pixels of 1 × 2 mm."""
    plane = SlicePlane(np.zeros(3), np.array([0, 1, 0]), np.array([0, 0, -1]), (1.0, 2.0), (90, 100))
    item = Slice(plane, 1, lambda: np.zeros((90, 100), dtype=np.float32))
    page = Page.blank(400, 400, scale)
    panel = page.panel(item, 0, 0, 400, 360)
    assert panel is not None
    assert (panel.width, panel.height) == (pytest.approx(200, abs=1), pytest.approx(360, abs=1))
    centre = np.array([0.0, 50, -80])
    panel.ring(centre, 10, "#E69F00")
    panel.scale_bar(50)
    assert panel.at(centre) == (pytest.approx(panel.left + 101, abs=1), pytest.approx(161, abs=1))
    row = page.picture[round(161 * scale)]
    orange = np.flatnonzero((row.max(axis=1) - row.min(axis=1)) > 60)
    left, right = (orange[side].mean() for side in (orange < orange.mean(), orange > orange.mean()))
    assert (right - left) / scale == pytest.approx(40, abs=0.5)
    shown = slice(round(panel.left * scale), round((panel.left + panel.width) * scale))
    bar = page.picture[round((panel.top + panel.height - 10) * scale), shown]
    assert (bar == 255).all(axis=1).sum() / scale == pytest.approx(100, abs=1.5)


def test_annotations_are_drawn_alone_and_beside_detections(phantom_data: Path, tmp_path: Path) -> None:
    study = find_studies(phantom_data)[0].load()
    tables = read_tables(phantom_data)
    annotated = reading_of_annotations(study, tables)
    assert len(annotated.levels.points) == 25 and len(annotated.levels.levels) == 5
    prediction = stand_in_pipeline().predict_study(study)
    detected = reading_of_prediction(prediction)
    draw_readings(study, [annotated], tmp_path / "only.png")
    draw_readings(study, [annotated, detected], tmp_path / "beside.png")
    only, beside = (cv2.imread(str(tmp_path / name)) for name in ("only.png", "beside.png"))
    assert only.shape == (1030, 1540, 3) and beside.shape == (1030, 3080, 3)
    assert (beside[:, :1500] == only[:, :1500]).all()
    assert (beside[:, 1540:] != only).any()
    words = [annotated.opinions[target].words for target in annotated.opinions]
    assert set(words) <= {"Normal/Mild", "Moderate", "Severe", "no label"}
    wide = draw_overlays(study, [annotated, detected], tmp_path / "wide")
    narrow = draw_overlays(study, [annotated], tmp_path / "narrow")
    assert len(wide) >= len(narrow) == 3


def test_pictures_without_their_typeface_say_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvas, "find_spec", lambda _: None)
    page = Page.blank(50, 50)
    page.text(5, 5, "L4/L5", size=31.0)  # a size that no other test has loaded
    with pytest.raises(ModuleNotFoundError) as missing:
        page.save(tmp_path / "page.png")
    assert "pip install 'lumbar[pictures]'" in (what_is_missing(missing.value.name, "show") or "")
    assert not (tmp_path / "page.png").exists()


def test_a_montage_calls_the_patient_s_sides_by_their_names(images: Path) -> None:
    """The right side stands on the left, in the order of columns and on axial tiles."""
    assert [title.split()[0] for _, title in COLUMNS if "canal" not in title] == ["right"] * 2 + ["left"] * 2
    for condition, title in COLUMNS:
        assert condition.side is None or title.startswith(condition.side.value.lower())
    prediction, study = graded_first(images)
    page = Page.blank(1540, 1030)
    _draw_reading(page, study, reading_of_prediction(prediction), 0.0, None)
    sides = [(text.text, text.place) for text in page.texts if text.text in ("R", "L") and text.outlined]
    axial = [(word, place) for word, place in sides if place[0] > 620]
    by_row: dict[float, list[tuple[float, str]]] = {}
    for word, (x, y) in axial:
        by_row.setdefault(y, []).append((x, word))
    assert len(by_row) == 4  # L1/L2 is out of view
    for row in by_row.values():
        # right foramen, right recess (R … L), left recess (R … L), left foramen
        assert "".join(word for _, word in sorted(row)) == "RRLRLL"


def test_a_crop_beside_its_image_or_of_a_broken_one_is_not_shown(images: Path) -> None:
    prediction, study = graded_first(images)
    point = next(p for p in prediction.found.points if p.sight is not None)
    assert crop_at(study, point, 64) is not None
    for away_mm in ([0.0, 500.0, 0.0], [0.0, 0.0, -500.0]):
        assert crop_at(study, replace(point, xyz_mm=point.xyz_mm + away_mm), 64) is None

    def broken() -> NDArray[np.float32]:
        raise DicomRejected(Rejection(Reason.BAD_PIXELS, "broken"))

    assert crop_at(study.changed(lambda item: replace(item, read_pixels=broken)), point, 64) is None


def test_a_point_that_geometry_placed_is_open_and_one_that_was_seen_is_filled(images: Path) -> None:
    _, study = graded_first(images)
    (series, *_) = study.of_kind(SeriesKind.SAGITTAL_T2)
    item = series.slices[2]
    marked = {}
    for source in (PointSource.SEEN, PointSource.PREDICTED):
        page = Page.blank(500, 500)
        panel = page.panel(item, 0, 0, 500, 500)
        assert panel is not None
        panel.mark(item.plane.centre_mm, "#00FF00", source, size=20)
        x, y = panel.at(item.plane.centre_mm)
        marked[source] = tuple(page.picture[round(y), round(x)].tolist())
    assert marked[PointSource.SEEN] == (0, 255, 0) != marked[PointSource.PREDICTED]


def graded_first(images: Path) -> tuple[StudyPrediction, Study]:
    prediction, study = stand_in_pipeline().predict_entry(find_studies(images)[0])
    assert study is not None
    return prediction, study
