"""A spine that leaves the middle of the sagittal slices is followed, with axial slices or without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.levels import LevelPoint, SpineFrame, SpineLevel
from data_prep.phantom import make_study
from data_prep.pixel_cache import PixelCache
from data_prep.read.find import find_studies
from data_prep.rsna.annotations import annotated_points
from data_prep.rsna.tables import read_tables
from data_prep.study import Study
from data_prep.vocabulary import LEVELS, Condition, Level, SeriesKind
from detector.look.candidates import SliceCandidate
from detector.look.sightings import SliceSighting
from detector.predict import LevelDetector
from detector.spine.aside import AsideConfig, aside_by_level, beyond_mm, middle_mm
from detector.spine.bows import BowConfig, lies_along_a_bow, middles_mm
from tests.detector.spine.bent import bent, bow

REAL = Path(__file__).parents[4] / "shared/real/rsna2024"
SAGITTAL = (SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1)
ALL = (*SAGITTAL, SeriesKind.AXIAL_T2)
CANAL = Condition.SPINAL_CANAL_STENOSIS


def test_the_middle_of_what_is_seen_is_the_middle_of_the_disc() -> None:
    places = np.arange(-40.0, 41.0, 5.0)
    scores = np.where(np.abs(places - 10) <= 20, 0.8, 0.2)
    assert middle_mm(places, scores, AsideConfig()) == pytest.approx(10)


def test_where_the_stack_ends_first_the_disc_has_its_usual_width() -> None:
    places = np.arange(-40.0, 21.0, 5.0)
    scores = np.where(places >= 0, 0.8, 0.2)  # the stack ends at 20, the disc does not
    assert middle_mm(places, scores, AsideConfig()) == pytest.approx(AsideConfig().half_width_mm)
    assert middle_mm(places, np.zeros(len(places)), AsideConfig()) is None


@pytest.mark.parametrize("is_narrow", [True, False])
def test_a_narrow_stack_moves_no_level_beyond_its_last_slice(is_narrow: bool) -> None:
    """Every disc is seen on one of the outermost slices alone: that is where its other slices end."""
    series = make_study(5).study.of_kind(SeriesKind.SAGITTAL_T2)[0]
    (stack,) = series.stacks
    stack = stack[4:8] if is_narrow else stack
    across = stack[0].plane.normal
    places = np.array([float(item.plane.centre_mm @ across) for item in stack])
    frame = SpineFrame(np.array([0, 0, 1.0]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))
    levels: dict[Level, SpineLevel] = {}
    candidates: dict[int, list[SliceCandidate]] = {item.instance_number: [] for item in stack}
    for number, level in enumerate(LEVELS):
        disc = across * places.mean() + np.array([0.0, 0.0, -35.0 * number])
        levels[level] = SpineLevel(disc, disc + np.array([0.0, 20.0, 0.0]), frame, 0.9, 1.0)
        item = stack[0 if number in (0, 4) else -1]
        points = np.stack([disc, disc])
        candidates[item.instance_number].append(
            SliceCandidate(0.9, np.zeros(7), points, series.series_id, item.instance_number)
        )
    seen = [
        SliceSighting(series, item, item.plane, tuple(candidates[item.instance_number])) for item in stack
    ]
    config = AsideConfig()
    moved = aside_by_level(levels, seen, config)
    ends = [float(level.canal_mm @ across) + moved[at] for at, level in levels.items()]
    assert (np.ptp(places) < 2 * config.half_width_mm) is np.bool_(is_narrow)
    assert max(moved.values()) - min(moved.values()) > 1
    if is_narrow:
        assert places.min() - 1e-6 <= min(ends) and max(ends) <= places.max() + 1e-6
    else:
        curved = np.diff(ends, 2)
        np.testing.assert_allclose(curved, curved[0], atol=1e-6)  # a parabola


def levels_at(places_mm: np.ndarray, across: np.ndarray) -> dict[Level, SpineLevel]:
    """Levels whose canal lies so far along a normal."""
    frame = SpineFrame(np.array([0, 0, 1.0]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))
    down = np.array([0.0, 20.0, -35.0])
    down -= across * (down @ across)
    at = [across * place + n * down for n, place in enumerate(places_mm)]
    return {
        level: SpineLevel(canal, canal, frame, 0.9, 1.0) for level, canal in zip(LEVELS, at, strict=False)
    }


X = np.array([1.0, 0.0, 0.0])


@pytest.mark.parametrize("sign", [1, -1])
def test_levels_that_axial_slices_put_on_a_bow_are_bent(sign: int) -> None:
    bowed = sign * np.array([0.0, 3.0, 5.0, 3.5, 0.5])
    assert lies_along_a_bow(levels_at(bowed, X), X, BowConfig())
    assert not lies_along_a_bow(levels_at(bowed[:3], X), X, BowConfig())


def test_a_straight_spine_that_leans_is_not_bent() -> None:
    leans = np.array([-9.0, -4.6, 0.4, 4.2, 9.0])
    assert not lies_along_a_bow(levels_at(leans, X), X, BowConfig())


def test_how_far_beyond_the_last_slice_a_level_would_lie() -> None:
    (stack,) = make_study(5).study.of_kind(SeriesKind.SAGITTAL_T2)[0].stacks
    across = stack[0].plane.normal
    places = sorted(float(item.plane.centre_mm @ across) for item in stack)
    levels = levels_at(np.full(5, places[-1] - 4.0), across)
    for level in levels:
        assert beyond_mm(levels, {level: 14.0}, stack) == pytest.approx(10.0)
    assert beyond_mm(levels, {}, stack) == pytest.approx(-4.0)
    assert beyond_mm(levels, {LEVELS[2]: places[0] - places[-1] - 5.0}, stack) == pytest.approx(9.0)


def seen_beside(middles: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Scores of foramina that are seen 8 to 22 mm beside the middle of each level."""
    aside = np.abs(places[None] - middles[:, None])
    return np.where((aside >= 8) & (aside <= 22), 0.7, 0.0)


