"""Protects: what lies in a folder of a clinic is read, or named once; nothing is passed over silently."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data_prep.problems import DicomRejected, Reason
from data_prep.read.archives import opened_input
from data_prep.read.find import find_studies
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
