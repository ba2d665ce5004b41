"""Levels that were not seen are placed where the image must show them, and nowhere else."""

from dataclasses import replace

import numpy as np

from data_prep.geometry import SlicePlane
from data_prep.levels import PointSource, SpineLevel
from data_prep.study import Series, Slice
from data_prep.vocabulary import LEVELS, Level, SeriesKind
from detector.spine.chain import ChainConfig, ChainDisc, best_chain, number_chain
from detector.spine.levels import spine_levels, straightened
from detector.spine.points import agreed
from tests.detector.spine.test_chain import CANAL, candidate


def series(top_z: float, bottom_z: float) -> Series:
    """A sagittal series of 5 slices that shows z from ``top_z`` down to ``bottom_z``."""
    rows = int(top_z - bottom_z)
    axes = np.array([0, 1.0, 0]), np.array([0, 0, -1.0])
    slices = tuple(
        Slice(
            SlicePlane(np.array([x, -100.0, top_z]), *axes, spacing_mm=(1, 1), shape=(rows, 250)),
            number,
            lambda: np.zeros((rows, 250), np.float32),
        )
        for number, x in enumerate((-8.0, -4.0, 0.0, 4.0, 8.0), start=1)
    )
    return Series("s", "1", SeriesKind.SAGITTAL_T2, (slices,))


def levels_of(indices: range, shown: Series) -> dict[Level, SpineLevel]:
    chain = number_chain(best_chain([candidate(i) for i in indices], ChainConfig()), ChainConfig())
    return dict(spine_levels(chain, (shown,), margin_mm=8.0))


def test_a_level_missed_inside_the_image_is_placed_by_extrapolation() -> None:
    found = levels_of(range(6), series(60, CANAL[6, 1] - 60))
    assert list(found) == list(LEVELS)
    last = found[Level.L5_S1]
    assert last.source is PointSource.PREDICTED
    assert np.linalg.norm(last.canal_mm[1:] - CANAL[6]) < 12
    assert last.uncertainty_mm > found[Level.L4_L5].uncertainty_mm


def test_a_level_that_was_missed_lies_as_far_from_its_neighbour_as_there_is_usual() -> None:
    """Canal points come closer to each other towards the sacrum: 34 and 25 mm."""
    above = levels_of(range(3, 7), series(60, CANAL[6, 1] - 60))
    below = levels_of(range(6), series(60, CANAL[6, 1] - 60))
    for found, missed, beside, usual_mm in (
        (above, Level.L1_L2, Level.L2_L3, 34),
        (below, Level.L5_S1, Level.L4_L5, 25),
    ):
        assert found[missed].source is PointSource.PREDICTED
        step = np.linalg.norm(found[missed].canal_mm - found[beside].canal_mm)
        assert abs(step - usual_mm) < 1


def test_discs_count_as_they_are_seen_for_the_place_across_the_slices() -> None:
    """A faint sighting far aside, or a disc between two that none was seen of, moves no other."""
    seen = [candidate(i) for i in range(7) if i != 3]
    chain = list(best_chain(seen, ChainConfig()))
    assert chain[3].candidate is None
    aside = np.array([25.0, 0.0, 0.0])
    faint = replace(chain[1].candidate, score=0.02) if chain[1].candidate else None
    chain[1] = ChainDisc(chain[1].disc_mm + aside, chain[1].canal_mm + aside, faint)
    moved = straightened(tuple(chain))
    np.testing.assert_allclose([disc.canal_mm[0] for disc in moved], 0.0, atol=2.0)


def test_a_level_outside_the_image_is_absent() -> None:
    found = levels_of(range(6), series(60, CANAL[5, 1] - 15))
    assert list(found) == list(LEVELS[:4])


def test_the_place_across_the_slices_follows_the_spine_not_single_sightings() -> None:
    bent = [disc for disc in best_chain([candidate(i) for i in range(7)], ChainConfig())]
    noise = np.array([3, -3, 2, -2, 3, -3, 0.0])
    discs = tuple(
        ChainDisc(d.disc_mm + [n + 0.1 * i, 0, 0], d.canal_mm + [n + 0.1 * i, 0, 0], d.candidate)
        for i, (d, n) in enumerate(zip(bent, noise, strict=True))
    )
    smooth = np.array([disc.canal_mm[0] for disc in straightened(discs)])
    assert np.abs(smooth - 0.1 * np.arange(7)).max() < 2.6
    assert np.all(np.abs(np.diff(smooth)) < 2.0)
    assert straightened(()) == ()


def test_a_detection_far_from_the_expected_place_is_drawn_back() -> None:
    expected = np.zeros((4, 3))
    seen = np.array([[2.0, 0, 0], [4.0, 0, 0], [6.0, 0, 0], [8.0, 0, 0]])
    decided = agreed(expected, seen, full_trust_mm=4.0, limit_mm=8.0)
    np.testing.assert_allclose(decided[:, 0], [2.0, 4.0, 3.0, 0.0])
    np.testing.assert_allclose(decided[:, 1:], 0.0)


def test_in_oblique_slices_a_disc_stays_before_its_canal_along_the_slice() -> None:
    """Of a patient who lies askew; else discs were moved sideways by up to 3 mm."""
    angle = np.radians(9)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    discs = best_chain([candidate(i) for i in range(7)], ChainConfig())
    turned = tuple(ChainDisc(turn @ d.disc_mm, turn @ d.canal_mm, d.candidate) for d in discs)
    plain = straightened(discs)
    for found, expected in zip(straightened(turned, turn[:, 0]), plain, strict=True):
        np.testing.assert_allclose(turn.T @ found.disc_mm, expected.disc_mm, atol=1e-6)
        np.testing.assert_allclose(turn.T @ found.canal_mm, expected.canal_mm, atol=1e-6)
