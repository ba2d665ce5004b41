"""Protects: whatever anonymisers do to identifiers, two patients never become one study, and none is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest

import benchmarks.identifiers as identifiers
from benchmarks.identifiers import run, summary
from data_prep.problems import DicomRejected, Reason
from data_prep.read.find import find_studies
from data_prep.study import Study
from data_prep.vocabulary import Flag
from tests.dicom_files import AXIAL, SAGITTAL, write_series, write_study
from tests.hostile.quirks.stored import StoredStudy

# Two patients with grids of their own; the second lies elsewhere in the scanner.
GRIDS: tuple[dict[str, Any], ...] = (
    {"start": (-8.0, -100.0, 100.0), "spacing": (12.0, 12.0)},
    {"start": (-6.5, -90.0, 110.0), "spacing": (13.0, 13.0)},
)
SERIES = ((SAGITTAL, "T1"), (SAGITTAL, "T2"), (AXIAL, "T2"))


def write_patient(
    folder: Path,
    patient: int,
    *,
    series_folders: bool = False,
    first: int = 0,
    grid: int | None = None,
    **own: Any,
) -> None:
    """Three series of a patient; ``own``: identifiers, callables get (series, file)."""
    for number, (orientation, description) in enumerate(SERIES):
        geometry = dict(GRIDS[patient if grid is None else grid])
        if orientation is AXIAL:
            geometry["start"] = (-80.0, -80.0, -20.0 + patient)
        elements = {
            key: value(number) if callable(value) else value
            for key, value in own.items()
            if value is not None
        }
        paths = write_series(
            folder / (f"S{number}" if series_folders else "."),
            6 + patient,
            orientation=orientation,
            description=description,
            first_instance=1 if series_folders else first + 100 * number,
            step_mm=8.0,
            **{
                "study_uid": f"1.2.{patient}",
                "series_uid": f"1.2.{patient}.{number}",
                **geometry,
                **elements,
            },
            without=[key for key, value in own.items() if value is None],
        )
        assert len(paths) == 6 + patient


def studies_in(path: Path) -> list[Study]:
    return [entry.load() for entry in find_studies(path)]


def shapes(studies: list[Study]) -> list[list[int]]:
    return sorted(sorted(len(series.slices) for series in study.series) for study in studies)


ANONYMOUS: dict[str, Any] = {"StudyInstanceUID": None, "FrameOfReferenceUID": "1"}
TWO_WHOLE = [[6, 6, 6], [7, 7, 7]]


@pytest.mark.parametrize("series_folders", [False, True])
@pytest.mark.parametrize(
    "identifiers",
    [
        {"StudyInstanceUID": None},
        {"StudyInstanceUID": None, "PatientID": "ANON"},
        {"StudyInstanceUID": None, "PatientID": "ANON", "SeriesInstanceUID": None, "SOPInstanceUID": None},
        {"study_uid": "1.9", "PatientID": "ANON"},
        {"study_uid": "1.9", "PatientID": "ANON", "series_uid": "1.9.1"},
    ],
    ids=["no study", "anonymous", "no identifier", "one study for all", "one series for all"],
)
def test_two_anonymous_patients_in_folders_of_their_own_are_two_studies(
    tmp_path: Path, identifiers: dict[str, Any], series_folders: bool
) -> None:
    for patient, name in enumerate("ab"):
        write_patient(tmp_path / name, patient, series_folders=series_folders, **identifiers)
    studies = studies_in(tmp_path)
    assert shapes(studies) == TWO_WHOLE
    assert [study.rejections for study in studies] == [(), ()]


def test_two_anonymous_patients_of_one_geometry_stay_apart(tmp_path: Path) -> None:
    for patient, name in enumerate("ab"):
        own = {"StudyInstanceUID": None, "PatientID": "ANON", "SeriesInstanceUID": None}
        write_patient(tmp_path / name, patient, grid=0, **own)
    assert shapes(studies_in(tmp_path)) == TWO_WHOLE


def test_patients_with_identifiers_in_folders_without_study_are_both_kept(tmp_path: Path) -> None:
    for patient, name in enumerate("ab"):
        write_patient(tmp_path / name, patient, StudyInstanceUID=None, PatientID=f"P{patient}")
    studies = studies_in(tmp_path)
    assert shapes(studies) == TWO_WHOLE
    assert [study.rejections for study in studies] == [(), ()]


@pytest.mark.parametrize("series_folders", [False, True])
def test_a_study_identifier_per_series_is_one_study_of_each_patient(
    tmp_path: Path, series_folders: bool
) -> None:
    for patient, name in enumerate("ab"):
        write_patient(
            tmp_path / name,
            patient,
            series_folders=series_folders,
            StudyInstanceUID=lambda series, patient=patient: f"1.5.{patient}.{series}",
            PatientID=f"P{patient}",
        )
    assert shapes(studies_in(tmp_path)) == TWO_WHOLE


def test_series_that_do_not_fit_together_are_not_joined_and_that_is_said(tmp_path: Path) -> None:
    for patient in range(2):
        write_patient(
            tmp_path,
            patient,
            first=1000 * patient + 1,
            StudyInstanceUID=lambda series, patient=patient: f"1.5.{patient}.{series}",
            PatientID="ANON",
        )
    studies = studies_in(tmp_path)
    assert shapes(studies) == [[6], [6], [6], [7], [7], [7]]
    assert {item.reason for study in studies for item in study.rejections} == {Reason.STUDY_DIVIDED}


@pytest.mark.parametrize("frame", [0, 1], ids=["one frame", "a frame for each contrast"])
def test_two_patients_in_one_folder_that_nothing_tells_apart_are_refused(tmp_path: Path, frame: int) -> None:
    """Nor do frames of reference of which each holds both."""
    for patient in range(2):
        write_patient(
            tmp_path,
            patient,
            first=1000 * patient + 1,
            StudyInstanceUID=None,
            SeriesInstanceUID=None,
            SOPInstanceUID=None,
            FrameOfReferenceUID=lambda series: f"1.5.{frame * series}",
        )
    (entry,) = find_studies(tmp_path)
    with pytest.raises(DicomRejected) as caught:
        entry.load()
    assert [item.reason for item in caught.value.rejections] == [Reason.NOT_TOLD_APART]


@pytest.mark.parametrize("change", ["none", "other pixels", "black"])
def test_copies_with_identifiers_of_their_own_are_no_second_patient(tmp_path: Path, change: str) -> None:
    """What shows the same pixel for pixel is the same image; what is black may be anybody's."""
    write_patient(tmp_path, 0, first=1, PatientID="P1")
    for path in sorted(tmp_path.glob("*.dcm")):
        copy = pydicom.dcmread(path)
        copy.SOPInstanceUID += ".9"
        if change == "other pixels":
            copy.PixelData = bytes(2) + copy.PixelData[:-2]
        copy.save_as(path.with_name(f"copy-{path.name}"))
    if change == "black":
        for path in tmp_path.glob("*.dcm"):
            image = pydicom.dcmread(path)
            image.PixelData = bytes(len(image.PixelData))
            image.save_as(path)
    (entry,) = find_studies(tmp_path)
    if change == "none":
        study = entry.load()
        assert shapes([study]) == [[6, 6, 6]]
        assert [item.reason for item in study.rejections] == [Reason.DUPLICATE] * 18
        assert all(item.file.startswith("copy-") for item in study.rejections)
        used = {item.path.name for series in study.series for item in series.slices if item.path}
        assert len(used) == 18 and not any(name.startswith("copy-") for name in used)
    else:
        with pytest.raises(DicomRejected) as caught:
            entry.load()
        assert [item.reason for item in caught.value.rejections] == [Reason.NOT_TOLD_APART]


