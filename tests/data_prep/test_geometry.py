"""Protects: pixel → patient → pixel is the identity; mirrored anatomy gives mirrored output."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.geometry import Orientation, SlicePlane

angles = st.floats(-np.pi, np.pi)
millimetres = st.floats(-800, 800)
spacings = st.floats(0.1, 5.0)
pixels = st.tuples(st.floats(-50, 1100), st.floats(-50, 1100))


@st.composite
def planes(draw: st.DrawFn) -> SlicePlane:
    a, b, c = draw(angles), draw(angles), draw(angles)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]])
    rotation = about_z @ about_y @ about_x
    return SlicePlane(
        origin_mm=np.array([draw(millimetres), draw(millimetres), draw(millimetres)]),
        x_axis=rotation[:, 0],
        y_axis=rotation[:, 1],
        spacing_mm=(draw(spacings), draw(spacings)),
        shape=(draw(st.integers(1, 1024)), draw(st.integers(1, 1024))),
    )


@given(planes(), pixels)
def test_pixel_to_patient_and_back_is_the_identity(plane: SlicePlane, xy_px: tuple[float, float]) -> None:
    point = plane.to_mm(xy_px)
    np.testing.assert_allclose(plane.to_px(point), xy_px, atol=1e-6)
    assert abs(float(plane.distance_mm(point))) < 1e-6


@given(planes(), pixels, st.floats(-200, 200))
def test_points_off_the_plane_project_along_its_normal(
    plane: SlicePlane, xy_px: tuple[float, float], distance: float
) -> None:
    point = plane.to_mm(xy_px) + distance * plane.normal
    np.testing.assert_allclose(plane.to_px(point), xy_px, atol=1e-6)
    assert float(plane.distance_mm(point)) == pytest.approx(distance, abs=1e-6)


@given(planes(), pixels)
def test_a_mirrored_plane_shows_the_mirrored_patient(plane: SlicePlane, xy_px: tuple[float, float]) -> None:
    mirror = np.array([-1.0, 1.0, 1.0])
    mirrored = SlicePlane(
        plane.origin_mm * mirror, plane.x_axis * mirror, plane.y_axis * mirror, plane.spacing_mm, plane.shape
    )
    np.testing.assert_allclose(mirrored.to_mm(xy_px), plane.to_mm(xy_px) * mirror, atol=1e-9)
    np.testing.assert_allclose(mirrored.to_px(plane.to_mm(xy_px) * mirror), xy_px, atol=1e-6)


def test_pixel_spacing_is_row_spacing_first() -> None:
    plane = SlicePlane.from_dicom((0, 0, 0), (1, 0, 0, 0, 1, 0), (2.0, 0.5), (10, 20))
    np.testing.assert_allclose(plane.to_mm((3, 4)), (1.5, 8.0, 0.0))
    assert plane.spacing_mm == (0.5, 2.0)


def test_the_image_reaches_half_a_pixel_beyond_its_outer_centres() -> None:
    plane = SlicePlane.from_dicom((0, 0, 0), (1, 0, 0, 0, 1, 0), (1, 1), (10, 20))
    assert plane.contains_px([(-0.5, 9.5), (19.5, -0.5)]).all()
    assert not plane.contains_px([(-0.6, 0), (0, 9.6), (19.6, 0)]).any()
    assert not plane.contains_px((1, 5), margin_px=2)
    np.testing.assert_allclose(plane.centre_mm, (9.5, 4.5, 0.0))


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ((0, 1, 0, 0, 0, -1), Orientation.SAGITTAL),
        ((1, 0, 0, 0, 0, -1), Orientation.CORONAL),
        ((1, 0, 0, 0, 1, 0), Orientation.AXIAL),
        ((1, 0, 0, 0, 0.88, 0.475), Orientation.AXIAL),
        # A steep L5/S1 slice is 58° from axial; an oblique coronal one 25° from coronal.
        ((1, 0, 0, 0, 0.53, 0.848), Orientation.AXIAL),
        ((1, 0, 0, 0, 0.423, -0.906), Orientation.CORONAL),
        # A sagittal slice that leans as far to the side, as of a patient with scoliosis, stays one.
        ((0, 1, 0, 0.574, 0, -0.819), Orientation.SAGITTAL),
    ],
)
def test_the_orientation_is_the_nearest_anatomical_plane(
    axes: tuple[float, ...], expected: Orientation
) -> None:
    assert SlicePlane.from_dicom((0, 0, 0), axes, (1, 1), (4, 4)).orientation is expected


@pytest.mark.parametrize(
    ("position", "axes", "spacing", "shape", "message"),
    [
        ((0, 0, np.nan), (1, 0, 0, 0, 1, 0), (1, 1), (4, 4), "3 finite numbers"),
        ((0, 0, 0), (2, 0, 0, 0, 1, 0), (1, 1), (4, 4), "length 1"),
        ((0, 0, 0), (1, 0, 0, 1, 0, 0), (1, 1), (4, 4), "perpendicular"),
        ((0, 0, 0), (1, 0, 0, 0, 1, 0), (0, 1), (4, 4), "2 positive numbers"),
        ((0, 0, 0), (1, 0, 0, 0, 1, 0), (np.inf, 1), (4, 4), "2 positive numbers"),
        ((0, 0, 0), (1, 0, 0, 0, 1, 0), (1, 1), (0, 4), "2 positive integers"),
    ],
)
def test_an_impossible_plane_is_refused(
    position: tuple[float, ...],
    axes: tuple[float, ...],
    spacing: tuple[float, float],
    shape: tuple[int, int],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        SlicePlane.from_dicom(position, axes, spacing, shape)
