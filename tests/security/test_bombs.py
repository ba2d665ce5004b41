"""Small files that would fill memory or time: each refused by name, in a child with 512 MB and a clock."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from data_prep.read.dicom_limits import DEFAULT_LIMITS, Refused
from data_prep.read.dicom_parse import BoundedFile, parsed
from tests.dicom_files import write_slice
from tests.hostile.bounded import BoundedReader, Outcome
from tests.hostile.mutations import base_dataset, recoded

TIME_S = 10.0
_ITEM, _ITEM_END, _SEQUENCE_END = (struct.pack("<HHI", 0xFFFE, e, 0) for e in (0xE000, 0xE00D, 0xE0DD))
_OPEN_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)


@pytest.fixture(scope="module")
def reader() -> Iterator[BoundedReader]:
    with BoundedReader(time_s=3 * TIME_S) as bounded:
        yield bounded


def element(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """Explicit VR little endian, with a length of 32 bits."""
    size = len(value) if length is None else length
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, size) + value


class Builder:
    """Makes a bomb of a small file that is whole."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "1.dcm"
        self.whole = write_slice(self.path).read_bytes()

    def before_pixels(self, added: bytes) -> None:
        at = self.whole.index(b"\xe0\x7f\x10\x00OW")
        self.path.write_bytes(self.whole[:at] + added + self.whole[at:])

    def instead_of(self, keyword: str, vr: str, value: bytes) -> None:
        tag = tag_for_keyword(keyword)
        assert tag is not None
        at = self.whole.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
        after = at + 8 + struct.unpack("<H", self.whole[at + 6 : at + 8])[0]
        if keyword == "PixelData":
            after = len(self.whole)
        self.path.write_bytes(self.whole[:at] + element(tag, vr, value) + self.whole[after:])

    def in_meta(self, added: bytes) -> None:
        """As the first element of the File Meta."""
        self.path.write_bytes(self.whole[:132] + added + self.whole[132:])

    def claims(self, syntax: str, rows: int, columns: int, frame: bytes, frames: int = 1) -> None:
        write_slice(
            self.path,
            syntax=syntax,
            Rows=rows,
            Columns=columns,
            NumberOfFrames=frames,
            PixelData=encapsulate([frame]),
        )
        if syntax not in (RLELossless,):
            dataset = pydicom.dcmread(self.path)
            dataset["PixelData"].VR = "OB"
            dataset.save_as(self.path)

    def coded(self, syntax: str, change: Callable[[bytearray], None]) -> None:
        """A whole coded image of 64 × 64 with a change in its codestream."""
        self.path.write_bytes(recoded(base_dataset(), syntax))
        dataset = pydicom.dcmread(self.path)
        frame = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
        change(frame)
        dataset.PixelData = encapsulate([bytes(frame)])
        dataset.save_as(self.path)


def rle_frame(segment: bytes, segments: int = 2) -> bytes:
    offsets = [64 + number * len(segment) for number in range(segments)]
    return struct.pack("<16I", segments, *offsets, *[0] * (15 - segments)) + segment * segments


def deflated(bomb: Builder) -> None:
    """0.6 MB that inflate to 600 MB before pydicom looks at an element."""
    write_slice(bomb.path, syntax=DeflatedExplicitVRLittleEndian)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    content = bomb.path.read_bytes()
    head = content[: content.index(b"1.2.840.10008.1.2.1.99") + 22]
    zeros = element(0x00091010, "OB", b"", 600_000_000)
    packed = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    million = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed += million * 600
    bomb.path.write_bytes(head + packed + packer.flush())


def second_transfer_syntax(bomb: Builder) -> None:
    """The File Meta names an accepted syntax, then Deflated: the last one counts for pydicom."""
    deflated(bomb)
    content = bomb.path.read_bytes()
    first = element(0x00020010, "UI", b"")[:4] + b"UI" + struct.pack("<H", 20) + b"1.2.840.10008.1.2.1\0"
    bomb.path.write_bytes(content[:132] + first + content[132:])