def test_places_that_were_taken_twice_are_no_second_patient_where_numbers_go_on(tmp_path: Path) -> None:
    """Each series shows every place twice, under numbers of their own, as of two averages."""
    for again in range(2):
        write_patient(tmp_path, 0, first=1 + 10 * again, PatientID="P1", TemporalPositionIdentifier=again + 1)
    (study,) = studies_in(tmp_path)
    assert shapes([study]) == [[6, 6, 6, 6, 6, 6]] and study.rejections == ()


def test_one_study_identifier_for_two_patient_ids_is_two_studies(tmp_path: Path) -> None:
    for patient in range(2):
        write_patient(tmp_path, patient, first=1000 * patient + 1, study_uid="1.9", PatientID=f"P{patient}")
    studies = studies_in(tmp_path)
    assert shapes(studies) == TWO_WHOLE
    assert len({study.study_id for study in studies}) == 2


def test_images_with_identifiers_of_two_patients_are_named(tmp_path: Path) -> None:
    """Some images of the first have the PatientID of the second."""
    for patient, name in enumerate("ab"):
        write_patient(
            tmp_path / name,
            patient,
            PatientID=lambda series, patient=patient: f"P{patient if series else 0}",
        )
    studies = studies_in(tmp_path)
    assert shapes(studies) == [[6, 6, 6], [7, 7]]
    assert [item.reason for study in studies for item in study.rejections] == [Reason.IDENTIFIERS] * 7


