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
from detector import finder
from detector.config import PredictConfig
from detector.doubts import canal_at_edge
from detector.finder import LumbarView, Sighting
from detector.look.candidates import SliceCandidate
from detector.look.sightings import SliceSighting
from detector.predict import LevelDetector
from detector.spine.aside import AsideConfig, _curve, aside_by_level, beyond_mm, middle_mm
from detector.spine.bows import BowConfig, lies_along_a_bow, middles_mm
from detector.spine.chain import NumberedChain
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


def test_a_spine_seen_at_few_levels_is_taken_for_straight_and_one_odd_level_is_left_out() -> None:
    z = np.array([0.0, -35.0, -70.0])
    assert _curve(z, np.array([8.0, 14.0, 8.0]), 6.0)(z) == pytest.approx([10.0] * 3)
    z = np.linspace(0.0, -140.0, 5)
    bow = 10.0 + ((z + 70.0) / 35.0) ** 2
    odd = bow + [0.0, 12.0, 0.0, 0.0, 0.0]
    assert _curve(z, odd, 6.0)(z) == pytest.approx(bow)
    noisy = bow + [1.0, -1.0, 1.0, -1.0, 1.0]
    assert _curve(z, noisy, 6.0)(z) == pytest.approx(np.polyval(np.polyfit(z, noisy, 2), z))


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


def discs_seen_on(shown: dict[Level, slice], levels: dict[Level, SpineLevel]) -> list[SliceSighting]:
    """All slices of a stack, head of the normal last, each with the discs that it is to show."""
    series = make_study(5).study.of_kind(SeriesKind.SAGITTAL_T2)[0]
    stack = sorted(
        series.stacks[0], key=lambda item: float(item.plane.centre_mm @ series.slices[0].plane.normal)
    )
    candidates: list[list[SliceCandidate]] = [[] for _ in stack]
    for level, part in shown.items():
        points = np.stack([levels[level].disc_mm] * 2)
        for own, item in zip(candidates[part], stack[part], strict=True):
            own.append(SliceCandidate(0.9, np.zeros(7), points, series.series_id, item.instance_number))
    return [
        SliceSighting(series, item, item.plane, tuple(own))
        for item, own in zip(stack, candidates, strict=True)
    ]


def test_a_disc_that_the_last_slices_alone_show_lies_beyond_them_whatever_the_others_say() -> None:
    """As seen by itself: what the curve through all levels makes of it does not matter."""
    (stack,) = make_study(5).study.of_kind(SeriesKind.SAGITTAL_T2)[0].stacks
    across = stack[0].plane.normal
    places = np.sort([float(item.plane.centre_mm @ across) for item in stack])
    levels = levels_at(np.full(5, places.mean()), across)
    middle = slice(len(places) // 2 - 3, len(places) // 2 + 4)
    within = discs_seen_on(dict.fromkeys(levels, middle), levels)
    assert beyond_mm(levels, within, AsideConfig()) < -10
    first, *others = levels
    for part, last in ((slice(-2, None), places[-2]), (slice(0, 2), places[1])):
        seen = discs_seen_on({first: part} | dict.fromkeys(others, middle), levels)
        beyond = AsideConfig().half_width_mm - abs(last - (places[-1] if last > 0 else places[0]))
        for order in (seen, seen[::-1]):
            assert beyond_mm(levels, order, AsideConfig()) == pytest.approx(beyond)
    assert beyond_mm(levels, discs_seen_on({}, levels), AsideConfig()) == -np.inf


@pytest.mark.parametrize("faded", [AsideConfig.faded_discs, AsideConfig.moved_discs])
def test_a_disc_beyond_is_told_whether_the_levels_are_moved_or_not(
    monkeypatch: pytest.MonkeyPatch, faded: int
) -> None:
    """The others lie at the other side: no level is moved to the edge, or near it."""
    series = make_study(5).study.of_kind(SeriesKind.SAGITTAL_T2)[0]
    (stack,) = series.stacks
    across = stack[0].plane.normal
    levels = levels_at(np.full(5, np.mean([float(item.plane.centre_mm @ across) for item in stack])), across)
    first, *others = levels
    view = LumbarView((series,), Sighting((), None, (), ()), ())
    chain = NumberedChain((), 0, 1.0, {0: 1.0})
    monkeypatch.setattr(finder, "fading", lambda *_: faded)
    for last, is_beyond in ((slice(-2, None), True), (slice(-9, -3), False)):
        seen = discs_seen_on({first: last} | dict.fromkeys(others, slice(1, 7)), levels)
        monkeypatch.setattr(finder, "seen_across", lambda *_, seen=seen: seen)
        looked = finder.SpineFinder(None, PredictConfig())  # type: ignore[arg-type]
        moved, is_curved, leaves = looked.followed(chain, levels, view, has_axial=True)
        assert is_curved and leaves is is_beyond
        assert (moved is not levels) == (faded == AsideConfig.moved_discs)
        assert not canal_at_edge(moved, series)


@pytest.mark.parametrize(("inside_gaps", "is_said"), [(-1.0, True), (0.3, True), (0.7, True), (0.8, False)])
@pytest.mark.parametrize("side", [1, -1])
def test_a_canal_within_most_of_a_gap_of_the_last_slice_is_at_the_edge(
    inside_gaps: float, is_said: bool, side: int
) -> None:
    series = make_study(5).study.of_kind(SeriesKind.SAGITTAL_T2)[0]
    (stack,) = series.stacks
    across = side * stack[0].plane.normal
    places = np.sort([float(item.plane.centre_mm @ across) for item in stack])
    inside = np.full(5, places.mean())
    inside[2] = places[-1] - inside_gaps * np.diff(places).mean()
    assert canal_at_edge(levels_at(inside, across), series) is is_said


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
