"""Tables of figures per condition and level, and the official score, with intervals over studies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifier.calibration import CALIBRATION_BINS, equal_groups
from classifier.grade import SEVERITY_WEIGHTS
from classifier.judge.rows import (
    DEFAULT_RESAMPLES,
    FloatArray,
    GradedRows,
    StudyDraws,
    ratio,
    value_and_interval,
)
from classifier.metric import by_study
from classifier.prior import competition_weighted
from data_prep.vocabulary import CONDITIONS, LEVELS, SEVERITIES, ConditionGroup, Level, Severity

FIGURES = (
    "log_loss",
    "prior_log_loss",
    "accuracy",
    "balanced_accuracy",
    "kappa_linear",
    "auc_severe",
    "auc_moderate_or_worse",
    "severe_recall",
    "ece",
    "ece_severe",
    "ece_moderate_or_worse",
)
SCORE_TERMS = ("score", *(group.value for group in ConditionGroup), "any_severe_spinal")
ALL_LEVELS = "all"
# At most this share of the targets that are not severe may be called so where the recall of Severe is told.
FALSE_ALARMS = 0.10
# Shares of the targets, least certain first, that a reader looks at again.
REVIEWED = (0.0, 0.05, 0.10, 0.15, 0.20, 0.30, 0.50)
_RELIABILITY_BINS = 10
_SEVERE, _MILD = Severity.SEVERE.index, Severity.NORMAL_MILD.index


def official_terms(
    rows: GradedRows, *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> dict[str, FloatArray] | None:
    """Every term of the official metric in the data (first) and in each resample: (1 + resamples,).

    Probabilities are submitted as q ∝ (1, 2, 4)·p. None unless every condition group has a label.
    """
    group = rows.group
    if len(np.unique(group)) < len(ConditionGroup):
        return None
    studies, study = _numbered(rows)
    draws = StudyDraws.make(studies, resamples=resamples, seed=seed)
    q = competition_weighted(rows.p)
    weight = SEVERITY_WEIGHTS[rows.label]
    terms: dict[str, FloatArray] = {}
    for index, name in enumerate(ConditionGroup):
        mine = group == index
        loss = _minus_log(q[mine, rows.label[mine]])
        sums = draws.sums(study[mine], np.stack([weight[mine] * loss, weight[mine]], axis=1))
        terms[name.value] = ratio(sums[:, 0], sums[:, 1])
    terms["any_severe_spinal"] = _any_severe(rows, group, study, q[:, _SEVERE], draws)
    score = np.mean([terms[name] for name in SCORE_TERMS[1:]], axis=0)
    return {"score": score, **terms}


def score_terms(rows: GradedRows) -> dict[str, float] | None:
    """The same in the data alone."""
    terms = official_terms(rows, resamples=0)
    return None if terms is None else {name: float(values[0]) for name, values in terms.items()}


def _any_severe(
    rows: GradedRows, group: NDArray[np.int64], study: NDArray[np.int64], q: FloatArray, draws: StudyDraws
) -> FloatArray:
    spinal = np.flatnonzero(group == list(ConditionGroup).index(ConditionGroup.SPINAL))
    label = rows.label[spinal]
    table = by_study(study[spinal], label, q[spinal], SEVERITY_WEIGHTS[label])
    severe, weight = table["severe"].to_numpy(bool), table["weight"].to_numpy(np.float64)
    predicted = table["predicted"].to_numpy(np.float64)
    loss = _minus_log(np.where(severe, predicted, 1 - predicted))
    sums = draws.sums(table.index.to_numpy(np.int64), np.stack([weight * loss, weight], axis=1))
    return ratio(sums[:, 0], sums[:, 1])


def score_with_intervals(
    rows: GradedRows, *, resamples: int = DEFAULT_RESAMPLES
) -> dict[str, dict[str, Any]] | None:
    """Term → ``value`` and ``interval`` [low, high] (95 %, over studies); None when it is not defined."""
    terms = official_terms(rows, resamples=resamples)
    return None if terms is None else with_intervals(terms)


def with_intervals(figures: Mapping[str, FloatArray]) -> dict[str, dict[str, Any]]:
    """Of each figure, in the data and in each resample, ``value`` and ``interval`` [low, high]."""
    found = {name: value_and_interval(draws) for name, draws in figures.items()}
    return {
        name: {"value": value, "interval": None if interval is None else list(interval)}
        for name, (value, interval) in found.items()
    }


def quality_tables(
    rows: GradedRows, *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> list[dict[str, Any]]:
    """One row per condition and level (and ``all`` levels), then per condition group, for what has labels.

    Returns:
        ``condition``, ``level``, ``n``, ``severe`` and ``moderate`` (labels), and for every name of
        FIGURES its ``value`` and ``interval``. Accuracy and kappa judge the most probable severity; balanced
        accuracy the cheapest decision under the competition's weights, the largest q. ``severe_recall`` is
        the share of Severe found where at most a tenth of the others is called so. ``ece`` is the mean over
        the three severities of |probability − frequency|, in 15 bins of equally many predictions.
    """
    studies, study = _numbered(rows)
    draws = StudyDraws.make(studies, resamples=resamples, seed=seed)
    tables = []
    for name, level, mask in _parts(rows):
        part, numbers = rows.where(mask), study[mask]
        tables.append(
            {
                "condition": name,
                "level": level,
                "n": len(part),
                "moderate": int((part.label == Severity.MODERATE.index).sum()),
                "severe": int((part.label == _SEVERE).sum()),
                **with_intervals(_figures(part, numbers, draws)),
            }
        )
    return tables


def figures_of(rows: GradedRows) -> dict[str, float | None]:
    """Every name of FIGURES, without intervals; None where it is not defined. See ``quality_tables``."""
    studies, study = _numbered(rows)
    found = _figures(rows, study, StudyDraws.make(studies, resamples=0))
    return {name: value_and_interval(values)[0] for name, values in found.items()}


def review_curve(rows: GradedRows) -> list[dict[str, float | None]]:
    """What a reader gains who looks again at the targets of which the graders are least certain.

    The reader is taken to be right; what is not looked at stays as the graders say. Least certain is the
    smallest probability of the most probable severity.

    Returns:
        Per share of REVIEWED: ``reviewed``; ``accuracy`` and ``kappa_linear`` of all targets;
        ``missed_severe``, the share of the severe ones that nobody calls severe. None where undefined.
    """
    decided, certainty = rows.p.argmax(axis=1), rows.p.max(axis=1)
    order = np.argsort(certainty, kind="stable")
    severe = rows.label == _SEVERE
    curve: list[dict[str, float | None]] = []
    for share in REVIEWED:
        final = decided.copy()
        again = order[: round(share * len(order))]
        final[again] = rows.label[again]
        missed = float((final[severe] != _SEVERE).mean()) if severe.any() else None
        kappa = float(_kappa(_counts(rows.label, final)[None].astype(np.float64))[0])
        curve.append(
            {
                "reviewed": share,
                "accuracy": float((final == rows.label).mean()),
                "kappa_linear": kappa if np.isfinite(kappa) else None,
                "missed_severe": missed,
            }
        )
    return curve


def confusion(rows: GradedRows) -> NDArray[np.int64]:
    """(3, 3) counts: label (row) against the most probable severity (column)."""
    return _counts(rows.label, rows.p.argmax(axis=1))


def _counts(label: NDArray[np.int64], decided: NDArray[np.int64]) -> NDArray[np.int64]:
    counts = np.zeros((len(SEVERITIES), len(SEVERITIES)), dtype=np.int64)
    np.add.at(counts, (label, decided), 1)
    return counts


def reliability(probability: FloatArray, happened: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Points of a reliability plot: bins of equally many predictions.

    Returns:
        Per bin ``probability`` (mean), ``frequency`` and ``n``.
    """
    return [
        {
            "probability": float(probability[part].mean()),
            "frequency": float(happened[part].mean()),
            "n": float(len(part)),
        }
        for part in equal_groups(probability, _RELIABILITY_BINS)
    ]