def test_an_image_that_contradicts_itself_is_named_with_the_study_that_it_names(tmp_path: Path) -> None:
    """In a folder of its own; not with the study that comes first."""
    for patient, name in enumerate("ab"):
        write_patient(tmp_path / name, patient, PatientID=f"P{patient}")
    write_series(
        tmp_path / "c", 1, study_uid="1.2.1", series_uid="1.2.1.9", start=(300.0, 0.0, 0.0), PatientID="P0"
    )
    studies = studies_in(tmp_path)
    assert shapes(studies) == TWO_WHOLE
    said = [(item.study_id, item.reason) for study in studies for item in study.rejections]
    assert said == [("1.2.1", Reason.IDENTIFIERS)]


def test_images_without_a_study_say_nothing_of_the_patient_of_another_one(tmp_path: Path) -> None:
    """One identifier for all examinations, which most images of the first patient lost."""
    for patient, name in enumerate("ab"):
        write_patient(tmp_path / name, patient, study_uid="1.9", PatientID=f"P{patient}")
    for path in (tmp_path / "a").iterdir():
        dataset = pydicom.dcmread(path)
        if dataset.SeriesDescription == "T1" or dataset.SeriesInstanceUID.endswith(".2"):
            del dataset.StudyInstanceUID
            dataset.save_as(path)
    studies = studies_in(tmp_path)
    assert shapes(studies) == TWO_WHOLE
    assert [study.rejections for study in studies] == [(), ()]


def test_a_series_that_lies_in_the_folder_of_another_patient_is_kept(tmp_path: Path) -> None:
    """Single files there are strays, a whole series is none."""
    for patient, name in enumerate("ab"):
        write_patient(tmp_path / name, patient, series_folders=bool(patient))
    write_series(tmp_path / "b" / "S3", 7, study_uid="1.2.1", series_uid="1.2.1.3", start=(0.0, 0.0, 900.0))
    for path in (tmp_path / "b" / "S2").iterdir():
        path.rename(tmp_path / "a" / f"b{path.name}")
    studies = studies_in(tmp_path)
    assert shapes(studies) == [[6, 6, 6], [7, 7, 7, 7]]
    assert [study.rejections for study in studies] == [(), ()]


def test_the_folder_of_a_person_does_not_name_the_study(tmp_path: Path) -> None:
    write_patient(tmp_path / "Smith_John_1960", 0, StudyInstanceUID=None)
    (study,) = studies_in(tmp_path)
    assert "mith" not in study.study_id and study.study_id.startswith("name-")


