"""Protects: slices that are missing within a series are named, and no whole series is said to lack any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from data_prep.problems import Reason
from data_prep.read.find import find_studies
from data_prep.study import Study
from data_prep.vocabulary import Flag
from tests.dicom_files import AXIAL, SAGITTAL, tilted_axial, write_series
from tests.enhanced_files import make_enhanced

STEP_MM = 4.4
# As scanners write it: thickness, and the distance of neighbours.
STATED = {"SliceThickness": "4", "SpacingBetweenSlices": "4.4"}
PLANES = {"t1": (SAGITTAL, "SAG T1"), "t2": (SAGITTAL, "SAG T2"), "axial": (AXIAL, "AX T2")}
STACKS = 5

Numbering = Callable[[int], int]


def in_order(index: int) -> int:
    return index


def odd_first(index: int) -> int:
    """As slices are acquired: every second one, then those between them."""
    return index // 2 if index % 2 == 0 else 8 + index // 2


def plain_series(folder: Path, name: str, count: int = 15, **options: Any) -> list[Path]:
    """The files of a series, in space."""
    orientation, description = PLANES[name]
    usual = {
        "orientation": orientation,
        "description": description,
        "series_uid": f"1.2.3.{sorted(PLANES).index(name)}",
        "start": (-33.0, 0.0, 0.0),
        "step_mm": STEP_MM,
        **STATED,
    }
    return write_series(folder / name, count, **{**usual, **options})


def disc_stacks(folder: Path, numbering: Numbering = in_order) -> list[Path]:
    """Axial slices in five stacks of four, each turned a little farther, with air between them."""
    files = []
    for stack in range(STACKS):
        first = stack * 4

        def number(index: int, first: int = first) -> int:
            return numbering(first + index)

        files += plain_series(
            folder,
            "axial",
            4,
            start=(0.0, 0.0, stack * 36.0),
            orientation=tilted_axial(5.0 * stack - 10.0),
            numbering=number,
        )
    return files


def whole_study(folder: Path, **options: Any) -> dict[str, list[Path]]:
    return {name: plain_series(folder, name, **options) for name in PLANES}


def loaded(folder: Path) -> Study:
    (entry,) = find_studies(folder)
    return entry.load()


def said(folder: Path) -> list[str]:
    """What is said of missing slices; the flag is there if, and only if, something is."""
    study = loaded(folder)
    found = [item.message for item in study.rejections if item.reason is Reason.SLICES_MISSING]
    assert (Flag.SLICES_MISSING in study.flags) == bool(found)
    return found


def lose(files: list[Path], kept: Callable[[int], bool]) -> None:
    for place, file in enumerate(files):
        if not kept(place):
            file.unlink()


def test_nothing_is_said_of_a_whole_study(tmp_path: Path) -> None:
    whole_study(tmp_path)
    assert said(tmp_path) == []


GAPS = {
    "three in the middle of T1": ("t1", lambda place: place not in (6, 7, 8), 3),
    "one of T2": ("t2", lambda place: place != 4, 1),
    "every second T2": ("t2", lambda place: place % 2 == 0, 7),
    "every second axial": ("axial", lambda place: place % 2 == 0, 7),
    "two of three axials": ("axial", lambda place: place % 3 == 0, 8),
    "every third axial": ("axial", lambda place: place % 3 != 1, 5),
    "one of the axials": ("axial", lambda place: place != 4, 1),
    "the middle third of the axials": ("axial", lambda place: not 5 <= place < 10, 5),
}


@pytest.mark.parametrize(
    ("name", "numbering"),
    [
        *((name, in_order) for name in GAPS),
        # Of every third axial slice neither places nor numbers would prove it.
        *((name, odd_first) for name in GAPS if name != "every third axial"),
    ],
)
def test_gaps_are_named(tmp_path: Path, name: str, numbering: Numbering) -> None:
    series, kept, count = GAPS[name]
    files = whole_study(tmp_path, numbering=numbering)[series]
    lose(files, kept)
    (message,) = said(tmp_path)
    plane = "axial" if series == "axial" else "sagittal"
    some = "1 slice" if count == 1 else f"{count} slices"
    assert message.startswith(f"at least {some} of the {plane} series")


@pytest.mark.parametrize("name", ["three in the middle of T1", "every second T2", "every second axial"])
def test_gaps_are_named_whatever_the_files_are_called(tmp_path: Path, name: str) -> None:
    """Numbers of the headers, in an export; file names in the RSNA layout, where headers have none."""
    series, kept, _ = GAPS[name]
    lose(whole_study(tmp_path / "export")[series], kept)
    for place, file in enumerate(sorted((tmp_path / "export").rglob("*.dcm"))):
        file.rename(file.with_name(f"IM{place:04d}"))
    assert len(said(tmp_path / "export")) == 1
    study = tmp_path / "100"
    lose(whole_study(study, study_uid="100", without=["InstanceNumber"])[series], kept)
    for number, folder in enumerate(sorted(study.iterdir()), start=11):
        folder.rename(study / str(number))
    assert len(said(study)) == 1


@pytest.mark.parametrize("name", ["three in the middle of T1", "every second T2"])
def test_places_alone_are_enough_for_sagittal_slices(tmp_path: Path, name: str) -> None:
    """After an export has numbered the images anew."""
    series, kept, _ = GAPS[name]
    files = whole_study(tmp_path, without=["InstanceNumber"])
    lose(files[series], kept)
    assert len(said(tmp_path)) == 1


@pytest.mark.parametrize(
    ("stated", "end", "is_told"),
    [
        ({"SpacingBetweenSlices": None}, 15, True),
        (dict.fromkeys(STATED), 15, True),
        (dict.fromkeys(STATED), 7, True),
        (dict.fromkeys(STATED), 5, False),
    ],
    ids=["eight, of known thickness", "eight", "four", "three"],
)
def test_every_second_slice_is_missed_without_the_spacing(
    tmp_path: Path, stated: dict[str, None], end: int, is_told: bool
) -> None:
    """Its numbers jump by two, and no slices are so thick, or so far apart; of three that says nothing."""
    lose(whole_study(tmp_path, **stated)["t2"], lambda place: place % 2 == 0 and place < end)
    assert [message.endswith("there are gaps between its images") for message in said(tmp_path)] == [
        True
    ] * is_told


@pytest.mark.parametrize(
    ("kept", "numbering", "count"),
    [
        (lambda place: place >= 5, in_order, 5),
        (lambda place: place < 10, in_order, 5),
        (lambda place: place >= 2, in_order, 2),
        (lambda place: place >= 5, odd_first, 5),
    ],
    ids=["first third", "last third", "two at the beginning", "first third, odd first"],
)
def test_slices_that_are_missing_at_one_side_of_t1(
    tmp_path: Path, kept: Callable[[int], bool], numbering: Numbering, count: int
) -> None:
    lose(whole_study(tmp_path, numbering=numbering)["t1"], kept)
    (message,) = said(tmp_path)
    assert message.startswith(f"at least {count} slices of the sagittal series")
    assert message.endswith("it ends before the series that was planned alike")


def test_images_of_another_part_of_the_body_stand_for_no_slice_that_is_missing(tmp_path: Path) -> None:
    lose(whole_study(tmp_path)["t1"], lambda place: place < 10)
    plain_series(tmp_path / "neck", "t1", start=(-33.0, 0.0, 400.0), series_uid="1.2.3.9")
    assert len(said(tmp_path)) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"count": 11, "start": (-33.0 + 2 * STEP_MM, 0.0, 0.0)},
        {"count": 13, "start": (-33.0, 0.0, 0.0)},
        {"count": 10, "step_mm": 5.0, "SpacingBetweenSlices": "5"},
        {"count": 10, "start": (-33.0 + 5 * STEP_MM, 0.0, 0.0)},
        {"count": 10, "numbering": lambda index: 9 - index},
    ],
    ids=[
        "fewer at both sides",
        "two fewer at one side",
        "another spacing",
        "numbered from the short side",
        "numbered from the other short side",
    ],
)
def test_fewer_slices_that_were_planned_are_no_missing_ones(tmp_path: Path, options: dict[str, Any]) -> None:
    plain_series(tmp_path, "t2")
    plain_series(tmp_path, "axial")
    plain_series(tmp_path, "t1", **options)
    assert said(tmp_path) == []


def test_air_between_stacks_is_no_gap(tmp_path: Path) -> None:
    disc_stacks(tmp_path / "angled")
    assert said(tmp_path / "angled") == []
    # Two straight stacks with a gap of six steps, numbered in one go; and numbered with a jump of its own.
    for name, second in (("straight", 6), ("jump", 101)):
        plain_series(tmp_path / name, "axial", 5, start=(0.0, 0.0, 0.0))
        plain_series(tmp_path / name, "axial", 5, start=(0.0, 0.0, 10 * STEP_MM), first_instance=second)
        assert said(tmp_path / name) == []


def test_a_stack_that_is_missing_between_others(tmp_path: Path) -> None:
    lose(disc_stacks(tmp_path), lambda place: not 8 <= place < 12)
    (message,) = said(tmp_path)
    assert message.startswith("at least 4 slices of the axial series")


@pytest.mark.parametrize(
    ("numbering", "stated"),
    [
        (lambda index: 2 * index, {}),
        (lambda index: 2 * index, {"SpacingBetweenSlices": None}),
        (lambda index: index * index, {}),
        (lambda index: 14 - index, {}),
        (odd_first, {}),
    ],
    ids=["of echoes in turn", "and the thickness alone", "with gaps", "reversed", "odd first"],
)
def test_numbers_alone_prove_nothing(tmp_path: Path, numbering: Numbering, stated: dict[str, None]) -> None:
    whole_study(tmp_path, numbering=numbering, **stated)
    assert said(tmp_path) == []


def test_a_slice_far_outside_of_the_others_does_not_say_that_more_are_missing_than_there_are(
    tmp_path: Path,
) -> None:
    files = plain_series(tmp_path, "t1", 40, without=["InstanceNumber"])
    lose(files, lambda place: place < 6 or place == 39)
    for place, file in enumerate((*files[:6], files[39])):
        file.rename(file.with_name(f"IM{place:04d}"))
    assert said(tmp_path) == []


def by_sevens(index: int) -> int:
    """Twenty numbers in an order that follows no place."""
    return 7 * index % 20


LACKING = "its numbers lack as many as its gaps have room for"


@pytest.mark.parametrize(
    ("lost", "count"), [({8, 9, 10, 11}, 4), ({7, 8, 9, 10, 11, 12}, 6), ({7, 8, 9, 10, 11, 17}, 5)]
)
def test_a_stack_that_is_missing_between_others_whose_numbers_follow_no_place(
    tmp_path: Path, lost: set[int], count: int
) -> None:
    """The last case lacks the highest number, which nothing shows any more."""
    lose(disc_stacks(tmp_path, by_sevens), lambda place: place not in lost)
    (message,) = said(tmp_path)
    assert message == f"at least {count} slices of the axial series are missing: {LACKING}"


def test_a_gap_in_one_stack_whose_numbers_follow_no_place(tmp_path: Path) -> None:
    """The highest two are among the eight that are lost."""
    files = plain_series(tmp_path, "axial", 23, numbering=lambda index: 9 * index % 23)
    lose(files, lambda place: not 5 <= place < 13)
    assert said(tmp_path) == [f"at least 6 slices of the axial series are missing: {LACKING}"]


def test_numbers_that_another_series_has_are_not_missing(tmp_path: Path) -> None:
    """As where a series was divided: the middle of the stack lies in a folder of its own."""
    study = tmp_path / "100"
    files = plain_series(study, "axial", 23, numbering=lambda index: 9 * index % 23)
    (study / "12").mkdir()
    for file in files[5:13]:
        file.rename(study / "12" / file.name)
    (study / "axial").rename(study / "13")
    assert said(study) == []


def test_room_between_groups_that_were_planned_unevenly_proves_nothing(tmp_path: Path) -> None:
    """One of their distances is always the largest. Of 20 numbers four are not there."""
    numbers = (0, 7, 14, 1, 8, 15, 2, 9, 16, 3, 10, 19, 4, 11, 18, 5)
    for stack, z_mm in enumerate((0.0, 24.0, 60.0, 132.0)):
        plain_series(
            tmp_path,
            "axial",
            4,
            start=(0.0, 0.0, z_mm),
            orientation=tilted_axial(5.0 * stack - 10.0),
            numbering=lambda index, first=4 * stack: numbers[first + index],  # type: ignore[misc]
        )
    assert said(tmp_path) == []


def test_numbers_that_follow_no_place_and_have_holes_prove_nothing_without_a_gap(tmp_path: Path) -> None:
    disc_stacks(tmp_path / "discs", lambda index: 8 * index % 27)
    plain_series(tmp_path / "stack", "axial", 20, numbering=lambda index: 8 * index % 27)
    assert said(tmp_path / "discs") == said(tmp_path / "stack") == []


def test_a_disc_without_slices_is_no_gap_where_no_number_is_missing(tmp_path: Path) -> None:
    """Nor are short runs of slices in one direction, one a disc, whatever their numbers are."""

    def sixteen(index: int) -> int:
        return index + 8 if 8 <= index < 12 else 7 * (index if index < 8 else index - 4) % 16

    lose(disc_stacks(tmp_path / "discs", sixteen), lambda place: not 8 <= place < 12)
    for first, numbers in ((0.0, (0, 8, 2)), (8 * STEP_MM, (5, 1, 7))):
        plain_series(
            tmp_path / "runs", "axial", 3, start=(0.0, 0.0, first), numbering=lambda i, n=numbers: n[i]
        )
    assert said(tmp_path / "discs") == said(tmp_path / "runs") == []


def test_echoes_of_one_series_do_not_miss_each_other(tmp_path: Path) -> None:
    for echo in (0, 1):
        plain_series(
            tmp_path,
            "t2",
            first_instance=1 + echo,
            numbering=lambda index: 2 * index,
            EchoTime=20 + 80 * echo,
            RepetitionTime=3000,
            **{key: None for key in STATED},
        )
    assert said(tmp_path) == []


def test_slices_under_another_identifier_are_not_missing(tmp_path: Path) -> None:
    """Two concatenations: odd slices in one series, even ones in another."""
    for half in (0, 1):
        write_series(
            tmp_path / str(half),
            8,
            start=(-33.0 + half * STEP_MM, 0.0, 0.0),
            step_mm=2 * STEP_MM,
            series_uid=f"1.2.3.{half}",
            description="SAG T2",
            **STATED,
        )
    assert said(tmp_path) == []


def test_a_series_of_another_image_fills_no_gap(tmp_path: Path) -> None:
    """The T1 with contrast agent beside the T1, and the T1 beside the T2, lie at the same places."""
    lose(plain_series(tmp_path, "t1"), lambda place: place not in (6, 7))
    plain_series(tmp_path, "t2")
    plain_series(tmp_path / "c", "axial", orientation=SAGITTAL, description="SAG T1 +C")
    assert len(said(tmp_path)) == 1


@pytest.mark.parametrize(
    "keyword", ["ImagesInAcquisition", "NumberOfSeriesRelatedInstances", "NumberOfSlices"]
)
def test_a_stated_number_of_images(tmp_path: Path, keyword: str) -> None:
    """Twice as many may be two echoes, of which one is filed elsewhere."""
    for name, stated, lost in (("whole", 12, 0), ("twice", 24, 0), ("less", 12, 4)):
        files = plain_series(tmp_path / name, "axial", 12, **{keyword: stated})
        lose(files, lambda place, lost=lost: place < 12 - lost)  # type: ignore[misc]
        expected = (
            "at least 4 slices of the axial series are missing: its headers state more images than were found"
        )
        assert said(tmp_path / name) == ([expected] if lost else [])


def test_a_reformat_may_state_the_spacing_of_its_source(tmp_path: Path) -> None:
    mpr = {"SpacingBetweenSlices": "4.5", "ImageType": ["DERIVED", "SECONDARY", "MPR"]}
    files = plain_series(tmp_path, "axial", step_mm=9.0, **mpr)
    assert said(tmp_path) == []
    lose(files, lambda place: place not in (6, 7))
    assert len(said(tmp_path)) == 1


@pytest.mark.parametrize("spacing", ["0.4", "4", "-4.4", "0", ""])
def test_a_spacing_that_is_stated_wrongly(tmp_path: Path, spacing: str) -> None:
    """The air between slices, the thickness, a negative one, and none."""
    whole_study(tmp_path, SpacingBetweenSlices=spacing)
    assert said(tmp_path) == []


def test_odd_numbers_and_places_are_looked_at_in_no_time(tmp_path: Path) -> None:
    """Numbers up to the largest that a file can state; a spacing of a hundredth; a slice far outside."""
    thin = {"SpacingBetweenSlices": "0.01", "SliceThickness": None}
    plain_series(tmp_path / "a", "axial", numbering=lambda index: 150_000_000 * index, **thin)
    files = plain_series(tmp_path / "b", "axial", numbering=lambda index: 150_000_000 * index)
    far = pydicom.dcmread(files[-1])
    far.ImagePositionPatient = [0, 0, 9990]
    far.save_as(files[-1])
    assert said(tmp_path / "a") == [] and said(tmp_path / "b") == []


def enhanced_axials(folder: Path, count: int = 12) -> list[Path]:
    return make_enhanced(plain_series(folder, "axial", count))


def test_frames_that_are_missing_in_a_stack(tmp_path: Path) -> None:
    """Frames are numbered as they come; their positions in the stack say what was there."""
    (whole,) = enhanced_axials(tmp_path / "whole")
    dataset = pydicom.dcmread(whole)
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    for number, frame in enumerate(frames, start=1):
        content = Dataset()
        content.StackID, content.InStackPositionNumber = "1", number
        frame.FrameContentSequence = [content]
    dataset.save_as(whole)
    kept = [place for place in range(len(frames)) if place not in (4, 5)]
    size = dataset.Rows * dataset.Columns * 2
    content = dataset.PixelData
    dataset.PerFrameFunctionalGroupsSequence = [frames[place] for place in kept]
    dataset.PixelData = b"".join(content[place * size : (place + 1) * size] for place in kept)
    dataset.NumberOfFrames = len(kept)
    (tmp_path / "less").mkdir()
    dataset.save_as(tmp_path / "less" / "1.dcm")
    assert said(tmp_path / "whole") == []
    (message,) = said(tmp_path / "less")
    assert message.startswith("at least 2 slices of the axial series")


def test_parts_of_a_concatenation_that_are_missing(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (part,) = enhanced_axials(tmp_path / "whole" / str(number), 5)
        dataset = pydicom.dcmread(part)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.9.{number}"
        dataset.ConcatenationUID = "1.2.3.9"
        dataset.InConcatenationNumber, dataset.InConcatenationTotalNumber = number, 3
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
            frame.PlanePositionSequence[0].ImagePositionPatient = [x, y, z + 5 * STEP_MM * number]
        dataset.save_as(part)
    assert said(tmp_path / "whole") == []
    lose(sorted((tmp_path / "whole").rglob("*.dcm")), lambda place: place != 2)
    (message,) = said(tmp_path / "whole")
    assert message.endswith("its headers state more images than were found")


def test_halves_of_a_stack_that_are_a_series_each_are_whole(tmp_path: Path) -> None:
    plain_series(tmp_path, "t1")
    for half, (first, count) in enumerate([(0, 8), (8, 7)]):
        plain_series(
            tmp_path / str(half),
            "t2",
            count,
            start=(-33.0 + first * STEP_MM, 0.0, 0.0),
            first_instance=1 + first,
            series_uid=f"1.2.3.7{half}",
        )
    assert said(tmp_path) == []


@pytest.mark.parametrize("images", [45, 30])
def test_the_number_of_images_of_the_whole_study_or_of_echoes_elsewhere(tmp_path: Path, images: int) -> None:
    whole_study(tmp_path, ImagesInAcquisition=images)
    assert said(tmp_path) == []


def test_a_spacing_in_another_unit_is_no_gap(tmp_path: Path) -> None:
    whole_study(tmp_path, SpacingBetweenSlices="0.44", SliceThickness="0.4")
    assert said(tmp_path) == []


def axials_in_view(folder: Path, numbering: Numbering = in_order, **options: Any) -> list[Path]:
    """Twenty axial slices, foot to head, in a sagittal view that goes on at both ends."""
    plain_series(folder, "t2", start=(-33.0, -60.0, 160.0), PixelSpacing=["12", "12"])
    return plain_series(folder, "axial", 20, start=(-60.0, -60.0, 40.0), numbering=numbering, **options)


def head_first(index: int) -> int:
    """Of twenty."""
    return 19 - index


@pytest.mark.parametrize(
    ("numbering", "kept"),
    [(in_order, lambda place: place >= 6), (head_first, lambda place: place < 14)],
    ids=["from the feet", "from the head"],
)
def test_axial_slices_before_the_first_that_is_numbered(
    tmp_path: Path, numbering: Numbering, kept: Callable[[int], bool]
) -> None:
    lose(axials_in_view(tmp_path, numbering), kept)
    assert said(tmp_path) == [
        "at least 6 slices of the axial series are missing: its numbers begin behind the first"
    ]


def test_numbers_that_begin_late_prove_nothing_alone(tmp_path: Path) -> None:
    """Two; as many as there are; beside the series that has them; beyond the sagittal view; in two blocks."""
    axials_in_view(tmp_path / "two", first_instance=3)
    axials_in_view(tmp_path / "less than a fifth", first_instance=4)
    axials_in_view(tmp_path / "echo", first_instance=21)
    axials_in_view(tmp_path / "divided", first_instance=7)
    plain_series(
        tmp_path / "divided", "axial", 6, start=(-60.0, -60.0, 10.0), series_uid="1.2.3.77", SeriesNumber=9
    )
    axials_in_view(tmp_path / "jumping", numbering=lambda index: 2 * index + 6)
    plain_series(tmp_path / "beyond", "t2", start=(-33.0, -60.0, 140.0))
    plain_series(tmp_path / "beyond", "axial", 20, start=(-60.0, -60.0, 40.0), first_instance=7)
    plain_series(tmp_path / "blocks", "t2", start=(-33.0, -60.0, 160.0), PixelSpacing=["12", "12"])
    for first, z_mm in ((7, 84.0), (17, 40.0)):
        plain_series(tmp_path / "blocks", "axial", 10, start=(-60.0, -60.0, z_mm), first_instance=first)
    for name in ("two", "less than a fifth", "echo", "divided", "jumping", "beyond", "blocks"):
        assert said(tmp_path / name) == [], name
