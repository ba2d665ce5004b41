"""Protects: several inputs are read as if they lay in one folder; no patient is mixed or left out."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_prep.problems import DicomRejected, Reason
from data_prep.read.find import find_all_studies
from data_prep.read.opening import opened_input
from data_prep.study import Study
from data_prep.vocabulary import SeriesKind
from pipeline.cli import app
from tests.data_prep.read.test_grouping import TWO_WHOLE, shapes, write_patient
from tests.dicom_files import write_study


def studies_in(*paths: Path) -> list[Study]:
    return [entry.load() for entry in find_all_studies(paths)]


@pytest.mark.parametrize(
    "identifiers", [{"StudyInstanceUID": None}, {"StudyInstanceUID": None, "PatientID": "ANON"}, {}]
)
def test_two_patients_whose_folders_have_one_name_are_two_studies(
    tmp_path: Path, identifiers: dict[str, None]
) -> None:
    folders = [tmp_path / name / "DICOM" for name in "ab"]
    for patient, folder in enumerate(folders):
        write_patient(folder, patient, **identifiers)
    studies = studies_in(*folders)
    assert shapes(studies) == TWO_WHOLE and len({study.study_id for study in studies}) == 2
    assert [study.rejections for study in studies] == [(), ()]


@pytest.mark.parametrize("what", ["series folders", "files"])
def test_what_is_named_one_by_one_is_one_study_of_each_patient(tmp_path: Path, what: str) -> None:
    for patient, name in enumerate("ab"):
        write_patient(tmp_path / name, patient, series_folders=True)
    files = sorted(tmp_path.rglob("*.dcm"))
    assert (
        shapes(studies_in(*(files if what == "files" else sorted({file.parent for file in files}))))
        == TWO_WHOLE
    )


def test_a_folder_and_one_within_it_are_read_once(tmp_path: Path) -> None:
    for patient, name in enumerate("ab"):
        write_patient(tmp_path / name, patient)
    studies = studies_in(tmp_path / "a", tmp_path, tmp_path / "b", tmp_path / "a")
    assert shapes(studies) == TWO_WHOLE
    assert [study.rejections for study in studies] == [(), ()]


def test_series_of_an_rsna_study_may_be_named_one_by_one(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100")
    (found,) = studies_in(study / "11", study / "13")
    assert [series.series_id for series in found.series] == ["11", "13"] and found.rejections == ()
    (found,) = studies_in(study / "11", study)
    assert [series.series_id for series in found.series] == ["11", "12", "13"]


def test_two_folders_of_one_rsna_name_are_not_silently_one(tmp_path: Path) -> None:
    """Of which patient the second is, nobody knows: it is named."""
    for name in "ab":
        write_study(tmp_path / name / "100", PatientID=name)
    (found,) = studies_in(tmp_path / "a" / "100", tmp_path / "b" / "100")
    assert [item.reason for item in found.rejections] == [Reason.DUPLICATE_STUDY]
    assert len(found.series) == 3


def test_a_tree_beside_rsna_studies(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100")
    write_patient(tmp_path / "export", 1)
    assert shapes(studies_in(study, tmp_path / "export")) == [[5, 5, 5], [7, 7, 7]]


def test_zips_of_one_name_are_two_patients(tmp_path: Path) -> None:
    for patient, name in enumerate("ab"):
        write_patient(tmp_path / "made" / name, patient, StudyInstanceUID=None)
        (tmp_path / name).mkdir()
        with zipfile.ZipFile(tmp_path / name / "export.zip", "w") as archive:
            for file in sorted((tmp_path / "made" / name).iterdir()):
                archive.write(file, f"DICOM/{file.name}")
    shutil.rmtree(tmp_path / "made")
    with (
        opened_input(tmp_path / "a" / "export.zip") as (first, _),
        opened_input(tmp_path / "b" / "export.zip") as (second, _),
    ):
        studies = studies_in(first, second)
        assert shapes(studies) == TWO_WHOLE and [study.rejections for study in studies] == [(), ()]


def test_a_zip_in_a_folder_takes_the_place_of_the_folder_that_it_holds(tmp_path: Path) -> None:
    write_patient(tmp_path / "case7", 0, StudyInstanceUID=None)
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for file in sorted((tmp_path / "case7").iterdir()):
            archive.write(file, f"case7/{file.name}")
    shutil.rmtree(tmp_path / "case7")
    write_patient(tmp_path / "case8", 1, StudyInstanceUID=None)
    with opened_input(tmp_path) as (folder, _):
        assert [study.study_id for study in studies_in(folder)] == ["case7", "case8"]


def test_the_table_above_a_folder_with_a_zip_is_followed(tmp_path: Path) -> None:
    write_study(tmp_path / "100")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for file in (tmp_path / "100").rglob("*.dcm"):
            archive.write(file, file.relative_to(tmp_path))
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "in.zip").rename(tmp_path / "data" / "images" / "in.zip")
    table = "study_id,series_id,series_description\n100,11,Sagittal T2/STIR\n"
    (tmp_path / "data" / "train_series_descriptions.csv").write_text(table)
    with opened_input(tmp_path / "data" / "images") as (folder, _):
        (entry,) = find_all_studies([folder])
        assert entry.kinds == {"11": SeriesKind.SAGITTAL_T2}


def test_an_input_with_nothing_to_read_is_refused_by_name(tmp_path: Path) -> None:
    write_patient(tmp_path / "a", 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DicomRejected, match="'empty'"):
        find_all_studies([tmp_path / "a", tmp_path / "empty"])
    done = CliRunner().invoke(
        app, ["predict", str(tmp_path / "a"), str(tmp_path / "empty"), "-o", str(tmp_path / "o")]
    )
    assert done.exit_code == 1 and "'empty'" in done.output
