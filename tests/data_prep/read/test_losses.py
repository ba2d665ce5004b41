"""Protects: nothing that holds images of a patient is passed over without a word, whatever it is called."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pydicom
import pytest

from data_prep.names import folder_id
from data_prep.problems import Reason
from data_prep.read.find import find_all_studies, find_studies
from data_prep.read.opening import opened_input
from data_prep.read.own import MANUFACTURER
from data_prep.study import Study
from tests.dicom_files import AXIAL, write_series, write_slice, write_study

REPORT = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.34", "Modality": "SR", "Manufacturer": MANUFACTURER}
FOLDERS = ("sr", "sr-comprehensive", "sc", "kos", "gsps/1.2.9")


def studies_in(path: Path) -> list[Study]:
    return [entry.load() for entry in find_studies(path)]


def said(studies: list[Study]) -> list[Reason]:
    return [item.reason for study in studies for item in study.rejections]


def write_patient(folder: Path, number: int) -> Path:
    write_series(
        folder, study_uid=f"1.2.{number}", series_uid=f"1.2.{number}.1", PatientID=f"P{number}", Modality="MR"
    )
    return folder


def write_results(out: Path, *, killed: bool = False) -> None:
    """What a run leaves of a study 1.2.9, which nobody has here any more."""
    for folder in FOLDERS:
        write_slice(out / folder / "1.2.9.dcm", study_uid="1.2.9", **REPORT)  # type: ignore[arg-type]
    for name in ("pictures/1.2.9.png", "reports/1.2.9/report.html", "studies/1.2.9.json"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / "pictures/1.2.9.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(400))
    (out / "reports/1.2.9/report.html").write_text("<!doctype html>")
    (out / "studies/1.2.9.json").write_text('{"marker": "0", "study": {}}')
    for name in () if killed else ("predictions.json", "submission.csv", "index.html"):
        (out / name).write_text("{}")


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("place", ["out", "."])
def test_results_that_lie_in_their_input_are_no_study(tmp_path: Path, place: str, killed: bool) -> None:
    write_patient(tmp_path / "a", 1)
    write_patient(tmp_path / "b", 2)
    write_results(tmp_path / place, killed=killed)
    studies = studies_in(tmp_path)
    assert [study.study_id for study in studies] == ["1.2.1", "1.2.2"] and said(studies) == []


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("place", ["out", "."])
def test_results_beside_studies_of_the_rsna_layout_are_no_study(
    tmp_path: Path, place: str, killed: bool
) -> None:
    write_study(tmp_path / "100")
    write_study(tmp_path / "200")
    write_results(tmp_path / place, killed=killed)
    studies = studies_in(tmp_path)
    assert [study.study_id for study in studies] == ["100", "200"] and said(studies) == []


@pytest.mark.parametrize("record", [None, "{}", '{"marker": "0", "study": {}}'])
@pytest.mark.parametrize("name", ["reports", "studies", "sc"])
def test_a_folder_without_images_is_named_unless_the_program_made_it(
    tmp_path: Path, name: str, record: str | None
) -> None:
    """Whatever it is called: a patient's images may be missing."""
    write_study(tmp_path / "100")
    (tmp_path / name).mkdir()
    if record is not None:
        (tmp_path / "studies").mkdir(exist_ok=True)
        (tmp_path / "studies" / "1.2.9.json").write_text(record)
    ids = {entry.study_id for entry in find_studies(tmp_path)}
    assert (folder_id(name) in ids) == (record is None or "marker" not in record)


@pytest.mark.parametrize("name", [*FOLDERS, "reports", "pictures", "studies", "bids"])
def test_a_patient_whose_folder_is_called_as_ours_is_graded(tmp_path: Path, name: str) -> None:
    """Beside somebody's results, or among them."""
    write_patient(tmp_path / "a", 1)
    write_results(tmp_path)
    write_patient(tmp_path / name, 2)
    studies = studies_in(tmp_path)
    assert [(study.study_id, len(study.series[0].slices)) for study in studies] == [
        ("1.2.1", 5),
        ("1.2.2", 5),
    ]
    assert said(studies) == []


@pytest.mark.parametrize("name", ["MR1.png", "1.2.9.jpg"])
@pytest.mark.parametrize("packed", [False, True])
def test_pictures_that_are_nobody_s_results_are_named(tmp_path: Path, name: str, packed: bool) -> None:
    write_patient(tmp_path / "in" / "a", 1)
    write_results(tmp_path / "in")
    shutil.copy(tmp_path / "in" / "pictures" / "1.2.9.png", tmp_path / "in" / "pictures" / name)
    with opened_input(zipped(tmp_path / "in") if packed else tmp_path / "in") as (folder, rejections):
        assert [*said(studies_in(folder)), *(item.reason for item in rejections)] == [Reason.OTHER_FORMAT]