@pytest.mark.parametrize("middles", [np.zeros(5), np.array([0.0, 6.0, 9.0, 6.0, 0.0]), np.linspace(-9, 9, 5)])
def test_the_middle_lies_between_the_foramina(middles: np.ndarray) -> None:
    places = np.arange(-36.0, 37.0, 4.0)
    found = middles_mm(places, seen_beside(middles, places), BowConfig())
    np.testing.assert_allclose(found, middles, atol=2.5)


@pytest.fixture(scope="module")
def real() -> list[tuple[Study, tuple[LevelPoint, ...]]]:
    if not REAL.is_dir():
        pytest.skip("the complete real studies are not here")
    coordinates = read_tables(REAL).coordinates
    studies = [PixelCache(entry.load()).study for entry in find_studies(REAL) if not entry.is_only_listed]
    return [(study, annotated_points(study, coordinates)[0]) for study in studies if len(study.series) >= 3]


@pytest.mark.slow
@pytest.mark.parametrize("amplitude_mm", [20.0, -20.0])
def test_a_bend_of_20_mm_is_told_and_followed_where_axial_slices_are(
    real: list[tuple[Study, tuple[LevelPoint, ...]]], amplitude_mm: float
) -> None:
    detector = LevelDetector.load_bundled()
    for study, points in real:
        canal = {point.level: point.xyz_mm for point in points if point.condition is CANAL}
        z = [xyz[2] for xyz in canal.values()]
        curve = bow(amplitude_mm, (min(z), max(z)))
        for kinds in (SAGITTAL, ALL):
            found = detector.predict(bent(study, curve, kinds))
            assert "spine_curved" in found.flags
            off = []
            for level in LEVELS:
                point = found.point(CANAL, level)
                assert point is not None
                off.append(abs(point.xyz_mm[0] - canal[level][0] - float(curve(canal[level][2]))))
            # The annotated points lie on a slice, some millimetres beside the canal. Without axial slices the
            # flag is what is promised: the canal may be 15 mm off.
            assert np.median(off) <= (8 if kinds is ALL else 20)


@pytest.mark.slow
@pytest.mark.parametrize("amplitude_mm", [12.0, -12.0])
def test_a_bend_of_12_mm_is_told_where_there_are_no_axial_slices(
    real: list[tuple[Study, tuple[LevelPoint, ...]]], amplitude_mm: float
) -> None:
    """The central slices show its discs still; the foramina of T1 tell it, in the middle and low down."""
    detector = LevelDetector.load_bundled()
    for study, points in real:
        z = [point.xyz_mm[2] for point in points if point.condition is CANAL]
        low, high = min(z), max(z)
        for place in ((low, high), (low - 60, (low + high) / 2)):
            found = detector.predict(bent(study, bow(amplitude_mm, place), SAGITTAL))
            assert "spine_curved" in found.flags


@pytest.mark.slow
def test_a_straight_spine_is_not_called_curved(real: list[tuple[Study, tuple[LevelPoint, ...]]]) -> None:
    detector = LevelDetector.load_bundled()
    for study, _ in real:
        for kinds in (ALL, SAGITTAL):
            series = tuple(item for item in study.series if item.kind in kinds)
            assert "spine_curved" not in detector.predict(replace(study, series=series)).flags
