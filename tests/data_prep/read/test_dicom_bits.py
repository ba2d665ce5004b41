"""Protects: grey values are those of the image where BitsStored or PixelRepresentation is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from data_prep.read.dicom_file import read_pixels, read_slices
from data_prep.read.dicom_pixels import stored_values
from tests.dicom_files import write_slice


def picture(brightest: int, *, below: int = 0) -> NDArray[np.int32]:
    """Blobs of tissue and noise, from about -below to the brightest value."""
    rng = np.random.default_rng(3)
    tissue = cv2.GaussianBlur(rng.random((128, 128)), (0, 0), 7)
    tissue = (tissue - tissue.min()) / np.ptp(tissue) + rng.normal(0, 0.004, tissue.shape)
    values = np.maximum(tissue - 0.25, 0) / 0.75
    grown = np.rint(np.minimum(values / values.max(), 1) * (brightest + below)).astype(np.int32) - below
    return grown + (rng.integers(-3, 4, grown.shape) * (grown < 0) if below else 0)


WRONG = {
    "BitsStored 8": (picture(699), {"BitsStored": 8, "HighBit": 7}),
    "BitsStored 10": (picture(4000), {"BitsStored": 10, "HighBit": 9}),
    "BitsStored 12, a little": (picture(4200), {"BitsStored": 12, "HighBit": 11}),
    "BitsStored 12, three folds": (picture(16000), {"BitsStored": 12, "HighBit": 11}),
    "BitsStored 12, ten folds": (picture(40000), {"BitsStored": 12, "HighBit": 11}),
    "HighBit 15, left aligned": (picture(4000) * 16, {"BitsStored": 12, "HighBit": 15}),
    "HighBit 15, right aligned": (picture(4000), {"BitsStored": 12, "HighBit": 15}),
    "signed, it says": (picture(60000), {"PixelRepresentation": 1}),
    "signed, it says, a little": (picture(33500), {"PixelRepresentation": 1}),
    "signed in 12 bits, it says": (picture(4000), {"BitsStored": 12, "PixelRepresentation": 1}),
    "unsigned, it says": (picture(900, below=8), {"PixelRepresentation": 0}),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_header_does_not_fold_grey_values(tmp_path: Path, case: str) -> None:
    values, elements = WRONG[case]
    words = (values & 0xFFFF).astype(np.uint16)
    (header,) = read_slices(write_slice(tmp_path / "1.dcm", words, **elements))
    np.testing.assert_array_equal(read_pixels(header), values)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
@pytest.mark.parametrize(("stored", "brightest"), [(12, 4000), (16, 60000)])
def test_a_decoder_is_not_believed_either(tmp_path: Path, syntax: str, stored: int, brightest: int) -> None:
    """What is coded without a sign, under a header that says it has one."""
    values = picture(brightest)
    words = values.astype(np.uint16)
    path = write_slice(tmp_path / "1.dcm", words, BitsStored=stored, HighBit=stored - 1)
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.PixelRepresentation = 1
    dataset.save_as(path, enforce_file_format=True)
    (header,) = read_slices(path)
    np.testing.assert_array_equal(read_pixels(header), values)


@pytest.mark.parametrize("missing", ["BitsStored", "HighBit", "PixelRepresentation"])
def test_what_is_missing_is_what_all_writers_mean(tmp_path: Path, missing: str) -> None:
    words = picture(60000).astype(np.uint16)
    (header,) = read_slices(write_slice(tmp_path / "1.dcm", words, without=[missing]))
    np.testing.assert_array_equal(read_pixels(header), words)


def text(words: NDArray[np.uint16], bit: int) -> None:
    words[10:30:2, 20:90] |= np.uint16(1 << bit)


def box(words: NDArray[np.uint16], bit: int) -> None:
    words[:, :64] |= np.uint16(1 << bit)


def dot(words: NDArray[np.uint16], bit: int) -> None:
    words[64, 64] |= np.uint16(1 << bit)


@pytest.mark.parametrize("draw", [text, box, dot])
@pytest.mark.parametrize("bit", [12, 13, 15])
@pytest.mark.parametrize("is_signed", [False, True])
def test_a_drawing_in_unused_bits_is_none_of_the_image(
    draw: Callable[[NDArray[np.uint16], int], None], bit: int, is_signed: bool
) -> None:
    plain = picture(2000).astype(np.uint16)
    drawn = plain.copy()
    draw(drawn, bit)
    np.testing.assert_array_equal(stored_values(drawn, 12, is_signed=is_signed), plain)


@pytest.mark.parametrize(
    ("values", "stored", "is_signed"),
    [
        (np.minimum(picture(6000), 4095), 12, False),
        (np.minimum(picture(80000), 65535), 16, False),
        (picture(900, below=20), 16, True),
        (picture(1500, below=500), 12, True),
        (picture(20000, below=12000), 16, True),
    ],
    ids=["saturated", "saturated in 16 bits", "signed", "signed in 12 bits", "signed, all of it"],
)
def test_what_a_right_header_says_stays(values: NDArray[np.int32], stored: int, is_signed: bool) -> None:
    for mask in ((1 << stored) - 1, 0xFFFF) if is_signed else (0xFFFF,):
        words = (values & mask).astype(np.uint16)
        np.testing.assert_array_equal(stored_values(words, stored, is_signed=is_signed), values)


def test_a_slope_of_zero_says_nothing(tmp_path: Path) -> None:
    words = picture(900).astype(np.uint16)
    (header,) = read_slices(write_slice(tmp_path / "1.dcm", words, RescaleSlope=0, RescaleIntercept=0))
    np.testing.assert_array_equal(read_pixels(header), words)
