"""Protects: of several series of one kind the right one is graded, in any order and under any name."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.problems import Reason
from data_prep.read.find import find_studies
from data_prep.study import Study
from data_prep.vocabulary import SeriesKind
from tests.dicom_files import AXIAL, ramp, write_series, write_slice

T1, T2 = SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2


def load(path: Path) -> Study:
    (entry,) = find_studies(path)
    return entry.load()


def write(folder: Path, number: int, description: str, count: int = 5, **options: Any) -> None:
    """A series whose pixels tell its number."""
    write_series(
        folder / f"s{number}",
        count,
        pixels=ramp() + 1000 * number,
        description=description,
        series_uid=f"1.2.3.{number}",
        **options,
    )


def number_of(study: Study, kind: SeriesKind) -> int:
    """Of the series that leads."""
    return int(study.of_kind(kind)[0].slices[0].pixels()[0, 0]) // 1000


def unused(study: Study) -> dict[str, str]:
    return {series.series_id[-1]: series.unused for series in study.series if series.unused}


@pytest.mark.parametrize(
    "names",
    [
        ("T2 TSE SAG_in", "T2 TSE SAG_opp", "T2 TSE SAG_F", "T2 TSE SAG_W"),
        ("T2_TSE_DIXON_SAG_IN", "T2_TSE_DIXON_SAG_OPP", "T2_TSE_DIXON_SAG_F", "T2_TSE_DIXON_SAG_W"),
        ("InPhase: SAG T2 FLEX", "OutPhase: SAG T2 FLEX", "FAT: SAG T2 FLEX", "WATER: SAG T2 FLEX"),
        ("sT2W mDIXON IP", "sT2W mDIXON OP", "sT2W mDIXON F", "sT2W mDIXON W"),
    ],
)
def test_of_a_dixon_sequence_the_in_phase_image_leads(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Two orders, and more slices in the fat image."""
    if "DIXON" not in names[0].upper() and "FLEX" not in names[0]:
        names = tuple(name.replace("SAG_", "DIXON SAG_") for name in names)
    for place, order in enumerate([*permutations(range(4))][::11]):
        folder = tmp_path / str(place)
        for number, which in enumerate(order, start=1):
            write(folder, number, names[which], 7 if which == 2 else 5)
        study = load(folder)
        assert number_of(study, T2) == order.index(0) + 1
        assert set(unused(study).values()) == {"opposed", "fat", "water"}


def test_without_an_in_phase_image_the_water_image_is_graded(tmp_path: Path) -> None:
    for number, component in enumerate(("FAT", "OPP_PHASE", "WATER"), start=1):
        write(tmp_path, number, "T2", ImageType=["ORIGINAL", "PRIMARY", "DIXON", component])
    assert number_of(load(tmp_path), T2) == 3


@pytest.mark.parametrize(
    "name",
    ["SAG T1 FS +C", "T1W_TSE_SPAIR+C", "t1_tse_fs_sag_KM", "SAG T1 POST", "Sag T1 FS GD", "T1 C+"],
)
@pytest.mark.parametrize("first", [True, False])
def test_t1_with_contrast_agent_beside_a_plain_one(tmp_path: Path, name: str, first: bool) -> None:
    write(tmp_path, 1 if first else 2, name, 9)
    write(tmp_path, 2 if first else 1, "SAG T1 TSE")
    study = load(tmp_path)
    assert number_of(study, T1) == (2 if first else 1)
    assert list(unused(study).values()) == ["contrast"]


