"""Protects: every study under a path is found, read in spatial order and typed; what is bad stays alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep.geometry import Orientation
from data_prep.problems import DicomRejected, Reason
from data_prep.read.entry import StudyEntry
from data_prep.read.find import find_studies
from data_prep.read.listing import files_below
from data_prep.study import Series, Study
from data_prep.vocabulary import SeriesKind
from tests.dicom_files import AXIAL, CORONAL, SAGITTAL, tilted_axial, write_series, write_slice, write_study

HEADER = "study_id,series_id,series_description\n"


def load_only(path: Path) -> Study:
    (entry,) = find_studies(path)
    return entry.load()


def only_series(path: Path) -> Series:
    (series,) = load_only(path).series
    return series


def rejected(path: Path) -> DicomRejected:
    with pytest.raises(DicomRejected) as caught:
        load_only(path)
    return caught.value


def numbers(series: Series) -> list[list[int]]:
    return [[item.instance_number for item in stack] for stack in series.stacks]


def test_an_rsna_study_takes_ids_and_numbers_from_names(tmp_path: Path) -> None:
    write_study(tmp_path / "100", InstanceNumber=99, StudyInstanceUID="9.9", SeriesInstanceUID="9.9.9")
    study = load_only(tmp_path / "100")
    assert study.study_id == "100"
    assert [series.series_id for series in study.series] == ["11", "12", "13"]
    assert numbers(study.series[0]) == [[1, 2, 3, 4, 5]]
    assert study.rejections == ()
    assert study.series[0].slices[0].pixels().shape == (16, 12)


@pytest.mark.parametrize("below", [".", "train_images"])
def test_an_images_folder_and_the_folder_above_it(tmp_path: Path, below: str) -> None:
    images = tmp_path / "data" / "train_images"
    write_study(images / "100")
    write_study(images / "20")
    (tmp_path / "data" / "train_series_descriptions.csv").write_text(
        HEADER + "100,11,Sagittal T1\n100,12,Sagittal T2/STIR\n100,13,Axial T2\n300,1,Axial T2\n"
    )
    entries = find_studies(tmp_path / "data" / below)
    assert [entry.study_id for entry in entries] == ["20", "100", "300"]
    assert [entry.is_only_listed for entry in entries] == [False, False, True]
    assert {series.kind_source for series in entries[1].load().series} == {"table"}
    assert {series.kind_source for series in entries[0].load().series} == {"header"}
    with pytest.raises(DicomRejected) as caught:
        entries[2].load()
    assert caught.value.rejection.reason is Reason.NO_IMAGES
    assert caught.value.rejection.study_id == "300"


def test_one_study_or_series_of_a_data_set_uses_its_table_but_lists_no_other_study(tmp_path: Path) -> None:
    study = write_study(tmp_path / "test_images" / "100")
    (tmp_path / "test_series_descriptions.csv").write_text(HEADER + "100,12,Sagittal T1\n300,1,Axial T2\n")
    (tmp_path / "train_series_descriptions.csv").write_text(HEADER + "100,12,Sagittal T2/STIR\n")
    loaded = load_only(study)
    assert [series.kind for series in loaded.series] == [
        SeriesKind.SAGITTAL_T1,
        SeriesKind.SAGITTAL_T1,
        SeriesKind.AXIAL_T2,
    ]
    assert [series.kind_source for series in loaded.series] == ["header", "table", "header"]
    (series,) = load_only(study / "12").series
    assert (series.study_id, series.series_id, series.kind_source) == ("100", "12", "table")


def test_a_table_farther_above_than_that_of_a_data_set_is_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "train_series_descriptions.csv").write_text(HEADER + "100,12,Sagittal T1\n")
    for images, is_listed in (("images", True), ("other/images", False)):
        study = write_study(tmp_path / images / "100")
        for path in (study.parent, study, study / "12"):
            sources = {series.kind_source for series in load_only(path).series}
            assert ("table" in sources) == is_listed, path
        shutil.move(study, study.with_name("a copy"))
        for path in (study.with_name("a copy"), study.parent):
            sources = {series.kind_source for series in load_only(path).series}
            assert ("table" in sources) == (is_listed and path == study.parent), path


def test_a_table_can_be_given(tmp_path: Path) -> None:
    write_study(tmp_path / "100", SeriesDescription="")
    table = tmp_path / "elsewhere.csv"
    table.write_text(HEADER + "100,11,Sagittal T1\n100,12,Sagittal T2/STIR\n100,13,Axial T2\n")
    (entry,) = find_studies(tmp_path / "100", series_table=table)
    assert [series.kind_source for series in entry.load().series] == ["table"] * 3


@pytest.mark.parametrize("text", ["a,b\n1,2\n", HEADER + "../../x,1,Axial T2\n", "\x00\xff"])
def test_a_wrong_table_is_refused(tmp_path: Path, text: str) -> None:
    write_study(tmp_path / "100")
    table = tmp_path / "t.csv"
    table.write_bytes(text.encode("latin-1"))
    with pytest.raises(DicomRejected, match=r"series table 't\.csv'"):
        find_studies(tmp_path / "100", series_table=table)


def test_a_tree_is_grouped_by_identifiers_whatever_its_names(tmp_path: Path) -> None:
    """Names without .dcm, two studies in one folder, other files beside them."""
    for study in ("1.2.3", "1.2.5"):
        write_series(tmp_path / study, study_uid=study, series_uid=f"{study}.1")
        write_series(
            tmp_path / study / "deeper",
            orientation=AXIAL,
            study_uid=study,
            series_uid=f"{study}.2",
        )
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for index, path in enumerate(sorted(tmp_path.glob("1.2.*/**/*.dcm"))):
        path.rename(mixed / f"IM{index:04d}")
    (mixed / "readme.txt").write_text("not an image")
    (mixed / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    studies = [entry.load() for entry in find_studies(mixed)]
    assert [study.study_id for study in studies] == ["1.2.3", "1.2.5"]
    for study in studies:
        assert [series.series_id for series in study.series] == [f"{study.study_id}.1", f"{study.study_id}.2"]
        assert [len(series.slices) for series in study.series] == [5, 5]
        assert study.rejections == ()


def test_a_single_file_is_a_study(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "image")
    assert len(only_series(path).slices) == 1


def test_rsna_files_in_another_tree_keep_their_ids(tmp_path: Path) -> None:
    write_study(tmp_path / "100")
    shutil.move(tmp_path / "100", tmp_path / "copy of a study")
    study = load_only(tmp_path / "copy of a study")
    assert study.study_id == "100"
    assert [series.series_id for series in study.series] == ["11", "12", "13"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_identifiers_are_made_safe_and_stay_apart(tmp_path: Path) -> None:
    write_series(tmp_path / "x", StudyInstanceUID="../../etc_x", SeriesInstanceUID="a/b")
    write_series(tmp_path / "y", StudyInstanceUID="../etc_x", SeriesInstanceUID="a-b")
    ids = [(entry.study_id, *entry.headers) for entry in find_studies(tmp_path)]
    assert sorted(ids) == [("etc_x-3b34f409", "a-b"), ("etc_x-8cb7b38b", "a-b-c14cddc0")]


def test_series_without_identifiers_are_called_as_their_folders(tmp_path: Path) -> None:
    for name, description in (("s1", "T1"), ("s2", "T2")):
        write_series(tmp_path / name, description=description, without=["SeriesInstanceUID"])
    assert [series.series_id for series in load_only(tmp_path).series] == ["s1", "s2"]


def test_folders_of_other_layouts_beside_rsna_studies_are_not_lost(tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_study(images / "100")
    write_series(images / "200", study_uid="1.2.3", series_uid="1.2.3.1")
    write_series(images / "named", study_uid="1.2.4", series_uid="1.2.4.1")
    (images / "300").mkdir()
    (images / ".hidden").mkdir()
    entries = find_studies(images)
    assert [entry.study_id for entry in entries] == ["100", "200", "300", "1.2.4"]
    assert len(entries[1].load().series) == 1
    with pytest.raises(DicomRejected, match="no_images"):
        entries[2].load()


@pytest.mark.parametrize("make", ["empty", "text", "missing"])
def test_a_path_with_nothing_to_read(tmp_path: Path, make: str) -> None:
    path = tmp_path / "input"
    if make != "missing":
        path.mkdir()
    if make == "text":
        (path / "a.dcm").write_text("no image")
    with pytest.raises(DicomRejected) as caught:
        find_studies(path)
    assert caught.value.rejection.reason is Reason.NO_IMAGES
    assert str(tmp_path) not in str(caught.value)
    assert [item.reason for item in caught.value.rejections] == [Reason.NOT_DICOM] * (make == "text")


def test_a_bad_file_does_not_end_its_series_nor_a_bad_series_its_study(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100")
    (study / "11" / "2.dcm").write_text("no image")
    whole = (study / "11" / "3.dcm").read_bytes()
    (study / "11" / "3.dcm").write_bytes(whole[:-20])
    for path in (study / "12").iterdir():
        path.write_bytes(b"")
    loaded = load_only(study)
    assert [series.series_id for series in loaded.series] == ["11", "13"]
    assert numbers(loaded.series[0]) == [[1, 4, 5]]
    reasons = {rejection.place: rejection.reason for rejection in loaded.rejections}
    assert reasons["100/11/2.dcm"] is Reason.NOT_DICOM
    assert reasons["100/11/3.dcm"] is Reason.TRUNCATED
    assert reasons["100/12/5.dcm"] is Reason.NOT_DICOM
    assert reasons["100/12"] is Reason.NO_SLICES
    assert len(reasons) == 8


def test_a_study_without_any_usable_series_says_why(tmp_path: Path) -> None:
    write_series(tmp_path / "100" / "1", orientation=CORONAL)
    error = rejected(tmp_path / "100")
    assert error.rejection.reason is Reason.NO_SERIES
    assert [item.reason for item in error.rejections] == [Reason.UNKNOWN_KIND]


def test_two_folders_of_one_study_beside_rsna_studies_are_joined(tmp_path: Path) -> None:
    write_study(tmp_path / "100")
    write_series(tmp_path / "first", study_uid="1.2.4", series_uid="1.2.4.1")
    write_series(tmp_path / "second", orientation=AXIAL, study_uid="1.2.4", series_uid="1.2.4.2")
    shutil.copytree(tmp_path / "100", tmp_path / "third")
    rsna, joined = (entry.load() for entry in find_studies(tmp_path))
    assert [series.series_id for series in joined.series] == ["1.2.4.1", "1.2.4.2"]
    assert [(item.study_id, item.reason) for item in rsna.rejections] == [("100", Reason.DUPLICATE_STUDY)]


def test_images_outside_the_series_folders_are_listed(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100")
    shutil.copy(study / "11" / "1.dcm", study / "loose.dcm")
    (study / "11" / "deeper").mkdir()
    shutil.copy(study / "11" / "1.dcm", study / "11" / "deeper" / "2.dcm")
    loaded = load_only(study)
    assert [(item.file, item.reason) for item in loaded.rejections] == [
        ("loose.dcm", Reason.MISPLACED),
        ("2.dcm", Reason.MISPLACED),
    ]


def test_a_study_of_a_tree_whose_every_file_is_bad_is_an_entry(tmp_path: Path) -> None:
    for study in ("1.2.3", "1.2.5"):
        write_series(tmp_path / study / "s", study_uid=study, series_uid=f"{study}.1")
    write_series(tmp_path / "Müller" / "s")
    # A bad series of a study of which another series can be read is that study's.
    write_series(tmp_path / "1.2.5" / "bad")
    for name in ("Müller/s", "1.2.5/bad"):
        for path in (tmp_path / name).iterdir():
            path.write_bytes(b"")
    first, second, bad = find_studies(tmp_path)
    assert (first.study_id, second.study_id) == ("1.2.3", "1.2.5")
    assert bad.study_id.startswith("name-")  # a folder's name may be a patient's
    assert not bad.is_only_listed  # else training would leave it out without a word
    assert (len(first.rejections), len(second.rejections)) == (0, 5)
    with pytest.raises(DicomRejected) as caught:
        bad.load()
    assert caught.value.rejection.reason is Reason.NO_SERIES
    assert len(caught.value.rejections) == 5


def test_a_folder_of_a_tree_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "open")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(path: Path) -> object:  # root, who may run the tests, is refused nothing
        if Path(path).name == "closed":
            raise PermissionError("no")
        return scandir(path)

    monkeypatch.setattr("data_prep.read.listing.os.scandir", refusing)
    study = load_only(tmp_path)
    assert [(item.place, item.reason) for item in study.rejections] == [("1.2.3/closed", Reason.UNREADABLE)]


def test_bad_files_of_a_tree_are_listed_with_the_study_beside_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_series(tmp_path / name, study_uid=f"1.2.{ord(name)}", series_uid=f"1.2.{ord(name)}.1")
    (tmp_path / "b" / "x.dcm").write_text("no image")
    first, second = (entry.load() for entry in find_studies(tmp_path))
    assert first.rejections == ()
    assert [item.place for item in second.rejections] == ["1.2.98/x.dcm"]


@pytest.mark.parametrize(
    ("orientation", "axis", "description"),
    [(SAGITTAL, 0, "T1"), (AXIAL, 2, "T2"), (tilted_axial(40), 2, "T2")],
)
@pytest.mark.parametrize("numbering", [lambda index: -index, lambda index: (index * 3) % 7])
def test_slices_are_in_spatial_order_whatever_their_numbers(
    tmp_path: Path, orientation: tuple[float, ...], axis: int, description: str, numbering: object
) -> None:
    write_series(
        tmp_path / "100" / "1",
        7,
        orientation=orientation,
        description=description,
        first_instance=10,
        numbering=numbering,  # type: ignore[arg-type]
    )
    series = only_series(tmp_path / "100")
    (stack,) = series.stacks
    places = [float(item.plane.centre_mm[axis]) for item in stack]
    assert len(places) == 7
    assert places == sorted(places)
    assert [item.instance_number for item in stack] == [10 + numbering(i) for i in range(7)]  # type: ignore[operator]


def test_stacks_of_different_angles_stay_apart_from_foot_to_head(tmp_path: Path) -> None:
    for degrees, height, first in ((0, 100, 1), (1, 60, 11), (12, 0, 21), (48, -60, 31)):
        write_series(
            tmp_path / "100" / "1",
            4,
            orientation=tilted_axial(degrees),
            start=(0, 0, height),
            first_instance=first,
        )
    series = only_series(tmp_path / "100")
    # Steeper than 45°, the writer steps from front to back, which is downwards.
    assert numbers(series) == [[34, 33, 32, 31], [21, 22, 23, 24], [11, 12, 13, 14, 1, 2, 3, 4]]
    assert series.orientation is Orientation.AXIAL
    assert series.kind is SeriesKind.AXIAL_T2


def test_nearly_parallel_stacks_that_overlap_stay_apart(tmp_path: Path) -> None:
    for degrees, height, first in ((0, 0, 1), (2, 6, 11)):
        write_series(
            tmp_path / "100" / "1",
            4,
            orientation=tilted_axial(degrees),
            start=(0, 0, height),
            first_instance=first,
        )
    assert sorted(numbers(only_series(tmp_path / "100"))) == [[1, 2, 3, 4], [11, 12, 13, 14]]


def test_two_images_of_every_place_make_two_stacks(tmp_path: Path) -> None:
    for first in (1, 11):
        write_series(tmp_path / "100" / "1", 4, first_instance=first)
    series = only_series(tmp_path / "100")
    assert numbers(series) == [[1, 2, 3, 4], [11, 12, 13, 14]]
    assert series.gap_mm(series.slices[0]) == pytest.approx(4.0)


def test_a_file_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    study = load_only(tmp_path)
    assert numbers(study.series[0]) == [[1, 2, 3, 4, 5]]
    assert [item.reason for item in study.rejections] == [Reason.DUPLICATE] * 5


def test_what_is_not_used_is_named_by_study_series_and_file(tmp_path: Path) -> None:
    """A damaged file, a copy, and a series that is none of the three kinds."""
    study = write_study(tmp_path / "100")
    (study / "11" / "9.dcm").write_bytes(b"no image")
    shutil.copy(study / "12" / "1.dcm", study / "12" / "8.dcm")
    write_series(study / "14", 4, orientation=CORONAL, description="T2")
    said = {(item.reason, item.place) for item in load_only(study).rejections}
    assert said == {
        (Reason.NOT_DICOM, "100/11/9.dcm"),
        (Reason.DUPLICATE, "100/12/8.dcm"),
        (Reason.UNKNOWN_KIND, "100/14"),
    }


def test_a_slice_that_cannot_be_decoded_is_named_so_too(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100")
    item = load_only(study).series[0].slices[0]
    path = study / "11" / f"{item.instance_number}.dcm"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DicomRejected) as caught:
        item.pixels()
    assert caught.value.rejection.place == f"100/11/{path.name}" and path.name in str(caught.value)


def test_equal_identifiers_of_different_places_are_no_duplicates(tmp_path: Path) -> None:
    write_series(tmp_path / "a", SOPInstanceUID="1.1")
    study = load_only(tmp_path)
    assert len(study.series[0].slices) == 5
    assert study.rejections == ()


@pytest.mark.parametrize("number", [None, 7])
def test_missing_or_equal_instance_numbers_become_the_path_order(tmp_path: Path, number: int | None) -> None:
    write_series(tmp_path / "a", InstanceNumber=number)
    assert numbers(only_series(tmp_path)) == [[1, 2, 3, 4, 5]]


def test_a_series_whose_images_claim_one_place_is_rejected(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100")
    write_series(study / "14", 5, step_mm=0.0, description="T2")
    write_series(study / "15", 2, step_mm=0.0, description="T2")
    for number, degrees in enumerate((0, 15, 30), start=1):
        turned = tilted_axial(degrees)
        write_series(study / "16", 1, orientation=turned, first_instance=number)
    loaded = load_only(study)
    assert [(item.series_id, item.reason) for item in loaded.rejections] == [
        ("14", Reason.BAD_GEOMETRY),
        ("16", Reason.BAD_GEOMETRY),
    ]
    assert "15" in [series.series_id for series in loaded.series]


@pytest.mark.parametrize("steep_deg", [55, 63])
def test_a_series_of_steep_axial_slices_is_axial(tmp_path: Path, steep_deg: float) -> None:
    write_series(tmp_path / "100" / "1", orientation=tilted_axial(steep_deg), description="T2")
    assert only_series(tmp_path / "100").kind is SeriesKind.AXIAL_T2


def test_images_of_different_sizes_keep_their_own_planes(tmp_path: Path) -> None:
    folder = tmp_path / "100" / "1"
    write_series(folder, 4)
    write_slice(folder / "9.dcm", np.ones((8, 20), np.uint16), position=(20, 0, 0), instance_number=9)
    series = only_series(tmp_path / "100")
    assert [item.plane.shape for item in series.slices] == [(16, 12)] * 4 + [(8, 20)]
    assert series.slices[-1].pixels().shape == (8, 20)


def test_localisers_are_not_diagnostic(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100")
    for first, orientation in ((1, SAGITTAL), (2, CORONAL), (3, AXIAL)):
        write_series(study / "1", 1, orientation=orientation, first_instance=first)
    write_series(study / "2", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    loaded = load_only(study)
    assert [series.series_id for series in loaded.series] == ["11", "12", "13"]
    assert [(item.series_id, item.reason) for item in loaded.rejections] == [
        ("1", Reason.LOCALISER),
        ("2", Reason.LOCALISER),
    ]


def test_a_slice_across_its_series_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "100" / "1"
    write_series(folder, 6, orientation=AXIAL)
    write_series(folder, 1, orientation=SAGITTAL, first_instance=50)
    study = load_only(tmp_path / "100")
    assert len(study.series[0].slices) == 6
    assert [(item.file, item.reason) for item in study.rejections] == [("50.dcm", Reason.LOCALISER)]


def test_a_listed_kind_of_another_orientation_is_not_believed(tmp_path: Path) -> None:
    write_series(tmp_path / "100" / "1", orientation=AXIAL)
    (tmp_path / "train_series_descriptions.csv").write_text(HEADER + "100,1,Sagittal T1\n")
    series = only_series(tmp_path / "100")
    assert (series.kind, series.kind_source) == (SeriesKind.AXIAL_T2, "header")


@pytest.mark.parametrize(
    ("listed", "description", "is_said"),
    [
        ("Sagittal T1", "SAG T2", True),
        ("Sagittal T2/STIR", "SAG T1", True),
        ("Sagittal T2/STIR", "SAG STIR", False),
        ("Sagittal T1", "SAG T1 FLAIR", False),
        ("Sagittal T2/STIR", "SAG PD", False),
        ("Sagittal T1", "lumbar spine", False),
    ],
)
def test_a_table_that_headers_contradict_is_followed_and_that_is_said(
    tmp_path: Path, listed: str, description: str, is_said: bool
) -> None:
    write_series(tmp_path / "100" / "1", description=description)
    (tmp_path / "train_series_descriptions.csv").write_text(HEADER + f"100,1,{listed}\n")
    (entry,) = find_studies(tmp_path / "100")
    study = entry.load()
    assert [series.kind for series in study.series] == [SeriesKind(listed)]
    assert [item.reason for item in study.rejections] == [Reason.KIND_DISAGREES] * is_said


def test_an_unreadable_series_folder_does_not_end_the_study(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    study = write_study(tmp_path / "100")
    (study / "12").chmod(0)
    try:
        loaded = load_only(study)
    finally:
        (study / "12").chmod(0o755)
    assert [item.reason for item in loaded.rejections] == [Reason.UNREADABLE]


def test_an_entry_without_a_folder_has_no_images() -> None:
    with pytest.raises(DicomRejected, match="the study has no images"):
        StudyEntry("1").load()


@pytest.mark.parametrize("study_id", ["100206310", "4003253"])
@pytest.mark.parametrize("with_table", [True, False])
def test_real_studies_are_loaded_and_typed(
    real_rsna: Path, tmp_path: Path, study_id: str, with_table: bool
) -> None:
    path = real_rsna / "train_images" / study_id
    if not with_table:
        path = Path(shutil.copytree(path, tmp_path / study_id))
    study = load_only(path)
    expected = {
        "100206310": {
            "1012284084": ("Axial T2", 4),
            "1792451510": ("Sagittal T2/STIR", 1),
            "2092806862": ("Sagittal T1", 1),
        },
        "4003253": {
            "2448190387": ("Axial T2", 2),
            "702807833": ("Sagittal T2/STIR", 1),
            "1054713880": ("Sagittal T1", 1),
        },
    }[study_id]
    assert {item.series_id: (item.kind, len(item.stacks)) for item in study.series} == expected
    assert {item.kind_source for item in study.series} == {"table" if with_table else "header"}
    assert study.rejections == ()


def test_the_real_axial_series_keeps_its_six_orientations(real_rsna: Path) -> None:
    study = load_only(real_rsna / "train_images" / "100206310")
    (axial,) = study.of_kind(SeriesKind.AXIAL_T2)
    assert len(axial.slices) == 60
    assert len({tuple(np.round(item.plane.normal, 4)) for item in axial.slices}) == 6
    for stack in axial.stacks:
        heights = [float(item.plane.centre_mm[2]) for item in stack]
        assert heights == sorted(heights)


def test_every_listed_real_study_is_an_entry(real_rsna: Path) -> None:
    entries = find_studies(real_rsna)
    assert len(entries) == 1973
    assert sum(entry.folder is not None for entry in entries) == 2


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_a_link_into_trees_without_end_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").touch()
    (tmp_path / "link").symlink_to("/proc/self")
    unreadable: list[Path] = []
    assert list(files_below(tmp_path, unreadable)) == [tmp_path / "a.dcm"]
    assert unreadable == [tmp_path / "link"]
