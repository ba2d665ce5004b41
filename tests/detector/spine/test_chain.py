"""The chain finds the discs, the offset numbers them, and neither is fooled by what a scan may do."""

import numpy as np
import pytest

from detector.look.candidates import CandidateConfig, DiscCandidate, SliceCandidate, merge_candidates
from detector.spec import SAGITTAL_LEVELS
from detector.spine.chain import ChainConfig, ChainDisc, best_chain, number_chain, segment_shape

# A spine with the mean shape of the real table: canal gaps 34 33 31 25 mm, angles −12 −8 2.5 16.5°.
ANGLES = np.radians([-14, -14, -12, -8, 2.5, 16.5])
GAPS = np.array([33, 34, 34, 33, 31, 25])
CANAL = np.vstack(
    [[0, 0], np.cumsum(np.stack([GAPS * np.sin(ANGLES), -GAPS * np.cos(ANGLES)], axis=1), axis=0)]
)


def candidate(level: int, *, score: float = 0.8, spread: float = 0.1, shift: int = 0) -> DiscCandidate:
    """Candidate at the place of ``SAGITTAL_LEVELS[level]``; its class scores peak at ``level + shift``."""
    classes = np.full(len(SAGITTAL_LEVELS), 0.01)
    for neighbour, share in ((-1, spread), (0, 1 - 2 * spread), (1, spread)):
        if 0 <= level + shift + neighbour < len(classes):
            classes[level + shift + neighbour] += share
    y, z = CANAL[level]
    tilt = [-14, -14, -13, -10, -3, 9, 22][level]
    forward = 24 * np.array([-np.cos(np.radians(tilt)), -np.sin(np.radians(tilt))])
    return DiscCandidate(
        score=score,
        class_scores=classes,
        disc_mm=np.array([0.0, y + forward[0], z + forward[1]]),
        canal_mm=np.array([0.0, y, z]),
        spread_mm=0.5,
        members=(),
    )


def test_a_whole_spine_is_numbered_with_high_confidence() -> None:
    chain = best_chain([candidate(i) for i in range(7)], ChainConfig())
    numbered = number_chain(chain, ChainConfig())
    assert len(chain) == 7
    assert numbered.offset == 0
    assert numbered.confidence > 0.95


def test_ghosts_beside_the_spine_do_not_join_the_chain() -> None:
    ghost = DiscCandidate(0.3, np.full(7, 0.02), np.array([0, 90.0, -60]), np.array([0, 110.0, -60]), 1.0, ())
    chain = best_chain([ghost, *(candidate(i) for i in range(7))], ChainConfig())
    assert len(chain) == 7
    assert all(disc.candidate is not ghost for disc in chain)


def test_a_disc_that_is_not_seen_is_filled_in_and_does_not_shift_the_numbering() -> None:
    chain = best_chain([candidate(i) for i in range(7) if i != 4], ChainConfig())
    numbered = number_chain(chain, ChainConfig())
    assert len(chain) == 7
    assert numbered.offset == 0
    assert chain[4].candidate is None
    assert np.linalg.norm(chain[4].canal_mm[1:] - CANAL[4]) < 6


def test_one_misled_disc_is_outvoted() -> None:
    discs = [candidate(i, shift=1 if i == 3 else 0) for i in range(7)]
    assert number_chain(best_chain(discs, ChainConfig()), ChainConfig()).offset == 0


def test_faint_discs_do_not_outvote_sure_ones() -> None:
    seen = [candidate(i) if i in (3, 4) else candidate(i, score=0.1, shift=-1) for i in range(1, 7)]
    chain = tuple(ChainDisc(item.disc_mm, item.canal_mm, item) for item in seen)
    assert number_chain(chain, ChainConfig()).offset == 1


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_cut_views_keep_their_numbering(first: int) -> None:
    discs = [candidate(i) for i in range(first, 7)]
    numbered = number_chain(best_chain(discs, ChainConfig()), ChainConfig())
    assert numbered.offset == first


def test_evidence_split_between_two_numberings_lowers_the_confidence() -> None:
    sure = number_chain(best_chain([candidate(i) for i in range(7)], ChainConfig()), ChainConfig())
    split = [candidate(i, shift=i % 2 * -1) for i in range(1, 7)]
    unsure = number_chain(best_chain(split, ChainConfig()), ChainConfig())
    assert unsure.confidence < sure.confidence
    assert sum(unsure.offsets.values()) == pytest.approx(1.0)


def test_no_candidates_no_chain() -> None:
    assert best_chain([], ChainConfig()) == ()
    with pytest.raises(ValueError, match="at least one disc"):
        number_chain((), ChainConfig())


def test_segment_angles_are_positive_towards_the_back() -> None:
    canal = np.array([[0, 0, 0], [0, 10, -10], [0, 10, -30]], float)
    lengths, angles = segment_shape(canal)
    np.testing.assert_allclose(lengths, [np.sqrt(200), 20])
    np.testing.assert_allclose(angles, [45, 0])


def seen(slice_number: int, x: float, y: float, z: float, score: float) -> SliceCandidate:
    points = np.array([[x, y, z], [x, y + 24, z]])
    return SliceCandidate(score, np.eye(7)[2] * score, points, "s", slice_number)


def test_sightings_of_one_disc_merge_over_slices_and_two_of_one_slice_do_not() -> None:
    sightings = [seen(i, 4.0 * i, 0.5 * i, -100, 0.9) for i in range(3)]
    sightings.append(seen(1, 4.0, 0.0, -134, 0.8))
    discs = merge_candidates(sightings, CandidateConfig(), slices_seen=3)
    assert len(discs) == 2
    assert discs[0].score == pytest.approx(0.9)
    assert discs[0].disc_mm[0] == pytest.approx(4.0)
    assert discs[1].score == pytest.approx(0.8 / 3), "seen on one slice of three counts a third"
    alone = merge_candidates(sightings[-1:], CandidateConfig(), slices_seen=1)
    assert alone[0].score == pytest.approx(0.8), "the only slice counts in full"
