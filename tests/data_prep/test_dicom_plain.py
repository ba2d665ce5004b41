"""Protects: a file read the quick way gives what pydicom's way gives, every other file is left to it."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from benchmarks.mutations import applied, base_dataset, drawn, every_coding
from data_prep import dicom
from data_prep.dicom_checks import DEFAULT_LIMITS, BoundedFile, ReadLimits
from data_prep.dicom_plain import PlainFile, plain_file, plain_frame
from data_prep.study_types import DicomRejected
from tests.dicom_files import write_slice

PLAIN_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless)
KEYWORDS = ("StudyInstanceUID", "Rows", "PixelSpacing", "SeriesDescription")


def outcome(path: Path) -> list[object]:
    """Everything that reading a file says: header, pixels, or why not."""
    said: list[object] = []
    try:
        header = dicom.read_slice(path)
        plane = header.plane
        said += [plane.origin_mm.tolist(), plane.x_axis.tolist(), plane.y_axis.tolist(), plane.spacing_mm]
        said += [
            plane.shape,
            *(value for name, value in vars(header).items() if name not in ("path", "plane")),
        ]
        said.append(dicom.read_pixels(header).tobytes())
    except DicomRejected as rejected:
        said.append(rejected.rejection)
    return said


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[object]]:
    """``outcome`` by pydicom's way alone."""

    def read(path: Path) -> list[object]:
        with monkeypatch.context() as patch:
            patch.setattr(dicom, "plain_file", lambda *_: None)
            return outcome(path)

    return read


@pytest.mark.parametrize("syntax", PLAIN_SYNTAXES)
def test_a_plain_file_is_read_without_pydicom(
    tmp_path: Path, syntax: str, slowly: Callable[[Path], list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_slice(
        tmp_path / "1.dcm",
        syntax=syntax,
        SpecificCharacterSet="ISO_IR 100",
        RepetitionTime=None,
        ImageType="A",
    )
    expected = slowly(path)
    monkeypatch.delattr(dicom, "parsed")
    assert outcome(path) == expected
    assert isinstance(expected[-1], bytes), "pixels"


@pytest.mark.parametrize("syntax", every_coding(base_dataset()), ids=str)
def test_a_damaged_file_has_the_outcome_that_it_has_by_pydicom(
    tmp_path: Path, syntax: str, slowly: Callable[[Path], list[object]]
) -> None:
    whole = every_coding(base_dataset())[syntax]
    rng, path = random.Random(syntax), tmp_path / "1.dcm"
    for _ in range(12):
        path.write_bytes(applied(whole, drawn(rng)))
        assert outcome(path) == slowly(path)


def content_of(tmp_path: Path, syntax: str = ExplicitVRLittleEndian) -> bytes:
    return write_slice(tmp_path / "1.dcm", syntax=syntax).read_bytes()


def read(content: bytes, limits: ReadLimits = DEFAULT_LIMITS) -> PlainFile | None:
    return plain_file(content, KEYWORDS, limits)


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


DESCRIPTION = element(0x0008, 0x103E, b"LO", b"T2")
NOT_PLAIN = {
    "other characters": element(0x0008, 0x103E, b"LO", "Rücken".encode("latin-1") + b" "),
    "another kind": element(0x0008, 0x103E, b"UN", b"T2"),
    "no VR": element(0x0008, 0x103E, b"??", b"T2"),
    "out of order": DESCRIPTION + element(0x0008, 0x0005, b"CS", b"ISO_IR 100"),
    "twice": DESCRIPTION * 2,
    "longer than the file": struct.pack("<HH2sH", 0x0008, 0x103E, b"LO", 0xFFFE) + b"T2",
    "of unknown length": struct.pack("<HH2sHI", 0x0008, 0x103F, b"SQ", 0, 0xFFFFFFFF)
    + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_what_is_not_plain_is_left_to_pydicom(tmp_path: Path, name: str) -> None:
    content = content_of(tmp_path)
    assert read(content) is not None and content.count(DESCRIPTION) == 1
    assert read(content.replace(DESCRIPTION, NOT_PLAIN[name])) is None


def test_unusual_character_sets_and_byte_orders_are_left_to_pydicom(tmp_path: Path) -> None:
    greek = write_slice(tmp_path / "2.dcm", SpecificCharacterSet="ISO_IR 126").read_bytes()
    assert read(greek) is None
    assert read(every_coding(base_dataset())[ExplicitVRBigEndian]) is None
    assert read(b"") is None and read(bytes(200)) is None


def test_limits_hold(tmp_path: Path) -> None:
    content = content_of(tmp_path)
    assert read(content, ReadLimits(max_value_bytes=8)) is None
    assert read(content, ReadLimits(max_reads=40)) is None


def frame_of(content: bytes) -> bytes | None:
    plain = read(content)
    assert plain is not None
    return plain_frame(BoundedFile(io.BytesIO(content), DEFAULT_LIMITS), plain, len(content))


@pytest.mark.parametrize("syntax", PLAIN_SYNTAXES)
def test_pixel_data_that_do_not_end_the_file_are_left_to_pydicom(tmp_path: Path, syntax: str) -> None:
    content = content_of(tmp_path, syntax)
    found = frame_of(content)
    assert found is not None and found in content
    for other in (content[:-2], content + bytes(2), content + DESCRIPTION):
        assert frame_of(other) is None


def test_several_fragments_are_left_to_pydicom(tmp_path: Path) -> None:
    content = content_of(tmp_path, RLELossless)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    one_more = struct.pack("<HHI", 0xFFFE, 0xE000, 4) + bytes(4)
    assert frame_of(content.removesuffix(end) + one_more + end) is None


def test_an_empty_value_is_empty(tmp_path: Path) -> None:
    plain = read(write_slice(tmp_path / "1.dcm", description="").read_bytes())
    assert plain is not None
    assert plain.get("SeriesDescription") == "" and plain.get("PatientID", "none") == "none"
