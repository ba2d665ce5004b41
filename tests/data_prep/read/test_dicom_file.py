"""Protects: every unusable file is refused with its reason, and every usable one gives the right signal."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from data_prep.problems import DicomRejected, Reason
from data_prep.read.dicom_file import read_pixels
from data_prep.read.dicom_limits import DEFAULT_LIMITS, ReadLimits, Refused
from data_prep.read.dicom_parse import BoundedFile
from tests.dicom_files import AXIAL, ramp, read_slice, write_slice

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def reason_of(path: Path, limits: ReadLimits = DEFAULT_LIMITS) -> Reason:
    with pytest.raises(DicomRejected) as caught:
        read_slice(path, limits=limits)
    return caught.value.rejection.reason


def signal_of(path: Path) -> NDArray[np.float32]:
    return read_pixels(read_slice(path))


def test_the_header_gives_plane_number_and_sequence(tmp_path: Path) -> None:
    path = write_slice(
        tmp_path / "7.dcm",
        position=(1, 2, 3),
        orientation=AXIAL,
        spacing=(2.0, 0.5),
        instance_number=5046,
        description="t2 tse",
        RepetitionTime="3500",
        EchoTime="98.5",
        ImageType=["ORIGINAL", "PRIMARY"],
        ScanningSequence="SE",
    )
    header = read_slice(path)
    assert header.plane.shape == (16, 12)
    assert header.plane.spacing_mm == (0.5, 2.0)
    np.testing.assert_allclose(header.plane.origin_mm, (1, 2, 3))
    assert header.instance_number == 5046
    assert (header.study_uid, header.series_uid) == ("1.2.3", "1.2.3.4")
    assert header.transfer_syntax == ExplicitVRLittleEndian
    assert (header.repetition_time_ms, header.echo_time_ms, header.inversion_time_ms) == (3500, 98.5, None)
    assert header.image_type == ("ORIGINAL", "PRIMARY")
    assert header.scanning_sequence == ("SE",)
    assert header.description == "t2 tse"


@pytest.mark.parametrize("cut", [128, 132], ids=["without preamble", "without prefix, too"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_a_file_that_begins_late_is_decoded_as_its_file_meta_says(
    tmp_path: Path, syntax: str, cut: int
) -> None:
    path = write_slice(tmp_path / "1.dcm", syntax=syntax)
    path.write_bytes(path.read_bytes()[cut:])
    header = read_slice(path)
    assert header.transfer_syntax == syntax
    np.testing.assert_array_equal(read_pixels(header), ramp())


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_a_header_beyond_the_first_bytes_says_the_same(tmp_path: Path, syntax: str) -> None:
    """Short headers are parsed from the first bytes of their file, others from the file."""
    short = write_slice(tmp_path / "1.dcm", position=(1, 2, 3), syntax=syntax, EchoTime="98.5")
    dataset = pydicom.dcmread(short)
    dataset.add_new(0x00270010, "LO", "SOMEBODY")
    dataset.add_new(0x00271001, "OB", bytes(64 * 1024))
    dataset.save_as(tmp_path / "2.dcm")
    header, other = read_slice(short), read_slice(tmp_path / "2.dcm")
    assert header.place == other.place and header.echo_time_ms == other.echo_time_ms == 98.5
    assert header.sop_uid == other.sop_uid and header.transfer_syntax == other.transfer_syntax == syntax
    np.testing.assert_array_equal(read_pixels(header), read_pixels(other))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_every_usual_coding_gives_the_stored_values(tmp_path: Path, syntax: str, dtype: str) -> None:
    stored = (ramp().astype("int64") - (100 if dtype == "int16" else 0)).astype(dtype)
    signal = signal_of(write_slice(tmp_path / "1.dcm", stored, syntax=syntax))
    assert signal.dtype == np.float32
    np.testing.assert_array_equal(signal, stored.astype(np.float32))


@pytest.mark.parametrize(
    "name", ["RLE", "implicit", "bigendian", "expb", "jp2klossless", "jpeg_ls_lossless", "padded"]
)
def test_one_mr_image_is_the_same_in_every_coding(name: str) -> None:
    """The files come with pydicom."""
    expected = signal_of(PYDICOM_FILES / "MR_small.dcm")
    assert expected.std() > 100
    np.testing.assert_array_equal(signal_of(PYDICOM_FILES / f"MR_small_{name}.dcm"), expected)


@pytest.mark.parametrize("name", ["jp2klossless", "jpeg_ls_lossless"])
def test_a_coded_image_must_have_the_size_that_its_header_claims(tmp_path: Path, name: str) -> None:
    dataset = pydicom.dcmread(PYDICOM_FILES / f"MR_small_{name}.dcm")
    dataset.Rows = 60
    dataset.save_as(tmp_path / "1.dcm")
    with pytest.raises(DicomRejected, match="the coded image holds 64 x 64, the header 60 x 64"):
        signal_of(tmp_path / "1.dcm")


def test_rescale_is_applied(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "1.dcm", RescaleSlope="2.5", RescaleIntercept="-10")
    np.testing.assert_allclose(signal_of(path), ramp() * 2.5 - 10)


def test_monochrome1_is_turned_so_that_high_signal_is_bright(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "1.dcm", 4095 - ramp(), PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(signal_of(path), ramp())


@pytest.mark.parametrize(
    ("without", "reason"),
    [
        ("ImagePositionPatient", Reason.MISSING_GEOMETRY),
        ("ImageOrientationPatient", Reason.MISSING_GEOMETRY),
        ("PixelSpacing", Reason.MISSING_GEOMETRY),
        ("Rows", Reason.NO_PIXELS),
        ("PixelData", Reason.NO_PIXELS),
    ],
)
def test_what_an_image_must_have(tmp_path: Path, without: str, reason: Reason) -> None:
    assert reason_of(write_slice(tmp_path / "1.dcm", without=[without])) is reason


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Rows": 60000, "Columns": 60000}, Reason.TOO_LARGE),
        ({"NumberOfFrames": "2000000"}, Reason.TOO_LARGE),
        ({"NumberOfFrames": "2"}, Reason.MULTI_FRAME),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, Reason.BAD_PIXELS),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, Reason.BAD_GEOMETRY),
        ({"ImageOrientationPatient": [1, 0, 0]}, Reason.BAD_GEOMETRY),
        ({"PixelSpacing": [0, 1]}, Reason.BAD_GEOMETRY),
        ({"PixelSpacing": [1e-9, 1]}, Reason.BAD_GEOMETRY),
        ({"PixelSpacing": [1, 1e9]}, Reason.BAD_GEOMETRY),
        ({"ImagePositionPatient": [0, 0]}, Reason.BAD_GEOMETRY),
        ({"ImagePositionPatient": [0, 1e300, 0]}, Reason.BAD_GEOMETRY),
    ],
)
def test_what_an_image_must_not_claim(tmp_path: Path, elements: dict[str, Any], reason: Reason) -> None:
    assert reason_of(write_slice(tmp_path / "1.dcm", **elements)) is reason


def test_a_deflated_file_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    path = write_slice(
        tmp_path / "1.dcm",
        syntax=DeflatedExplicitVRLittleEndian,
        ImageComments="x" * 10,
        PixelData=b"\0" * 50_000_000,
    )
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    try:
        assert reason_of(path) is Reason.TRANSFER_SYNTAX
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [None, -1])
def test_nothing_reads_to_the_end_of_a_file_of_unknown_size(tmp_path: Path, size: int | None) -> None:
    """As the inflation of a deflated file would, and then the memory is full."""
    path = write_slice(tmp_path / "1.dcm")
    with BoundedFile(path, DEFAULT_LIMITS) as file, pytest.raises(Refused):
        file.read(size)


def test_a_file_over_the_limit_is_not_parsed(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "1.dcm")
    assert reason_of(path, ReadLimits(max_file_bytes=path.stat().st_size - 1)) is Reason.TOO_LARGE
    assert reason_of(path, ReadLimits(max_pixels=16 * 12 - 1)) is Reason.TOO_LARGE
    assert read_slice(path, limits=ReadLimits(max_file_bytes=path.stat().st_size)).plane.shape == (16, 12)


@pytest.mark.parametrize("content", [b"", b"study,series\n1,2\n", b"\0" * 128 + b"DICM", b"\0" * 500])
def test_text_and_empty_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "1.dcm"
    path.write_bytes(content)
    assert reason_of(path) in (Reason.NOT_DICOM, Reason.TRANSFER_SYNTAX)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_no_part_of_a_file_passes_for_the_whole(tmp_path: Path, syntax: str) -> None:
    content = write_slice(tmp_path / "whole.dcm", syntax=syntax).read_bytes()
    path = tmp_path / "1.dcm"
    # The last 8 bytes of encapsulated data are an end mark that readers may do without.
    for length in range(0, len(content) - 8, 3):
        path.write_bytes(content[:length])
        assert reason_of(path) in set(Reason)
    path.write_bytes(content[: len(content) - 40])
    assert reason_of(path) is Reason.TRUNCATED
    if syntax == RLELossless:
        path.write_bytes(content[: len(content) - 8])
        np.testing.assert_array_equal(signal_of(path), signal_of(tmp_path / "whole.dcm"))


def test_an_rle_frame_that_cannot_be_decoded_is_refused(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "1.dcm", syntax=RLELossless, PixelData=encapsulate([b"\x07" * 90]))
    header = read_slice(path)
    with pytest.raises(DicomRejected) as caught:
        read_pixels(header)
    assert caught.value.rejection.reason is Reason.BAD_PIXELS


def test_every_changed_byte_ends_in_an_image_or_a_rejection(tmp_path: Path) -> None:
    content = bytearray(write_slice(tmp_path / "whole.dcm", syntax=RLELossless).read_bytes())
    path = tmp_path / "1.dcm"
    outcomes = set()
    for at in range(128, len(content), 5):
        changed = content.copy()
        changed[at] ^= 0xFF
        path.write_bytes(changed)
        try:
            outcomes.add(signal_of(path).shape)
        except DicomRejected as rejected:
            outcomes.add(rejected.rejection.reason)
    assert (16, 12) in outcomes
    assert len(outcomes) > 3


def test_a_rejection_names_the_place_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "CANARY^FOLDER"
    path = write_slice(
        folder / "1.dcm",
        PatientName="CANARY^NAME",
        PatientID="CANARY1",
        SeriesDescription="CANARY T2",
        PatientComments="CANARY",
        ImagePositionPatient=[0, 0],
    )
    with pytest.raises(DicomRejected) as caught:
        read_slice(path)
    assert caught.value.rejection.place == "1.dcm"
    out, err = capfd.readouterr()
    assert "CANARY" not in str(caught.value) + repr(caught.value.rejection) + out + err


def test_control_characters_of_a_file_name_stay_out_of_messages(tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31mred.dcm"
    path.write_text("no image")
    with pytest.raises(DicomRejected, match="not a DICOM file") as caught:
        read_slice(path)
    assert "\x1b" not in str(caught.value)


def test_a_rejection_survives_the_way_back_from_a_worker(tmp_path: Path) -> None:
    with pytest.raises(DicomRejected) as caught:
        read_slice(tmp_path / "missing.dcm")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.rejection == caught.value.rejection
    assert copy.rejection.reason is Reason.UNREADABLE


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert reason_of(tmp_path) is Reason.NOT_DICOM


def test_all_real_images_are_read(real_rsna: Path) -> None:
    paths = sorted((real_rsna / "train_images").glob("*/*/*.dcm"))
    headers = [read_slice(path) for path in paths]
    assert len(headers) == 169
    assert all(header.instance_number == int(header.path.stem) for header in headers)
    for header in headers[::20]:
        pixels = read_pixels(header)
        assert pixels.shape == header.plane.shape
        assert 100 < pixels.max() < 4096
