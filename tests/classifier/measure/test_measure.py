"""Measurements: right on spines whose truth is known, the same on another grid, and said with units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from classifier.grade import Grade
from classifier.measure.agreement import LIMITS, contradictions, target_of
from classifier.measure.around import sac_area
from classifier.measure.borders import _best_path, border_scores, find_border
from classifier.measure.extents import Extent
from classifier.measure.planar import PlanarSlice
from classifier.measure.quantities import FORAMEN, KINDS, Measured, Quantity
from classifier.measure.sagittal import SagittalReading
from classifier.measure.strips import (
    CANAL_ACROSS_MM,
    CANAL_BEYOND_MM,
    CANAL_ROWS,
    RADII_MM,
    Strip,
    canal_strip,
    disc_strip,
    round_strip,
)
from classifier.measure.study import lordosis, measure_study
from data_prep.geometry import SlicePlane
from data_prep.levels import SpineFrame, SpineLevel, SpineLevels
from data_prep.phantom.posture import FIRST_LUMBAR
from data_prep.phantom.spine import SAMPLES_PER_LEVEL
from data_prep.phantom.study import PhantomStudy, make_study
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import LEVELS, TARGETS, Condition, Level, SeriesKind, Severity, Target

SEEDS = (200_001, 200_002)


def levels_of(phantom: PhantomStudy) -> SpineLevels:
    """The true levels and points, as a detector would give them."""
    discs = {disc.name: disc for disc in phantom.discs}
    found = {}
    for level in LEVELS:
        disc = discs[level.label]
        plane = FIRST_LUMBAR + level.index
        spine = phantom.body.spine
        up, left, back = (spine.rotation @ axis[plane] for axis in (spine.up, spine.left, spine.back))
        found[level] = SpineLevel(disc.disc_mm, disc.canal_mm, SpineFrame(up, left, back), 1.0, 1.0)
    return SpineLevels(phantom.study.study_id, found, phantom.points, 1.0)


@pytest.fixture(scope="module", params=SEEDS)
def phantom(request: pytest.FixtureRequest) -> PhantomStudy:
    return make_study(request.param)


@pytest.fixture(scope="module")
def measured(phantom: PhantomStudy) -> tuple[Measured, ...]:
    return measure_study(phantom.study, levels_of(phantom))


def values(measured: tuple[Measured, ...], quantity: Quantity) -> dict[Level | None, Measured]:
    return {item.level: item for item in measured if item.quantity is quantity}


def test_the_sac_is_as_deep_and_as_large_as_it_was_made(
    phantom: PhantomStudy, measured: tuple[Measured, ...]
) -> None:
    depth, width = phantom.body.profile["sac_depth"], phantom.body.profile["sac_width"]
    rows = {level: (FIRST_LUMBAR + level.index) * SAMPLES_PER_LEVEL for level in LEVELS}
    errors = [
        item.value - 2 * float(depth[rows[level]])
        for level, item in values(measured, Quantity.CANAL_DEPTH).items()
        if level is not None
    ]
    assert len(errors) == len(LEVELS) and np.mean(np.abs(errors)) < 1.3
    areas = [
        item.value / (np.pi * float(depth[rows[level]] * width[rows[level]])) - 1
        for level, item in values(measured, Quantity.SAC_AREA).items()
        if level is not None
    ]
    assert len(areas) == len(LEVELS) and np.mean(np.abs(areas)) < 0.25


def test_a_disc_is_compared_with_the_vertebra_beside_it_and_straight_spines_slip_nowhere(
    phantom: PhantomStudy, measured: tuple[Measured, ...]
) -> None:
    height, index = (values(measured, kind) for kind in (Quantity.DISC_HEIGHT, Quantity.DISC_HEIGHT_INDEX))
    at_mm = {level: found.disc_mm for level, found in levels_of(phantom).levels.items()}
    for level, neighbour in ((Level.L1_L2, Level.L2_L3), (Level.L5_S1, Level.L4_L5)):
        body = height[level].value / index[level].value
        discs = (height[level].value + height[neighbour].value) / 2
        assert body + discs == pytest.approx(np.linalg.norm(at_mm[level] - at_mm[neighbour]), abs=3.0)
    assert all(abs(item.value) < 2.0 for item in values(measured, Quantity.SLIP).values())


def test_no_area_is_measured_on_a_slice_that_shows_another_level(
    phantom: PhantomStudy, measured: tuple[Measured, ...]
) -> None:
    levels = levels_of(phantom)
    at_mm = levels.levels[Level.L4_L5].canal_mm

    def without_near(series: Series) -> Series:
        far = [
            [item for item in stack if abs(item.plane.distance_mm(at_mm)) > 4.5] for stack in series.stacks
        ]
        return replace(series, stacks=tuple(tuple(stack) for stack in far if stack))

    study = phantom.study
    cut = replace(
        study,
        series=tuple(
            without_near(item) if item.kind is SeriesKind.AXIAL_T2 else item for item in study.series
        ),
    )
    before, after = (values(some, Quantity.SAC_AREA) for some in (measured, measure_study(cut, levels)))
    assert Level.L4_L5 in before
    assert {*before} - {*after} == {Level.L4_L5}


def test_a_border_follows_what_it_is_drawn_along() -> None:
    ridge = 10 + np.round(3 * np.sin(np.linspace(0, 2 * np.pi, 60, endpoint=False))).astype(int)
    score = np.zeros((60, 21))
    score[np.arange(60), ridge] = 5.0
    assert np.array_equal(_best_path(score), ridge)


def test_every_measurement_has_a_place_a_unit_and_an_uncertainty(measured: tuple[Measured, ...]) -> None:
    assert len({(item.quantity, item.level, item.side) for item in measured}) == len(measured) > 40
    for item in measured:
        assert np.isfinite(item.value) and item.uncertainty > 0
        assert item.words.startswith(f"{item.value:.{item.kind.decimals}f} ± ".replace("-", "−"))
        assert (item.series_id is None) == (item.quantity is Quantity.FORAMEN_DIFFERENCE)


def test_another_grid_of_the_same_slice_gives_the_same_within_the_uncertainty(phantom: PhantomStudy) -> None:
    levels = levels_of(phantom)
    first = measure_study(phantom.study, levels)
    again = {
        (item.quantity, item.level, item.side): item
        for item in measure_study(_resampled(phantom.study), levels)
    }
    differences = [
        abs(item.value - again[item.quantity, item.level, item.side].value) / item.uncertainty
        for item in first
        if (item.quantity, item.level, item.side) in again
    ]
    assert len(differences) > 40
    assert np.mean(np.array(differences) < 1.0) > 0.85 and np.mean(np.array(differences) < 2.0) > 0.95


def _resampled(study: Study) -> Study:
    """The same slices on pixels of 1.1 times the size, shifted by a part of a pixel."""
    from data_prep.crops import resample

    def other(plane: SlicePlane) -> SlicePlane:
        rows, columns = plane.shape
        spacing = (plane.spacing_mm[0] * 1.1, plane.spacing_mm[1] * 1.1)
        return SlicePlane(
            plane.to_mm([0.43, 0.27]),
            plane.x_axis,
            plane.y_axis,
            spacing,
            (int(rows / 1.1), int(columns / 1.1)),
        )

    def changed(item: Slice) -> Slice:
        plane = other(item.plane)
        return replace(item, plane=plane, read_pixels=lambda: resample(item.pixels(), item.plane, plane))

    return study.changed(changed)


@pytest.mark.parametrize(
    ("thick_mm", "grey", "share"), [(14.0, 1.0, 100), (4.0, 1.0, 29), (14.0, 0.4, 50), (0.0, 1.0, 0)]
)
def test_the_fluid_at_a_disc_is_compared_with_that_beside_the_vertebrae(
    thick_mm: float, grey: float, share: float
) -> None:
    """A canal 14 mm deep that is narrow, or crowded with roots, or closed, at the second of three discs."""
    count, levels = 54, np.array([9.0, 26.0, 43.0])
    thick, bright = np.full(count, 14.0), np.ones(count)
    thick[24:29], bright[24:29] = thick_mm, grey
    across = CANAL_ACROSS_MM
    strip = Strip(
        np.stack([np.zeros(count), 2.0 * np.arange(count)], axis=1), np.tile([1.0, 0.0], (count, 1)), across
    )
    values = np.where(np.abs(across) <= thick[:, None] / 2, bright[:, None], 0.0).astype(np.float32)
    sac = Extent(-thick / 2, thick / 2, np.ones(count), np.ones(count), np.zeros_like(values))
    reading = SagittalReading(strip, values, levels, sac, (None, None, None))
    found = [reading.at_level(place)[Quantity.CSF_SHARE].value for place in range(3)]
    assert found[0] == pytest.approx(100, abs=5) and found[2] == pytest.approx(100, abs=5)
    assert found[1] == pytest.approx(share, abs=6)


def test_the_lordosis_is_measured_though_no_slice_shows_most_levels_of_a_bent_spine() -> None:
    phantom = make_study(530_041)
    found = measure_study(phantom.study, levels_of(phantom))
    slices = [item.instance_number for item in found if item.quantity is Quantity.CANAL_DEPTH]
    assert len(slices) == 5 and max(map(slices.count, slices)) < 3
    (item,) = values(found, Quantity.LORDOSIS).values()
    assert item.value == pytest.approx(62.2, abs=8.0)  # of its endplates, as benchmarks.measurements has it


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_endplate_that_points_down_in_front_is_lordotic(mirrored: bool) -> None:
    up, back = np.array([0.0, 0, 1]), np.array([0.0, 1, 0])
    turned = np.deg2rad(40.0)
    down_in_front = np.cos(turned) * back + np.sin(turned) * up
    if mirrored:
        up, down_in_front = -up, down_in_front * [1, 1, -1]
    assert lordosis(back, down_in_front, up, back) == pytest.approx(40.0)
    assert lordosis(down_in_front, back, up, back) == pytest.approx(-40.0)


def test_without_levels_or_series_nothing_is_measured(phantom: PhantomStudy) -> None:
    assert measure_study(phantom.study, SpineLevels("1")) == ()
    assert measure_study(Study("1", ()), levels_of(phantom)) == ()


def test_two_levels_are_too_few_for_a_spine(phantom: PhantomStudy) -> None:
    levels = levels_of(phantom)
    two = {level: levels.levels[level] for level in (Level.L3_L4, Level.L4_L5)}
    found = measure_study(phantom.study, replace(levels, levels=two))
    assert {(item.quantity, item.level) for item in found} == {
        (quantity, level) for level in two for quantity in (Quantity.SAC_AREA, *FORAMEN)
    }


@pytest.mark.parametrize("is_decoded", [False, True])
def test_sagittal_slices_that_show_nothing_keep_nothing_else_from_being_measured(
    phantom: PhantomStudy, is_decoded: bool
) -> None:
    def noise() -> NDArray[np.float32]:
        if not is_decoded:
            raise DicomRejected(Rejection(Reason.BAD_PIXELS, "broken"))
        return np.random.default_rng(0).normal(100, 1, (400, 400)).astype(np.float32)

    def shown(series: Series) -> Series:
        if series.kind is not SeriesKind.SAGITTAL_T2:
            return series
        return series.changed(lambda item: replace(item, read_pixels=noise))

    study = replace(phantom.study, series=tuple(map(shown, phantom.study.series)))
    found = measure_study(study, levels_of(phantom))
    assert {item.quantity for item in found} == {Quantity.SAC_AREA, *FORAMEN}


def test_an_oblique_slice_cuts_a_canal_wider_than_it_is(phantom: PhantomStudy) -> None:
    (series, *_) = phantom.study.of_kind(SeriesKind.AXIAL_T2)
    canal_mm = levels_of(phantom).levels[Level.L3_L4].canal_mm
    planar = PlanarSlice.of(series.nearest(canal_mm)[0])
    straight, oblique = (sac_area(planar, canal_mm, cosine) for cosine in (1.0, 0.9))
    assert straight is not None and oblique is not None
    assert 0.85 < oblique[0] / straight[0] < 0.93


def test_what_is_usual_and_what_is_not() -> None:
    for quantity, level, value, verdict in (
        (Quantity.CANAL_DEPTH, Level.L4_L5, 9.9, "low"),
        (Quantity.CANAL_DEPTH, Level.L4_L5, 10.0, "usual"),
        (Quantity.SLIP, Level.L4_L5, 3.1, "high"),
        (Quantity.SLIP, Level.L4_L5, -3.1, "low"),
        (Quantity.DISC_HEIGHT, Level.L1_L2, 14.5, "high"),
        (Quantity.DISC_HEIGHT, Level.L4_L5, 14.5, "usual"),
        (Quantity.CSF_SHARE, Level.L4_L5, 1.0, ""),
        (Quantity.LORDOSIS, None, 20.0, "low"),
    ):
        assert Measured(quantity, value, 1.0, level).verdict == verdict


def test_slip_is_not_measured_at_the_sacrum(measured: tuple[Measured, ...]) -> None:
    assert Level.L5_S1 not in values(measured, Quantity.SLIP) and Level.L4_L5 in values(
        measured, Quantity.SLIP
    )


@pytest.mark.parametrize("turn", [1.0, -1.0])
def test_a_disc_is_read_from_front_to_back_whichever_way_an_image_runs(turn: float) -> None:
    back = np.array([turn, 0.0])
    strip = disc_strip(np.zeros(2), np.array([0.0, -1.0]), back)
    assert (strip.centres_mm[-1] - strip.centres_mm[0]) @ back > 40


def test_the_scores_are_convolutions_that_repeat_the_edge_and_go_round() -> None:
    rng = np.random.default_rng(0)
    weights = {
        "sac.filter": rng.normal(0, 0.2, (4, 1, 5, 7)).astype(np.float32),
        "sac.threshold": rng.normal(0, 0.2, 4).astype(np.float32),
        "sac.regression": rng.normal(0, 0.2, (1, 4, 5, 5)).astype(np.float32),
    }
    image = rng.normal(0, 1, (30, 40)).astype(np.float32)
    found = border_scores(weights, image)
    assert found.shape == (30, 40)
    row, column = 1, 38

    def at(r: int, c: int) -> float:
        return float(image[r % 30, min(max(c, 0), 39)])

    def answer(o: int, r: int, c: int) -> float:
        # Beyond the edge, answers are repeated, not computed from a repeated image.
        r, c = r % 30, min(max(c, 0), 39)
        patch = [[at(r + i - 2, c + j - 3) for j in range(7)] for i in range(5)]
        return max(0.0, float(np.sum(weights["sac.filter"][o, 0] * patch) + weights["sac.threshold"][o]))

    expected = sum(
        float(weights["sac.regression"][0, o, i, j]) * answer(o, row + 2 * (i - 2), column + 2 * (j - 2))
        for o in range(4)
        for i in range(5)
        for j in range(5)
    )
    assert found[row, column] == pytest.approx(expected, abs=1e-4)


def test_a_round_border_is_found_where_it_is_whatever_the_pixels() -> None:
    for spacing in (0.5, 0.8):
        size = round(60 / spacing)
        y, x = np.mgrid[:size, :size] * spacing
        disc = np.where(np.hypot(x - 30, y - 30) < 7.0, 900.0, 200.0).astype(np.float32)
        strip = round_strip(np.array([30.5, 29.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0]))
        assert strip.at_mm().shape == (36, len(RADII_MM), 2)
        border = find_border(strip, strip.read(disc, (spacing, spacing)))
        contour = strip.centres_mm + border.across_mm[:, None] * strip.across
        assert np.abs(np.hypot(*(contour - 30).T) - 7.0).mean() < 1.2


def test_the_canal_strip_runs_head_to_foot_and_front_to_back() -> None:
    canal = np.array([[50.0, 20], [52, 55], [52, 90], [48, 120]])
    at = CANAL_BEYOND_MM + np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(canal, axis=0), axis=1))]
    strip, rows = canal_strip(canal, canal - [25.0, 0])
    assert rows == pytest.approx(at / (at[-1] + CANAL_BEYOND_MM) * (CANAL_ROWS - 1))
    assert np.all(np.diff(strip.centres_mm[:, 1]) > 0) and np.all(strip.across[:, 0] > 0.8)
    middle = strip.centres_mm[np.rint(rows).astype(int)]
    assert np.abs(middle - canal).max() < 1.5


def test_a_planar_slice_leads_to_the_patient_and_back() -> None:
    plane = SlicePlane(
        np.array([3.0, -80, 90]), np.array([0.0, 1, 0]), np.array([0.0, 0, -1]), (0.7, 0.8), (300, 280)
    )
    planar = PlanarSlice(plane, np.zeros((300, 280), np.float32))
    points = np.array([[3.0, -20, 40], [3.0, 10, -30]])
    assert planar.to_patient(planar.to_mm2(points)) == pytest.approx(points)
    assert planar.to_mm2(points)[0] == pytest.approx([60.0, 50.0])


def test_grades_that_their_measurement_contradicts_are_named() -> None:
    def grades(severity: Severity, source: str = "seen") -> dict[Target, Grade]:
        p = np.array([0.05, 0.05, 0.05])
        p[severity.index] = 0.9
        return {target: Grade(p, source) for target in TARGETS}  # type: ignore[arg-type]

    wide = Measured(Quantity.CANAL_DEPTH, 16.0, 1.0, Level.L4_L5)
    narrow = Measured(Quantity.CANAL_DEPTH, 4.0, 1.0, Level.L3_L4)
    (found,) = contradictions(grades(Severity.SEVERE), (wide, narrow))
    assert found.target == Target(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
    assert found.words == "graded Severe, but dural sac, front to back is 16.0 ± 1.0 mm"
    (found,) = contradictions(grades(Severity.NORMAL_MILD), (wide, narrow))
    assert found.target == Target(Condition.SPINAL_CANAL_STENOSIS, Level.L3_L4)
    assert contradictions(grades(Severity.MODERATE), (wide, narrow)) == ()
    assert contradictions(grades(Severity.SEVERE, "prior"), (wide, narrow)) == ()
    unsure = Measured(Quantity.CANAL_DEPTH, 13.0, 1.0, Level.L4_L5)
    assert contradictions(grades(Severity.SEVERE), (unsure,)) == ()
    nearly = Measured(Quantity.CANAL_DEPTH, 7.0, 1.0, Level.L4_L5)
    assert contradictions(grades(Severity.NORMAL_MILD), (nearly,)) == ()
    small = [Measured(Quantity.SAC_AREA, 50.0, 5.0, level) for level in (Level.L4_L5, Level.L5_S1)]
    (found,) = contradictions(grades(Severity.NORMAL_MILD), small)
    assert found.target.level is Level.L4_L5  # the sac tapers at the sacrum
    large = Measured(Quantity.SAC_AREA, 180.0, 10.0, Level.L5_S1)
    assert len(contradictions(grades(Severity.SEVERE), (large,))) == 1
    assert target_of(Measured(Quantity.SLIP, 1.0, 1.0, Level.L4_L5)) is None


def test_every_quantity_is_documented_and_has_a_code() -> None:
    from pathlib import Path

    from pipeline.results.dicom.codes import QUANTITY_CODES, UNITS

    text = (Path(__file__).resolve().parents[3] / "docs" / "measurements.md").read_text(encoding="utf-8")
    assert set(KINDS) == set(Quantity) == set(QUANTITY_CODES) and set(LIMITS) <= set(Quantity)
    for quantity, kind in KINDS.items():
        assert f"`{quantity.value}`" in text and kind.ucum in UNITS
