"""The account of images: what is lost, mixed or misnamed is counted, and what is named is not lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.accounting import judged
from benchmarks.identifiers import LAYOUTS, Mutation
from tests.data_prep.read.test_grouping import write_patient
from tests.dicom_files import SAGITTAL, write_series, write_study


def owners(folder: Path) -> dict[str, int]:
    """Two patients, told apart by the folder below ``in``, or by the number of the file."""
    return {
        path.relative_to(folder).as_posix(): int(path.relative_to(folder).parts[1].startswith("b"))
        for path in sorted((folder / "in").rglob("*.dcm"))
    }


@pytest.fixture
def two(tmp_path: Path) -> Path:
    for patient, name in enumerate("ab"):
        write_patient(tmp_path / "in" / name, patient, first=1000 * patient + 1, PatientID=f"P{patient}")
    return tmp_path


def test_two_patients_that_are_read_whole(two: Path) -> None:
    found = judged(two, owners(two))
    assert (found.mixed, found.lost, found.untrue, found.used, found.named, found.studies) == (
        0,
        0,
        0,
        39,
        0,
        2,
    )


def test_an_image_that_nobody_found_is_lost(two: Path) -> None:
    found = judged(two, {**owners(two), "in/a/77.dcm": 0})
    assert (found.lost, found.used, found.named) == (1, 39, 0)


def test_a_study_of_two_patients_is_mixed(two: Path) -> None:
    everybody = owners(two)
    found = judged(two, {path: number % 2 for number, path in enumerate(everybody)})
    assert found.mixed == 2


def test_a_copy_and_a_broken_file_are_named(two: Path) -> None:
    shutil.copy(two / "in" / "a" / "1.dcm", two / "in" / "a" / "900.dcm")
    (two / "in" / "b" / "901.dcm").write_bytes(b"nothing")
    found = judged(two, owners(two))
    assert (found.lost, found.untrue, found.used, found.named) == (0, 0, 39, 2)
    assert found.reasons == {"duplicate_instance": 1, "not_dicom": 1}


def test_images_of_a_refused_study_or_series_are_counted(tmp_path: Path) -> None:
    """Two patients that nothing tells apart, and a series that claims to lie at one place."""
    for patient in range(2):
        none = dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
        write_patient(tmp_path / "in", patient, first=1000 * patient + 1, **none)
    found = judged(tmp_path, dict.fromkeys(owners(tmp_path), 0))
    assert (found.lost, found.untrue, found.used, found.named, found.studies) == (0, 0, 0, 39, 0)
    shutil.rmtree(tmp_path / "in")
    study = write_study(tmp_path / "in" / "100", first_instance=1)
    shutil.rmtree(study / "12")
    shutil.rmtree(study / "13")
    write_series(study / "12", 5, orientation=SAGITTAL, step_mm=0.0, first_instance=50, series_uid="100.12")
    found = judged(tmp_path, dict.fromkeys(owners(tmp_path), 0))
    assert (found.lost, found.untrue, found.used, found.named) == (0, 0, 5, 5)


def test_names_that_do_not_tell_images_apart_are_refused(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "100")
    with pytest.raises(ValueError, match="one name"):
        judged(tmp_path, owners(tmp_path))


def test_the_first_200_mutations_have_every_layout_way_and_scope() -> None:
    drawn = [Mutation.drawn(number) for number in range(200)]
    assert {item.layout for item in drawn} == set(LAYOUTS)
    assert len({(item.layout, item.way) for item in drawn}) == 25
    assert len({(item.way, item.scope) for item in drawn}) >= 29
    assert drawn[7] == Mutation.drawn(7) and len({str(item).split(": ")[1] for item in drawn}) > 180