def test_a_plain_t1_is_not_taken_for_one_after_contrast(tmp_path: Path) -> None:
    write(tmp_path, 1, "SAG T1 PRE CONTRAST")
    write(tmp_path, 2, "SAG T1", 9, ContrastBolusAgent="Gadobutrol")
    assert number_of(load(tmp_path), T1) == 1


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "after",
    [
        {"ContrastBolusAgent": "Gadobutrol"},
        {"ContrastBolusVolume": "10"},
        {"ContrastBolusStartTime": "101500"},
        {"ScanOptions": "FS"},
        {"ScanOptions": ["PFP", "SFS"]},
        {"ScanOptions": "FAT_SAT"},
    ],
    ids=["agent", "volume", "time", "fat suppressed", "as Siemens says", "as others say"],
)
def test_t1_with_contrast_agent_that_no_name_tells(
    tmp_path: Path, after: dict[str, Any], first: bool
) -> None:
    times = {"RepetitionTime": 600, "EchoTime": 10, "ScanningSequence": "SE"}
    write(tmp_path, 1 if first else 2, "", 9, **times, **after)
    write(tmp_path, 2 if first else 1, "", **times)
    study = load(tmp_path)
    assert number_of(study, T1) == (2 if first else 1) and len(study.of_kind(T1)) == 1


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("kind", "name"), [(T1, "SAG T1"), (T2, "SAG T2")])
def test_of_two_alike_the_first_t1_and_the_last_t2_lead(
    tmp_path: Path, kind: SeriesKind, name: str, first: bool
) -> None:
    """Whatever their identifiers: contrast agent comes later, and a series is taken again for a reason."""
    early, late = (1, 2) if first else (2, 1)
    write(tmp_path, early, name, AcquisitionTime="095930.5")
    write(tmp_path, late, name, AcquisitionTime="101500")
    assert number_of(load(tmp_path), kind) == (early if kind is T1 else late)


@pytest.mark.parametrize(("kind", "name"), [(T1, "SAG T1"), (T2, "SAG T2")])
def test_an_examination_may_go_on_past_midnight(tmp_path: Path, kind: SeriesKind, name: str) -> None:
    for number, (date, time) in enumerate((("20231231", "235800"), ("20240101", "000400")), start=1):
        write(tmp_path, number, name, StudyDate="20231231", AcquisitionDate=date, AcquisitionTime=time)
    assert number_of(load(tmp_path), kind) == (1 if kind is T1 else 2)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("t2_tse_dixon_sag_in", {}, "in_phase"),
        ("T2 SAG DIXON FATFRACTION", {}, None),
        ("SAG T2 FLAIR", {}, None),
        ("SAG T2", {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}, None),
        ("SAG T2", {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER", "PHASE"]}, None),
        ("SAG T2_Pha", {}, None),
    ],
)
def test_what_stands_beside_a_plain_t2_is_not_used(
    tmp_path: Path, name: str, options: dict[str, Any], said: str | None, first: bool
) -> None:
    write(tmp_path, 1 if first else 2, name, 9, **options)
    write(tmp_path, 2 if first else 1, "SAG T2", ImageType=["ORIGINAL", "PRIMARY", "M"])
    study = load(tmp_path)
    assert number_of(study, T2) == (2 if first else 1) and len(study.of_kind(T2)) == 1
    assert list(unused(study).values()) == ([said] if said else [])


def test_thick_slices_lead_before_those_of_a_3d_acquisition(tmp_path: Path) -> None:
    write(tmp_path, 1, "t2_space_sag", 30, step_mm=0.9)
    write(tmp_path, 2, "t2_tse_sag")
    assert number_of(load(tmp_path), T2) == 2


def test_an_image_whose_middle_is_as_dark_as_its_corner_shows_something(tmp_path: Path) -> None:
    """A series is left out as black only if nothing else is to be seen on it."""
    lit, black = np.zeros((2, 16, 12), np.uint16)
    lit[3, 2] = 900
    for number, pixels in enumerate((lit, black, ramp()), start=1):
        write_series(tmp_path / f"s{number}", pixels=pixels, series_uid=f"1.2.3.{number}")
    study = load(tmp_path)
    assert [item.series_id for item in study.series] == ["1.2.3.1", "1.2.3.3"]
    assert [(item.reason, item.series_id) for item in study.rejections] == [(Reason.BAD_PIXELS, "1.2.3.2")]


def test_what_is_alone_of_its_kind_is_used(tmp_path: Path) -> None:
    write(tmp_path, 1, "SAG T1 FS +C")
    study = load(tmp_path)
    assert number_of(study, T1) == 1 and unused(study) == {}


def test_the_longest_of_several_echoes_is_graded(tmp_path: Path) -> None:
    spin = {"RepetitionTime": 3500, "ScanningSequence": "SE"}
    for number, echo in enumerate((15, 50, 70, 100), start=1):
        write_series(
            tmp_path,
            first_instance=100 * number,
            pixels=ramp() + 1000 * number,
            EchoTime=echo,
            **spin,  # type: ignore[arg-type]
        )
    study = load(tmp_path)
    assert number_of(study, T2) == 4
    assert sorted(unused(study).values()) == ["shorter_echo", "shorter_echo"]
    assert [item.message for item in study.rejections] == ["sagittal other is not used"]


