"""Protects: what lies in a folder of a clinic is read, or named once; nothing is passed over silently."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from data_prep.problems import DicomRejected, Reason
from data_prep.read.find import find_studies
from data_prep.read.opening import opened_input
from data_prep.study import Study
from data_prep.vocabulary import SeriesKind
from tests.dicom_files import AXIAL, ramp, write_series, write_study


def studies_in(path: Path) -> list[Study]:
    return [entry.load() for entry in find_studies(path)]


def reasons(studies: list[Study]) -> list[Reason]:
    return [item.reason for study in studies for item in study.rejections]


@pytest.mark.parametrize("meta", [True, False], ids=["file meta", "bare"])
def test_data_sets_without_preamble_are_read(tmp_path: Path, meta: bool) -> None:
    study = write_study(tmp_path / "100")
    for path in (study / "11").iterdir():
        content = path.read_bytes()[132:]
        if not meta:  # the length of the File Meta is its first value
            content = content[12 + int.from_bytes(content[8:12], "little") :]
        path.with_suffix("").write_bytes(content)
        path.unlink()
    (loaded,) = studies_in(study)
    assert [len(series.slices) for series in loaded.series] == [5, 5, 5]
    assert loaded.rejections == ()
    assert np.array_equal(loaded.series[0].slices[0].pixels(), ramp())


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    write_series(tmp_path / "real" / "a")
    write_series(tmp_path / "store" / "b", orientation=AXIAL, series_uid="1.2.3.5")
    inside = tmp_path / "real"
    (inside / "b").symlink_to(tmp_path / "store" / "b")
    (inside / "again").symlink_to(inside)
    (inside / "a" / "up").symlink_to(inside)
    (study,) = studies_in(inside)
    assert sorted(len(series.slices) for series in study.series) == [5, 5]
    assert study.rejections == ()


def test_a_linked_series_of_the_rsna_layout_is_read(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100")
    shutil.move(study / "12", tmp_path / "elsewhere")
    (study / "12").symlink_to(tmp_path / "elsewhere")
    (loaded,) = studies_in(study)
    assert [series.series_id for series in loaded.series] == ["11", "12", "13"]
    assert loaded.rejections == ()


def test_a_dead_link_is_named(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    (tmp_path / "a" / "patient").symlink_to(tmp_path / "gone")
    (study,) = studies_in(tmp_path)
    assert reasons([study]) == [Reason.LINK]


def test_other_formats_are_named_once(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    for number in range(3):
        (tmp_path / "a" / f"p{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(400))
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a", "a")
    (tmp_path / "a" / "notes.txt").write_text("L4/L5")
    (study,) = studies_in(tmp_path)
    assert reasons([study]) == [Reason.OTHER_FORMAT] * 2
    words = " ".join(item.message for item in study.rejections)
    assert "PNG picture, which is not read, and 2 more here" in words and "gzip archive" in words


def test_a_folder_with_nothing_but_other_formats_says_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DicomRejected) as caught:
        find_studies(tmp_path)
    assert ["PNG" in item.message for item in caught.value.rejections] == [True]


def test_a_listed_series_without_a_folder_is_named(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100")
    (tmp_path / "train_series_descriptions.csv").write_text(
        "study_id,series_id,series_description\n"
        "100,11,Sagittal T1\n100,12,Sagittal T2/STIR\n100,14,Axial T2\n"
    )
    (loaded,) = studies_in(study)
    assert [(item.reason, item.series_id) for item in loaded.rejections] == [(Reason.LISTED_ONLY, "14")]


def zipped(path: Path, source: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(source.rglob("*.dcm")):
            archive.write(file, file.relative_to(source.parent))


@pytest.mark.parametrize("layout", ["rsna", "export"])
def test_zips_in_a_folder_are_read_as_folders(tmp_path: Path, layout: str) -> None:
    """Two patients, one of them in a zip beside the other's folder."""
    top = tmp_path / "top"
    names = ("100", "200") if layout == "rsna" else ("a", "b")
    for number, name in zip(("100", "200"), names, strict=True):
        study = write_study(tmp_path / number, PatientID=number)
        study.rename(tmp_path / f"made-{name}" if layout != "rsna" else study)
    source = tmp_path / (names[1] if layout == "rsna" else f"made-{names[1]}")
    top.mkdir()
    shutil.copytree(tmp_path / (names[0] if layout == "rsna" else f"made-{names[0]}"), top / names[0])
    zipped(top / f"{names[1]}.zip", source)
    (top / "broken.zip").write_bytes(b"PK no zip")
    with opened_input(top) as (folder, rejections):
        studies = studies_in(folder)
        shapes = [[len(series.slices) for series in study.series] for study in studies]
    assert shapes == [[5, 5, 5]] * 2
    assert [study.study_id for study in studies] == ["100", "200"]
    assert [item.reason for item in rejections] == [Reason.BAD_ARCHIVE]
    assert reasons(studies) == []


