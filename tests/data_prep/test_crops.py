"""Crops: the point stays in the middle, left and right are told by geometry, odd images do no harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_prep.crops import Crop, crop_plane, display_axes, extract_crop, percentiles, resample
from data_prep.geometry import Orientation, SlicePlane
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Series, Slice
from data_prep.vocabulary import SeriesKind

Field = Callable[[NDArray[np.float64]], NDArray[np.float64]]
AXES = {
    Orientation.SAGITTAL: ([0, 1, 0], [0, 0, -1]),
    Orientation.AXIAL: ([1, 0, 0], [0, 1, 0]),
    Orientation.CORONAL: ([1, 0, 0], [0, 0, -1]),
}


def rotation(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    a, b, c = np.radians(degrees)
    about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    return np.array(about_x) @ np.array(about_y) @ np.array(about_z)


def grid_pixels(plane: SlicePlane, field: Field) -> NDArray[np.float32]:
    rows, columns = np.indices(plane.shape)
    return field(plane.to_mm(np.stack([columns, rows], axis=-1))).astype(np.float32)


def make_series(
    orientation: Orientation,
    field: Field,
    *,
    count: int = 7,
    gap_mm: float = 4.0,
    spacing_mm: tuple[float, float] = (0.8, 0.6),
    shape: tuple[int, int] = (200, 160),
    flips: tuple[int, int] = (1, 1),
    tilt: NDArray[np.float64] | None = None,
) -> Series:
    """A stack of ``count`` slices around the patient origin that shows ``field``."""
    turn = np.eye(3) if tilt is None else tilt
    x_axis, y_axis = (
        turn @ np.array(axis) * flip for axis, flip in zip(AXES[orientation], flips, strict=True)
    )
    index = (Orientation.SAGITTAL, Orientation.CORONAL, Orientation.AXIAL).index(orientation)
    normal = turn @ np.eye(3)[index]
    extent = np.array([(shape[1] - 1) * spacing_mm[0], (shape[0] - 1) * spacing_mm[1]]) / 2
    stack = []
    for number in range(count):
        centre = normal * (number - count // 2) * gap_mm
        plane = SlicePlane(
            centre - extent[0] * x_axis - extent[1] * y_axis, x_axis, y_axis, spacing_mm, shape
        )
        stack.append(Slice(plane, number + 1, lambda plane=plane: grid_pixels(plane, field)))
    return Series("1", "2", SeriesKind.SAGITTAL_T2, (tuple(stack),))


def blob_at(centre: NDArray[np.float64], width_mm: float = 4.0) -> Field:
    def field(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return 100 * np.exp(-np.sum((points - centre) ** 2, axis=-1) / (2 * width_mm**2))

    return field


def cut(series: Series, centre: NDArray[np.float64], **changes: object) -> Crop:
    arguments: dict[str, object] = {"size_mm": 48.0, "size_px": 96, "slices": 5} | changes
    return extract_crop(series, centre, **arguments)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    orientation=st.sampled_from(list(Orientation)),
    angles=st.tuples(*[st.floats(-25, 25)] * 3),
    flips=st.tuples(st.sampled_from([1, -1]), st.sampled_from([1, -1])),
    centre=st.tuples(*[st.floats(-15, 15)] * 3),
    mirror=st.booleans(),
)
def test_middle_of_the_crop_is_the_point_projected_on_the_slice(
    orientation: Orientation,
    angles: tuple[float, float, float],
    flips: tuple[int, int],
    centre: tuple[float, float, float],
    mirror: bool,
) -> None:
    series = make_series(orientation, blob_at(np.zeros(3)), tilt=rotation(angles), flips=flips)
    plane = series.nearest(centre)[0].plane
    assume(plane.orientation is orientation)  # a coronal tilted twice may be a steep axial: see below
    grid = crop_plane(plane, centre, size_mm=50, size_px=96, mirror=mirror)
    assert np.allclose(grid.to_px(centre), 47.5, atol=1e-6)
    assert abs(grid.distance_mm(plane.to_mm([3, 7]))) < 1e-6
    rightwards, downwards = display_axes(plane, mirror=mirror)
    wanted_right = {Orientation.SAGITTAL: (1, 1)}.get(orientation, (0, -1 if mirror else 1))
    assert rightwards[wanted_right[0]] * wanted_right[1] > 0.5
    assert downwards[2] < -0.5 if orientation is not Orientation.AXIAL else downwards[1] > 0.5


@pytest.mark.parametrize("steep_deg", [0, 40, 50, 58, 63])
def test_a_steep_axial_slice_is_shown_front_up_like_its_neighbours(steep_deg: float) -> None:
    angle = np.radians(steep_deg)
    axes = (1, 0, 0, 0, np.cos(angle), np.sin(angle))
    plane = SlicePlane.from_dicom((0, 0, 0), axes, (1, 1), (9, 9))
    rightwards, downwards = display_axes(plane)
    np.testing.assert_allclose(rightwards, plane.x_axis)
    np.testing.assert_allclose(downwards, plane.y_axis)


@pytest.mark.parametrize("spacing_mm", [(0.8, 0.6), (0.3, 0.3), (0.4, 1.1)])
@pytest.mark.parametrize("orientation", list(Orientation))
def test_a_blob_in_the_patient_lies_where_the_crop_geometry_says(
    orientation: Orientation, spacing_mm: tuple[float, float]
) -> None:
    blob = np.array([3.0, -5.0, 7.0])
    shape = (int(140 / spacing_mm[1]), int(120 / spacing_mm[0]))
    series = make_series(orientation, blob_at(blob), spacing_mm=spacing_mm, shape=shape, flips=(-1, 1))
    crop = cut(series, blob + np.array([1.0, 2.0, -3.0]))
    grid = crop.planes[2]
    assert grid is not None and crop.inside and crop.valid.all()
    rows, columns = np.indices((96, 96))
    weights = crop.pixels[2] ** 2
    found = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
    assert np.allclose(found, grid.to_px(blob), atol=0.5)


@pytest.mark.parametrize("orientation", [Orientation.SAGITTAL, Orientation.AXIAL, Orientation.CORONAL])
def test_mirrored_anatomy_gives_the_mirrored_crop(orientation: Orientation) -> None:
    generator = np.random.default_rng(0)
    blobs = [blob_at(generator.uniform(-20, 20, 3)) for _ in range(12)]

    def anatomy(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return sum((blob(points) for blob in blobs), start=np.zeros(points.shape[:-1]))

    reflection = np.array([-1.0, 1.0, 1.0])
    left = np.array([8.5, 2.0, -3.0])
    seen = cut(make_series(orientation, anatomy), left)
    other = make_series(orientation, lambda p: anatomy(p * reflection))
    mirrored = cut(other, left * reflection, mirror=True)
    assert seen.pixels.std() > 0.05
    assert np.allclose(seen.pixels, mirrored.pixels, atol=1e-4)
    plain = cut(other, left * reflection)
    assert not np.allclose(seen.pixels, plain.pixels, atol=1e-2)


def test_constant_and_extreme_images_give_finite_crops() -> None:
    constant = make_series(Orientation.AXIAL, lambda p: np.full(p.shape[:-1], 1234.5))
    assert np.all(cut(constant, np.zeros(3)).pixels == 0)
    rounded = make_series(Orientation.AXIAL, lambda p: 1e6 + 0.1 * np.sin(p[..., 0]))
    assert np.all(cut(rounded, np.zeros(3)).pixels == 0)
    holes = make_series(Orientation.AXIAL, lambda p: np.where(p[..., 0] > 0, np.nan, p[..., 1]))
    crop = cut(holes, np.zeros(3))
    assert np.isfinite(crop.pixels).all() and crop.pixels.min() >= 0 and crop.pixels.max() <= 1


def test_scanner_scaling_does_not_change_the_crop() -> None:
    blob = blob_at(np.array([4.0, 4.0, 4.0]), 10.0)
    plain = cut(make_series(Orientation.SAGITTAL, blob), np.zeros(3))
    scaled = cut(make_series(Orientation.SAGITTAL, lambda p: 37 * blob(p) + 500), np.zeros(3))
    assert np.allclose(plain.pixels, scaled.pixels, atol=1e-3)


def test_slices_beyond_the_stack_or_undecodable_are_marked() -> None:
    series = make_series(Orientation.SAGITTAL, blob_at(np.zeros(3), 20.0))
    edge = cut(series, np.array([12.0, 0.0, 0.0]))
    assert edge.valid.tolist() == [True, True, True, False, False]
    assert edge.planes[3] is None and not edge.pixels[3:].any()
    mirrored = cut(series, np.array([12.0, 0.0, 0.0]), mirror=True)
    assert mirrored.valid.tolist() == [False, False, True, True, True]

    def broken() -> NDArray[np.float32]:
        raise DicomRejected(Rejection(Reason.BAD_PIXELS, "cannot be decoded"))

    stack = list(series.stacks[0])
    stack[3] = Slice(stack[3].plane, 4, broken)
    crop = cut(Series("1", "2", None, (tuple(stack),)), np.zeros(3))
    assert crop.valid.tolist() == [True, True, False, True, True] and not crop.pixels[2].any()


def test_thin_slices_are_skipped_to_keep_the_step() -> None:
    series = make_series(Orientation.AXIAL, blob_at(np.zeros(3)), count=41, gap_mm=1.0)
    crop = cut(series, np.zeros(3), slice_step_mm=4.0)
    heights = [plane.origin_mm[2] for plane in crop.planes if plane is not None]
    assert np.allclose(heights, [-8, -4, 0, 4, 8])
    thick = cut(make_series(Orientation.AXIAL, blob_at(np.zeros(3))), np.zeros(3), slice_step_mm=4.0)
    assert [plane.origin_mm[2] for plane in thick.planes if plane is not None] == heights


def test_what_lies_above_and_below_the_seen_height_is_black() -> None:
    series = make_series(Orientation.SAGITTAL, lambda p: 100 + p[..., 1])
    crop = cut(series, np.zeros(3), seen_height_mm=24.0)
    shown = crop.pixels[2].any(axis=1)
    assert shown.tolist() == [24 <= row < 72 for row in range(96)]


def test_the_last_digits_of_the_geometry_change_no_pixel() -> None:
    """NIfTI keeps it in float32, DICOM as decimal text."""
    image = np.random.default_rng(5).gamma(2.0, 200.0, (320, 280)).astype(np.float32)
    source = SlicePlane(np.array([-71.3, 12.7, 204.9]), *np.eye(3)[1:], (0.6837, 0.6837), (320, 280))
    target = crop_plane(source, source.to_mm([131.3, 157.8]), size_px=96, size_mm=48.0)
    noise = 1e-5 * np.random.default_rng(6).uniform(-1, 1, 3)
    other = replace(source, origin_mm=source.origin_mm + noise, spacing_mm=(0.6837 + 1e-8, 0.6837 - 1e-8))
    np.testing.assert_array_equal(resample(image, source, target), resample(image, other, target))


def test_coarser_grid_averages_instead_of_skipping() -> None:
    fine = SlicePlane(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (0.25, 0.25), (160, 160))
    stripes = np.tile(np.array([0.0, 100.0], dtype=np.float32), (160, 80))
    coarse = SlicePlane(np.array([10.0, 10, 0]), fine.x_axis, fine.y_axis, (1.0, 1.0), (20, 20))
    assert np.allclose(resample(stripes, fine, coarse), 50.0, atol=1.0)


def test_even_number_of_slices_is_refused() -> None:
    series = make_series(Orientation.AXIAL, blob_at(np.zeros(3)))
    with pytest.raises(ValueError, match="odd number of slices"):
        cut(series, np.zeros(3), slices=4)


@pytest.mark.parametrize("count", [1, 2, 7, 100, 5120])
def test_percentiles_are_those_of_numpy(count: int) -> None:
    values = np.random.default_rng(count).normal(300, 80, count).astype(np.float32)
    shares = (0.0, 1.0, 37.5, 99.0)
    assert percentiles(values, shares) == np.percentile(values, shares).tolist()
    values[count // 2] = np.nan
    assert np.isnan(percentiles(values, shares)).all()


def test_a_hole_in_a_stack_has_no_neighbours_and_a_crop_of_one_slice_its_own() -> None:
    def item(x_mm: float, number: int) -> Slice:
        plane = SlicePlane(
            np.array([x_mm, 0.1, 0.3]), np.array([0.0, 1, 0]), np.array([0.0, 0, -1]), (1.0, 1.0), (60, 60)
        )
        pixels = np.full((60, 60), float(number), np.float32)
        pixels[::2] += 5
        return Slice(plane, number, lambda: pixels)

    stack = tuple(item(x, number) for number, x in enumerate((0.0, 4.0, 8.0, 30.0, 34.0), start=1))
    series = Series("1", "2", SeriesKind.SAGITTAL_T1, (stack,), "table")
    at = np.array([8.0, 30.0, -30.0])
    crop = extract_crop(series, at, size_mm=20, size_px=20, slices=5)
    assert crop.valid.tolist() == [True, True, True, False, False]
    for x_mm in (8.0, 0.3, 33.3):
        alone = extract_crop(series, np.array([x_mm, 30.0, -30.0]), size_mm=20, size_px=20, slices=1)
        assert alone.valid.tolist() == [True] and alone.pixels.max() == 1.0


def test_a_fine_image_is_smoothed_to_the_wanted_resolution_and_a_coarse_one_is_not() -> None:
    noise = np.random.default_rng(0).random((200, 200)).astype(np.float32)

    def crop(spacing: float, resolution_mm: float | None) -> np.ndarray:
        plane = SlicePlane(
            np.zeros(3), np.array([0.0, 1, 0]), np.array([0.0, 0, -1]), (spacing, spacing), (200, 200)
        )
        series = Series("1", "2", SeriesKind.SAGITTAL_T1, ((Slice(plane, 1, lambda: noise),),), "table")
        middle = plane.to_mm((100.0, 100.0))
        return extract_crop(
            series, middle, size_mm=20, size_px=40, slices=1, resolution_mm=resolution_mm
        ).signal

    assert np.std(crop(0.5, 1.1)) < 0.6 * np.std(crop(0.5, None))
    np.testing.assert_array_equal(crop(1.2, 1.1), crop(1.2, None))