@pytest.mark.parametrize("first", [True, False])
def test_echoes_ten_milliseconds_apart_are_not_mixed(tmp_path: Path, first: bool) -> None:
    """110 and 120 ms are as near to each other as two slices of one echo may be elsewhere."""
    times = range(10, 170, 10)
    for number, echo in enumerate(times if first else reversed(times), start=1):
        write_series(
            tmp_path,
            first_instance=100 * number,
            pixels=np.full((16, 12), echo, np.uint16),
            description="SAG T2",
            EchoTime=echo,
        )
    study = load(tmp_path)
    leading, *others = study.of_kind(T2)
    assert {int(item.pixels()[0, 0]) for item in leading.slices} == {160} and others == []


def test_the_last_echoes_of_a_map_are_noise(tmp_path: Path) -> None:
    for number, echo in enumerate((60, 120, 180, 240, 300), start=1):
        write_series(
            tmp_path,
            first_instance=100 * number,
            pixels=ramp() + 1000 * number,
            description="SAG T2",
            EchoTime=echo,
        )
    study = load(tmp_path)
    assert number_of(study, T2) == 3 and len(study.of_kind(T2)) == 1
    assert set(unused(study).values()) == {"shorter_echo", "late_echo"}


@pytest.mark.parametrize("one_folder", [True, False])
def test_pd_and_t2_of_one_name_in_two_series(tmp_path: Path, one_folder: bool) -> None:
    for number, echo in ((1, 100), (2, 62)):
        folder = tmp_path / ("s" if one_folder else f"s{number}")
        write_series(
            folder,
            first_instance=100 * number,
            pixels=ramp() + 1000 * number,
            description="SAG T2 DUAL ECHO",
            series_uid=f"1.2.3.{3 - number}",
            EchoTime=echo,
        )
    study = load(tmp_path)
    assert number_of(study, T2) == 1 and list(unused(study).values()) == ["shorter_echo"]


def test_two_acquisitions_with_times_of_their_own_are_no_echoes(tmp_path: Path) -> None:
    """Slices between those of the other: the later one leads, whatever its echo."""
    for number, echo in enumerate((115, 95), start=1):
        write(
            tmp_path,
            number,
            "SAG T2",
            EchoTime=echo,
            AcquisitionTime=f"10{number}000",
            start=(-8.0 + 2 * number, 0.0, 0.0),
        )
    study = load(tmp_path)
    assert number_of(study, T2) == 2 and not any(item.traits.has_echoes for item in study.series)


@pytest.mark.parametrize(
    ("name", "echoes"), [("SAG STIR", (60, 60)), ("SAG T2", (95, 115)), ("SAG T2", (115, 95))]
)
def test_an_earlier_series_that_shows_something_else_was_not_repeated(
    tmp_path: Path, name: str, echoes: tuple[int, int]
) -> None:
    """Other fat, or another echo."""
    for number, echo in enumerate(echoes, start=1):
        times = {"EchoTime": echo, "AcquisitionTime": f"10{number}000"}
        write(tmp_path, number, name if number == 1 else "SAG T2", start=(-10.0 + 2 * number, 0, 0), **times)
    assert unused(load(tmp_path)) == {}


def test_an_echo_that_is_there_twice_is_no_worse_than_itself(tmp_path: Path) -> None:
    for number, echo in enumerate((100, 100, 60), start=1):
        write(tmp_path, number, "SAG T2", EchoTime=echo)
    assert unused(load(tmp_path)) == {"3": "shorter_echo"}


def test_echoes_whose_times_are_gone_are_told_by_their_numbers(tmp_path: Path) -> None:
    for number in (1, 2):
        pixels = ramp() + 1000 * number
        write_series(tmp_path, first_instance=100 * number, pixels=pixels, EchoNumbers=number)
    study = load(tmp_path)
    assert number_of(study, T2) == 2 and list(unused(study).values()) == ["shorter_echo"]