def test_a_zip_per_series_is_one_study(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100")
    (tmp_path / "zips").mkdir()
    for series in sorted(study.iterdir()):
        named = series.rename(series.with_name(f"series-{series.name}"))
        zipped(tmp_path / "zips" / f"{named.name}.zip", named)
    with opened_input(tmp_path / "zips") as (folder, rejections):
        (loaded,) = studies_in(folder)
    assert {series.kind for series in loaded.series} == set(SeriesKind)
    assert rejections == ()


@pytest.mark.parametrize(
    ("value", "limit", "dtype"),
    [(-32768, None, np.int16), (65535, None, np.uint16), (60000, 65535, np.uint16), (-1, None, np.uint16)],
)
def test_padding_is_as_dark_as_the_darkest_tissue(
    tmp_path: Path, value: int, limit: int | None, dtype: type[np.generic]
) -> None:
    pixels = (ramp().astype(np.int64) + 10).astype(dtype)
    padded = pixels.copy()
    stored = np.array(value).astype(dtype) if value >= 0 or dtype is np.int16 else dtype(65535)
    padded[:3] = stored
    elements = {"PixelPaddingValue": int(stored)} | (
        {} if limit is None else {"PixelPaddingRangeLimit": limit}
    )
    write_series(tmp_path / "a", 3, pixels=padded, **elements)
    (study,) = studies_in(tmp_path)
    shown = study.series[0].slices[0].pixels()
    assert shown[:3].max() == shown[3:].min() == float(pixels[3:].min())
    assert np.array_equal(shown[3:], pixels[3:].astype(np.float32))


@pytest.mark.parametrize("suffix", [".dcm", ""])
@pytest.mark.parametrize(
    "broken",
    [lambda content: content[128:], lambda content: content[:128] + content[132:]],
    ids=["no preamble before DICM", "no DICM behind the preamble"],
)
def test_a_broken_preamble_is_no_obstacle(
    tmp_path: Path, broken: Callable[[bytes], bytes], suffix: str
) -> None:
    study = write_study(tmp_path / "in" / "300")
    for path in (study / "11").iterdir():
        path.write_bytes(broken(path.read_bytes()))
        path.rename(path.with_suffix(suffix))
    (loaded,) = studies_in(tmp_path / "in")
    assert [len(series.slices) for series in loaded.series] == [5, 5, 5]
    assert loaded.rejections == ()
    assert np.array_equal(loaded.series[0].slices[0].pixels(), ramp())


def test_a_big_endian_data_set_without_preamble_is_read(tmp_path: Path) -> None:
    write_series(tmp_path)
    for path in list(tmp_path.iterdir()):
        dataset, turned = pydicom.dcmread(path), Dataset()
        for element in dataset:
            turned.add(element)
        turned.file_meta = dataset.file_meta
        turned.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        turned.PixelData = ramp().astype(">u2").tobytes()
        turned.save_as(path, enforce_file_format=True)
        content = path.read_bytes()[132:]
        path.with_suffix("").write_bytes(content[12 + int.from_bytes(content[8:12], "little") :])
        path.unlink()
    (study,) = studies_in(tmp_path)
    assert [len(series.slices) for series in study.series] == [5] and study.rejections == ()
    assert np.array_equal(study.series[0].slices[0].pixels(), ramp())


@pytest.mark.parametrize(
    "broken",
    [
        lambda content: content[:128] + b"dicm" + content[132:],
        lambda content: content[28:],
        lambda content: b"\r\n" + content,
    ],
    ids=["lower case", "short preamble", "a line before"],
)
def test_a_file_whose_beginning_cannot_be_told_is_named(
    tmp_path: Path, broken: Callable[[bytes], bytes]
) -> None:
    """Without .dcm behind its name, which would claim that it is one."""
    write_series(tmp_path / "good")
    (path, *_) = write_series(tmp_path / "bad", series_uid="1.2.3.9", orientation=AXIAL)
    path.write_bytes(broken(path.read_bytes()))
    path.rename(path.with_suffix(""))
    (study,) = studies_in(tmp_path)
    assert [item.reason for item in study.rejections] == [Reason.OTHER_FORMAT]
    assert "broken beginning" in study.rejections[0].message


def test_zips_behind_a_link_are_never_unpacked_into_the_folder_of_somebody_else(tmp_path: Path) -> None:
    elsewhere, top = tmp_path / "elsewhere", tmp_path / "top"
    study = write_study(tmp_path / "200")
    elsewhere.mkdir()
    zipped(elsewhere / "200.zip", study)
    write_study(top / "300", PatientID="100")
    (top / "linked").symlink_to(elsewhere)
    with opened_input(top) as (folder, rejections):
        studies = studies_in(folder)
    assert [len(study.series) for study in studies] == [3, 3]
    assert rejections == () and reasons(studies) == []
    assert [path.name for path in elsewhere.iterdir()] == ["200.zip"]


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"GIF89a", "GIF picture"),
        (b"\0\0\0\x18ftypmp42", "video"),
        (b"# === DATA DESCRIPTION FILE ===", "PAR/REC volume"),
        ((348).to_bytes(4, "little"), "volume of two files"),
        (b"\x28\xb5\x2f\xfd", "zstandard archive"),
        (b"\x04\x22\x4d\x18", "lz4 archive"),
        (b"\x93NUMPY\x01\0", "NumPy array"),
        (b"MATLAB 5.0 MAT-file, Platform: PCWIN64", "MATLAB file"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 picture"),
        (b'<?xml version="1.0"?><NativeDicomModel>', "DICOM file as XML"),
        (b'[{"00080005": {"vr": "CS"}', "DICOM file as JSON"),
    ],
)
def test_volumes_and_pictures_of_other_kinds_are_named(tmp_path: Path, start: bytes, words: str) -> None:
    write_series(tmp_path)
    (tmp_path / "other").write_bytes(start + bytes(400))
    (study,) = studies_in(tmp_path)
    assert [item.reason for item in study.rejections] == [Reason.OTHER_FORMAT]
    assert words in study.rejections[0].message