def test_spoilt_identifiers_never_mix_and_never_lose_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few mutations of ``benchmarks.identifiers``, every layout among them, with every other slice."""

    def fewer(work: Path, seed: int) -> tuple[StoredStudy, ...]:
        return tuple(
            replace(study, images=tuple(i for i in study.images if i.dataset.InstanceNumber % 2))
            for study in two_patients(work, seed)
        )

    two_patients = identifiers.two_patients
    monkeypatch.setattr(identifiers, "two_patients", fewer)
    monkeypatch.setattr(identifiers, "FIRST_SEED", 5)  # patients that other tests have rendered
    said: list[str] = []
    found = summary(run(range(0, 200, 13), tmp_path, said.append))
    assert found["mutations"] == 16 and found["images_used"] > 500
    wrong = ("mixed_studies", "lost_images", "misnamed_images", "divided_without_a_word")
    assert {name: found[name] for name in wrong} == dict.fromkeys(wrong, 0), said


@pytest.mark.parametrize("sagittal_only", [False, True])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("above", [False, True])
def test_patients_who_have_numbers_are_no_series_of_one_study(
    tmp_path: Path, sagittal_only: bool, named: bool, above: bool
) -> None:
    """Folders and files as in the RSNA layout, but a folder holds an examination."""
    top = tmp_path / "2024"
    for patient in range(2):
        own = {"PatientID": f"P{patient}"} if named else {"PatientID": "ANON", "StudyInstanceUID": None}
        write_patient(top / f"100{patient}", patient, first=1, **own)
        for path in (top / f"100{patient}").iterdir():
            if sagittal_only and int(path.stem) > 200:
                path.unlink()
    studies = studies_in(tmp_path if above else top)
    assert shapes(studies) == [[6] * (2 if sagittal_only else 3), [7] * (2 if sagittal_only else 3)]
    assert [study.rejections for study in studies] == [(), ()]


def test_series_of_one_kind_and_of_nobody_in_an_rsna_study_are_flagged(tmp_path: Path) -> None:
    """Two patients with one series each look so, too."""
    for patient in range(2):
        folder = tmp_path / "2024" / f"100{patient}"
        write_series(folder, 6, step_mm=8.0, **GRIDS[patient], without=["StudyInstanceUID"])
    (study,) = studies_in(tmp_path / "2024")
    assert study.flags == (Flag.IDENTIFIERS_MISSING,)
    for path in (tmp_path / "2024").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID = "1.2.3"
        dataset.save_as(path)
    (study,) = studies_in(tmp_path / "2024")
    assert study.flags == ()


def test_dates_that_divide_a_study_are_said(tmp_path: Path) -> None:
    for patient in range(2):
        write_patient(
            tmp_path,
            patient,
            first=1000 * patient + 1,
            study_uid="1.9",
            PatientID="P",
            StudyDate=f"2024010{patient + 1}",
        )
    studies = studies_in(tmp_path)
    assert shapes(studies) == TWO_WHOLE
    assert [[item.reason for item in study.rejections] for study in studies] == [[Reason.STUDY_DIVIDED]] * 2


def test_a_name_may_be_spelt_in_several_ways(tmp_path: Path) -> None:
    write_patient(tmp_path, 0, PatientID="P")
    names = ("Doe^John", "DOE^JOHN", "Doe^John^^^", "Doe^John ", "Doe, John")
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.PatientName, dataset.PatientID = names[number % 5], ("P", "P ", " p")[number % 3]
        dataset.save_as(path)
    (study,) = studies_in(tmp_path)
    assert shapes([study]) == [[6, 6, 6]] and study.rejections == ()


def test_a_number_that_was_padded_divides_a_study_and_that_is_said(tmp_path: Path) -> None:
    """Nobody knows whether 7 and 007 are one patient; slices of both are in one series."""
    write_patient(tmp_path, 0)
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.PatientID = ("7", "007")[number % 2]
        dataset.save_as(path)
    studies = studies_in(tmp_path)
    assert shapes(studies) == [[3, 3, 3], [3, 3, 3]]
    assert [[item.reason for item in study.rejections] for study in studies] == [[Reason.STUDY_DIVIDED]] * 2


def test_examinations_without_study_are_told_apart_by_the_date_of_the_series(tmp_path: Path) -> None:
    for patient in range(2):
        own = {"StudyInstanceUID": None, "PatientID": "P", "SeriesDate": f"2024010{patient + 1}"}
        write_patient(tmp_path, patient, first=1000 * patient + 1, **own)
    assert shapes(studies_in(tmp_path)) == TWO_WHOLE


@pytest.mark.parametrize("frames", [("1.5", "1.6"), ("1.5", "1.5")], ids=["two frames", "one frame"])
def test_two_examinations_under_one_identifier_are_said(tmp_path: Path, frames: tuple[str, str]) -> None:
    """One patient, one folder, no date: told apart by the frame of reference, or named."""
    for patient in range(2):
        own = {"study_uid": "1.9", "PatientID": "P", "FrameOfReferenceUID": frames[patient]}
        write_patient(tmp_path, patient, first=1000 * patient + 1, **own)
    for axial in range(1201, 1208):
        (tmp_path / f"{axial}.dcm").unlink()
    studies = studies_in(tmp_path)
    assert shapes(studies) == ([[6, 6, 6], [7, 7]] if frames[0] != frames[1] else [[6, 6, 6, 7, 7]])
    assert all([item.reason for item in study.rejections] == [Reason.STUDY_DIVIDED] for study in studies)


@pytest.mark.parametrize("named", [0, 1, 2])
def test_what_may_be_of_two_patients_is_trusted_only_if_all_images_say_whose_they_are(
    tmp_path: Path, named: int
) -> None:
    """An examination and half of another, under one identifier, as of one patient who was anonymised."""
    for patient in range(2):
        own = {"study_uid": "1.9", "PatientID": "P" if patient < named else ""}
        write_patient(tmp_path, patient, first=1000 * patient + 1, **own)
    for axial in range(1201, 1208):
        (tmp_path / f"{axial}.dcm").unlink()
    (entry,) = find_studies(tmp_path)
    if named == 2:
        assert [item.reason for item in entry.load().rejections] == [Reason.STUDY_DIVIDED]
    else:
        with pytest.raises(DicomRejected) as caught:
            entry.load()
        assert [item.reason for item in caught.value.rejections] == [Reason.NOT_TOLD_APART]


@pytest.mark.parametrize("part", [lambda n: n % 2, lambda n: n // 6], ids=["every second", "halves"])
@pytest.mark.parametrize("identifier", [None, "1.2.0.0"], ids=["no series", "one series"])
def test_a_series_that_lies_in_two_folders_is_one(
    tmp_path: Path, identifier: str | None, part: Callable[[int], int]
) -> None:
    for number in range(12):
        options: dict[str, Any] = (
            {"series_uid": identifier} if identifier else {"without": ["SeriesInstanceUID"]}
        )
        start = (-22.0 + 4 * number, 0.0, 0.0)
        write_series(tmp_path / "ab"[part(number)], 1, start=start, first_instance=number + 1, **options)
    (study,) = studies_in(tmp_path)
    (series,) = study.series
    assert [item.instance_number for item in series.slices] == list(range(1, 13))


def test_series_of_nobody_that_lie_together_are_flagged(tmp_path: Path) -> None:
    """They may be of several patients, each with one series."""
    write_patient(tmp_path, 0, StudyInstanceUID=None, PatientID="ANON")
    (study,) = studies_in(tmp_path)
    assert study.flags == (Flag.IDENTIFIERS_MISSING,)
    write_patient(tmp_path, 0, PatientID="ANON")  # one identifier of a study joins them
    (study,) = studies_in(tmp_path)
    assert study.flags == ()


@pytest.mark.parametrize("series_folders", [False, True])
@pytest.mark.parametrize("uid", [None, "1.7.7"], ids=["none", "another"])
def test_a_series_without_the_identifier_of_its_study_joins_its_patient(
    tmp_path: Path, uid: str | None, series_folders: bool
) -> None:
    for patient, name in enumerate("ab"):
        folder = tmp_path / name
        write_patient(folder, patient, series_folders=series_folders, PatientID=f"P{patient}")
        for path in (folder / "S2" if series_folders else folder).iterdir():
            dataset = pydicom.dcmread(path)
            if dataset.SeriesInstanceUID.endswith(".2"):
                dataset.StudyInstanceUID = f"{uid}.{patient}" if uid else ""
                dataset.save_as(path)
    studies = studies_in(tmp_path)
    assert shapes(studies) == TWO_WHOLE
    assert [study.rejections for study in studies] == [(), ()]


def test_a_series_of_somebody_who_is_not_named_joins_nobody(tmp_path: Path) -> None:
    """In one folder with a study that lacks it: it may be another patient's, and that is said of both."""
    write_patient(tmp_path, 0, PatientID="ANON")
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        if dataset.SeriesInstanceUID.endswith(".2"):
            dataset.StudyInstanceUID = "1.7.7"
            dataset.save_as(path)
    studies = studies_in(tmp_path)
    assert shapes(studies) == [[6], [6, 6]]
    assert [[item.reason for item in study.rejections] for study in studies] == [[Reason.STUDY_DIVIDED]] * 2


