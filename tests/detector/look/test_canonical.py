"""Every slice reaches the network in one orientation and scale, and every pixel keeps its place."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.geometry import SlicePlane
from detector.look.canonical import around, canonical_image, canonical_plane, strip, window, without_border
from detector.spec import STRIDE

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


GRID = SlicePlane(np.zeros(3), np.eye(3)[1], -np.eye(3)[2], (0.8, 0.8), (350, 300))


def test_what_is_no_number_becomes_black_and_dims_nothing() -> None:
    image = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    holes = image.copy()
    holes[5, 7], holes[6, 7], image[5:7, 7] = np.nan, np.inf, 0.0
    np.testing.assert_array_equal(window(holes), window(image))


def test_a_part_shows_the_same_places() -> None:
    points_mm = GRID.to_mm([[120.0, 100.0], [150.0, 220.0]])
    part = around(GRID, points_mm, 40.0)
    rows, columns = part.shape
    assert rows % 32 == columns % 32 == 0
    left, top = np.rint(GRID.to_px(part.origin_mm)).astype(int)
    np.testing.assert_allclose(part.to_mm([3, 5]), GRID.to_mm([left + 3, top + 5]))
    for point in part.to_px(points_mm):
        assert 50 <= point[0] <= columns - 50 and 50 <= point[1] <= rows - 50


def test_parts_begin_at_cells_of_the_finest_grid() -> None:
    parts = [around(GRID, GRID.to_mm([[120.0 + shift, 150.0 + shift]]), 30.0) for shift in np.arange(0, 16)]
    corners = {tuple(np.rint(GRID.to_px(part.origin_mm)).astype(int).tolist()) for part in parts}
    assert {left for left, _ in corners} == {72, 80, 88} and {top for _, top in corners} == {104, 112, 120}
    assert all(left % STRIDE == top % STRIDE == 0 for left, top in corners)


def test_a_part_at_the_border_stays_within_the_grid() -> None:
    plane = SlicePlane(np.zeros(3), np.eye(3)[1], -np.eye(3)[2], (1.0, 1.0), (100, 70))
    for corner in ([0.0, 0.0], [69.0, 99.0], [-300.0, 500.0]):
        part = around(plane, plane.to_mm([corner]), 20.0)
        assert part.shape == (64, 64)
        assert plane.contains_px(plane.to_px(part.to_mm([[0, 0], [63, 63]]))).all()
    assert around(plane, plane.to_mm([[30.0, 50.0]]), 200.0).shape == (100, 70)


def test_a_strip_is_a_part_from_edge_to_edge() -> None:
    part = strip(GRID, GRID.to_mm([[120.0, 100.0], [150.0, 220.0]]), 32.0)
    assert part.shape == (350, 128)
    left, top = np.rint(GRID.to_px(part.origin_mm)).astype(int)
    assert top == 0 and left <= 80 and left + 128 > 190


def test_a_part_is_as_bright_as_in_the_whole_slice() -> None:
    """Smooth tissue with a bright corner that the part does not show."""
    rows, columns = np.mgrid[0:350, 0:300].astype(np.float32)
    pixels = 200 + columns + 0.3 * rows
    pixels[:60, :60] = 3000
    whole = canonical_image(GRID, pixels, mm_per_px=1.0, max_side_px=512)
    points_mm = GRID.to_mm([[200.0, 250.0]])
    part = canonical_image(
        GRID, pixels, mm_per_px=1.0, max_side_px=512, part=lambda grid: around(grid, points_mm, 30.0)
    )
    left, top = np.rint(whole.plane.to_px(part.plane.origin_mm)).astype(int)
    high, wide = part.image.shape
    same = whole.image[top : top + high, left : left + wide].astype(int)
    assert part.image.shape == part.plane.shape and np.abs(same - part.image).max() <= 1


@pytest.mark.parametrize("shape", [(350, 300), (349, 301), (351, 303), (352, 302)])
def test_a_part_is_the_same_however_the_slice_is_stored(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(3).gamma(2.0, 200.0, shape).astype(np.float32)
    plane = replace(GRID, shape=shape)
    turned = replace(
        plane,
        origin_mm=plane.to_mm([shape[1] - 1, shape[0] - 1]),
        x_axis=-plane.x_axis,
        y_axis=-plane.y_axis,
    )
    points_mm = GRID.to_mm([[150.0, 200.0]])
    one, other = (
        canonical_image(
            stored, shown, mm_per_px=1.0, max_side_px=512, part=lambda grid: around(grid, points_mm, 30.0)
        )
        for stored, shown in ((plane, pixels), (turned, pixels[::-1, ::-1]))
    )
    np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize("value", [0.0, -1000.0, 4095.0])
@pytest.mark.parametrize("border", [(7, 0, 0, 0), (3, 11, 20, 6), (0, 0, 0, 31)])
def test_a_border_changes_nothing(value: float, border: tuple[int, int, int, int]) -> None:
    """However wide it is, of whatever value: the same picture on the same grid."""
    top, bottom, left, right = border
    pixels = np.random.default_rng(5).gamma(2.0, 100.0, GRID.shape).astype(np.float32)
    wide = np.pad(pixels, ((top, bottom), (left, right)), constant_values=value)
    around_it = SlicePlane(GRID.to_mm([-left, -top]), GRID.x_axis, GRID.y_axis, GRID.spacing_mm, wide.shape)
    plain, bordered = (
        canonical_image(plane, image, mm_per_px=1.0, max_side_px=512)
        for plane, image in ((GRID, pixels), (around_it, wide))
    )
    np.testing.assert_array_equal(bordered.image, plain.image)
    np.testing.assert_allclose(bordered.plane.origin_mm, plain.plane.origin_mm, atol=1e-9)


def test_what_is_no_border_is_left() -> None:
    """A constant image, one with hardly any content, a crop in black, one whose edges show something."""
    constant, spot, crop, usual = (np.zeros(GRID.shape, np.float32) for _ in range(4))
    spot[100:104, 100:104] = 5.0
    crop[60:130, 50:150] = np.random.default_rng(6).gamma(2.0, 100.0, (70, 100))
    usual[0, 40] = usual[-1, 3] = usual[200, 0] = usual[7, -1] = 1.0
    for pixels in (constant, spot, crop, usual):
        assert without_border(GRID, pixels)[1] is pixels