def empty_items(bomb: Builder) -> None:
    """8 MB: pydicom makes an object of each, 640 MB and 50 s."""
    bomb.before_pixels(element(0x00400275, "SQ", _ITEM * 1_000_000 + _SEQUENCE_END, 0xFFFFFFFF))


def nested(depth: int) -> Callable[[Builder], None]:
    def build(bomb: Builder) -> None:
        opened = element(0x00400275, "SQ", _OPEN_ITEM, 0xFFFFFFFF) * depth
        bomb.before_pixels(opened + (_ITEM_END + _SEQUENCE_END) * depth)

    return build


def empty_elements(bomb: Builder) -> None:
    bomb.before_pixels(element(0x00090010, "UN", b"") * 2_000_000)


def character_sets(bomb: Builder) -> None:
    """4 MB of unknown character sets: 35 µs for each of them."""
    at = bomb.whole.index(struct.pack("<HH", 0x0008, 0x0016))
    added = element(0x00080005, "UT", b"x\\" * 2_000_000)
    bomb.path.write_bytes(bomb.whole[:at] + added + bomb.whole[at:])


def character_sets_in_items(bomb: Builder) -> None:
    short = struct.pack("<HH2sH", 8, 5, b"CS", 60_000) + b"x\\" * 30_000
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(short)) + short
    bomb.before_pixels(element(0x00400275, "SQ", item * 300 + _SEQUENCE_END, 0xFFFFFFFF))


def fragments(bomb: Builder) -> None:
    """A frame in a million pieces of nothing."""
    dataset = pydicom.dcmread(write_slice(bomb.path, syntax=RLELossless))
    dataset.PixelData = _ITEM + _ITEM * 1_000_000 + _SEQUENCE_END
    dataset.save_as(bomb.path)


def offset_table(bomb: Builder) -> None:
    dataset = pydicom.dcmread(write_slice(bomb.path, syntax=RLELossless))
    table = struct.pack("<HHI", 0xFFFE, 0xE000, 40_000_000) + bytes(40_000_000)
    dataset.PixelData = table + dataset.PixelData[8:]
    dataset.save_as(bomb.path)


def sparse(bomb: Builder) -> None:
    """Larger than the limit, and no byte of it on the disk."""
    with bomb.path.open("r+b") as file:
        file.truncate(DEFAULT_LIMITS.max_file_bytes + 1)


def set_j2k(offset: int, code: str, *values: int) -> Callable[[bytearray], None]:
    return lambda frame: struct.pack_into(code, frame, offset, *values)


def hierarchical(frame: bytearray) -> None:
    """A progression of frames, each with a size of its own (ITU-T T.81 annex J)."""
    frame[2:2] = struct.pack(">2sHBHHBBBB", b"\xff\xde", 11, 8, 64, 64, 1, 1, 0x11, 0)