@pytest.mark.parametrize("lacking", [(), ("SOPInstanceUID",)], ids=["named", "nameless"])
def test_echoes_that_nothing_tells_apart_are_not_graded(tmp_path: Path, lacking: tuple[str, ...]) -> None:
    for number in (1, 2):
        write_series(
            tmp_path / "t2", first_instance=100 * number, pixels=ramp() + 1000 * number, without=lacking
        )
    write(tmp_path, 3, "SAG T1")
    study = load(tmp_path)
    assert study.of_kind(T2) == () and len(study.of_kind(T1)) == 1
    assert [item.reason for item in study.rejections] == [Reason.ONE_PLACE]


def test_a_calculated_copy_does_not_replace_the_slice(tmp_path: Path) -> None:
    write_series(tmp_path, 5, ImageType=["ORIGINAL", "PRIMARY", "M"])
    write_slice(
        tmp_path / "0.dcm",
        ramp() + 5000,
        position=(0, 0, 0),
        instance_number=90,
        ImageType=["DERIVED", "SECONDARY"],
    )
    study = load(tmp_path)
    (series,) = study.of_kind(T2)
    assert len(series.slices) == 5
    assert all(np.array_equal(item.pixels(), ramp()) for item in series.slices)
    assert list(unused(study).values()) == ["derived"]


def test_pd_does_not_displace_the_named_t2(tmp_path: Path) -> None:
    write(tmp_path, 1, "SAG PD", 9)
    write(tmp_path, 2, "SAG T2")
    study = load(tmp_path)
    assert number_of(study, T2) == 2 and len(study.series) == 1


def test_what_was_guessed_is_not_used_beside_what_is_named(tmp_path: Path) -> None:
    write(tmp_path, 1, "", 9, orientation=AXIAL)
    write(tmp_path, 2, "AX T2", orientation=AXIAL)
    study = load(tmp_path)
    assert number_of(study, SeriesKind.AXIAL_T2) == 2 and unused(study) == {"1": "guessed"}


def test_axial_series_of_other_levels_are_all_used(tmp_path: Path) -> None:
    for number, height in enumerate((0.0, 100.0, 200.0), start=1):
        name = "AX T2 FS" if number == 2 else "AX T2"
        write(tmp_path, number, name, orientation=AXIAL, start=(0, 0, height))
    assert len(load(tmp_path).of_kind(SeriesKind.AXIAL_T2)) == 3


@pytest.mark.parametrize("oblique_deg", [0.0, 3.0])
def test_two_stations_of_one_series_are_two_series(tmp_path: Path, oblique_deg: float) -> None:
    """Upper and lower spine, slices of both in turn; oblique slices of both do not lie at the same depths."""
    angle = np.radians(oblique_deg)
    across = np.array([np.cos(angle), 0.0, np.sin(angle)])
    axes = (0.0, 1.0, 0.0, float(np.sin(angle)), 0.0, float(-np.cos(angle)))
    for number in range(6):
        for station, z in enumerate((0.0, 250.0)):
            write_slice(
                tmp_path / f"{2 * number + station}.dcm",
                position=(4.0 * number * across + [0.0, 0.0, z]).tolist(),
                orientation=axes,
                instance_number=2 * number + station + 1,
            )
    study = load(tmp_path)
    assert [len(series.slices) for series in study.of_kind(T2)] == [6, 6]
    for series in study.series:
        assert np.ptp([item.plane.origin_mm[2] for item in series.slices]) < 3.0


def test_series_of_another_part_of_the_body_come_last(tmp_path: Path) -> None:
    write(tmp_path, 1, "C-SPINE SAG T2", 19, start=(-8.0, 0.0, 420.0))
    write(tmp_path, 2, "L-SPINE SAG T2", 5)
    write(tmp_path, 3, "SAG T2", 9, BodyPartExamined="CSPINE")
    study = load(tmp_path)
    assert number_of(study, T2) == 2
    assert study.of_kind(T2)[-1].traits.is_other_region


def test_times_of_one_series_are_told_apart(tmp_path: Path) -> None:
    """As dynamic series have them: nothing else differs, and numbers go on."""
    for time in (1, 2, 3):
        write_series(
            tmp_path,
            pixels=ramp() + 1000 * time,
            first_instance=100 * time,
            description="SAG T2",
            TemporalPositionIdentifier=time,
        )
    study = load(tmp_path)
    assert not study.rejections
    shown = [{int(item.pixels()[0, 0]) for item in series.slices} for series in study.series]
    assert sorted(map(tuple, shown)) == [(1000,), (2000,), (3000,)]