def test_an_identifier_per_file_of_patients_who_differ_is_said(tmp_path: Path) -> None:
    for patient, name in enumerate("ab"):
        write_patient(tmp_path / name, patient)
        for number, path in enumerate(sorted((tmp_path / name).iterdir())):
            dataset = pydicom.dcmread(path)
            dataset.PatientID = dataset.StudyInstanceUID = f"1.8.{patient}.{number}"
            dataset.save_as(path)
    studies = studies_in(tmp_path)
    assert len(studies) == 39
    assert all([item.reason for item in study.rejections] == [Reason.STUDY_DIVIDED] for study in studies)


@pytest.mark.parametrize("patient_id", ["P1", "ANON"])
def test_folders_with_several_series_each_are_one_study_of_a_patient_but_not_of_nobody(
    tmp_path: Path, patient_id: str
) -> None:
    """Though they complement each other: nobody's may be parts of two patients."""
    for folder, shown in (("a", (0, 2)), ("b", (1,))):
        write_patient(tmp_path / folder, 0, StudyInstanceUID=None, PatientID=patient_id)
        for path in (tmp_path / folder).iterdir():
            if int(path.stem) // 100 not in shown:
                path.unlink()
    own: dict[str, Any] = {"description": "T1 +C", "without": ["StudyInstanceUID"], "PatientID": patient_id}
    write_series(tmp_path / "b", 6, first_instance=900, **own)
    assert shapes(studies_in(tmp_path)) == ([[6, 6, 6, 6]] if patient_id == "P1" else [[6, 6], [6, 6]])