MILLION_VALUES = b"1\\" * 2_000_000
BOMBS: dict[str, tuple[Callable[[Builder], None], str]] = {
    "deflated": (deflated, "transfer_syntax_not_supported"),
    "deflated behind an accepted syntax": (second_transfer_syntax, "transfer_syntax_not_supported"),
    "a million empty items": (empty_items, "too_large"),
    "two million empty elements": (empty_elements, "too_large"),
    "sequences 400 deep": (nested(400), "unreadable"),
    "sequences 20,000 deep": (nested(20_000), "unreadable"),
    "a list of character sets": (character_sets, "too_large"),
    "character sets in items": (character_sets_in_items, "too_large"),
    "a million values": (lambda b: b.instead_of("PixelSpacing", "UC", MILLION_VALUES), "too_large"),
    "a million codes": (lambda b: b.instead_of("InstanceNumber", "UC", MILLION_VALUES), "too_large"),
    "a sequence for Rows": (lambda b: b.instead_of("Rows", "SQ", _ITEM * 500_000), "unreadable"),
    "a sequence for pixels": (lambda b: b.instead_of("PixelData", "SQ", _ITEM * 500_000), "unreadable"),
    "text for pixels": (lambda b: b.instead_of("PixelData", "UC", b"\\" * 8_000_000), "bad_pixels"),
    "a sequence in the File Meta": (
        lambda b: b.in_meta(element(0x00020001, "SQ", _ITEM * 500_000)),
        "too_large",
    ),
    "an endless sequence in the File Meta": (
        lambda b: b.in_meta(element(0x00020001, "SQ", _ITEM * 500_000, 0xFFFFFFFF)),
        "too_large",
    ),
    "digits": (lambda b: b.instead_of("Rows", "UT", b"9" * 8_000_000), "too_large"),
    "a file over the limit": (sparse, "too_large"),
    "60,000 rows": (lambda b: b.claims(ExplicitVRLittleEndian, 60_000, 60_000, bytes(2)), "too_large"),
    "two billion frames": (lambda b: b.claims(RLELossless, 64, 64, bytes(2), 2_000_000_000), "too_large"),
    "RLE claims 30,000": (lambda b: b.claims(RLELossless, 30_000, 30_000, rle_frame(b"\x81\0")), "too_large"),
    "RLE claims 4096": (lambda b: b.claims(RLELossless, 4096, 4096, rle_frame(b"\x81\0")), "bad_pixels"),
    "RLE grows": (lambda b: b.claims(RLELossless, 16, 12, rle_frame(b"\x81\0" * 4_000_000)), "bad_pixels"),
    "fragments": (fragments, "too_large"),
    "offset table": (offset_table, "bad_pixels"),
    "JPEG 2000 of 16,384 components": (
        lambda b: b.coded(JPEG2000Lossless, set_j2k(40, ">H", 16_384)),
        "bad_pixels",
    ),
    "JPEG 2000 of 30,000": (
        lambda b: b.coded(JPEG2000Lossless, set_j2k(8, ">2I", 30_000, 30_000)),
        "bad_pixels",
    ),
    "JPEG 2000 of tiny tiles": (
        lambda b: b.coded(JPEG2000Lossless, set_j2k(8, ">6I", 1064, 1064, 1000, 1000, 1, 1)),
        "bad_pixels",
    ),
    "JPEG-LS of 65,000": (
        lambda b: b.coded(
            JPEGLSLossless, lambda f: struct.pack_into(">2H", f, f.index(b"\xff\xf7") + 5, 65_000, 65_000)
        ),
        "bad_pixels",
    ),
    "JPEG of 200 components": (
        lambda b: b.coded(
            "1.2.840.10008.1.2.4.50", lambda f: struct.pack_into("B", f, f.index(b"\xff\xc0") + 9, 200)
        ),
        "bad_pixels",
    ),
    "hierarchical JPEG": (lambda b: b.coded("1.2.840.10008.1.2.4.51", hierarchical), "bad_pixels"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(name: str, tmp_path: Path, reader: BoundedReader) -> None:
    build, reason = BOMBS[name]
    build(Builder(tmp_path))
    outcome = reader.run("file", tmp_path / "1.dcm")
    assert (outcome.kind, list(outcome.reasons)) == ("rejected", [reason]), outcome
    assert outcome.seconds < TIME_S and outcome.peak_mb < 256, outcome


def test_the_largest_image_that_is_read_fits(tmp_path: Path, reader: BoundedReader) -> None:
    """The bounds refuse no honest file: 4096 × 4096 in each coding that is a small file here."""
    bomb = Builder(tmp_path)
    segment = b"\x81\x07" * (4096 * 4096 // 128)
    bomb.claims(RLELossless, 4096, 4096, rle_frame(segment))
    outcome = reader.run("file", bomb.path)
    assert (outcome.kind, outcome.slices) == ("read", 1), outcome


def test_a_header_of_a_thousand_elements_is_read(tmp_path: Path, reader: BoundedReader) -> None:
    """Scanners write private sequences: a few hundred elements, sometimes more."""
    bomb = Builder(tmp_path)
    private = b"".join(element(0x00290000 + 0x1001 + n, "UN", b"CSA " * 50) for n in range(1000))
    items = (_OPEN_ITEM + element(0x00291001, "OB", bytes(100)) + _ITEM_END) * 500
    bomb.before_pixels(private + element(0x20051402, "SQ", items + _SEQUENCE_END, 0xFFFFFFFF))
    assert reader.run("file", bomb.path).kind == "read"


def test_what_the_service_receives_is_bounded_in_memory(tmp_path: Path) -> None:
    """It reads the identifiers of an object before it is written anywhere."""
    bomb = Builder(tmp_path)
    empty_items(bomb)
    for content, is_bomb in ((bomb.whole, False), (bomb.path.read_bytes(), True)):
        with BoundedFile(io.BytesIO(content), DEFAULT_LIMITS) as file:
            if is_bomb:
                with pytest.raises(Refused, match="more elements than 20000 reads"):
                    parsed(file, ["StudyInstanceUID"], DEFAULT_LIMITS, stop_before_pixels=True)
            else:
                dataset, _ = parsed(file, ["StudyInstanceUID"], DEFAULT_LIMITS, stop_before_pixels=True)
                assert dataset.StudyInstanceUID == "1.2.3"


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def archive_outcome(reader: BoundedReader, path: Path) -> Outcome:
    outcome = reader.run("archive", path)
    assert outcome.seconds < TIME_S and outcome.peak_mb < 256, outcome
    return outcome


def test_a_member_that_grows_to_gigabytes_costs_neither_memory_nor_its_study(
    tmp_path: Path, reader: BoundedReader
) -> None:
    slices = {
        f"7/12/{n}.dcm": write_slice(tmp_path / "1.dcm", position=(n, 0, 0)).read_bytes() for n in (1, 2, 3)
    }
    path = zipped(tmp_path / "a.zip", slices)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("7/12/4.dcm", "w") as member,
    ):
        member.write(bytes(128) + b"DICM")
        for _ in range(200):
            member.write(bytes(1_000_000))
    assert path.stat().st_size < 1_000_000
    outcome = archive_outcome(reader, path)
    assert (outcome.kind, outcome.reasons, outcome.slices) == ("rejected", {"too_large": 1}, 3)


def test_an_archive_of_half_a_million_members_is_not_listed(tmp_path: Path, reader: BoundedReader) -> None:
    path = tmp_path / "a.zip"
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * 800_000
    path.write_bytes(
        directory + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory), 0, 0)
    )
    outcome = archive_outcome(reader, path)
    assert (outcome.kind, outcome.reasons) == ("rejected", {"archive_too_large": 1})


