"""Zip input: bounded while it streams, names of our own, nothing followed, everything refused is named."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from data_prep.problems import DicomRejected, Reason
from data_prep.read.archives import (
    ArchiveLimits,
    extract_archive,
    is_archive,
    safe_parts,
)
from data_prep.read.opening import inner_folder, opened_input
from tests.dicom_files import write_study

DICOM = bytes(128) + b"DICM" + bytes(60)


def write_zip(path: Path, members: dict[str, bytes], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def unpacked(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_images_and_tables_are_unpacked_and_everything_else_is_passed_over(tmp_path: Path) -> None:
    path = write_zip(
        tmp_path / "a.zip",
        {
            "data/train_images/7/12/1.dcm": DICOM,
            "data/train_images/7/12/no-suffix": DICOM,
            "data/train_series_descriptions.csv": b"study_id\n",
            "data/movie.mp4": bytes(500),
            "__MACOSX/data/._1.dcm": b"\0\5\26\7" + bytes(160),
            "data/.hidden/1.dcm": b"no image",
        },
    )
    assert extract_archive(path, tmp_path / "out") == ()
    assert unpacked(tmp_path / "out") == [
        "data/train_images/7/12/1.dcm",
        "data/train_images/7/12/no-suffix",
        "data/train_series_descriptions.csv",
    ]
    assert (tmp_path / "out/data/train_images/7/12/1.dcm").read_bytes() == DICOM
    assert inner_folder(tmp_path / "out") == tmp_path / "out" / "data"


@pytest.mark.parametrize(
    "name",
    [
        "../../1.dcm",
        "/etc/1.dcm",
        "C:\\temp\\..\\1.dcm",
        "a/../../../1.dcm",
        "-rf; \x1b[31m/1.dcm",
        "CON/1.dcm",
    ],
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    extract_archive(write_zip(tmp_path / "a.zip", {name: DICOM}), tmp_path / "below" / "out")
    (found,) = unpacked(tmp_path / "below")
    assert found.startswith("out/") and found.isprintable()
    assert not list(tmp_path.glob("*.dcm"))


def test_names_of_the_rsna_layout_stay_and_others_become_ours() -> None:
    assert safe_parts("train_images/100206310/101/4.dcm", 16) == ("train_images", "100206310", "101", "4.dcm")
    assert safe_parts("1.2.840.1/1.2/3", 16) == ("1.2.840.1", "1.2", "3")
    parts = safe_parts("Müller Hans/1.dcm", 16)
    assert parts is not None and parts[0].isascii() and " " not in parts[0]
    assert safe_parts("a/" * 20 + "1.dcm", 16) is None


def test_what_lies_too_deep_is_named(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, path in enumerate(sorted(study.rglob("*.dcm"))):
            archive.write(path, ("a/" * 20 if number == 3 else "a/") + f"{number}.dcm")
    with opened_input(tmp_path / "a.zip") as (folder, rejections):
        assert len(list(folder.rglob("*.dcm"))) == 14
    assert [(item.reason, item.file) for item in rejections] == [(Reason.MISPLACED, "3.dcm")]


def test_a_member_that_grows_is_refused_and_the_rest_is_unpacked(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"1/2/1.dcm": DICOM + bytes(300_000), "1/2/2.dcm": DICOM})
    assert path.stat().st_size < 3000
    (rejection,) = extract_archive(path, tmp_path / "out", limits=ArchiveLimits(max_member_bytes=100_000))
    assert (rejection.reason, rejection.file) == (Reason.TOO_LARGE, "1.dcm")
    assert unpacked(tmp_path / "out") == ["1/2/2.dcm"]


def test_a_member_that_lies_about_its_size_is_bounded_while_it_streams(tmp_path: Path) -> None:
    """A bomb whose directory claims ten bytes."""
    content = bytearray(write_zip(tmp_path / "a.zip", {"1.dcm": DICOM + bytes(5_000_000)}).read_bytes())
    central = content.rfind(b"PK\x01\x02")
    content[central + 24 : central + 28] = struct.pack("<I", 10)
    content[22:26] = struct.pack("<I", 10)
    (tmp_path / "b.zip").write_bytes(content)
    limits = ArchiveLimits(max_member_bytes=100_000)
    (rejection,) = extract_archive(tmp_path / "b.zip", tmp_path / "out", limits=limits)
    assert rejection.reason in (Reason.TOO_LARGE, Reason.UNREADABLE)
    assert unpacked(tmp_path / "out") == []


def test_all_members_together_are_bounded(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {f"1/2/{n}.dcm": DICOM + bytes(90_000) for n in range(9)})
    limits = ArchiveLimits(max_member_bytes=100_000, max_total_bytes=300_000)
    with pytest.raises(DicomRejected, match="more than 300000 bytes in all") as caught:
        extract_archive(path, tmp_path / "out", limits=limits)
    assert caught.value.rejection.reason is Reason.ARCHIVE_TOO_LARGE
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*.dcm")) <= 300_000


def test_overlapping_members_cannot_multiply_bytes(tmp_path: Path) -> None:
    """Many directory entries that point at the same data: each is counted (or refused as overlapping)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.dcm", DICOM + bytes(90_000))
        first = archive.getinfo("0.dcm")
        for number in range(1, 30):
            info = zipfile.ZipInfo(f"{number}.dcm")
            for key in ("header_offset", "compress_size", "file_size", "CRC", "compress_type", "flag_bits"):
                setattr(info, key, getattr(first, key))
            archive.filelist.append(info)
    (tmp_path / "a.zip").write_bytes(buffer.getvalue())
    limits = ArchiveLimits(max_member_bytes=100_000, max_total_bytes=300_000)
    try:
        rejections = extract_archive(tmp_path / "a.zip", tmp_path / "out", limits=limits)
        assert len(rejections) >= 28
    except DicomRejected as rejected:
        assert rejected.rejection.reason is Reason.ARCHIVE_TOO_LARGE
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*.dcm")) <= 300_000


