"""Foramina: the room is as high and as wide as it was drawn, on its own side, and nothing else is room."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from classifier.measure.fitting import write
from classifier.measure.foramen_samples import latents_of, phantom_foramina, share_in, upright
from classifier.measure.foramen_training import drawn, loss_of, train
from classifier.measure.foramina import SHAPE, STEMS, Place, find_rooms, room_of
from classifier.measure.planar import PlanarSlice
from classifier.measure.quantities import FORAMEN, Measured, Quantity
from classifier.measure.study import measure_study
from classifier.measure.tissues import PIXEL_MM, bundled, phases
from data_prep.base.graph import is_of
from data_prep.geometry import SlicePlane
from data_prep.levels import PointSource
from data_prep.phantom.study import PhantomStudy, make_study
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.vocabulary import LEVELS, Condition, ConditionGroup, Level, SeriesKind, Side, Target
from pipeline.study_flags import without_doubtful_fat
from tests.classifier.measure.test_measure import levels_of

FREE, NARROW = -1.5, 2.2
NARROWED = Target(Condition.of(ConditionGroup.FORAMINAL, Side.RIGHT), Level.L3_L4)


@pytest.fixture(scope="module")
def phantom() -> PhantomStudy:
    """All foramina free but one on the right."""
    targets = [
        Target(Condition.of(ConditionGroup.FORAMINAL, side), level) for side in Side for level in LEVELS
    ]
    return make_study(530_107, latents={target: NARROW if target == NARROWED else FREE for target in targets})


@pytest.fixture(scope="module")
def measured(phantom: PhantomStudy) -> tuple[Measured, ...]:
    return measure_study(phantom.study, levels_of(phantom))


def of(
    measured: tuple[Measured, ...], quantity: Quantity
) -> dict[tuple[Level | None, Side | None], Measured]:
    return {(item.level, item.side): item for item in measured if item.quantity is quantity}


@pytest.mark.parametrize("stem", STEMS)
def test_the_bundled_networks_give_what_torch_gives(stem: str) -> None:
    import torch

    from classifier.measure.network import network_of

    folder = files("classifier.measure")
    weights = folder.joinpath(f"{stem}.safetensors").read_bytes()
    assert is_of(folder.joinpath(f"{stem}.graph").read_bytes(), weights)
    images = np.random.default_rng(0).normal(0.5, 0.4, (3, *SHAPE)).astype(np.float32)
    seen = np.stack([phases(image) for image in images])
    (found,) = bundled(stem)([(seen,)])
    with torch.inference_mode():
        expected = network_of(weights)(torch.from_numpy(seen)).numpy()
    assert found.shape == (3, 1, *SHAPE) and found == pytest.approx(expected, abs=1e-3)


def test_rooms_are_as_high_and_as_wide_as_they_were_drawn(
    phantom: PhantomStudy, measured: tuple[Measured, ...]
) -> None:
    heights, widths = of(measured, Quantity.FORAMEN_HEIGHT), of(measured, Quantity.FORAMEN_WIDTH)
    truth = {
        (item.level, item.side): room_of(share_in(item, upright(item))) for item in phantom_foramina(phantom)
    }
    assert len(truth) == len(heights) == len(widths) == 10
    off = [
        (heights[key].value - room.height_mm, widths[key].value - room.width_mm)
        for key, room in truth.items()
        if room is not None
    ]
    assert len(off) == 10 and np.all(np.abs(off).mean(axis=0) < 1.3)


def test_a_narrow_foramen_is_low_on_its_own_side(measured: tuple[Measured, ...]) -> None:
    heights = of(measured, Quantity.FORAMEN_HEIGHT)
    others = [
        item.value for (level, side), item in heights.items() if (level, side) != (Level.L3_L4, Side.RIGHT)
    ]
    assert heights[Level.L3_L4, Side.RIGHT].value < 0.75 * min(others)
    difference = of(measured, Quantity.FORAMEN_DIFFERENCE)[Level.L3_L4, None]
    right, left = (heights[Level.L3_L4, side] for side in (Side.RIGHT, Side.LEFT))
    assert difference.value == pytest.approx(right.value - left.value) and difference.value < -4.0
    assert difference.uncertainty == pytest.approx(np.hypot(right.uncertainty, left.uncertainty))


def test_each_is_read_on_the_slice_of_its_point(
    phantom: PhantomStudy, measured: tuple[Measured, ...]
) -> None:
    levels = levels_of(phantom)
    for (level, side), item in of(measured, Quantity.FORAMEN_HEIGHT).items():
        assert level is not None and side is not None
        point = levels.point(Condition.of(ConditionGroup.FORAMINAL, side), level)
        assert point is not None and point.sight is not None
        assert (item.series_id, item.instance_number) == (point.sight.series_id, point.sight.instance_number)


def test_what_nobody_saw_and_what_cannot_be_decoded_is_not_measured(phantom: PhantomStudy) -> None:
    levels = levels_of(phantom)
    unseen = Condition.of(ConditionGroup.FORAMINAL, Side.LEFT), Level.L2_L3
    lost = levels.point(Condition.of(ConditionGroup.FORAMINAL, Side.RIGHT), Level.L4_L5)
    assert lost is not None and lost.sight is not None
    broken = lost.sight.series_id, lost.sight.instance_number
    points = tuple(
        replace(point, source=PointSource.PREDICTED) if (point.condition, point.level) == unseen else point
        for point in levels.points
    )

    def refuse() -> NDArray[np.float32]:
        raise DicomRejected(Rejection(Reason.BAD_PIXELS, "broken"))

    series = tuple(
        one.changed(
            lambda item, one=one: (
                replace(item, read_pixels=refuse) if (one.series_id, item.instance_number) == broken else item
            )
        )
        for one in phantom.study.series
    )
    found = measure_study(replace(phantom.study, series=series), replace(levels, points=points))
    heights = of(found, Quantity.FORAMEN_HEIGHT)
    on_broken = {
        (point.level, point.condition.side)
        for point in points
        if point.sight is not None and (point.sight.series_id, point.sight.instance_number) == broken
    }
    every = {(level, side) for side in Side for level in LEVELS}
    assert set(heights) == every - on_broken - {(Level.L2_L3, Side.LEFT)}
    assert (Level.L2_L3, None) not in of(found, Quantity.FORAMEN_DIFFERENCE)


def test_nothing_is_said_of_rooms_on_a_t1_whose_fat_may_be_suppressed(
    phantom: PhantomStudy, measured: tuple[Measured, ...]
) -> None:
    (t1,) = phantom.study.of_kind(SeriesKind.SAGITTAL_T1)
    note = Rejection(Reason.KIND_DISAGREES, "fat is dark", phantom.study.study_id, t1.series_id)
    doubted = replace(phantom.study, rejections=(note,))
    left = without_doubtful_fat(doubted, measured)
    assert left == tuple(item for item in measured if item.quantity not in FORAMEN) != measured
    assert without_doubtful_fat(phantom.study, measured) == measured
    other = replace(note, series_id="another")
    assert without_doubtful_fat(replace(phantom.study, rejections=(other,)), measured) == measured


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_window_has_its_point_in_the_middle_and_the_back_on_the_right(mirrored: bool) -> None:
    rightwards = np.array([0.0, -1.0 if mirrored else 1.0, 0.0])
    origin = np.array([0.0, 100.0 if mirrored else 0.0, 0.0])
    plane = SlicePlane(origin, rightwards, np.array([0.0, 0.0, -1.0]), (0.5, 0.5), (240, 240))
    point, tilt = np.array([0.0, 52.0, -61.0]), np.deg2rad(20)
    up = np.array([0.0, np.sin(tilt), np.cos(tilt)])
    back = np.array([0.0, np.cos(tilt), -np.sin(tilt)])
    y, x = np.mgrid[:240, :240] * 0.5
    pixels = np.random.default_rng(0).uniform(0, 400, (240, 240)).astype(np.float32)
    planar = PlanarSlice(plane, pixels)
    for at, grey in ((point, 200.0), (point + 9 * up, 300.0), (point + 9 * back, 400.0)):
        column, row = planar.to_mm2(at)
        pixels[np.hypot(x - column, y - row) < 3.0] = grey
    window = Place(planar, point, up, back).window
    assert window.shape == SHAPE
    middle, steps = (np.array(SHAPE) - 1) / 2, 9 / PIXEL_MM
    seen = [window[tuple(np.rint(middle + off).astype(int))] for off in ((0, 0), (-steps, 0), (0, steps))]
    assert np.diff(seen) == pytest.approx(np.full(2, seen[1] - seen[0]), rel=0.05) and seen[0] > 0.3


@pytest.mark.parametrize(
    ("spacing_mm", "at_mm", "noise", "is_shown"),
    [
        ((0.5, 0.5), (60.0, -60.0), 20.0, True),
        ((1.9, 1.9), (200.0, -200.0), 20.0, True),
        ((2.1, 0.5), (200.0, -60.0), 20.0, False),
        ((0.5, 2.1), (60.0, -200.0), 20.0, False),
        ((0.5, 0.5), (9.0, -60.0), 20.0, False),
        ((0.5, 0.5), (60.0, -112.0), 20.0, False),
        ((0.5, 0.5), (60.0, 5.0), 20.0, False),
        ((0.5, 0.5), (60.0, -60.0), 0.0, False),
    ],
)
def test_where_nothing_fine_is_shown_nothing_is_measured(
    spacing_mm: tuple[float, float], at_mm: tuple[float, float], noise: float, is_shown: bool
) -> None:
    plane = SlicePlane(
        np.zeros(3), np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0]), spacing_mm, (240, 240)
    )
    pixels = np.random.default_rng(0).normal(100, noise, (240, 240)).astype(np.float32)
    place = Place(
        PlanarSlice(plane, pixels), np.array([0.0, *at_mm]), np.array([0.0, 0, 1]), np.array([0.0, 1, 0])
    )
    assert place.is_shown is is_shown


def shares_of(*boxes: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """Boxes (first row, end, first column, end) of room."""
    found = np.zeros(SHAPE, np.float32)
    for top, bottom, left, right in boxes:
        found[top:bottom, left:right] = 1.0
    return found


def test_a_room_is_measured_to_a_part_of_a_pixel() -> None:
    shares = shares_of((20, 44, 18, 28))
    room = room_of(shares)
    assert room is not None
    assert room.height_mm == pytest.approx(24 * PIXEL_MM) and room.width_mm == pytest.approx(10 * PIXEL_MM)
    shares[44, 18:28] = 0.5
    higher = room_of(shares)
    assert higher is not None and higher.height_mm == pytest.approx(24.5 * PIXEL_MM, abs=0.05)
    assert higher.height_sd_mm > room.height_sd_mm and higher.width_mm == pytest.approx(room.width_mm)


def test_the_room_at_the_point_counts_and_what_it_encloses() -> None:
    alone = room_of(shares_of((20, 44, 18, 28)))
    beside = room_of(shares_of((20, 44, 18, 28), (2, 12, 30, 46)))
    assert alone == beside is not None
    holed = shares_of((20, 44, 18, 28))
    holed[28:31, 21:24] = 0.0
    assert room_of(holed) == alone


def test_hardly_any_room_is_not_seen() -> None:
    assert room_of(np.zeros(SHAPE, np.float32)) is None
    assert room_of(shares_of((31, 34, 22, 25))) is None
    assert find_rooms([]) == []


def test_training_draws_narrowed_foramina_and_learns_to_see_them(tmp_path: Path) -> None:
    import torch

    seed = 7_003
    foramina = list(phantom_foramina(make_study(seed, latents=latents_of(seed))))
    assert len(foramina) > 5 and any(item.is_free for item in foramina)
    rng = np.random.default_rng(3)
    free = next(item for item in foramina if item.is_free)
    areas = [drawn(free, rng)[1].sum() * PIXEL_MM**2 for _ in range(30)]
    assert min(areas) < 0.6 * np.median(areas) and np.median(areas) > 40

    def loss(network: torch.nn.Module) -> float:
        rng = np.random.default_rng(5)
        samples = [drawn(item, rng) for item in foramina[:8]]
        images = torch.from_numpy(np.stack([phases(window) for window, _ in samples]))
        with torch.inference_mode():
            return float(loss_of(network(images), torch.from_numpy(np.stack([s[None] for _, s in samples]))))

    first, later = (train(foramina, steps=steps, seed=1, widths=(8, 8, 8)) for steps in (1, 30))
    assert loss(later) < 0.9 * loss(first)
    write(later.folded(), tmp_path / "foramina.safetensors")
    assert is_of((tmp_path / "foramina.graph").read_bytes(), (tmp_path / "foramina.safetensors").read_bytes())
