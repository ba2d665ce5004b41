"""Protects: a T1 on which fat is dark is said, and no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from data_prep.levels import SpineLevels
from data_prep.phantom import make_study
from data_prep.problems import Reason
from data_prep.read.find import find_studies
from data_prep.study import Slice, Study
from data_prep.vocabulary import Flag, SeriesKind
from detector.predict import LevelDetector
from detector.spine.contrast import with_fat_doubted


@cache
def detector() -> LevelDetector:
    return LevelDetector.load_bundled(threads=1)


@cache
def phantom(seed: int) -> tuple[Study, SpineLevels]:
    study = make_study(seed, size="small").study
    return study, detector().predict(study)


def with_t1(study: Study, change: Callable[[Slice], Slice]) -> Study:
    return replace(
        study,
        series=tuple(
            item.changed(change) if item.kind is SeriesKind.SAGITTAL_T1 else item for item in study.series
        ),
    )


def without_fat(item: Slice) -> Slice:
    """What is brighter than muscle is so by its fat, of which an eighth is left."""

    def pixels() -> np.ndarray:
        shown = item.pixels()
        fat = float(np.percentile(shown, 99))
        muscle = 0.2 * fat
        slope = (muscle - fat / 8) / (fat - muscle)
        return np.where(shown < muscle, shown, muscle - (shown - muscle) * slope).astype(np.float32)

    return replace(item, read_pixels=pixels)


def front_alone(item: Slice) -> Slice:
    """The back is out of view."""
    rows, columns = item.plane.shape
    half = columns // 2
    return replace(
        item, plane=replace(item.plane, shape=(rows, half)), read_pixels=lambda: item.pixels()[:, :half]
    )


def test_nothing_is_said_where_nobody_knows_what_is_behind() -> None:
    study, levels = phantom(152_000)
    dark = with_t1(study, without_fat)
    assert with_fat_doubted(dark, levels) is not dark
    assert with_fat_doubted(dark, replace(levels, flags=(Flag.ORIENTATION_DOUBTFUL,))) is dark


@pytest.mark.parametrize("seed", [152_000, 152_001, 152_002])
def test_fat_that_is_bright_or_out_of_view(seed: int) -> None:
    study, levels = phantom(seed)
    assert with_fat_doubted(study, levels) is study
    front = with_t1(study, front_alone)
    assert with_fat_doubted(front, levels) is front


@pytest.mark.parametrize("seed", [152_000, 152_001, 152_002])
def test_fat_that_is_dark(seed: int) -> None:
    study, levels = phantom(seed)
    (note,) = with_fat_doubted(with_t1(study, without_fat), levels).rejections
    (t1,) = study.of_kind(SeriesKind.SAGITTAL_T1)
    assert (note.reason, note.series_id) == (Reason.KIND_DISAGREES, t1.series_id)


def test_without_levels_nothing_is_said() -> None:
    study, _ = phantom(152_000)
    dark = with_t1(study, without_fat)
    assert with_fat_doubted(dark, SpineLevels(study.study_id)) is dark


@pytest.mark.parametrize("study_id", ["100206310", "4003253"])
def test_real_series(real_rsna: Path, study_id: str) -> None:
    (entry,) = find_studies(real_rsna / "train_images" / study_id)
    study = entry.load()
    levels = detector().predict(study)
    assert with_fat_doubted(study, levels) is study
    assert len(with_fat_doubted(with_t1(study, without_fat), levels).rejections) == len(study.rejections) + 1