@pytest.mark.parametrize("patient_id", ["P1", "ANON"])
def test_series_that_are_joined_by_their_folder_alone_are_flagged(tmp_path: Path, patient_id: str) -> None:
    write_patient(tmp_path, 0, StudyInstanceUID="1.5.{}".format, PatientID=patient_id)
    (study,) = studies_in(tmp_path)
    assert shapes([study]) == [[6, 6, 6]]
    assert study.flags == ((Flag.IDENTIFIERS_MISSING,) if patient_id == "ANON" else ())


def test_two_series_of_one_contrast_and_of_nobody_are_one_study(tmp_path: Path) -> None:
    """As of a small and a large field of view: nothing else is there twice."""
    for patient in range(2):
        write_series(
            tmp_path / f"s{patient}", 6, series_uid=f"1.2.3.{patient}", step_mm=8.0, **GRIDS[patient]
        )
    (study,) = studies_in(tmp_path)
    assert shapes([study]) == [[6, 6]] and study.rejections == ()


def test_a_small_study_is_kept_though_all_patients_share_an_identifier_of_series(tmp_path: Path) -> None:
    for patient, name in enumerate("ab"):
        write_patient(tmp_path / name, patient, series_uid="1.9")
    write_series(tmp_path / "c", 4, study_uid="1.3", series_uid="1.9", **GRIDS[0])
    studies = studies_in(tmp_path)
    assert shapes(studies) == [[4], [6, 6, 6], [7, 7, 7]]
    assert [study.rejections for study in studies] == [(), (), ()]


def test_a_study_without_identifier_is_called_as_the_folder_that_holds_all_of_it(tmp_path: Path) -> None:
    write_patient(tmp_path / "set" / "visit7", 0, series_folders=True, StudyInstanceUID=None)
    assert [study.study_id for study in studies_in(tmp_path)] == ["visit7"]


def test_a_few_images_of_another_study_among_many_are_said(tmp_path: Path) -> None:
    """Which shows nothing that they do not: they may be a rest of something else."""
    write_patient(tmp_path, 1, PatientID="P1")
    write_series(tmp_path, 5, first_instance=900, study_uid="1.3", series_uid="1.3.1", PatientID="P2")
    studies = studies_in(tmp_path)
    assert shapes(studies) == [[5], [7, 7, 7]]
    assert [[item.reason for item in study.rejections] for study in studies] == [[Reason.STUDY_DIVIDED]] * 2


def test_patients_of_a_data_set_with_a_contrast_each_are_no_pieces(tmp_path: Path) -> None:
    for patient, description in enumerate(("T1", "T2")):
        folder = tmp_path / "set" / f"p{patient}" / "series"
        write_series(folder, 6, study_uid=f"1.2.{patient}", PatientID=f"P{patient}", description=description)
    assert [study.rejections for study in studies_in(tmp_path)] == [(), ()]


def test_patients_with_one_series_each_are_a_data_set_and_nothing_is_said(tmp_path: Path) -> None:
    for patient in range(3):
        write_series(
            tmp_path / f"s{patient}",
            6,
            step_mm=8.0,
            study_uid=f"1.2.{patient}",
            PatientID=f"P{patient}",
            **GRIDS[0],
        )
    studies = studies_in(tmp_path)
    assert shapes(studies) == [[6], [6], [6]] and [study.rejections for study in studies] == [(), (), ()]