def test_archives_within_archives_and_members_that_are_bombs_are_refused(
    tmp_path: Path, reader: BoundedReader
) -> None:
    bomb = Builder(tmp_path)
    empty_items(bomb)
    inner = zipped(tmp_path / "inner.zip", {"1.dcm": bomb.whole})
    path = zipped(
        tmp_path / "a.zip",
        {
            "7/12/1.dcm": bomb.whole,
            "7/12/2.dcm": bomb.path.read_bytes(),
            "7/12/inner.zip": inner.read_bytes(),
            "/".join("d" * 40) + "/1.dcm": bomb.whole,
        },
    )
    outcome = archive_outcome(reader, path)
    assert outcome.slices == 1
    assert outcome.reasons == {"nested_archive": 1, "too_large": 1, "misplaced_file": 1}


def test_a_dicomdir_and_a_table_lead_nowhere(tmp_path: Path, reader: BoundedReader) -> None:
    """References of a DICOMDIR are not followed: files are found by looking."""
    secret = write_slice(tmp_path / "OUTSIDE" / "1.DCM")
    study = tmp_path / "study"
    write_slice(study / "IM1", position=(0, 0, 0))
    directory = pydicom.dcmread(Path(pydicom.__file__).parent / "data/test_files/dicomdirtests/DICOMDIR")
    for record in directory.DirectoryRecordSequence:
        if "ReferencedFileID" in record:
            record["ReferencedFileID"] = DataElement(
                0x00041500, "CS", ["..", "OUTSIDE", secret.name], validation_mode=pydicom.config.IGNORE
            )
    with warnings.catch_warnings(action="ignore"):
        directory.save_as(study / "DICOMDIR")
    outcome = reader.run("study", study)
    assert (outcome.kind, outcome.slices) == ("read", 1)
