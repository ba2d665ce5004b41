"""Protects: a place without signal is not graded, and dark anatomy is."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from classifier.config import GraderName
from classifier.target_crops import axial_canal_point, has_signal, series_for, target_crop
from data_prep.levels import RECESSES, Sight, SpineLevels
from data_prep.study import Slice
from data_prep.vocabulary import Condition, Flag, SeriesKind
from tests.classifier.synthetic import all_points, textured_study, tiny_config

SIZE_PX, STEP_MM = 96, 0.5


def spot(radius_mm: float, away_mm: float, dark: float = 0.0, noise: float = 0.0) -> NDArray[np.float32]:
    """Noisy tissue with a dark disc beside the middle."""
    rng = np.random.default_rng(3)
    image = np.full((SIZE_PX, SIZE_PX), 0.5, np.float32)
    centre = (round(SIZE_PX / 2 + away_mm / STEP_MM), SIZE_PX // 2)
    cv2.circle(image, centre, round(radius_mm / STEP_MM), dark, -1)
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 1).astype(np.float32)


def dark_image(radius_mm: float, noise: float = 0.0) -> NDArray[np.float32]:
    """Every second strip of 10 mm is dark, and a dark disc in the middle."""
    image = spot(radius_mm, 0.0, noise=noise)
    for left in range(0, SIZE_PX, 40):
        image[:, left : left + 20] = 0
    return image


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (np.zeros((SIZE_PX, SIZE_PX)), False),
        (np.ones((SIZE_PX, SIZE_PX)), False),
        (spot(13.0, 3.0), False),
        (spot(6.0, 5.0, noise=0.01), False),
        (spot(13.0, 28.0), True),
        (spot(2.5, 0.0), True),
        (spot(10.0, 0.0, dark=0.12), True),
        (dark_image(5.0), True),
        (dark_image(12.0), False),
    ],
    ids=[
        "black",
        "white",
        "void",
        "noisy void",
        "void far away",
        "vessel",
        "dark fluid",
        "few grey values",
        "void among few grey values",
    ],
)
def test_only_a_void_at_the_point_has_no_signal(shown: NDArray[np.float32], expected: bool) -> None:
    assert has_signal(shown.astype(np.float32), STEP_MM) is expected
    assert has_signal(700 * shown.astype(np.float32), STEP_MM) is expected


def test_a_point_is_graded_on_the_series_on_which_it_was_seen() -> None:
    """Though another one of its kind shows it as well."""
    study = textured_study()
    point = next(p for p in all_points() if p.condition is Condition.SPINAL_CANAL_STENOSIS)
    first = study.of_kind(SeriesKind.SAGITTAL_T2)[0]
    second = replace(first, series_id=f"{first.series_id}-again")
    both = replace(study, series=(*study.series, second))
    for own in (first, second):
        item, _ = own.nearest(point.xyz_mm)
        seen = replace(point, sight=Sight.of(own, item, point.xyz_mm))
        assert series_for(both, seen) is own


def test_a_canal_that_no_sagittal_slice_shows_is_looked_at_between_its_recesses() -> None:
    points = tuple(p for p in all_points() if p.condition is not Condition.SPINAL_CANAL_STENOSIS)
    right, left = (next(p for p in points if p.condition is one) for one in RECESSES)
    found = axial_canal_point(SpineLevels("1", points=points), left.level)
    assert found is not None and found.condition is Condition.SPINAL_CANAL_STENOSIS
    np.testing.assert_allclose(found.xyz_mm, (left.xyz_mm + right.xyz_mm) / 2)


def test_a_target_on_a_black_slice_gets_no_crop_but_a_reason() -> None:
    study = textured_study()

    def black(item: Slice) -> Slice:
        return replace(item, read_pixels=lambda: np.zeros(item.plane.shape, np.float32))

    dark = study.changed(black)
    config = tiny_config(GraderName.SPINAL).crop
    point = next(p for p in all_points() if p.condition is Condition.SPINAL_CANAL_STENOSIS)
    assert not isinstance(target_crop(study, point, config), str)
    assert target_crop(dark, point, config) == Flag.NO_SIGNAL
    assert not isinstance(target_crop(dark, point, config, cached=True), str)


@pytest.mark.parametrize("intercept", [0.0, -0.04])
def test_a_rescale_intercept_makes_no_tissue_dark(intercept: float) -> None:
    """It puts zero signal below zero: what is dark on that scale need not be a void."""
    point = next(p for p in all_points() if p.condition is Condition.SPINAL_CANAL_STENOSIS)

    def around_the_point(item: Slice) -> Slice:
        def read() -> NDArray[np.float32]:
            image = np.ones(item.plane.shape, np.float32)
            x, y = item.plane.to_px(point.xyz_mm)
            centre, radius = (round(float(x)), round(float(y))), round(18 / item.plane.spacing_mm[0])
            cv2.circle(image, centre, radius, 0.08, -1)
            image[:2, :2] = 0
            return image + np.float32(intercept)

        return replace(item, read_pixels=read)

    study = textured_study().changed(around_the_point)
    crop = target_crop(study, point, tiny_config(GraderName.SPINAL).crop)
    assert not isinstance(crop, str)
