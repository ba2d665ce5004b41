"""Every slice reaches the network in one orientation and scale, and every pixel keeps its place."""

import numpy as np
import pytest

from data_prep.geometry import SlicePlane
from detector.canonical import CanonicalImage, canonical_image, canonical_plane, window

SAGITTAL_AXES = [
    ([0, 1, 0], [0, 0, -1]),  # as usual
    ([0, -1, 0], [0, 0, -1]),  # front of the body right
    ([0, 0, -1], [0, 1, 0]),  # stored on its side
    ([0, 0, 1], [0, -1, 0]),
]


@pytest.mark.parametrize(("x_axis", "y_axis"), SAGITTAL_AXES)
def test_a_landmark_keeps_its_place_whatever_the_storage(x_axis: list[int], y_axis: list[int]) -> None:
    plane = SlicePlane(
        origin_mm=np.array([3.0, -40.0, 25.0]),
        x_axis=np.array(x_axis, float),
        y_axis=np.array(y_axis, float),
        spacing_mm=(0.5, 0.8),
        shape=(180, 240),
    )
    landmark = plane.to_mm([150.0, 60.0])
    columns, rows = np.meshgrid(np.arange(240), np.arange(180))
    spot = np.exp(-((columns - 150) ** 2 * 0.25 + (rows - 60) ** 2 * 0.64) / 40).astype(np.float32)
    canonical = canonical_image(plane, spot, mm_per_px=1.0, max_side_px=512)
    row, column = np.argwhere(canonical.image == 255).mean(axis=0)
    assert np.linalg.norm(canonical.plane.to_mm([column, row]) - landmark) < 1.0
    assert canonical.plane.x_axis @ [0, 1, 0] > 0.99  # back of the body right
    assert canonical.plane.y_axis @ [0, 0, -1] > 0.99  # head up


def test_size_follows_millimetres_and_is_bounded() -> None:
    plane = SlicePlane(np.zeros(3), np.array([0, 1.0, 0]), np.array([0, 0, -1.0]), (0.5, 1.5), (400, 300))
    assert canonical_plane(plane, mm_per_px=1.0, max_side_px=512).shape == (512, 150)
    cut = canonical_plane(plane, mm_per_px=1.0, max_side_px=512)
    np.testing.assert_allclose(cut.centre_mm, plane.centre_mm, atol=1e-9)


def test_a_constant_image_becomes_black_not_nan() -> None:
    assert window(np.full((20, 20), 7.0, np.float32)).max() == 0


def test_a_part_shows_the_same_pixels_at_the_same_places() -> None:
    plane = SlicePlane(np.zeros(3), np.eye(3)[1], -np.eye(3)[2], (0.8, 0.8), (350, 300))
    whole = CanonicalImage(np.random.default_rng(0).integers(0, 255, (350, 300), dtype=np.uint8), plane)
    points_mm = plane.to_mm([[120.0, 100.0], [150.0, 220.0]])
    part = whole.around(points_mm, 40.0)
    rows, columns = part.image.shape
    assert rows % 32 == columns % 32 == 0 and part.plane.shape == part.image.shape
    left, top = np.rint(plane.to_px(part.plane.origin_mm)).astype(int)
    np.testing.assert_array_equal(part.image, whole.image[top : top + rows, left : left + columns])
    np.testing.assert_allclose(part.plane.to_mm([3, 5]), plane.to_mm([left + 3, top + 5]))
    for point in part.plane.to_px(points_mm):
        assert 50 <= point[0] <= columns - 50 and 50 <= point[1] <= rows - 50


def test_a_part_at_the_border_stays_within_the_image() -> None:
    plane = SlicePlane(np.zeros(3), np.eye(3)[1], -np.eye(3)[2], (1.0, 1.0), (100, 70))
    whole = CanonicalImage(np.zeros((100, 70), dtype=np.uint8), plane)
    for corner in ([0.0, 0.0], [69.0, 99.0], [-300.0, 500.0]):
        part = whole.around(plane.to_mm([corner]), 20.0)
        assert part.image.shape == (64, 64)
        assert plane.contains_px(plane.to_px(part.plane.to_mm([[0, 0], [63, 63]]))).all()
    assert whole.around(plane.to_mm([[30.0, 50.0]]), 200.0).image.shape == (100, 70)


def test_a_strip_is_a_part_from_edge_to_edge() -> None:
    plane = SlicePlane(np.zeros(3), np.eye(3)[1], -np.eye(3)[2], (1.0, 1.0), (300, 280))
    whole = CanonicalImage(np.random.default_rng(0).integers(0, 255, (300, 280), dtype=np.uint8), plane)
    points_mm = plane.to_mm([[120.0, 100.0], [150.0, 220.0]])
    strip = whole.strip(points_mm, 40.0)
    assert strip.image.shape == strip.plane.shape == (300, 128)
    left = round(float(plane.to_px(strip.plane.origin_mm)[0]))
    assert left <= 80 and left + 128 > 190
    np.testing.assert_array_equal(strip.image, whole.image[:, left : left + 128])
