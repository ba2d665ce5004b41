"""The figures say what they claim, on errors made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.levels import LevelPoint, PointSource, SpineLevels
from data_prep.phantom import PhantomStudy, make_study
from data_prep.vocabulary import LEVELS, Condition, Level
from detector.evaluate import numbering_report, point_errors, summarise
from detector.figures import draw_worst


@pytest.fixture(scope="module")
def phantom() -> PhantomStudy:
    return make_study(100_003)


def detected(phantom: PhantomStudy, points: tuple[LevelPoint, ...], confidence: float = 0.9) -> SpineLevels:
    seen = tuple(replace(point, source=PointSource.SEEN) for point in points)
    return SpineLevels(phantom.study.study_id, points=seen, numbering_confidence=confidence)


def one_up(phantom: PhantomStudy) -> tuple[LevelPoint, ...]:
    """The true points, each named one level too high."""
    levels = list(Level)
    lower = [point for point in phantom.points if point.level.index > 0]
    return tuple(replace(point, level=levels[point.level.index - 1]) for point in lower)


def test_perfect_points_have_no_error(phantom: PhantomStudy) -> None:
    report = summarise(point_errors(phantom.study, detected(phantom, phantom.points), phantom.points))
    assert {group: figures.n for group, figures in report.items()} == {
        "spinal": 5,
        "foraminal": 10,
        "subarticular": 10,
    }
    for figures in report.values():
        assert figures.missing == figures.wrong_level == figures.wrong_side == 0
        assert figures.median_3d_mm == 0 and figures.within_3d["4"] == 1 and figures.slice_exact == 1


def test_a_shift_in_the_plane_is_measured_in_millimetres(phantom: PhantomStudy) -> None:
    truth = phantom.points[0]
    assert truth.sight is not None
    x, y = truth.sight.xy_px
    moved = replace(truth, sight=replace(truth.sight, xy_px=(x + 3, y)))
    row = point_errors(phantom.study, detected(phantom, (moved,)), (truth,)).iloc[0]
    series, _ = phantom.study.slice_at(truth.sight)
    expected = 3 * series.slices[0].plane.spacing_mm[0]
    assert row["in_plane_mm"] == pytest.approx(expected) == row["distance_mm"]


def test_levels_off_by_one_and_swapped_sides_are_counted(phantom: PhantomStudy) -> None:
    report = summarise(point_errors(phantom.study, detected(phantom, one_up(phantom)), phantom.points))
    assert report["spinal"].wrong_level == 4 and report["spinal"].missing == 1
    swap = {c: Condition.of(c.group, c.side.other) if c.side else c for c in Condition}
    swapped = tuple(replace(point, condition=swap[point.condition]) for point in phantom.points)
    report = summarise(point_errors(phantom.study, detected(phantom, swapped), phantom.points))
    assert report["foraminal"].wrong_side == 10 and report["subarticular"].wrong_side == 10
    assert report["foraminal"].wrong_level == 0


def test_missing_points_count_against_every_share(phantom: PhantomStudy) -> None:
    report = summarise(point_errors(phantom.study, detected(phantom, ()), phantom.points))
    assert report["subarticular"].missing == 10
    assert report["subarticular"].within_3d["10"] == 0
    assert np.isinf(report["subarticular"].median_3d_mm)


def test_numbering_report_compares_confidence_with_truth(phantom: PhantomStudy) -> None:
    wrong = one_up(phantom)
    errors = point_errors(phantom.study, detected(phantom, wrong), phantom.points)
    sure = numbering_report(errors, [detected(phantom, wrong, confidence=0.99)])
    unsure = replace(detected(phantom, wrong, confidence=0.2), flags=("numbering_uncertain",))
    careful = numbering_report(errors, [unsure])
    assert (sure.wrong, careful.wrong) == (1, 1)
    assert sure.calibration_error == pytest.approx(0.99) and careful.calibration_error == pytest.approx(0.2)
    assert sure.flagged_wrong == 0 and careful.flagged_wrong == 1


def test_a_study_whose_annotated_sides_are_numbered_apart_says_nothing_of_the_numbering(
    phantom: PhantomStudy,
) -> None:
    right = Condition.RIGHT_NEURAL_FORAMINAL_NARROWING
    annotated = tuple(
        replace(point, level=LEVELS[point.level.index - 1]) if point.condition is right else point
        for point in phantom.points
        if point.condition is not right or point.level is not LEVELS[0]
    )
    found = detected(phantom, phantom.points)
    errors = point_errors(phantom.study, found, annotated)
    assert errors["wrong_level"].any() and errors["contradictory"].all()
    report = numbering_report(errors, [found])
    assert (report.studies, report.contradictory, report.wrong) == (0, 1, 0)
    plain = numbering_report(point_errors(phantom.study, found, phantom.points), [found])
    assert (plain.studies, plain.contradictory) == (1, 0)


def test_worst_cases_are_drawn_worst_first(phantom: PhantomStudy, tmp_path: Path) -> None:
    points = list(phantom.points)
    points[7] = replace(points[7], xyz_mm=points[7].xyz_mm + np.array([0, 20, 0]), sight=None)
    found = detected(phantom, tuple(points))
    errors = point_errors(phantom.study, found, phantom.points)
    written = draw_worst([(phantom.study, found, phantom.points)], errors, tmp_path, count=2)
    assert len(written) == 2
    assert f"{points[7].condition.value}_{points[7].level.value}" in written[0].name
    assert written[0].stat().st_size > 2000
