"""Protects: enhanced MR gives the slices that the same images give as classic files, in the same limits."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from data_prep.problems import DicomRejected, Reason
from data_prep.read.dicom_file import read_slices
from data_prep.read.dicom_limits import DEFAULT_LIMITS
from data_prep.read.find import find_studies
from data_prep.study import Series, Study
from data_prep.vocabulary import SeriesKind
from tests.dicom_files import AXIAL, ramp, write_series, write_study
from tests.enhanced_files import enhanced, make_enhanced

TIMES = {"RepetitionTime": 3500, "EchoTime": 100, "ScanningSequence": "SE"}


def load(path: Path) -> Study:
    (entry,) = find_studies(path)
    return entry.load()


def assert_same_slices(a: Series, b: Series) -> None:
    assert a.kind is b.kind and len(a.slices) == len(b.slices)
    for one, other in zip(a.slices, b.slices, strict=True):
        assert np.allclose(one.plane.origin_mm, other.plane.origin_mm)
        assert np.allclose(one.plane.normal, other.plane.normal)
        assert one.plane.spacing_mm == other.plane.spacing_mm
        assert np.array_equal(one.pixels(), other.pixels())


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless], ids=["plain", "rle", "jpeg 2000"])
@pytest.mark.parametrize("one_per_frame", [False, True], ids=["one file", "a file a frame"])
def test_frames_are_the_slices_of_the_classic_files(
    tmp_path: Path, one_per_frame: bool, syntax: str | None
) -> None:
    for n in range(1, 8):
        where: Any = {"start": (4.0 * n, 0, 0), "first_instance": 10 + n}
        write_series(tmp_path / "classic", 1, pixels=ramp(64, 48) + n, **where, **TIMES)
    paths = sorted((tmp_path / "classic").iterdir())
    shutil.copytree(tmp_path / "classic", tmp_path / "enhanced")
    made = make_enhanced(sorted((tmp_path / "enhanced").iterdir()), one_per_frame=one_per_frame)
    assert len(made) == (7 if one_per_frame else 1) and len(paths) == 7
    if syntax is not None:
        for path in made:
            dataset = pydicom.dcmread(path)
            dataset.compress(syntax, generate_instance_uid=False)
            dataset.save_as(path, enforce_file_format=True)
    study = load(tmp_path / "enhanced")
    assert study.rejections == ()
    assert_same_slices(study.series[0], load(tmp_path / "classic").series[0])
    assert study.series[0].kind is SeriesKind.SAGITTAL_T2
    first = 11 if one_per_frame else 1
    assert [item.instance_number for item in study.series[0].slices] == list(range(first, first + 7))


def test_an_enhanced_series_beside_classic_ones(tmp_path: Path) -> None:
    study = write_study(tmp_path / "100")
    make_enhanced(sorted((study / "12").iterdir()))
    loaded = load(study)
    assert [(series.series_id, len(series.slices)) for series in loaded.series] == [
        ("11", 5),
        ("12", 5),
        ("13", 5),
    ]
    assert loaded.rejections == ()


@pytest.mark.parametrize("syntax", [None, RLELossless], ids=["plain", "rle"])
def test_times_and_scale_come_from_the_functional_groups(tmp_path: Path, syntax: str | None) -> None:
    paths = write_series(tmp_path, 3, description="", RepetitionTime=600, EchoTime=12)
    dataset = enhanced([pydicom.dcmread(path) for path in paths])
    scale = pydicom.Dataset()
    scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = 2.0, 5.0, "US"
    dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [scale]
    dataset.EchoPulseSequence = "SPIN"
    if syntax is not None:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    first, _, third = read_slices(tmp_path / "1.dcm")
    assert (first.repetition_time_ms, first.echo_time_ms, first.scanning_sequence) == (600.0, 12.0, ("SE",))
    assert (first.instance_number, third.frame) == (1, 2)
    for path in paths[1:]:
        path.unlink()
    (series,) = load(tmp_path).series
    assert series.kind is SeriesKind.SAGITTAL_T1
    assert np.array_equal(series.slices[0].pixels(), 2.0 * ramp() + 5.0)


def test_echoes_and_dixon_images_of_one_file_are_divided(tmp_path: Path) -> None:
    """Four contrasts in one object: the water or in-phase image is graded, not the fat image."""
    images = []
    for kind in ("FAT", "OPP_PHASE", "WATER", "IN_PHASE"):
        paths = write_series(
            tmp_path / kind,
            5,
            pixels=ramp() + len(kind),
            ImageType=["ORIGINAL", "PRIMARY", "DIXON", kind],
            **TIMES,
        )
        images += [pydicom.dcmread(path) for path in paths]
    made = enhanced(images)
    (tmp_path / "one").mkdir()
    made.save_as(tmp_path / "one" / "1.dcm", enforce_file_format=True)
    loaded = load(tmp_path / "one")
    best, *_ = loaded.of_kind(SeriesKind.SAGITTAL_T2)
    assert np.array_equal(best.slices[0].pixels(), ramp() + len("IN_PHASE"))
    assert {series.unused for series in loaded.series} >= {"fat", "opposed"}


def test_several_frames_without_functional_groups_stay_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path, 3, orientation=AXIAL)
    made = enhanced([pydicom.dcmread(path) for path in paths])
    del made.PerFrameFunctionalGroupsSequence
    made.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    with pytest.raises(DicomRejected) as caught:
        read_slices(tmp_path / "1.dcm")
    assert caught.value.rejection.reason is Reason.MULTI_FRAME


@pytest.mark.parametrize(
    ("limits", "change", "reason"),
    [
        ({"max_voxels": 100}, {}, Reason.TOO_LARGE),
        ({}, {"NumberOfFrames": 2001}, Reason.TOO_LARGE),
        ({}, {"NumberOfFrames": 4}, Reason.BAD_GEOMETRY),
    ],
    ids=["voxels", "frames", "another number of groups"],
)
def test_what_is_beyond_the_limits_is_refused(
    tmp_path: Path, limits: dict[str, int], change: dict[str, int], reason: Reason
) -> None:
    made = enhanced([pydicom.dcmread(path) for path in write_series(tmp_path / "in", 3)])
    for keyword, value in change.items():
        setattr(made, keyword, value)
    made.PixelData = made.PixelData * 2
    made.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    with pytest.raises(DicomRejected) as caught:
        read_slices(tmp_path / "1.dcm", limits=replace(DEFAULT_LIMITS, **limits))
    assert caught.value.rejection.reason is reason


def test_a_long_inner_sequence_is_refused(tmp_path: Path) -> None:
    """Items cost time and memory each: nobody writes a thousand positions into one frame."""
    made = enhanced([pydicom.dcmread(path) for path in write_series(tmp_path / "in", 2)])
    position = made.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    made.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence = [position] * 1000
    made.save_as(tmp_path / "1.dcm", enforce_file_format=True)
    with pytest.raises(DicomRejected) as caught:
        read_slices(tmp_path / "1.dcm")
    assert caught.value.rejection.reason is Reason.TOO_LARGE
