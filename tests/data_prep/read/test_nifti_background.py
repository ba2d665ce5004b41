"""NaN around the body is background; NaN that could hide broken voxels is refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_prep.read.dicom_limits import Refused
from data_prep.read.nifti import without_nan

ROWS, COLUMNS = 160, 120
BODY = (slice(None), slice(25, 95))


def body() -> NDArray[np.float32]:
    """A sagittal slice: tissue between dark air in front and behind, with a dark tube in the middle."""
    image = np.random.default_rng(0).normal(4.0, 1.0, (ROWS, COLUMNS)).astype(np.float32)
    image[BODY] = np.random.default_rng(1).normal(200.0, 30.0, (ROWS, 70))
    image[:, 60:66] = 10.0
    return cv2.GaussianBlur(image, (0, 0), 1.0)


def masked(grow: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    image, nan = body(), np.ones((ROWS, COLUMNS), bool)
    nan[:, 25 - grow : 95 + grow] = False
    return np.where(nan, np.nan, image).astype(np.float32), nan


@pytest.mark.parametrize("grow", [4, 10])
def test_nan_around_the_body_becomes_background_and_nothing_else_changes(grow: int) -> None:
    image, nan = masked(grow)
    read = without_nan(image)
    assert np.isfinite(read).all() and read.dtype == np.float32
    assert np.array_equal(read[~nan], image[~nan])
    assert read[nan].max() < 20 and len(np.unique(read[nan])) == 1
    beside = image[:, [25 - grow, 94 + grow]]
    assert read[nan][0] == pytest.approx(float(np.median(beside)), abs=0.5)


def test_an_image_without_nan_is_left_alone() -> None:
    image = body()
    assert without_nan(image) is image


@given(
    top=st.integers(0, ROWS - 2),
    rows=st.integers(1, ROWS),
    reach=st.integers(62, COLUMNS),
    from_the_front=st.booleans(),
    beside_a_mask=st.booleans(),
)
@example(top=0, rows=ROWS, reach=62, from_the_front=True, beside_a_mask=False)  # it ends in the dark canal
def test_nan_that_reaches_the_canal_is_refused(
    top: int, rows: int, reach: int, *, from_the_front: bool, beside_a_mask: bool
) -> None:
    image = masked(8)[0] if beside_a_mask else body()
    image[top : top + rows, : reach if from_the_front else None][:, 0 if from_the_front else -reach :] = (
        np.nan
    )
    with pytest.raises(Refused, match=r"not a number|not finite"):
        without_nan(image)


@pytest.mark.parametrize("rows", [(0, 50), (110, ROWS), (70, 71)])
def test_whole_rows_are_refused(rows: tuple[int, int]) -> None:
    image = body()
    image[slice(*rows)] = np.nan
    with pytest.raises(Refused, match="not a number"):
        without_nan(image)


def test_a_hole_is_refused_with_what_to_do() -> None:
    for row, column in ((80, 62), (20, 30)):  # also far from the spine, where it ends in the dark
        image, _ = masked(8)
        image[row - 2 : row + 3, column - 2 : column + 3] = 4.0
        image[row, column] = np.nan
        with pytest.raises(Refused, match=r"within the image.*put its grey value in their place"):
            without_nan(image)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_are_refused_with_and_without_nan(value: float) -> None:
    for image in (body(), masked(8)[0]):
        image[40, 60] = value
        with pytest.raises(Refused, match="not finite"):
            without_nan(image)
