"""The synthetic patients' anatomy and points: where the real ones are, and diseased only at the target."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.geometry import Orientation, SlicePlane
from data_prep.levels import LevelPoint
from data_prep.phantom import Contrast, PhantomStudy, make_study, render
from data_prep.phantom.posture import FIRST_LUMBAR
from data_prep.study import Slice
from data_prep.vocabulary import LEVELS, TARGETS, Condition, Level, SeriesKind, Side, Target

T2 = Contrast(SeriesKind.SAGITTAL_T2, tr_ms=3500, te_ms=100)
T1 = Contrast(SeriesKind.SAGITTAL_T1, tr_ms=550, te_ms=10)
LEFT_RECESS = Condition.LEFT_SUBARTICULAR_STENOSIS
RIGHT_RECESS = Condition.RIGHT_SUBARTICULAR_STENOSIS
CANAL = Condition.SPINAL_CANAL_STENOSIS
HEALTHY = dict.fromkeys(TARGETS, -0.8)


@pytest.fixture(scope="module")
def studies() -> list[PhantomStudy]:
    return [make_study(seed) for seed in range(30)]


def _points(phantom: PhantomStudy) -> dict[Target, LevelPoint]:
    return {Target(point.condition, point.level): point for point in phantom.points}


def _slice(phantom: PhantomStudy, point: LevelPoint) -> Slice:
    assert point.sight is not None
    return phantom.study.slice_at(point.sight)[1]


def test_every_target_has_a_point_inside_an_image_of_the_right_series(studies: list[PhantomStudy]) -> None:
    for phantom in studies:
        kinds = {series.series_id: series.kind for series in phantom.study.series}
        assert set(_points(phantom)) == set(TARGETS)
        for point in phantom.points:
            assert point.sight is not None
            assert kinds[point.sight.series_id] is point.condition.series_kind
            plane = _slice(phantom, point).plane
            assert plane.contains_px(point.sight.xy_px, margin_px=8)
            assert plane.to_mm(point.sight.xy_px) == pytest.approx(point.xyz_mm, abs=1e-6)


def test_slices_run_from_right_to_left_and_from_foot_to_head(studies: list[PhantomStudy]) -> None:
    for phantom in studies:
        for series in phantom.study.series:
            axis = 2 if series.orientation is Orientation.AXIAL else 0
            for stack in series.stacks:
                assert np.all(np.diff([item.plane.centre_mm[axis] for item in stack]) > 0)
            assert len({item.instance_number for item in series.slices}) == len(series.slices)


def test_canal_gaps_and_angles_are_those_of_the_real_table(studies: list[PhantomStudy]) -> None:
    """Ratios 1.08 1.06 1.00 .86, angles −12 −8 +2.5 +16.5°, gaps 34 33 31 25 mm (docs/phantom.md)."""
    steps = []
    for phantom in studies:
        canal = {disc.name: disc.canal_mm for disc in phantom.discs}
        steps.append(np.diff([canal[level.label] for level in LEVELS], axis=0))
    lengths = np.linalg.norm(steps, axis=2)
    ratios = (lengths / lengths.mean(axis=1, keepdims=True)).mean(axis=0)
    angles = np.degrees(np.arctan2(np.array(steps)[..., 1], -np.array(steps)[..., 2])).mean(axis=0)
    assert lengths.mean(axis=0) == pytest.approx([34, 33, 31, 25], abs=2.0)
    assert ratios == pytest.approx([1.08, 1.06, 1.00, 0.86], abs=0.05)
    assert angles == pytest.approx([-12, -8, 2.5, 16.5], abs=5.0)


def test_points_lie_as_annotators_place_them(studies: list[PhantomStudy]) -> None:
    """'Geometry of the annotations' in docs/phantom.md, relative to the canal point of the level."""
    recess, width, foramen = [], [], {side: [] for side in Side}
    for phantom in studies:
        points, canal = _points(phantom), {disc.name: disc.canal_mm for disc in phantom.discs}
        for level in LEVELS:
            left, right = (points[Target(c, level)].xyz_mm for c in (LEFT_RECESS, RIGHT_RECESS))
            recess.append((left + right) / 2 - canal[level.label])
            width.append((left - right)[0])
            for side in Side:
                condition = Condition(f"{side.value}_neural_foraminal_narrowing")
                foramen[side].append(points[Target(condition, level)].xyz_mm - canal[level.label])
    assert np.mean(recess, axis=0) == pytest.approx([0, -3, -1], abs=1.5)
    assert min(width) > 10 and np.mean(width) == pytest.approx(17, abs=2)
    for side in Side:
        offsets = np.array(foramen[side]).reshape(-1, 5, 3).mean(axis=0)
        assert offsets[:, 0] * side.sign == pytest.approx(np.full(5, 16.5), abs=3)
        assert np.all((offsets[:, 2] > -1) & (offsets[:, 2] < 9))
        assert offsets[0, 1] == pytest.approx(-1, abs=3) and offsets[4, 1] == pytest.approx(-10, abs=4)


def _plane_at(xyz_mm: np.ndarray, axes: tuple[list[float], list[float]], half: int = 12) -> SlicePlane:
    x_axis, y_axis = (np.array(axis, dtype=float) for axis in axes)
    origin = xyz_mm - half * (x_axis + y_axis)
    return SlicePlane(origin, x_axis, y_axis, (1.0, 1.0), (2 * half + 1, 2 * half + 1))


SAGITTAL_AXES = ([0.0, 1.0, 0.0], [0.0, 0.0, -1.0])
AXIAL_AXES = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])


def test_canal_point_is_bright_on_t2_and_foramen_on_t1_in_health() -> None:
    for seed in range(6):
        phantom = make_study(seed, latents=HEALTHY)
        for level in LEVELS:
            canal = next(disc.canal_mm for disc in phantom.discs if disc.name == level.label)
            view = render(phantom.body, _plane_at(canal, SAGITTAL_AXES), T2, thickness_mm=2.0)
            # The cord may end as low as L1/L2.
            brightness = 0.6 if level is not Level.L1_L2 else 0.2
            assert view[10:15, 11:14].mean() > brightness * T2.signals["csf"]
            foramen = phantom.body.foramen_mm(level, Side.LEFT)
            view = render(phantom.body, _plane_at(foramen, SAGITTAL_AXES), T1, thickness_mm=2.0)
            assert view[6:19, 8:17].max() > 0.85 * T1.signals["fat"]


def test_sagittal_and_axial_cuts_show_the_same_body() -> None:
    phantom = make_study(3)
    canal = phantom.discs[6].canal_mm
    sagittal = render(phantom.body, _plane_at(canal, SAGITTAL_AXES, 30), T2, thickness_mm=0.0, cuts=1)
    axial = render(phantom.body, _plane_at(canal, AXIAL_AXES, 30), T2, thickness_mm=0.0, cuts=1)
    # Both contain the line through the canal from front to back.
    assert sagittal[30, :] == pytest.approx(axial[:, 30], abs=1e-3)


@pytest.mark.parametrize(
    ("target", "axes", "contrast"),
    [
        (Target(CANAL, Level.L3_L4), SAGITTAL_AXES, T2),
        (Target(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Level.L4_L5), SAGITTAL_AXES, T1),
        (Target(RIGHT_RECESS, Level.L5_S1), AXIAL_AXES, T2),
    ],
    ids=["canal", "foramen", "recess"],
)
def test_severity_changes_the_anatomy_at_its_target_step_by_step_and_nowhere_else(
    target: Target, axes: tuple[list[float], list[float]], contrast: Contrast
) -> None:
    def place(body, level: Level) -> np.ndarray:  # type: ignore[no-untyped-def]
        index = FIRST_LUMBAR + level.index
        if target.condition is CANAL:
            return body.canal_mm(index)
        side = target.condition.side or Side.LEFT
        return body.foramen_mm(level, side) if contrast is T1 else body.recess_mm(level, side)

    def view(latent: float, level: Level) -> np.ndarray:
        body = make_study(8, latents={**HEALTHY, target: latent}).body
        return render(body, _plane_at(place(body, level), axes), contrast, thickness_mm=3.0)

    bright = [view(latent, target.level)[6:19, 7:18].mean() for latent in (-0.5, 0.5, 1.5, 2.5)]
    assert np.all(np.diff(bright) < -0.01 * bright[0]), bright
    assert bright[-1] < 0.85 * bright[0]
    for level in LEVELS:
        if level is not target.level:
            assert np.array_equal(view(-0.5, level), view(2.5, level))


def test_same_seed_gives_the_same_pixels_and_another_seed_another_patient() -> None:
    first, again, other = make_study(4), make_study(4), make_study(5)
    pixels = [item.study.series[0].slices[5].pixels() for item in (first, again, other)]
    assert np.array_equal(pixels[0], pixels[1])
    assert pixels[0].shape != pixels[2].shape or not np.array_equal(pixels[0], pixels[2])
    assert pixels[0].dtype == np.float32 and pixels[0].min() >= 0 and pixels[0].max() <= 4095


def test_full_size_has_clinical_matrices() -> None:
    phantom = make_study(1, size="full")
    for series in phantom.study.series:
        assert min(series.slices[0].plane.shape) >= 224
    assert len(phantom.study.of_kind(SeriesKind.SAGITTAL_T1)[0].slices) >= 15


def test_nothing_but_the_anatomy_carries_the_grade() -> None:
    mild, severe = (make_study(9, latents=dict.fromkeys(TARGETS, value)) for value in (-0.8, 3.0))
    assert mild.severities != severe.severities
    for first, second in zip(mild.points, severe.points, strict=True):
        assert first.sight == second.sight
    for one, other in zip(mild.plans, severe.plans, strict=True):
        assert (one.contrast, one.scanner, one.instance_numbers) == (
            other.contrast,
            other.scanner,
            other.instance_numbers,
        )
    # 60 mm in front of the spine nothing differs, not even by a grey value.
    belly = _plane_at(mild.discs[5].canal_mm - np.array([0, 85, 0]), SAGITTAL_AXES)
    assert np.array_equal(render(mild.body, belly, T2), render(severe.body, belly, T2))
