"""Fitted weights recover what numbers a spine, and make the confidence honest."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.phantom import make_study
from data_prep.vocabulary import SeriesKind
from detector.learn import sources
from detector.learn.numbering import (
    NumberedCase,
    choose_uncertain_below,
    fit_sureness,
    fit_weights,
    numbered_case,
)
from detector.predict import LevelDetector
from detector.spine.chain import (
    ChainConfig,
    ChainDisc,
    best_chain,
    number_chain,
    numbering_terms,
    offset_shares,
    possible_offsets,
)
from tests.detector.spine.test_chain import CANAL, candidate

CONFIG = ChainConfig()


def simulated_cases(weights: np.ndarray, count: int, seed: int) -> list[NumberedCase]:
    """Studies whose true offset is drawn from the softmax with known weights."""
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(count):
        terms = rng.normal(0, 2, (8, len(weights)))
        scores = terms @ weights
        shares = np.exp(scores - scores.max())
        cases.append(NumberedCase(terms, int(rng.choice(8, p=shares / shares.sum()))))
    return cases


def test_known_weights_are_recovered() -> None:
    truth = np.array([0.8, 0.2, 0.5, 0.1, 1.5])
    fitted, _ = fit_weights(simulated_cases(truth, 1500, 0), CONFIG.weights, strength=0.01)
    np.testing.assert_allclose(fitted, truth, atol=0.15)


def test_fitted_confidence_is_calibrated_on_other_studies() -> None:
    truth = np.array([0.3, 0.1, 0.2, 0.1, 0.3])  # weak evidence: the default weights are far too sure
    fitted, _ = fit_weights(simulated_cases(truth, 800, 1), CONFIG.weights, strength=0.01)
    confidence, right = [], []
    for case in simulated_cases(truth, 800, 2):
        scores = case.terms @ np.array(fitted)
        shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        confidence.append(shares.max())
        right.append(shares.argmax() == case.truth)
    assert abs(np.mean(confidence) - np.mean(right)) < 0.04


def test_the_flag_catches_wrong_numbers_and_spares_right_ones() -> None:
    """Clear spines, and spines whose scores cannot tell one level from the next."""
    clear = best_chain([candidate(i) for i in range(2, 7)], CONFIG)
    offsets = list(possible_offsets(len(clear)))
    unsure = []
    for disc in clear:
        assert disc.candidate is not None
        scores = np.full(7, 0.05)
        level = int(disc.candidate.class_scores.argmax())
        scores[level] = scores[level - 1] = 0.4
        unsure.append(replace(disc, candidate=replace(disc.candidate, class_scores=scores)))

    def case(discs: tuple[ChainDisc, ...], truth: int) -> NumberedCase:
        return NumberedCase(numbering_terms(discs, CONFIG, None), offsets.index(truth), discs=discs)

    number = number_chain(tuple(unsure), CONFIG).offset
    cases = [case(clear, 2)] * 30 + [case(tuple(unsure), 3 - number)] * 5
    choice = choose_uncertain_below(cases, CONFIG, transitional_score=0.35)
    assert (choice.right, choice.wrong) == (30, 5)
    assert choice.flagged_wrong == 5 and choice.flagged_right == 0
    assert number_chain(tuple(unsure), CONFIG).confidence < choice.uncertain_below < 1
    # Easy studies do not count: with them, flags for nothing would look rare.
    hard = [replace(case, hard=True) for case in cases]
    assert choose_uncertain_below(hard + cases[:30] * 3, CONFIG, transitional_score=0.35) == choice
    # Where right ones are as unsure as wrong ones, sparing them comes first.
    many = cases + [case(tuple(unsure), number)] * 30
    assert choose_uncertain_below(many, CONFIG, transitional_score=0.35).flagged_right <= 0.08 * 60

    # One wrong number says little: the flag then spares nearly all right ones, and no more is asked of it.
    few = [case(clear, 2)] * 120 + [case(tuple(unsure), 3 - number), case(tuple(unsure), number)]
    choice = choose_uncertain_below(few, CONFIG, transitional_score=0.35)
    assert choice.flagged_right == 1 and choice.uncertain_below > 0.9
    # There patients count: what is flagged of synthetic ones does not lower the threshold.
    few = [replace(case, real=True) for case in few] + [case(tuple(unsure), number)] * 30
    assert choose_uncertain_below(few, CONFIG, transitional_score=0.35) == replace(
        choice, right=choice.right + 30, flagged_right=31
    )


def test_a_numbering_is_no_surer_than_its_errors_allow() -> None:
    """Evidence that parts all of 98 cases: of a hundred to come one is expected to be wrong."""
    terms = np.zeros((3, 5))
    terms[1, 0] = 20.0
    cases = [NumberedCase(terms, 1)] * 98
    weights = (1.0, 0.0, 0.0, 0.0, 0.0)
    sureness = fit_sureness(cases, weights)
    assert offset_shares(terms @ np.array(weights) * sureness)[1] == pytest.approx(0.99, abs=0.001)
    # Errors make it less sure; evidence that is weak already is left as it is.
    assert fit_sureness(cases[:90] + [NumberedCase(terms, 0)] * 8, weights) < sureness
    assert fit_sureness([NumberedCase(terms / 10, 1)] * 98, weights) == pytest.approx(1.0, abs=0.01)


def test_sureness_changes_what_is_told_and_never_what_is_chosen() -> None:
    chain = best_chain([candidate(i) for i in range(2, 7)], CONFIG)
    sharp, soft = number_chain(chain, CONFIG), number_chain(chain, replace(CONFIG, sureness=0.3))
    assert soft.offset == sharp.offset
    assert soft.confidence < sharp.confidence
    assert sum(soft.offsets.values()) == pytest.approx(1.0)


def test_weights_are_never_negative_and_stay_near_their_start_without_evidence() -> None:
    terms = np.zeros((5, 5))
    fitted, _ = fit_weights([NumberedCase(terms, 0)], CONFIG.weights)
    np.testing.assert_allclose(fitted, CONFIG.weights, atol=1e-3)
    against = [NumberedCase(np.eye(5) * -3, 0) for _ in range(50)]
    assert min(fit_weights(against, CONFIG.weights, strength=0.01)[0]) >= 0


def test_the_true_offset_is_read_from_known_canal_points() -> None:
    chain = best_chain([candidate(i) for i in range(1, 7)], CONFIG)
    canal = {name: np.array([0.0, *CANAL[i]]) for i, name in ((2, "L1/L2"), (4, "L3/L4"), (6, "L5/S1"))}
    case = numbered_case(chain, CONFIG, None, canal)
    assert case is not None
    assert possible_offsets(len(chain))[case.truth] == 1
    assert numbered_case(chain, CONFIG, None, {"L1/L2": np.array([0.0, 300.0, 0.0])}) is None


def test_a_well_formed_disc_below_counts_against_calling_the_one_above_l5_s1() -> None:
    below = candidate(6)
    extra = ChainDisc(below.disc_mm + [0, 15, -30], below.canal_mm + [0, 15, -25], below)
    chain = (*best_chain([candidate(i) for i in range(7)], CONFIG), extra)
    terms = numbering_terms(chain, CONFIG, None)
    offsets = list(possible_offsets(len(chain)))
    assert terms[offsets.index(0), 4] == pytest.approx(-below.score)
    assert terms[offsets.index(-1), 4] == 0


def test_the_convention_overrules_doubtful_evidence_and_says_so() -> None:
    """Seven discs whose class scores say T11/T12 … L5/S1, and below them an eighth, well formed or not.

    With ``trust`` in the class scores the evidence is clear, with little of it the next offset is nearly as
    likely.
    """
    seen = best_chain([candidate(i) for i in range(7)], CONFIG)
    for trust, score, offset in ((0.015, 0.9, -1), (0.015, 0.6, -1), (0.015, 0.3, 0), (0.5, 0.9, 0)):
        eighth = replace(candidate(6), score=score)
        extra = ChainDisc(eighth.disc_mm + [0, 15, -30], eighth.canal_mm + [0, 15, -25], eighth)
        numbered = number_chain((*seen, extra), replace(CONFIG, weights=(trust, 0.0, 0.0, 0.0, 0.0)))
        assert numbered.offset == offset
        likeliest = max(numbered.offsets.values())
        overruled = numbered.confidence < likeliest
        assert overruled == (offset == -1)
        assert numbered.confidence >= CONFIG.convention_share * likeliest
        assert numbered.suspects_transition(0.7) == (overruled or score >= 0.7)


def test_the_convention_moves_a_reading_by_one_level_at_most() -> None:
    """Three well formed discs below: doubt about the evidence is no reason to count three levels further."""
    seen = best_chain([candidate(i) for i in range(7)], CONFIG)
    last = candidate(6)
    below = [
        ChainDisc(last.disc_mm + [0, 15 * n, -30 * n], last.canal_mm + [0, 15 * n, -25 * n], last)
        for n in (1, 2, 3)
    ]
    numbered = number_chain((*seen, *below), replace(CONFIG, weights=(0.01, 0.0, 0.0, 0.0, 0.0)))
    assert numbered.offsets[-3] >= CONFIG.convention_share * max(numbered.offsets.values())
    assert numbered.offset == max(numbered.offsets, key=lambda offset: numbered.offsets[offset]) == 0
    assert numbered.suspects_transition(0.7)


def test_a_study_of_axial_slices_alone_says_nothing_of_the_numbering() -> None:
    study = make_study(5).study
    alone = replace(study, series=study.of_kind(SeriesKind.AXIAL_T2))
    detector = LevelDetector.load_bundled(threads=1)
    assert sources._numbered(detector, alone, {}, 1.0) is None
