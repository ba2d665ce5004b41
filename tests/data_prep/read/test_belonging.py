"""Protects: images of two patients, or two acquisitions, are not taken for one because they lie together."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.problems import Reason
from data_prep.read.find import find_studies
from data_prep.study import Study
from data_prep.vocabulary import SeriesKind
from tests.dicom_files import AXIAL, SAGITTAL, write_series, write_study

TABLE = "study_id,series_id,series_description\n100,1,Sagittal T2/STIR\n"


def load(path: Path) -> Study:
    (entry,) = find_studies(path)
    return entry.load()


def kinds(study: Study) -> dict[str, tuple[SeriesKind | None, int]]:
    return {series.series_id: (series.kind, len(series.slices)) for series in study.series}


def test_a_series_of_another_patient_in_the_study_is_rejected_file_by_file(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100", PatientID="100")
    write_series(study / "9", 4, study_uid="200", series_uid="200.9", PatientID="200")
    loaded = load(study)
    assert sorted(kinds(loaded)) == ["11", "12", "13"]
    assert [(item.reason, item.series_id) for item in loaded.rejections] == [(Reason.OTHER_PATIENT, "9")] * 4


def test_slices_of_another_patient_within_a_series_are_rejected(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100", PatientID="A")
    write_series(study / "12", 9, first_instance=50, study_uid="7", series_uid="7.1", PatientID="B")
    loaded = load(study)
    assert kinds(loaded)["12"] == (SeriesKind.SAGITTAL_T2, 5)
    assert {item.file for item in loaded.rejections} == {f"{number}.dcm" for number in range(50, 59)}


def test_the_patient_that_the_folder_names_is_kept_even_when_the_other_has_more_images(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "100"
    write_series(folder / "1", 4, study_uid="100", PatientID="100")
    write_series(folder / "2", 9, study_uid="200", PatientID="200")
    assert kinds(load(folder)) == {"1": (SeriesKind.SAGITTAL_T2, 4)}


@pytest.mark.parametrize(
    "second",
    [
        {"study_uid": "200", "PatientID": "100"},
        {"study_uid": "200", "PatientID": ""},
        {"study_uid": "200", "PatientID": "ANON"},
    ],
    ids=["same patient", "patient unknown", "placeholder"],
)
def test_another_study_identifier_alone_does_not_make_another_patient(
    tmp_path: Path, second: dict[str, str]
) -> None:
    folder = tmp_path / "100"
    write_series(folder / "1", study_uid="100", PatientID="100")
    write_series(folder / "2", orientation=AXIAL, **second)  # type: ignore[arg-type]
    loaded = load(folder)
    assert sorted(kinds(loaded)) == ["1", "2"] and loaded.rejections == ()


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({"study_uid": "100", "PatientID": "other"}, Reason.OTHER_PATIENT),
        ({"study_uid": "100", "PatientID": "", "PatientBirthDate": "19500102"}, Reason.OTHER_PATIENT),
        ({"study_uid": "100", "PatientID": "", "PatientName": "Other"}, Reason.OTHER_PATIENT),
        ({"study_uid": "200", "PatientID": "100", "StudyDate": "20190304"}, Reason.OTHER_STUDY),
    ],
    ids=["patient", "birth date", "name", "examination"],
)
def test_what_differs_in_patient_or_date_is_left_out(
    tmp_path: Path, second: dict[str, str], reason: Reason
) -> None:
    folder = tmp_path / "100"
    own = {"PatientID": "100", "PatientBirthDate": "19440506", "StudyDate": "20180203", "PatientName": "Mine"}
    write_series(folder / "1", study_uid="100", **own)  # type: ignore[arg-type]
    write_series(folder / "2", 3, orientation=AXIAL, **second)  # type: ignore[arg-type]
    loaded = load(folder)
    assert sorted(kinds(loaded)) == ["1"]
    assert [item.reason for item in loaded.rejections] == [reason] * 3


def test_two_patients_without_study_identifier_in_one_folder_are_not_mixed(tmp_path: Path) -> None:
    for name, count in (("A", 6), ("B", 4)):
        uids = {"StudyInstanceUID": "", "SeriesInstanceUID": f"1.{name == 'A':d}", "SOPInstanceUID": ""}
        write_series(tmp_path / name, count, PatientID=name, **uids)
        for path in (tmp_path / name).iterdir():
            path.rename(tmp_path / f"{name}{path.name}")
        (tmp_path / name).rmdir()
    studies = [entry.load() for entry in find_studies(tmp_path)]
    assert [[len(series.slices) for series in study.series] for study in studies] == [[6], [4]]
    assert len({study.study_id for study in studies}) == 2
    assert [study.rejections for study in studies] == [(), ()]


def test_a_part_of_a_series_never_takes_the_name_of_the_folder_beside_it(tmp_path: Path) -> None:
    """Points of the one would have been read on the slices of the other."""
    write_series(tmp_path / "100/1", 5, description="T2", series_uid="100.1")
    write_series(tmp_path / "100/1", 7, first_instance=101, description="T1", series_uid="100.2")
    write_series(tmp_path / "100/1-2", 6, orientation=AXIAL, description="T2", series_uid="100.3")
    assert kinds(load(tmp_path / "100")) == {
        "1": (SeriesKind.SAGITTAL_T2, 5),
        "1-2": (SeriesKind.AXIAL_T2, 6),
        "1-3": (SeriesKind.SAGITTAL_T1, 7),
    }


def test_t1_and_t2_in_one_series_folder_become_two_series(tmp_path: Path) -> None:
    folder = tmp_path / "100" / "1"
    write_series(folder, 5, description="T2", series_uid="100.1")
    write_series(folder, 7, first_instance=101, description="T1", series_uid="100.2")
    (tmp_path / "train_series_descriptions.csv").write_text(TABLE)
    loaded = load(tmp_path / "100")
    assert kinds(loaded) == {"1": (SeriesKind.SAGITTAL_T2, 5), "1-2": (SeriesKind.SAGITTAL_T1, 7)}
    assert [item.instance_number for item in loaded.series[1].slices] == list(range(101, 108))
    assert loaded.rejections == ()


def test_stacks_with_identifiers_of_their_own_stay_one_series(tmp_path: Path) -> None:
    folder = tmp_path / "100" / "1"
    write_series(folder, 5, orientation=AXIAL, series_uid="100.1")
    write_series(folder, 5, orientation=AXIAL, start=(-8, 0, 60), first_instance=11, series_uid="100.2")
    assert kinds(load(tmp_path / "100")) == {"1": (SeriesKind.AXIAL_T2, 10)}


def test_acquisitions_that_overlap_and_are_numbered_alike_become_two_series(tmp_path: Path) -> None:
    folder = tmp_path / "100" / "1"
    for uid, z_mm in (("100.1", 0.0), ("100.2", 16.0)):
        part = write_series(tmp_path / uid, 6, orientation=AXIAL, start=(-8.0, 0.0, z_mm), series_uid=uid)
        for path in part:
            folder.mkdir(parents=True, exist_ok=True)
            path.rename(folder / f"{uid[-1]}0{path.name}")
    assert kinds(load(tmp_path / "100")) == {"1": (SeriesKind.AXIAL_T2, 6), "1-2": (SeriesKind.AXIAL_T2, 6)}


def test_of_a_divided_series_the_part_that_the_table_names_keeps_its_kind(tmp_path: Path) -> None:
    """Though it is the smaller one, and some of its images have an identifier of their own."""
    folder = tmp_path / "100" / "1"
    write_series(folder, 3, description="", series_uid="100.1")
    write_series(folder, 2, description="", start=(4.0, 0, 0), first_instance=11, series_uid="100.2")
    write_series(folder, 7, description="T1", first_instance=101, series_uid="100.3")
    (tmp_path / "train_series_descriptions.csv").write_text(TABLE)
    loaded = load(tmp_path / "100")
    assert kinds(loaded) == {"1": (SeriesKind.SAGITTAL_T2, 5), "1-2": (SeriesKind.SAGITTAL_T1, 7)}


def test_without_series_identifiers_one_folder_is_divided_by_what_the_headers_say(tmp_path: Path) -> None:
    expected = {("T1", 6), ("T2", 7), ("axial", 8)}
    write_series(tmp_path, 6, description="T1", without=["SeriesInstanceUID"])
    write_series(tmp_path, 7, first_instance=20, description="T2", without=["SeriesInstanceUID"])
    write_series(
        tmp_path, 8, orientation=AXIAL, first_instance=40, description="T2", without=["SeriesInstanceUID"]
    )
    names = {SeriesKind.SAGITTAL_T1: "T1", SeriesKind.SAGITTAL_T2: "T2", SeriesKind.AXIAL_T2: "axial"}
    loaded = load(tmp_path)
    assert {(names[kind], count) for kind, count in kinds(loaded).values() if kind} == expected
    assert loaded.rejections == ()


def test_a_localiser_without_series_identifier_stays_one(tmp_path: Path) -> None:
    for first, orientation in ((1, SAGITTAL), (2, AXIAL)):
        write_series(
            tmp_path / "loc",
            1,
            orientation=orientation,
            first_instance=first,
            without=["SeriesInstanceUID"],
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        )
    write_series(tmp_path / "t2", 5)
    assert [item.reason for item in load(tmp_path).rejections] == [Reason.LOCALISER]