def test_a_report_by_somebody_else_is_named(tmp_path: Path) -> None:
    write_patient(tmp_path / "a", 1)
    write_results(tmp_path)
    foreign = {**REPORT, "Manufacturer": "ACME"}
    write_slice(tmp_path / "sr" / "1.dcm", study_uid="1.2.9", **foreign)  # type: ignore[arg-type]
    assert said(studies_in(tmp_path)) == [Reason.OTHER_MODALITY]


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_results_in_a_zip_are_no_study(tmp_path: Path) -> None:
    write_patient(tmp_path / "in" / "a", 1)
    write_results(tmp_path / "in" / "out")
    write_patient(tmp_path / "in" / "out" / "sc", 2)
    with opened_input(zipped(tmp_path / "in")) as (folder, rejections):
        studies = studies_in(folder)
        assert [study.study_id for study in studies] == ["1.2.1", "1.2.2"]
        assert said(studies) == [] and rejections == ()


@pytest.mark.parametrize("name", ["DICOMDIR", "Thumbs.db"])
@pytest.mark.parametrize("packed", [False, True])
def test_folders_are_read_whatever_files_of_their_name_are(tmp_path: Path, name: str, packed: bool) -> None:
    write_patient(tmp_path / "in" / name, 1)
    write_patient(tmp_path / "in" / "b", 2)
    with opened_input(zipped(tmp_path / "in") if packed else tmp_path / "in") as (folder, rejections):
        assert [study.study_id for study in studies_in(folder)] == ["1.2.1", "1.2.2"]
        assert rejections == ()


@pytest.mark.parametrize("name", ["DICOMDIR", "thumbs.db", "__MACOSX"])
def test_an_image_is_read_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    write_patient(tmp_path / "a", 1)
    (tmp_path / "a" / "3.dcm").rename(tmp_path / "a" / name)
    write_patient(tmp_path / "b", 2)
    studies = studies_in(tmp_path)
    assert [len(study.series[0].slices) for study in studies] == [5, 5] and said(studies) == []


@pytest.mark.parametrize("name", ["__MACOSX/a/1.dcm", ".b/1.dcm", "a/._1.dcm", "a/.1"])
@pytest.mark.parametrize("packed", [False, True])
def test_hidden_images_are_named(tmp_path: Path, name: str, packed: bool) -> None:
    """What a Mac adds to an archive is none."""
    write_patient(tmp_path / "in" / "a", 1)
    write_slice(tmp_path / "in" / name, study_uid="1.2.2")
    added = tmp_path / "in" / "__MACOSX" / "a" / "._2.dcm"
    added.parent.mkdir(parents=True, exist_ok=True)
    added.write_bytes(b"\0\5\26\7" + bytes(160))
    with opened_input(zipped(tmp_path / "in") if packed else tmp_path / "in") as (folder, rejections):
        studies = studies_in(folder)
        assert [study.study_id for study in studies] == ["1.2.1"]
        assert [*said(studies), *(item.reason for item in rejections)] in (
            [Reason.OTHER_FORMAT],
            [Reason.MISPLACED],
        )


def test_a_hidden_folder_is_named_whatever_else_it_holds(tmp_path: Path) -> None:
    write_patient(tmp_path / "a", 1)
    for number in range(120):
        (tmp_path / ".cache").mkdir(exist_ok=True)
        (tmp_path / ".cache" / f"{number}.json").write_text("{}")
    write_series(tmp_path / ".cache" / "export", orientation=AXIAL, study_uid="1.2.2")
    assert said(studies_in(tmp_path)) == [Reason.MISPLACED]


@pytest.mark.parametrize("images", ["train_images", "test_images"])
def test_a_patient_beside_the_images_folders_is_graded(tmp_path: Path, images: str) -> None:
    """In a folder, and one file; pictures of others and results are nobody's there."""
    write_study(tmp_path / images / "100")
    write_patient(tmp_path / "new", 2)
    write_slice(tmp_path / "late.dcm", study_uid="1.2.3")
    write_results(tmp_path / "out")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(400))
    studies = studies_in(tmp_path)
    assert [study.study_id for study in studies] == ["100", "1.2.2", "1.2.3"] and said(studies) == []


VOLUME = b"\x5c\x01\0\0" + bytes(340) + b"n+1\0" + bytes(400)
TAR = bytes(257) + b"ustar" + bytes(250)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("new/T2.nii", VOLUME, Reason.UNREADABLE),
        ("T2.nii", VOLUME, Reason.UNREADABLE),
        ("new.tar", TAR, Reason.OTHER_FORMAT),
        ("backup/new.tar", TAR, Reason.OTHER_FORMAT),
        ("new/1.dcm.gpg", bytes(range(256)), Reason.OTHER_FORMAT),
    ],
)
def test_other_files_of_patients_beside_the_images_folders_are_named(
    tmp_path: Path, name: str, content: bytes, reason: Reason
) -> None:
    write_study(tmp_path / "train_images" / "100")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    entries = find_studies(tmp_path)
    assert reason in {item.reason for entry in entries for item in entry.rejections}
    assert len(entries) == 2