@pytest.mark.parametrize("layout", ["100", "export"])
def test_hidden_images_are_named(tmp_path: Path, layout: str) -> None:
    """A hidden file and a hidden folder; not what file managers hide there."""
    study = write_study(tmp_path / "100").rename(tmp_path / layout)
    (study / "11").rename(study / ".11")
    (study / "12" / "3.dcm").rename(study / "12" / ".3.dcm")
    (study / "12" / "._1.dcm").write_bytes(b"\0\x05\x16\x07" + bytes(200))
    (study / ".Trash-0").mkdir()
    shutil.copy(study / "12" / "1.dcm", study / ".Trash-0" / "1.dcm")
    (loaded,) = studies_in(study)
    assert sorted(len(series.slices) for series in loaded.series) == [4, 5]
    assert sorted(item.reason for item in loaded.rejections) == [
        Reason.MISPLACED,
        Reason.OTHER_FORMAT,
        Reason.SLICES_MISSING,
    ]


@pytest.mark.parametrize("in_folder", [True, False])
def test_where_nothing_is_found_what_was_refused_is_said(tmp_path: Path, in_folder: bool) -> None:
    """An archive that holds nothing but another one."""
    write_study(tmp_path / "200")
    zipped(tmp_path / "inner.zip", tmp_path / "200")
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "outer.zip", "w") as archive:
        archive.write(tmp_path / "inner.zip", "inner.zip")
    source = tmp_path / "in" if in_folder else tmp_path / "in" / "outer.zip"
    with pytest.raises(DicomRejected) as caught, opened_input(source) as (folder, _):
        find_studies(folder)
    assert caught.value.rejection.reason is Reason.NO_IMAGES
    assert [item.reason for item in caught.value.rejections] == [Reason.NESTED_ARCHIVE]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CD 2.iso", "disc image"),
        ("export.dmg", "disc image"),
        ("IM01.dcm.gpg", "encrypted"),
        ("1.P7M", "encrypted"),
    ],
)
def test_what_its_name_alone_tells_is_named(tmp_path: Path, name: str, words: str) -> None:
    write_series(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / name).write_bytes(bytes(range(256)) * 4)
    (study,) = studies_in(tmp_path)
    assert [item.reason for item in study.rejections] == [Reason.OTHER_FORMAT]
    assert words in study.rejections[0].message