def _parts(rows: GradedRows) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Name, level and mask of every part of the tables that has a row."""
    selections = [(c.value, rows.condition == index) for index, c in enumerate(CONDITIONS)]
    selections += [(g.value, rows.group == index) for index, g in enumerate(ConditionGroup)]
    levels: list[Level | None] = [None, *LEVELS]
    for name, mine in selections:
        for level in levels:
            mask = mine if level is None else mine & (rows.level == level.index)
            if mask.any():
                yield name, ALL_LEVELS if level is None else level.value, mask


def _figures(rows: GradedRows, study: NDArray[np.int64], draws: StudyDraws) -> Mapping[str, FloatArray]:
    label, p = rows.label, rows.p
    q = competition_weighted(p)
    prior_q = competition_weighted(rows.prior)
    weight = SEVERITY_WEIGHTS[label]
    index = np.arange(len(rows))
    losses = np.stack(
        [weight * _minus_log(q[index, label]), weight * _minus_log(prior_q[index, label]), weight], axis=1
    )
    loss = draws.sums(study, losses)
    decided = _confusions(label, p.argmax(axis=1), study, draws)
    cheapest = _confusions(label, q.argmax(axis=1), study, draws)
    severe, worse = label == _SEVERE, label > _MILD
    errors = [_ece(p[:, s], label == s, study, draws) for s in range(len(SEVERITIES))]
    return {
        "log_loss": ratio(loss[:, 0], loss[:, 2]),
        "prior_log_loss": ratio(loss[:, 1], loss[:, 2]),
        "accuracy": ratio(np.trace(decided, axis1=1, axis2=2), decided.sum(axis=(1, 2))),
        "balanced_accuracy": _balanced(cheapest),
        "kappa_linear": _kappa(decided),
        "auc_severe": draws.auc(study, p[:, _SEVERE], severe),
        "auc_moderate_or_worse": draws.auc(study, 1 - p[:, _MILD], worse),
        "severe_recall": draws.recall(study, p[:, _SEVERE], severe, false_alarms=FALSE_ALARMS),
        "ece": np.mean(errors, axis=0),
        "ece_severe": errors[_SEVERE],
        "ece_moderate_or_worse": _ece(1 - p[:, _MILD], worse, study, draws),
    }


def _confusions(
    label: NDArray[np.int64], decided: NDArray[np.int64], study: NDArray[np.int64], draws: StudyDraws
) -> FloatArray:
    """(1 + resamples, 3, 3) counts: label, decision."""
    n = len(SEVERITIES)
    return draws.sums(study, np.eye(n * n)[label * n + decided]).reshape(-1, n, n)


def _balanced(confusions: FloatArray) -> FloatArray:
    """Mean recall of the classes that occur; NaN when only one does."""
    totals = confusions.sum(axis=2)
    recalls = np.where(totals > 0, np.diagonal(confusions, axis1=1, axis2=2) / np.maximum(totals, 1), 0.0)
    several = (totals > 0).sum(axis=1)
    return np.where(several > 1, recalls.sum(axis=1) / np.maximum(several, 1), np.nan)


def _kappa(confusions: FloatArray) -> FloatArray:
    """Cohen's kappa with linear weights; NaN when labels and decisions never vary."""
    n = len(SEVERITIES)
    cost = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    total = confusions.sum(axis=(1, 2))
    expected = np.einsum("bi,bj->bij", confusions.sum(axis=2), confusions.sum(axis=1))
    chance = ratio((expected * cost).sum(axis=(1, 2)), total)
    observed = (confusions * cost).sum(axis=(1, 2))
    several = (confusions.sum(axis=2) > 0).sum(axis=1) > 1
    return np.where(several, 1 - ratio(observed, np.nan_to_num(chance)), np.nan)


def _ece(
    probability: FloatArray, happened: NDArray[np.bool_], study: NDArray[np.int64], draws: StudyDraws
) -> FloatArray:
    """Expected calibration error; the bins are those of the data itself."""
    bins = equal_groups(probability, CALIBRATION_BINS)
    values = np.zeros((len(study), len(bins)))
    for index, part in enumerate(bins):
        values[part, index] = probability[part] - happened[part]
    gaps = np.abs(draws.sums(study, values)).sum(axis=1)
    return ratio(gaps, draws.sums(study, np.ones((len(study), 1)))[:, 0])


def _numbered(rows: GradedRows) -> tuple[int, NDArray[np.int64]]:
    """Number of studies, and the study of each row as an index."""
    names, study = np.unique(rows.study_ids, return_inverse=True)
    return len(names), study.astype(np.int64)


def _minus_log(probability: FloatArray) -> FloatArray:
    eps = np.finfo(np.float64).eps
    return -np.log(np.clip(probability, eps, 1 - eps))
