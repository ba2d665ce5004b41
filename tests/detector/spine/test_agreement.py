"""Protects: a patient who moved between sagittal and axial series is noticed, and so are axial images that a
program resized, cropped or padded under their old headers; others are left alone, whatever
their contrasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_prep.geometry import FloatArray
from data_prep.levels import LevelPoint
from data_prep.phantom import make_study
from data_prep.read.find import find_studies
from data_prep.rsna.annotations import annotated_points
from data_prep.rsna.tables import read_tables
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import Condition, SeriesKind
from detector.finder import central_slices
from detector.spine.agreement import AgreementConfig, Meeting, lie_elsewhere

SEED = 152_003
SEEDS = 157_101, 157_115


def moved(series: Series, dz_mm: float) -> Series:
    """The series as if the patient had moved along the table before it."""

    def shifted(item: Slice) -> Slice:
        return replace(item, plane=replace(item.plane, origin_mm=item.plane.origin_mm + [0.0, 0.0, dz_mm]))

    return series.changed(shifted)


def found_mm(study: Study, points: tuple[LevelPoint, ...], dz_mm: float) -> float | None:
    canal: FloatArray = np.stack(
        [point.xyz_mm for point in points if point.condition is Condition.SPINAL_CANAL_STENOSIS]
    )
    (middle,) = central_slices(study.of_kind(SeriesKind.SAGITTAL_T2)[0], 1, 18.0)
    axial = [moved(series, dz_mm) for series in study.of_kind(SeriesKind.AXIAL_T2)]
    meeting = Meeting.of(middle, canal, axial, AgreementConfig())
    return None if meeting is None else meeting.shift_mm()


@cache
def phantom() -> tuple[Study, tuple[LevelPoint, ...]]:
    made = make_study(SEED, size="small")
    return made.study, made.points


@cache
def real(data: Path, study_id: str) -> tuple[Study, tuple[LevelPoint, ...]]:
    (entry,) = find_studies(data / "train_images" / study_id)
    study, coordinates = entry.load(), coordinates_of(data)
    return study, annotated_points(study, coordinates)[0]


@cache
def coordinates_of(data: Path) -> pd.DataFrame:
    coordinates = read_tables(data).coordinates
    assert coordinates is not None
    return coordinates


@pytest.mark.parametrize("dz_mm", [0.0, 33.0, -24.0, 15.0])
def test_a_phantom_that_moved(dz_mm: float) -> None:
    found = found_mm(*phantom(), dz_mm)
    assert found is not None
    assert abs(found + dz_mm) <= 6.0 if dz_mm else found == 0.0


@pytest.mark.parametrize("dz_mm", [0.0, 33.0, -36.0, -20.0])
@pytest.mark.parametrize("study_id", ["100206310", "4003253"])
def test_a_real_patient_who_moved(real_rsna: Path, study_id: str, dz_mm: float) -> None:
    found = found_mm(*real(real_rsna, study_id), dz_mm)
    assert found is not None
    assert abs(found + dz_mm) <= 6.0 if dz_mm else found == 0.0


def resized(item: Slice, scale: float) -> Slice:
    """As by a program that left the headers as they were."""
    x_mm, y_mm = item.plane.spacing_mm
    return replace(item, plane=replace(item.plane, spacing_mm=(x_mm * scale, y_mm * scale)))


def padded(item: Slice, pixels: int) -> Slice:
    plane = item.plane
    origin_mm = plane.to_mm([float(pixels), float(pixels)])
    return replace(item, plane=replace(plane, origin_mm=origin_mm))


def inverted(item: Slice) -> Slice:
    return replace(item, read_pixels=lambda: item.pixels().max() - item.pixels())


CHANGES: dict[str, Callable[[Slice], Slice]] = {
    "as it is": lambda item: item,
    "resized to .7": partial(resized, scale=0.7),
    "resized to 1.5": partial(resized, scale=1.5),
    "padded": partial(padded, pixels=32),
    "cropped": partial(padded, pixels=-60),
    "inverted": inverted,
}


@pytest.mark.parametrize("study_id", ["phantom", "100206310", "4003253"])
@pytest.mark.parametrize("change", CHANGES)
def test_axial_pixels_that_are_not_what_their_headers_say(
    request: pytest.FixtureRequest, study_id: str, change: str
) -> None:
    if study_id == "phantom":
        if change in ("resized to .7", "cropped"):
            pytest.skip("the lines leave its small images")
        study, points = phantom()
    else:
        study, points = real(request.getfixturevalue("real_rsna"), study_id)
    canal = np.stack([p.xyz_mm for p in points if p.condition is Condition.SPINAL_CANAL_STENOSIS])
    (middle,) = central_slices(study.of_kind(SeriesKind.SAGITTAL_T2)[0], 1, 18.0)
    axial = [
        replace(series, stacks=tuple(tuple(map(CHANGES[change], stack)) for stack in series.stacks))
        for series in study.of_kind(SeriesKind.AXIAL_T2)
    ]
    found = lie_elsewhere(middle, canal, axial, AgreementConfig())
    assert found == (change not in ("as it is", "inverted"))


def placed(series: Series, change: Callable[[FloatArray, int], FloatArray]) -> Series:
    """The series with slices at other places, given their own and their number from foot to head."""
    numbers = {id(item): number for number, item in enumerate(series.slices)}

    def other(item: Slice) -> Slice:
        origin_mm = change(item.plane.origin_mm, numbers[id(item)])
        return replace(item, plane=replace(item.plane, origin_mm=origin_mm))

    return series.changed(other)


def stretched(series: Series, factor: float) -> Series:
    """With another distance between slices, from the middle one."""
    middle, normal = series.slices[len(series.slices) // 2].plane.origin_mm, series.slices[0].plane.normal
    return placed(series, lambda at, _: at + (factor - 1) * float((at - middle) @ normal) * normal)


def half_moved(series: Series, dz_mm: float) -> Series:
    """The patient moved along the table between the lower half of the slices and the upper one."""
    half = len(series.slices) // 2
    return placed(series, lambda at, number: at + [0.0, 0.0, dz_mm if number < half else 0.0])


def turned(series: Series, degrees: float) -> Series:
    """The patient turned about the axis to the left."""
    angle, middle = np.radians(degrees), np.mean([item.plane.centre_mm for item in series.slices], axis=0)
    turn = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]], dtype=float
    )

    def other(item: Slice) -> Slice:
        plane = item.plane
        origin_mm = turn @ (plane.origin_mm - middle) + middle
        return replace(
            item,
            plane=replace(plane, origin_mm=origin_mm, x_axis=turn @ plane.x_axis, y_axis=turn @ plane.y_axis),
        )

    return series.changed(other)


MOVEMENTS: dict[str, Callable[[Series], Series]] = {
    "none": lambda series: series,
    "aside": lambda series: placed(series, lambda at, _: at + [4.0, 0.0, 0.0]),
    "forward": lambda series: placed(series, lambda at, _: at + [0.0, -4.0, 0.0]),
    "down": lambda series: placed(series, lambda at, _: at + [0.0, 0.0, -5.0]),
    "turned": lambda series: turned(series, 1.5),
}


@pytest.mark.parametrize("movement", MOVEMENTS)
@pytest.mark.parametrize("study_id", ["phantom", "100206310", "4003253"])
def test_a_patient_who_moved_a_little_says_nothing(
    request: pytest.FixtureRequest, study_id: str, movement: str
) -> None:
    study, points = (
        phantom() if study_id == "phantom" else real(request.getfixturevalue("real_rsna"), study_id)
    )
    assert not apart(study, points, MOVEMENTS[movement])


def apart(study: Study, points: tuple[LevelPoint, ...], change: Callable[[Series], Series]) -> bool:
    canal = np.stack([p.xyz_mm for p in points if p.condition is Condition.SPINAL_CANAL_STENOSIS])
    (middle,) = central_slices(study.of_kind(SeriesKind.SAGITTAL_T2)[0], 1, 18.0)
    axial = [change(series) for series in study.of_kind(SeriesKind.AXIAL_T2)]
    return lie_elsewhere(middle, canal, axial, AgreementConfig())


@pytest.mark.parametrize("study_id", ["100206310", "4003253"])
def test_a_real_patient_who_moved_between_packages(real_rsna: Path, study_id: str) -> None:
    assert apart(*real(real_rsna, study_id), partial(half_moved, dz_mm=12.0))


def test_real_axial_slices_with_another_step(real_rsna: Path) -> None:
    assert apart(*real(real_rsna, "4003253"), partial(stretched, factor=0.8))
    assert apart(*real(real_rsna, "4003253"), partial(stretched, factor=1.25))


@pytest.mark.parametrize("seed", SEEDS)
def test_phantom_axial_slices_with_another_step(seed: int) -> None:
    made = make_study(seed, size="small")
    assert not apart(made.study, made.points, lambda series: series)
    assert apart(made.study, made.points, partial(stretched, factor=1.25))


def test_few_axial_slices_say_nothing() -> None:
    study, points = phantom()
    (axial, *_) = study.of_kind(SeriesKind.AXIAL_T2)
    few = replace(axial, stacks=((axial.slices[0], axial.slices[1]),))
    kept = tuple(item for item in study.series if item.kind is not SeriesKind.AXIAL_T2)
    assert found_mm(replace(study, series=(*kept, few)), points, 33.0) is None