@pytest.mark.parametrize("place", ["100", "100/11", "100/11/nifti"])
def test_volumes_among_the_images_of_the_rsna_layout_are_named(tmp_path: Path, place: str) -> None:
    write_study(tmp_path / "100")
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "T2.nii").write_bytes(VOLUME)
    (tmp_path / place / "._T2.nii").write_bytes(b"\0\5\26\7" + bytes(300))
    assert said(studies_in(tmp_path / "100")) == [Reason.OTHER_FORMAT]


def test_both_images_folders_of_a_data_set_are_read(tmp_path: Path) -> None:
    """To be graded: who trains has named one."""
    write_study(tmp_path / "train_images" / "100")
    write_study(tmp_path / "test_images" / "200")
    assert [entry.study_id for entry in find_all_studies([tmp_path])] == ["100", "200"]
    assert [entry.study_id for entry in find_studies(tmp_path)] == ["100"]
    shutil.rmtree(tmp_path / "test_images" / "200")
    assert [entry.study_id for entry in find_all_studies([tmp_path])] == ["100"]


@pytest.mark.parametrize(
    ("content", "is_named"), [(bytes(range(256)) * 8, True), (b"column,row\n" * 40, False)]
)
def test_a_folder_of_files_that_are_numbered_as_images_is_named(
    tmp_path: Path, content: bytes, is_named: bool
) -> None:
    """What an encrypted or damaged export of a second patient leaves; texts are nobody's."""
    write_patient(tmp_path / "a", 1)
    (tmp_path / "b").mkdir()
    for number in range(7):
        (tmp_path / "b" / f"IM{number:04d}").write_bytes(content)
    assert said(studies_in(tmp_path)) == [Reason.NOT_DICOM] * is_named


@pytest.mark.parametrize(
    "place", ["sourcedata/sub-02", "derivatives/x/sub-02", "code/export", "sourcedata/sub-01"]
)
def test_images_outside_the_raw_data_are_named_where_nothing_raw_stands_for_them(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    write_patient(tmp_path / "sub-01", 1)
    write_patient(tmp_path / place, 2)
    studies = studies_in(tmp_path)
    assert [study.study_id for study in studies] == ["1.2.1"]
    assert said(studies) == [Reason.MISPLACED] * (place != "sourcedata/sub-01")


def test_folders_that_are_called_as_images_of_the_rsna_layout_are_read(tmp_path: Path) -> None:
    write_study(tmp_path / "200")
    write_series(tmp_path / "100" / "11" / "1.dcm", study_uid="100", series_uid="100.11")
    studies = studies_in(tmp_path)
    assert [(study.study_id, len(study.series)) for study in studies] == [("100", 1), ("200", 3)]


def test_an_archive_without_its_ending_is_called_one(tmp_path: Path) -> None:
    write_patient(tmp_path / "in" / "a", 1)
    write_patient(tmp_path / "b", 2)
    zipped(tmp_path / "b").rename(tmp_path / "in" / "export1")
    (study,) = studies_in(tmp_path / "in")
    assert [item.message for item in study.rejections] == ["a zip archive, which is not read"]


def test_a_copy_that_shows_something_else_is_not_called_the_same_image(tmp_path: Path) -> None:
    """One study in two folders, two of its images changed; a second patient is complete."""
    write_patient(tmp_path / "a", 1)
    write_patient(tmp_path / "b", 1)
    write_patient(tmp_path / "c", 2)
    for number in (2, 4):
        dataset = pydicom.dcmread(tmp_path / "b" / f"{number}.dcm")
        dataset.PixelData = dataset.PixelData[::-1]
        dataset.save_as(tmp_path / "b" / f"{number}.dcm")
    mine, other = studies_in(tmp_path)
    assert said([mine]) == [Reason.DUPLICATE] * 5 and said([other]) == []
    differ = {item.file for item in mine.rejections if item.message.endswith("shows something else")}
    assert differ == {"2.dcm", "4.dcm"}


@pytest.mark.parametrize("name", ["._1.dcm", "._sub-02_T2w.nii.gz", "._export.zip"])
def test_what_a_mac_leaves_beside_files_is_nobody_s(tmp_path: Path, name: str) -> None:
    write_patient(tmp_path / "a", 1)
    write_patient(tmp_path / "b", 2)
    (tmp_path / "a" / name).write_bytes(b"\0\5\26\7" + bytes(4092))
    with opened_input(tmp_path) as (folder, rejections):
        studies = studies_in(folder)
        assert [study.study_id for study in studies] == ["1.2.1", "1.2.2"]
        assert said(studies) == [] and rejections == ()


def test_identifiers_of_studies_never_differ_in_case_alone(tmp_path: Path) -> None:
    """They are names of results, and many disks take both for one."""
    for number, folder in ((1, "x/P7"), (2, "y/p7")):
        identity = {"PatientID": f"A{number}", "StudyDate": f"2026010{number}"}
        write_series(tmp_path / folder, without=("StudyInstanceUID",), series_uid=f"1.2.{number}", **identity)
    ids = [study.study_id for study in studies_in(tmp_path)]
    assert len({name.casefold() for name in ids}) == 2
