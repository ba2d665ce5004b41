"""Protects: what is parsed and decoded without pydicom's detours is what pydicom gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from data_prep.read.dicom_fast import Elements, plain_pixels
from data_prep.read.dicom_file import read_pixels, read_slices
from tests.dicom_files import ramp, write_slice

PYDICOM_FILES = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("MR_small*.dcm"))
KEYWORDS = ("Rows", "BitsStored", "InstanceNumber", "PixelSpacing", "ImagePositionPatient", "ImageType")
KEYWORDS += ("SOPInstanceUID", "SeriesDescription", "RepetitionTime", "PhotometricInterpretation", "EchoTime")


@pytest.mark.parametrize("path", PYDICOM_FILES, ids=lambda path: path.stem)
def test_values_are_those_of_pydicom(path: Path) -> None:
    expected = pydicom.dcmread(path)
    elements = Elements(pydicom.dcmread(path))
    for keyword in KEYWORDS:
        value, other = elements.get(keyword, "missing"), expected.get(keyword, "missing")
        several = isinstance(other, pydicom.multival.MultiValue)
        assert value == (list(other) if several else other) or not (value or other), keyword


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize(("stored", "signed"), [(12, 0), (16, 0), (12, 1), (16, 1)])
def test_plain_pixels_are_those_of_pydicom(tmp_path: Path, syntax: str, stored: int, signed: int) -> None:
    """Whatever stands in the bits that are not used."""
    noise = np.random.default_rng(0).integers(0, 2**16, (16, 12), dtype=np.uint16)
    path = write_slice(tmp_path / "1.dcm", noise.view(np.int16) if signed else noise, syntax=syntax)
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = stored, stored - 1, signed
    content = dataset.PixelData if syntax != RLELossless else next(generate_frames(dataset.PixelData))
    plain = plain_pixels(Elements(dataset), content, syntax)
    assert plain is not None, "the quick way is taken"
    np.testing.assert_array_equal(plain, pixel_array(dataset))


def test_unusual_fragments_take_the_general_way(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_slice(tmp_path / "1.dcm", ramp().astype("uint16"), syntax=RLELossless))
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame], fragments_per_frame=2)
    dataset.save_as(tmp_path / "2.dcm")
    (header,) = read_slices(tmp_path / "2.dcm")
    assert header.pixels is not None and header.pixels.content is None
    np.testing.assert_array_equal(read_pixels(header), ramp())