@pytest.mark.parametrize(
    "series_uid", ["1.2.0.1", "1.2.1.1"], ids=["series of the other", "folder of the other"]
)
def test_an_image_that_names_one_patient_and_lies_with_another_is_neithers(
    tmp_path: Path, series_uid: str
) -> None:
    for patient, name in enumerate("AB"):
        write_patient(tmp_path / name, patient, PatientID=name)
    strange = sorted((tmp_path / "A").iterdir())[-1]
    dataset = pydicom.dcmread(strange)
    dataset.PatientID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "B", "1.2.1", series_uid
    dataset.save_as(strange)
    found = find_studies(tmp_path)
    assert [sum(map(len, entry.headers.values())) for entry in found] == [17, 21]
    assert [(item.reason, item.file) for entry in found for item in entry.rejections] == [
        (Reason.IDENTIFIERS, strange.name)
    ]


def test_a_folder_of_several_series_is_joined_to_no_other_where_nobody_says_whose_they_are(
    tmp_path: Path,
) -> None:
    """Sagittal series of the one, axial ones of the other: they would fit together."""
    for patient, name in enumerate("ab"):
        write_patient(tmp_path / name, patient, StudyInstanceUID=None)
        for path in (tmp_path / name).iterdir():
            if pydicom.dcmread(path).SeriesInstanceUID.endswith(".2") is not (name == "b"):
                path.unlink()
    assert shapes(studies_in(tmp_path)) == [[6, 6], [7]]


def test_folders_of_one_series_each_are_joined_only_where_they_show_different_things(
    tmp_path: Path,
) -> None:
    for patient, name in enumerate("ab"):
        write_patient(tmp_path / name, patient, StudyInstanceUID=None)
        for path in (tmp_path / name).iterdir():
            if not pydicom.dcmread(path).SeriesInstanceUID.endswith(".1"):
                path.unlink()
    assert shapes(studies_in(tmp_path)) == [[6], [7]]


@pytest.mark.parametrize(
    ("names", "studies"), [(("D^J", "D^J"), [[6, 6, 6]]), (("D^J", "R^J"), [[6], [6, 6]])]
)
def test_folders_of_one_name_and_no_other_identifier_are_one_patients(
    tmp_path: Path, names: tuple[str, str], studies: list[list[int]]
) -> None:
    for folder, name in zip("ab", names, strict=True):
        write_patient(tmp_path / folder, 0, StudyInstanceUID=None, PatientID="", PatientName=name)
        for path in (tmp_path / folder).iterdir():
            if pydicom.dcmread(path).SeriesInstanceUID.endswith(".2") is not (folder == "b"):
                path.unlink()
    assert shapes(studies_in(tmp_path)) == studies


def test_a_study_without_identifiers_is_called_after_the_folder_around_its_series(tmp_path: Path) -> None:
    for patient in (0, 1):
        write_patient(tmp_path / f"case{patient}", patient, series_folders=True, StudyInstanceUID=None)
    assert [entry.study_id for entry in find_studies(tmp_path)] == ["case0", "case1"]


def test_a_study_that_was_joined_is_called_by_the_identifier_of_most_images(tmp_path: Path) -> None:
    write_patient(
        tmp_path / "in", 0, StudyInstanceUID=lambda number: f"1.2.{(9, 9, 1)[number]}", PatientID="A"
    )
    assert [entry.study_id for entry in find_studies(tmp_path / "in")] == ["1.2.9"]


def test_a_study_that_gets_a_number_never_takes_the_name_of_another_folder(tmp_path: Path) -> None:
    """Of two patients in one folder the second one was called like the folder beside it, and lost."""
    top = tmp_path / "in"
    write_patient(top / "case", 0, StudyInstanceUID=None, PatientID="A")
    write_patient(top / "case", 1, first=50, StudyInstanceUID=None, PatientID="B")
    write_patient(top / "CASE-2", 1, StudyInstanceUID=None, PatientID="C")
    whose = {
        entry.study_id: {header.patient_id for group in entry.headers.values() for header in group}
        for entry in find_studies(top)
    }
    assert whose == {"case": {"A"}, "CASE-2": {"C"}, "case-3": {"B"}}


def test_a_study_that_is_called_after_its_folder_never_takes_the_place_of_another(tmp_path: Path) -> None:
    """Beside RSNA studies a numeric folder names its study: another one may have that as its identifier."""
    top = tmp_path / "train_images"
    write_study(top / "100")
    write_patient(top / "501" / "deep", 0, PatientID="A")
    write_patient(top / "x" / "deep", 1, StudyInstanceUID="501", PatientID="B")
    whose = {
        entry.study_id: {header.patient_id for group in entry.headers.values() for header in group}
        for entry in find_studies(top)
    }
    assert whose == {"100": set(), "501": {"A"}, "501-2": {"B"}}
