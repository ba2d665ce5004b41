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
from detector.look.choice import central_slices
from detector.spine.agreement import AgreementConfig, Meeting, lie_elsewhere

SEED = 152_003


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


def test_few_axial_slices_say_nothing() -> None:
    study, points = phantom()
    (axial, *_) = study.of_kind(SeriesKind.AXIAL_T2)
    few = replace(axial, stacks=((axial.slices[0], axial.slices[1]),))
    kept = tuple(item for item in study.series if item.kind is not SeriesKind.AXIAL_T2)
    assert found_mm(replace(study, series=(*kept, few)), points, 33.0) is None
