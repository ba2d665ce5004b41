"""Protects: annotated pixels become the right patient points, and bad rows are named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_prep.levels import PointSource, Sight
from data_prep.read.find import find_studies
from data_prep.rsna.annotations import annotated_points
from data_prep.rsna.tables import read_tables
from data_prep.study import Study
from data_prep.vocabulary import Condition, Level, SeriesKind
from tests.dicom_files import write_study

COLUMNS = ["study_id", "series_id", "instance_number", "condition", "level", "x", "y"]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    write_study(tmp_path / "100", spacing=(2.0, 1.0))
    (entry,) = find_studies(tmp_path / "100")
    return entry.load()


@pytest.mark.parametrize("as_text", [True, False])
def test_a_point_lies_on_the_plane_of_its_slice(study: Study, as_text: bool) -> None:
    rows = pd.DataFrame([[100, 12, 3, "Spinal Canal Stenosis", "L4/L5", 11.0, 12.5]], columns=COLUMNS)
    if as_text:
        rows = rows.astype({"study_id": str, "series_id": str})
        rows["condition"], rows["level"] = "spinal_canal_stenosis", "l4_l5"
    (point,), problems = annotated_points(study, rows)
    assert problems == ()
    # Slice 3 lies at x = -8 + 2 × 4 mm; columns are 1 mm apart, rows 2 mm.
    np.testing.assert_allclose(point.xyz_mm, (0.0, 11.0, -25.0))
    assert (point.condition, point.level) == (Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
    assert point.sight == Sight("12", 3, (11.0, 12.5))
    assert point.source is PointSource.ANNOTATED


@pytest.mark.parametrize(
    ("series", "instance", "x", "y", "code"),
    [
        (99, 1, 11.0, 12.0, "series_not_loaded"),
        (12, 99, 11.0, 12.0, "instance_not_found"),
        (12, 1, 11.0, 15.6, "outside_image"),
        (12, 1, 5.0, 5.0, "placeholder_point"),
    ],
)
def test_a_row_that_gives_no_point_is_named(
    study: Study, series: int, instance: int, x: float, y: float, code: str
) -> None:
    rows = pd.DataFrame([[100, series, instance, "Spinal Canal Stenosis", "L4/L5", x, y]], columns=COLUMNS)
    points, problems = annotated_points(study, rows)
    assert points == ()
    assert problems == (f"{code}: 100_spinal_canal_stenosis_l4_l5 ({series}, {instance})",)


def test_the_first_point_of_a_target_counts(study: Study) -> None:
    row = [100, 12, 3, "Spinal Canal Stenosis", "L4/L5", 11.0, 12.0]
    points, problems = annotated_points(study, pd.DataFrame([row, row], columns=COLUMNS))
    assert len(points) == 1
    assert problems == ("duplicate_point: 100_spinal_canal_stenosis_l4_l5 (12, 3)",)


def test_other_studies_are_not_looked_at(study: Study) -> None:
    rows = pd.DataFrame([[101, 12, 3, "Spinal Canal Stenosis", "L4/L5", 11.0, 12.0]], columns=COLUMNS)
    assert annotated_points(study, rows) == ((), ())


@pytest.mark.parametrize("study_id", ["100206310", "4003253"])
def test_all_real_points_lie_where_anatomy_says(real_rsna: Path, study_id: str) -> None:
    """Levels go down the spine; left lies left of right; recesses lie near the canal point (DICOM LPS)."""
    coordinates = read_tables(real_rsna).coordinates
    assert coordinates is not None
    (entry,) = find_studies(real_rsna / "train_images" / study_id)
    study = entry.load()
    points, problems = annotated_points(study, coordinates)
    assert problems == ()
    assert len(points) == 25
    by_target = {(point.condition, point.level): point.xyz_mm for point in points}
    canal = [by_target[Condition.SPINAL_CANAL_STENOSIS, level] for level in Level]
    assert all(upper[2] > lower[2] + 15 for upper, lower in pairwise(canal))
    for level, centre in zip(Level, canal, strict=True):
        for left, right in (
            (Condition.LEFT_SUBARTICULAR_STENOSIS, Condition.RIGHT_SUBARTICULAR_STENOSIS),
            (Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Condition.RIGHT_NEURAL_FORAMINAL_NARROWING),
        ):
            assert by_target[left, level][0] > by_target[right, level][0] + 8
            assert np.linalg.norm(by_target[left, level] - centre) < 30
    for point in points:
        assert point.sight is not None
        series, item = study.slice_at(point.sight)
        np.testing.assert_allclose(item.plane.to_px(point.xyz_mm), point.sight.xy_px, atol=1e-6)
        assert series.kind is point.condition.series_kind
    assert {series.kind for series in study.series} == set(SeriesKind)


def test_a_pair_whose_left_point_lies_to_the_right_gives_none(study: Study) -> None:
    """Sagittal slice 1 lies farthest to the patient's right."""
    sides = {"Left": 5, "Right": 1}
    for swapped in (False, True):
        rows = pd.DataFrame(
            [
                [100, 12, sides[side], f"{name} Neural Foraminal Narrowing", level, 11.0, 12.5]
                for side in sides
                for name, level in (
                    (side if not swapped else "Left" if side == "Right" else "Right", "L4/L5"),
                    (side, "L5/S1"),
                )
            ],
            columns=COLUMNS,
        )
        points, problems = annotated_points(study, rows)
        assert {point.level for point in points} == {Level.L5_S1} | ({Level.L4_L5} if not swapped else set())
        assert [text.partition(" (")[0] for text in problems] == (
            [
                "sides_exchanged: 100_left_neural_foraminal_narrowing_l4_l5",
                "sides_exchanged: 100_right_neural_foraminal_narrowing_l4_l5",
            ]
            if swapped
            else []
        )


def test_a_pair_on_one_slice_stays(study: Study) -> None:
    """As some real ones: nothing says which of both is wrong."""
    rows = pd.DataFrame(
        [
            [100, 12, 3, f"{side} Neural Foraminal Narrowing", "L4/L5", 11.0, 12.5]
            for side in ("Left", "Right")
        ],
        columns=COLUMNS,
    )
    points, problems = annotated_points(study, rows)
    assert len(points) == 2 and problems == ()
