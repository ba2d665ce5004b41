"""Protects: an image whose end never arrived is no image; one with a black border, or black corners, is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from data_prep.problems import DicomRejected, Reason
from data_prep.read.dicom_file import read_pixels, read_slices
from data_prep.read.dicom_pixels import breaks_off
from data_prep.read.slice_header import SliceHeader
from tests.dicom_files import write_slice

SHAPE = (200, 300)


def noise(floor: int = 1) -> NDArray[np.uint16]:
    """Tissue in noise; with a floor of 0, half of the air around it has a value of 0."""
    values = np.random.default_rng(2).normal(0, 3, SHAPE)
    values[20:180, 60:240] += 300
    return np.maximum(values, floor).astype(np.uint16)


def header_of(path: Path) -> SliceHeader:
    (header,) = read_slices(path)
    return header


def cut(path: Path, share: float, zeros: int | None = None) -> None:
    """Zeros from the first whole block behind a share of the file on, to its end or so many."""
    content = bytearray(path.read_bytes())
    start = int(share * len(content)) // 512 * 512
    end = len(content) if zeros is None else start + zeros
    content[start:end] = bytes(end - start)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("floor", "share", "zeros"),
    [(1, 0.3, None), (1, 0.6, None), (1, 0.8, None), (1, 0.5, 16384), (0, 0.6, None), (0, 0.8, None)],
)
def test_what_breaks_off_within_a_row_is_refused(
    tmp_path: Path, floor: int, share: float, zeros: int | None
) -> None:
    path = write_slice(tmp_path / "1.dcm", noise(floor))
    read_pixels(header_of(path))
    cut(path, share, zeros)
    with pytest.raises(DicomRejected) as caught:
        read_pixels(header_of(path))
    assert caught.value.rejection.reason is Reason.TRUNCATED


def border(image: NDArray[np.uint16], row: int) -> None:
    image[row:] = 0


def frame(image: NDArray[np.uint16], row: int) -> None:
    image[row:] = 0
    image[:, 250:] = 0
    image[:, :40] = 0


def box(image: NDArray[np.uint16], row: int) -> None:
    image[row - 20 : row, 30:270] = 0


def turned(image: NDArray[np.uint16], row: int) -> None:
    matrix = cv2.getRotationMatrix2D((150.0, 100.0), 0.05 * (row - 90), 1.0)
    image[:] = cv2.warpAffine(image, matrix, SHAPE[::-1])
    image[row + 20 :] = 0


@pytest.mark.parametrize("darken", [border, frame, box, turned])
def test_borders_and_corners_are_read(tmp_path: Path, darken: object) -> None:
    """Wherever they begin."""
    assert callable(darken)
    for row in range(100, 160):
        image = noise()
        darken(image, row)
        path = write_slice(tmp_path / f"{row}.dcm", image)
        np.testing.assert_array_equal(read_pixels(header_of(path)), image)


@pytest.mark.parametrize(("at_bottom", "at_top", "is_cut"), [(6, 0, False), (16, 10, False), (70, 10, True)])
def test_the_curved_border_of_a_corrected_distortion_breaks_off_nowhere(
    at_bottom: int, at_top: int, is_cut: bool
) -> None:
    """Wherever its last row ends, and its pixels begin in the file."""
    image = noise()
    image[-at_bottom:] = image[:at_top] = 0
    image[-at_bottom - 1, 120:] = 0
    assert any(breaks_off(image, first_byte) for first_byte in range(0, 512, 2)) == is_cut


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_codestream_that_ends_in_zeros_is_refused(tmp_path: Path, syntax: str) -> None:
    path = write_slice(tmp_path / "1.dcm", noise())
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path)
    read_pixels(header_of(path))
    codestream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    kept = 2 * len(codestream) // 3
    dataset.PixelData = encapsulate([codestream[:kept] + bytes(len(codestream) - kept)])
    dataset.save_as(path)
    with pytest.raises(DicomRejected) as caught:
        read_pixels(header_of(path))
    assert caught.value.rejection.reason is Reason.TRUNCATED
