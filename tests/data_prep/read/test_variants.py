"""Protects: other modalities, files of a broken copy and spellings of a name are taken for what they are."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import pydicom
import pytest
from pydicom.fileset import FileSet
from pydicom.uid import (
    CTImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)

from data_prep.problems import DicomRejected, Reason
from data_prep.read.dicom_header import name_digests
from data_prep.read.find import find_all_studies, find_studies
from data_prep.read.opening import opened_input
from data_prep.read.tree import missing_images
from data_prep.study import Study
from data_prep.vocabulary import SeriesKind
from tests.dicom_files import AXIAL, SAGITTAL, write_series, write_slice, write_study


def studies_in(path: Path) -> list[Study]:
    return [entry.load() for entry in find_studies(path)]


def said(study: Study) -> list[tuple[Reason, str]]:
    return [(item.reason, item.message) for item in study.rejections]


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"Modality": "CT"}, "an object of modality CT"),
        (
            {"Modality": "PT", "SOPClassUID": PositronEmissionTomographyImageStorage},
            "an object of modality PT",
        ),
        ({"Modality": "", "SOPClassUID": CTImageStorage}, "an image of another modality"),
    ],
)
def test_images_of_other_modalities_are_named_once(
    tmp_path: Path, elements: dict[str, str], words: str
) -> None:
    """One line for each folder, in a tree and in the RSNA layout."""
    options = {"orientation": AXIAL, "series_uid": "1.2.3.9", "description": "SPINE 3.0", **elements}
    write_series(tmp_path / "tree" / "mr")
    write_series(tmp_path / "tree" / "ct", 7, **options)  # type: ignore[arg-type]
    write_series(write_study(tmp_path / "100") / "14", 7, **options)  # type: ignore[arg-type]
    for folder, count in ((tmp_path / "tree", 1), (tmp_path / "100", 3)):
        (study,) = studies_in(folder)
        assert len(study.series) == count
        ((reason, message),) = said(study)
        assert reason is Reason.OTHER_MODALITY and message.startswith(words)
        assert message.endswith(", and 6 more here")


def test_a_folder_of_ct_alone_says_so(tmp_path: Path) -> None:
    write_series(tmp_path, Modality="CT")
    with pytest.raises(DicomRejected) as caught:
        find_studies(tmp_path)
    assert [item.reason for item in caught.value.rejections] == [Reason.OTHER_MODALITY]


@pytest.mark.parametrize("modality", ["MR", "", "OT"])
def test_what_may_be_mr_is_read(tmp_path: Path, modality: str) -> None:
    """MR by its modality, whatever class a converter gave it; and what says nothing."""
    write_series(tmp_path, Modality=modality, SOPClassUID=CTImageStorage if modality == "MR" else "1.2.3")
    (study,) = studies_in(tmp_path)
    assert len(study.series) == 1 and said(study) == []


def test_a_picture_of_a_screen_stands_behind_the_images(tmp_path: Path) -> None:
    write_series(tmp_path / "a", series_uid="1.2.3.1", SOPClassUID=SecondaryCaptureImageStorage)
    write_series(tmp_path / "b", series_uid="1.2.3.2")
    (study,) = studies_in(tmp_path)
    assert {item.series_id: item.unused for item in study.series} == {"1.2.3.1": "derived", "1.2.3.2": ""}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_what_an_interrupted_copy_leaves_is_named(tmp_path: Path, packed: bool) -> None:
    top = tmp_path / "export"
    for path in write_series(top / "S1"):
        path.rename(path.with_name(f"IM{path.stem}"))
    (top / "S1" / "IM0006").write_bytes(b"")
    (top / "S1" / "IM0007").write_bytes(bytes(5000))
    (top / "S1" / "IM0008").write_bytes(b"\x93\x11\x07" * 500)
    (top / "S2").mkdir()
    (top / "S2" / "IM0001").write_bytes(bytes(5000))
    # What lies on discs beside images, or is no image by its name.
    (top / "S1" / "VERSION").write_bytes(b"")
    (top / "S1" / "notes1.txt").write_text("L4/L5")
    (top / "VIEWER").mkdir()
    (top / "VIEWER" / "lib32").write_bytes(b"\x7fELF" * 200)
    if packed:
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for path in sorted(path for path in top.rglob("*") if path.is_file()):
                archive.write(path, path.relative_to(tmp_path))
        top = tmp_path / "all.zip"
    with opened_input(top) as (folder, rejections):
        (study,) = studies_in(folder)
    messages = sorted(item.message for item in (*rejections, *study.rejections))
    assert messages == [
        "a file of no bytes, which is not read",
        "a file of zeros, which is not read",
        "a file of zeros, which is not read",
        "a file without DICOM content, which is not read",
    ]
    assert {item.reason for item in (*rejections, *study.rejections)} == {Reason.NOT_DICOM}


def disc(folder: Path) -> Path:
    """A disc with a DICOMDIR that names five images."""
    made = FileSet()
    for path in write_series(folder / "made"):
        dataset = pydicom.dcmread(path)
        dataset.PatientID = dataset.PatientName = dataset.StudyID = "1"
        dataset.StudyDate, dataset.StudyTime, dataset.SeriesNumber = "20200101", "101010", 1
        dataset.Modality = "MR"
        made.add(dataset)
    made.write(folder / "disc")
    shutil.rmtree(folder / "made")
    return folder / "disc"


def images_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR")


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_images_that_a_dicomdir_names_and_that_are_not_there_are_said(tmp_path: Path, packed: bool) -> None:
    folder = disc(tmp_path)
    (study,) = studies_in(folder)
    assert len(study.series[0].slices) == 5 and said(study) == []
    for path in images_of(folder)[:2]:
        path.unlink()
    if packed:
        with zipfile.ZipFile(tmp_path / "disc.zip", "w") as archive:
            for path in (folder / "DICOMDIR", *images_of(folder)):
                archive.write(path, path.relative_to(tmp_path))
    with opened_input(tmp_path / "disc.zip" if packed else folder) as (found, _):
        (study,) = studies_in(found)
    assert said(study) == [(Reason.LISTED_FILES, "it names 5 images, and 2 of them are not here")]


def test_a_dicomdir_stands_for_its_disc(tmp_path: Path) -> None:
    folder = disc(tmp_path)
    (study,), (by_list,) = (studies_in(path) for path in (folder, folder / "DICOMDIR"))
    assert by_list.study_id == study.study_id
    assert [len(series.slices) for series in by_list.series] == [5]
    other = tmp_path / "other"
    write_series(other / "2", orientation=AXIAL)
    (both,) = find_all_studies([folder / "DICOMDIR", other])
    assert len(both.load().series) == 2


def test_letter_case_and_strange_names_in_a_dicomdir_say_nothing(tmp_path: Path) -> None:
    """Copies of a disc have small letters; a name that leads out of the folder is never looked for."""
    folder = disc(tmp_path)
    files = [*folder.parent.joinpath("disc").rglob("*")]
    small = [Path(str(path).replace(path.name, path.name.lower())) for path in files]
    assert missing_images(folder / "DICOMDIR", small) is None
    content = (folder / "DICOMDIR").read_bytes()
    record = b"\x04\x00\x30\x14CS\x06\x00IMAGE \x04\x00\x00\x15CS"
    odd = record + (14).to_bytes(2, "little") + b"..\\..\\ETC\\PASS"
    (folder / "DICOMDIR").write_bytes(content + odd)
    assert missing_images(folder / "DICOMDIR", images_of(folder)) is None
    (folder / "DICOMDIR").write_bytes(bytes(200) + record * 100_000 + record[:7])
    assert missing_images(folder / "DICOMDIR", images_of(folder)) is None
    for path in images_of(folder):  # nothing of it is there: it belongs to something else
        path.unlink()
    (folder / "DICOMDIR").write_bytes(content)
    assert missing_images(folder / "DICOMDIR", [folder / "DICOMDIR"]) is None


def test_two_concatenations_with_identifiers_of_their_own_are_one_stack(tmp_path: Path) -> None:
    for half in (0, 1):
        write_series(
            tmp_path / f"S{half}", start=(-8.0 + 4.0 * half, 0, 0), step_mm=8.0, series_uid=f"1.2.{half}"
        )
    (study,) = studies_in(tmp_path)
    assert [[len(stack) for stack in series.stacks] for series in study.series] == [[10]]


def test_two_series_of_one_place_or_contrast_each_stay_two(tmp_path: Path) -> None:
    """Neither a second T2 of the same slices nor a T1 between the slices of T2 is a part of it."""
    write_series(tmp_path / "S0", step_mm=8.0, series_uid="1.2.0")
    write_series(tmp_path / "S1", step_mm=8.0, series_uid="1.2.1")
    write_series(tmp_path / "S2", start=(-4.0, 0, 0), step_mm=8.0, series_uid="1.2.2", description="T1")
    (study,) = studies_in(tmp_path)
    assert sorted(len(series.slices) for series in study.series) == [5, 5, 5]


_JAPANESE = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("a", "b", "is_one"),
    [
        (
            ("M\u00fcller^J\u00f6rg".encode("latin-1"), b"ISO_IR 100"),
            ("M\u00fcller^J\u00f6rg".encode(), b"ISO_IR 192"),
            True,
        ),
        (("M\u00fcller".encode("latin-1"), b"ISO_IR 100"), (b"MULLER", b""), True),
        (("M\u00fcller".encode(), b""), ("M\u00fcller".encode(), b"ISO_IR 192"), True),
        (
            ("\uae40^\ud76c\uc911".encode("euc-kr"), b"\\ISO 2022 IR 149"),
            ("\uae40^\ud76c\uc911".encode(), b"ISO_IR 192"),
            False,
        ),
        (
            (_JAPANESE, b"\\ISO 2022 IR 87"),
            ("Yamada^Tarou=\u5c71\u7530^\u592a\u90ce".encode(), b"ISO_IR 192"),
            True,
        ),
        ((b"Doe^John", b""), (b"Doe^Jane", b""), False),
        (("\u5c71\u7530".encode(), b"ISO 2022 IR 149"), ("\u4f50\u85e4".encode(), b"ISO 2022 IR 149"), False),
        (("M\u00fcller".encode(), b"ISO_IR 192"), ("M\u00f6ller".encode(), b"ISO_IR 192"), False),
    ],
    ids=[
        "utf-8",
        "accents",
        "undeclared",
        "korean without escapes",
        "japanese",
        "others",
        "wrong set",
        "umlauts",
    ],
)
def test_a_name_is_one_in_every_encoding(
    a: tuple[bytes, bytes], b: tuple[bytes, bytes], is_one: bool
) -> None:
    assert (name_digests(*a) == name_digests(*b)) is is_one


def test_letters_alone_are_the_name_too_but_two_spellings_are_two_people(tmp_path: Path) -> None:
    both = name_digests("Yamada^Tarou=\u5c71\u7530^\u592a\u90ce".encode(), b"ISO_IR 192")
    alone = name_digests(b"YAMADA^TAROU", b"")
    other = name_digests("Yamada^Tarou=\u5c71\u7530^\u592a\u6717".encode(), b"ISO_IR 192")
    assert both[0] == alone[0] == other[0] and alone[1] == ""
    assert len({both[1], other[1], ""}) == 3
    names = (
        "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce",
        "Yamada^Tarou",
        "Yamada^Tarou=\u5c71\u7530^\u592a\u6717",
    )
    for number, name in enumerate(names):
        options = {"PatientName": name, "SpecificCharacterSet": "ISO_IR 192", "series_uid": f"1.2.{number}"}
        start = (-8.0, 200.0 * number, 0.0)
        write_series(tmp_path / f"S{number}", start=start, **options)  # type: ignore[arg-type]
    studies = studies_in(tmp_path)
    assert (
        all({series.series_id for series in study.series} != {"1.2.0", "1.2.2"} for study in studies)
        and len(studies) > 1
    )


@pytest.mark.parametrize(
    ("description", "elements"),
    [
        ("SAG T2", {"DiffusionBValue": 800.0}),
        ("SAG", {"EchoTime": 950, "RepetitionTime": 8000}),
        ("T2W_FFE", {}),
        ("T2 MERGE", {}),
        ("DTI 30 dir", {"EchoTime": 90, "RepetitionTime": 4000}),
        ("SAG T1 SUB", {}),
    ],
)
def test_what_only_looks_like_t2_or_t1_is_not_used(
    tmp_path: Path, description: str, elements: dict[str, float]
) -> None:
    write_series(tmp_path / "a", series_uid="1.2.3.1", description=description, **elements)  # type: ignore[arg-type]
    write_series(tmp_path / "b", series_uid="1.2.3.2", description="T1")
    (study,) = studies_in(tmp_path)
    assert [series.kind for series in study.series] == [SeriesKind.SAGITTAL_T1]
    assert [reason for reason, _ in said(study)] == [Reason.UNKNOWN_KIND]


@pytest.mark.parametrize(
    "words", ["T1 SAG MDC", "T1 \u9020\u5f71", "T1 \u589e\u5f3a", "T1 SAG +\u041a\u0423", "T1 SAG ENH"]
)
def test_contrast_agent_is_read_in_other_languages(tmp_path: Path, words: str) -> None:
    options = {"SpecificCharacterSet": "ISO_IR 192", "description": words}
    write_series(tmp_path / "a", series_uid="1.2.3.1", **options)  # type: ignore[arg-type]
    write_series(tmp_path / "b", series_uid="1.2.3.2", description="T1 SAG")
    (study,) = studies_in(tmp_path)
    assert {item.series_id: bool(item.unused) for item in study.series} == {"1.2.3.1": True, "1.2.3.2": False}


@pytest.mark.parametrize(
    ("count", "time", "is_unused"), [(5, "101500", True), (4, "101500", False), (5, "", False)]
)
def test_a_t2_that_was_acquired_again_is_not_used(
    tmp_path: Path, count: int, time: str, is_unused: bool
) -> None:
    """Unless it shows something else: another number of slices, or no time, may be another acquisition."""
    write_series(tmp_path / "a", count, series_uid="1.2.3.1", AcquisitionTime=time)
    write_series(tmp_path / "b", 5, series_uid="1.2.3.2", AcquisitionTime="104500", start=(-9.0, 1, 1))
    (study,) = studies_in(tmp_path)
    expected = {"1.2.3.1": "repeated" if is_unused else "", "1.2.3.2": ""}
    assert {item.series_id: item.unused for item in study.series} == expected


@pytest.mark.parametrize("words", ["t2_space MPR Tra", "T2 AX RFMT", "T2 COMPOSED"])
def test_reformats_stand_behind_what_was_acquired(tmp_path: Path, words: str) -> None:
    write_series(tmp_path / "a", series_uid="1.2.3.1", description=words)
    write_series(tmp_path / "b", series_uid="1.2.3.2", description="T2")
    (study,) = studies_in(tmp_path)
    assert {item.series_id: item.unused for item in study.series} == {"1.2.3.1": "derived", "1.2.3.2": ""}


@pytest.mark.filterwarnings("ignore")
def test_the_digest_of_a_name_never_fails() -> None:
    stream = io.BytesIO(bytes(range(256)))
    for charset in (b"", b"ISO_IR 192", b"\\ISO 2022 IR 87", b"nonsense", b"\xff\\\xfe", b"GB18030"):
        for size in range(0, 256, 17):
            assert len(name_digests(stream.getvalue()[size:], charset)) == 2


def test_a_name_of_one_file_is_kept_nowhere(tmp_path: Path) -> None:
    path = write_slice(
        tmp_path / "1.dcm", PatientName="Qxzcanary=\u5c71\u7530", SpecificCharacterSet="ISO_IR 192"
    )
    (entry,) = find_studies(path)
    assert "Qxzcanary" not in repr([vars(header) for group in entry.headers.values() for header in group])


@pytest.mark.parametrize("gone", [(), ("StudyInstanceUID",), ("StudyInstanceUID", "SeriesInstanceUID")])
@pytest.mark.parametrize("own", ["folder", "SeriesInstanceUID", "both"])
def test_a_folder_or_an_identifier_of_a_series_for_each_image(
    tmp_path: Path, own: str, gone: tuple[str, ...]
) -> None:
    """Of two patients; neither tells the series apart, but what the images show does."""
    for patient in ("A", "B"):
        times = {
            "T1": {"RepetitionTime": 600, "EchoTime": 12},
            "T2": {"RepetitionTime": 3000, "EchoTime": 100},
        }
        files = [
            file
            for number, (name, orientation) in enumerate((("T1", SAGITTAL), ("T2", SAGITTAL), ("T2", AXIAL)))
            for file in write_series(
                tmp_path / "made" / f"{patient}{number}",
                7,
                orientation=orientation,
                description=name,
                study_uid=f"1.2.{ord(patient)}",
                series_uid=f"1.2.{ord(patient)}.{number}",
                PatientID=patient,
                without=gone,
                **times[name],
            )
        ]
        for number, file in enumerate(files):
            if own != "folder" and "SeriesInstanceUID" not in gone:
                dataset = pydicom.dcmread(file)
                dataset.SeriesInstanceUID = f"{dataset.SeriesInstanceUID}.{number}"
                dataset.save_as(file)
            folder = tmp_path / "in" / patient / (f"{number:04d}" if own != "SeriesInstanceUID" else "")
            folder.mkdir(parents=True, exist_ok=True)
            file.rename(folder / f"IM{number:04d}.dcm")
    studies = studies_in(tmp_path / "in")
    assert [sorted(len(series.slices) for series in study.series) for study in studies] == [[7, 7, 7]] * 2
    assert [said(study) for study in studies] == [[], []]