def test_too_many_members_and_a_huge_directory_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {f"{n}.dcm": b"" for n in range(50)})
    for limits in (ArchiveLimits(max_members=49), ArchiveLimits(max_directory_bytes=1000)):
        with pytest.raises(DicomRejected) as caught:
            extract_archive(path, tmp_path / "out", limits=limits)
        assert caught.value.rejection.reason is Reason.ARCHIVE_TOO_LARGE
    assert not list((tmp_path).rglob("*.dcm"))


def test_of_members_of_one_name_the_first_is_taken_and_the_others_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for content in (DICOM, DICOM + b"2"):
            archive.writestr("1/2/3.dcm", content)
        archive.writestr("1/2/3.dcm/4.dcm", DICOM)
    rejections = extract_archive(tmp_path / "a.zip", tmp_path / "out")
    assert [(item.reason, item.file) for item in rejections] == [
        (Reason.DUPLICATE, "3.dcm"),
        (Reason.DUPLICATE, "4.dcm"),
    ]
    assert (tmp_path / "out/1/2/3.dcm").read_bytes() == DICOM


def test_a_huge_directory_is_refused_where_only_the_record_of_zip64_says_it(tmp_path: Path) -> None:
    content = write_zip(tmp_path / "a.zip", {f"{n}.dcm": b"" for n in range(50)}).read_bytes()
    members, end = content[:-22], content[-22:]
    size, offset = struct.unpack("<II", end[12:20])
    record = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 50, 50, size, offset)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(members), 1)
    all_said = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path = tmp_path / "b.zip"
    path.write_bytes(members + record + locator + all_said)
    assert extract_archive(path, tmp_path / "out") == ()
    with pytest.raises(DicomRejected, match=f"its directory has {size} bytes"):
        extract_archive(path, tmp_path / "none", limits=ArchiveLimits(max_directory_bytes=1000))


def test_links_devices_encrypted_and_nested_members_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("1/2/1.dcm")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        device = zipfile.ZipInfo("1/2/2.dcm")
        device.external_attr = stat.S_IFCHR << 16
        archive.writestr(device, b"")
        archive.writestr("inner.zip", b"PK\x03\x04")
        archive.writestr("1/2/4.dcm", DICOM)
        archive.writestr("1/2/5.dcm", DICOM)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    place = content.rfind(b"1/2/5.dcm") - 46
    content[place + 8] |= 1  # says that it is encrypted
    (tmp_path / "a.zip").write_bytes(content)
    rejections = extract_archive(tmp_path / "a.zip", tmp_path / "out")
    assert [(item.file, item.reason) for item in rejections] == [
        ("1.dcm", Reason.LINK),
        ("2.dcm", Reason.LINK),
        ("inner.zip", Reason.NESTED_ARCHIVE),
        ("5.dcm", Reason.ENCRYPTED),
    ]
    assert unpacked(tmp_path / "out") == ["1/2/4.dcm"]


@pytest.mark.parametrize("damage", ["text", "cut", "flipped"])
def test_what_is_no_zip_is_refused_with_a_reason(tmp_path: Path, damage: str) -> None:
    path = write_zip(tmp_path / "a.zip", {"1/2/1.dcm": DICOM + bytes(range(256)) * 30})
    content = bytearray(path.read_bytes())
    if damage == "text":
        path.write_bytes(b"no archive at all")
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[60:64] = b"\xff" * 4
        path.write_bytes(content)
    if damage == "flipped":
        (rejection,) = extract_archive(path, tmp_path / "out")
        assert rejection.reason is Reason.UNREADABLE and unpacked(tmp_path / "out") == []
        return
    assert is_archive(path)
    with pytest.raises(DicomRejected) as caught, opened_input(path):
        pass
    assert caught.value.rejection.reason is Reason.BAD_ARCHIVE


def test_the_temporary_folder_goes_and_times_are_those_of_the_archive(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "4003253.zip", {"12/1.dcm": DICOM, "13/1.dcm": DICOM})
    with opened_input(path) as (folder, rejections):
        assert (folder.name, rejections) == ("4003253", ())
        image = folder / "12" / "1.dcm"
        assert image.stat().st_mtime_ns == path.stat().st_mtime_ns
    assert not folder.exists()
    plain = tmp_path / "plain"
    plain.mkdir()
    with opened_input(plain) as (folder, _):
        assert folder == plain
