"""Fits the weights of the numbering on patients that trained nothing.

A multinomial logit over the integer offsets of each study gives the weights that decide. Where they part the
studies of the fit nearly without error, their softmax is far too sure of those to come: one number more makes
it as sure as the count of errors allows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from data_prep.geometry import FloatArray
from detector.spec import SAGITTAL_LEVELS
from detector.spine.chain import ChainConfig, ChainDisc, number_chain, numbering_terms, possible_offsets

NEAR_MM = 14.0
# Of a confidence: from .3 on in steps of .01, then finer towards 1.
_THRESHOLDS = np.round(np.concatenate([np.linspace(0.3, 0.98, 69), np.linspace(0.982, 0.998, 9)]), 3)
# See ``choose_uncertain_below``.
_CATCH_SHARE, _FALSE_SHARE, _ENOUGH_WRONG, _FALSE_SHARE_OF_FEW = 0.9, 0.08, 5, 0.03


@dataclass(frozen=True, eq=False)
class NumberedCase:
    """A chain whose true offset is known.

    Attributes:
        terms: (offsets, terms) of ``numbering_terms``.
        truth: row of the true offset.
        weight: of the study in the fit.
        discs, view_z_mm: the chain that the terms are of, for decisions beyond them.
        hard: a cut view or transitional anatomy: where flags are wanted and must not be given for nothing.
        real: of a patient.
    """

    terms: FloatArray
    truth: int
    weight: float = 1.0
    discs: tuple[ChainDisc, ...] = ()
    view_z_mm: tuple[float, float] | None = None
    hard: bool = False
    real: bool = False


def numbered_case(
    discs: tuple[ChainDisc, ...],
    config: ChainConfig,
    view_z_mm: tuple[float, float] | None,
    canal_by_level: dict[str, FloatArray],
    *,
    weight: float = 1.0,
    hard: bool = False,
    real: bool = False,
) -> NumberedCase | None:
    """Compare a chain with known canal points (3,) mm by level name.

    Returns:
        None when no disc of the chain lies near a known one, or they do not agree on one offset.
    """
    votes: Counter[int] = Counter()
    for position, disc in enumerate(discs):
        for name, canal in canal_by_level.items():
            if name in SAGITTAL_LEVELS and np.linalg.norm((disc.canal_mm - canal)[1:]) < NEAR_MM:
                votes[SAGITTAL_LEVELS.index(name) - position] += 1
    offsets = possible_offsets(len(discs))
    if not votes or (len(votes) > 1 and votes.most_common(2)[1][1] * 2 > votes.most_common(1)[0][1]):
        return None
    offset = votes.most_common(1)[0][0]
    if offset not in offsets:
        return None
    terms = numbering_terms(discs, config, view_z_mm)
    return NumberedCase(terms, offsets.index(offset), weight, discs, view_z_mm, hard, real)


def fit_weights(
    cases: list[NumberedCase], start: tuple[float, ...], *, strength: float = 0.5
) -> tuple[tuple[float, ...], float]:
    """Non-negative weights that make the true offsets likeliest, drawn to ``start`` by a quadratic prior.

    Args:
        strength: of the prior, in units of the relative difference to ``start``.

    Returns:
        The weights, and the mean negative log likelihood of the true offsets.
    """
    origin = np.array(start)

    def loss(weights: FloatArray) -> float:
        drift = (weights - origin) / np.maximum(origin, 0.1)
        return _negative_log_likelihood(cases, weights) + strength * float(drift @ drift)

    # Here, because only a fit needs it: every process that grades would wait for it.
    from scipy.optimize import minimize

    fitted = minimize(loss, origin, method="L-BFGS-B", bounds=[(0.0, None)] * len(origin)).x
    mean = _negative_log_likelihood(cases, fitted) / sum(case.weight for case in cases)
    return tuple(round(float(value), 4) for value in fitted), mean


def fit_sureness(cases: list[NumberedCase], weights: tuple[float, ...]) -> float:
    """What the evidence is to be multiplied by so that its softmax is no surer than the errors allow.

    Of n cases with k wrong ones, (k + 1) in n + 2 of those to come are expected to be wrong (Laplace), by one
    level: the cross-entropy with that is least.

    Returns:
        At most 1: the evidence is never made surer than it is.
    """
    from scipy.optimize import minimize_scalar

    evidence = [case.terms @ np.array(weights) for case in cases]
    wrong = sum(int(scores.argmax()) != case.truth for scores, case in zip(evidence, cases, strict=True))
    error = (wrong + 1) / (len(cases) + 2)

    def loss(sureness: float) -> float:
        total = 0.0
        for scores, case in zip(evidence, cases, strict=True):
            log_shares = scores * sureness - np.logaddexp.reduce(scores * sureness)
            beside = [at for at in (case.truth - 1, case.truth + 1) if 0 <= at < len(scores)]
            total -= (1 - error) * log_shares[case.truth] + error * float(np.mean(log_shares[beside]))
        return total

    return round(float(minimize_scalar(loss, bounds=(0.01, 1.0), method="bounded").x), 4)


@dataclass(frozen=True)
class FlagChoice:
    """The confidence under which a numbering is called uncertain, and what that does to the choosing studies.

    Attributes:
        uncertain_below: the threshold.
        wrong, right: studies numbered wrong and right.
        flagged_wrong, flagged_right: how many of each are flagged, as uncertain or as transitional.
    """

    uncertain_below: float
    wrong: int
    right: int
    flagged_wrong: int
    flagged_right: int


def choose_uncertain_below(
    cases: list[NumberedCase], config: ChainConfig, *, transitional_score: float
) -> FlagChoice:
    """The lowest threshold that flags 90 % of the wrong studies, if few right ones are flagged.

    Where that would flag more than 8 % of the right ones, the highest threshold that does not; so, too, with
    3 % of the right patients (of all, if there are none), where fewer than five are wrong and say little: of
    patients whom nothing chose some will be wrong, and surer than these. Hard studies alone are counted when
    there are some: on the others hardly anything is flagged.
    """
    cases = [case for case in cases if case.hard] or cases
    chains = [number_chain(case.discs, config, view_z_mm=case.view_z_mm) for case in cases]
    truths = [possible_offsets(len(case.discs))[case.truth] for case in cases]
    right = np.array([chain.offset == truth for chain, truth in zip(chains, truths, strict=True)])
    suspected = np.array([chain.suspects_transition(transitional_score) for chain in chains])
    confidence = np.array([chain.confidence for chain in chains])
    are_few = int((~right).sum()) < _ENOUGH_WRONG
    patients = np.array([case.real for case in cases])
    counted = right & patients if are_few and patients.any() else right
    share = _FALSE_SHARE_OF_FEW if are_few else _FALSE_SHARE
    best = None
    for threshold in _THRESHOLDS:
        flagged = suspected | (confidence < threshold)
        if best is not None and int(flagged[counted].sum()) > share * int(counted.sum()):
            break
        best = FlagChoice(
            float(threshold),
            int((~right).sum()),
            int(right.sum()),
            int(flagged[~right].sum()),
            int(flagged[right].sum()),
        )
        if not are_few and best.flagged_wrong >= _CATCH_SHARE * best.wrong:
            break
    assert best is not None
    return best


def _negative_log_likelihood(cases: list[NumberedCase], weights: FloatArray) -> float:
    total = 0.0
    for case in cases:
        scores = case.terms @ weights
        total += case.weight * float(np.logaddexp.reduce(scores) - scores[case.truth])
    return total
