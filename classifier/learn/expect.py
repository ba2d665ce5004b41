"""Fits what is to be expected of a target that no slice shows, see ``classifier.expected``.

On grades of studies that the graders did not learn from, beside what readers said of all their targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from classifier.expected import (
    FILE_NAME,
    Evidence,
    Expectation,
    Expectations,
    Odds,
    beside,
    evidence,
    prior_log_odds,
)
from classifier.judge.evaluate import GradedTarget
from classifier.prior import competition_log_loss, level_prior
from data_prep.base.files import write_json
from data_prep.base.manifest import write_manifest
from data_prep.vocabulary import SEVERITIES, TARGETS, ConditionGroup, Severity, Target

Graded = Mapping[str, Mapping[Target, ArrayLike]]
Labels = Mapping[str, Mapping[Target, int]]

# Inverse of the penalty on squared weights. Cross-validated on the validation patients of RSNA, log loss
# differs by .003 at most between 0.1 and 1 where there are 800 targets and more; of 120 to 340, 1 is better.
_INVERSE_PENALTY = 1.0
_FOLDS = 5
# Of each kind that a step has to tell apart.
_FEWEST = 5
_MILD, _SEVERE = Severity.NORMAL_MILD.index, Severity.SEVERE.index


@dataclass(frozen=True, eq=False)
class _Rows:
    """Labelled targets of a group, beside which some groups are graded.

    Attributes:
        study_ids: (n,) str.
        prior_logits: (n, 2), see ``prior_log_odds``.
        told: per target its evidence.
        label: (n,) severity index.
        prior: (n, 3) the level prior.
        targets: of the rows.
    """

    study_ids: NDArray[np.str_]
    prior_logits: NDArray[np.float64]
    told: Sequence[Evidence]
    label: NDArray[np.int64]
    prior: NDArray[np.float64]
    targets: Sequence[Target]


def fit_expectations(graded: Graded, labels: Labels) -> Expectations:
    """A model for each condition group and each set of groups that may be known beside it.

    One that has too few examples is left out: ``Expectations`` then takes one that needs less.

    Args:
        graded: study → target → calibrated probabilities (3,) of what was seen, by graders that did not learn
            from the study.
        labels: study → target → severity index that a reader gave, of any target.
    """
    found = []
    for group in ConditionGroup:
        known = [other for other in ConditionGroup if any(beside(t, other) for t in _targets(group))]
        for count in range(1, len(known) + 1):
            for given in combinations(known, count):
                model = _fitted(_rows(group, given, graded, labels), group, given)
                if model is not None:
                    found.append(model)
    return Expectations(tuple(found))


def seen_and_labelled(rows: Iterable[GradedTarget], labels: Labels) -> tuple[Graded, Labels]:
    """What was seen of each study, the first grade of a target, and all its labels: those given, too."""
    seen: dict[str, dict[Target, ArrayLike]] = {}
    told = {study_id: dict(known) for study_id, known in labels.items()}
    for row in rows:
        told.setdefault(row.study_id, {}).setdefault(row.target, row.label)
        if row.source.is_graded:
            seen.setdefault(row.study_id, {}).setdefault(row.target, row.probabilities)
    return seen, told


def save_expectations(folder: Path, expectations: Expectations) -> None:
    """Write ``expected.json`` and renew the folder's manifest."""
    write_json(folder / FILE_NAME, expectations.to_dict(), indent=1)
    write_manifest(folder)


def _targets(group: ConditionGroup) -> list[Target]:
    return [target for target in TARGETS if target.condition.group is group]


def _rows(
    group: ConditionGroup, given: Sequence[ConditionGroup], graded: Graded, labels: Labels
) -> _Rows | None:
    """None where there is not a single one."""
    rows = [
        (study_id, target, told, labels[study_id][target])
        for study_id, seen in graded.items()
        for target in _targets(group)
        if target in labels.get(study_id, {}) and set(given) <= set(told := evidence(target, seen))
    ]
    if not rows:
        return None
    targets = [target for _, target, _, _ in rows]
    return _Rows(
        np.array([study_id for study_id, _, _, _ in rows], np.str_),
        np.stack([prior_log_odds(target) for target in targets]),
        [told for _, _, told, _ in rows],
        np.array([label for _, _, _, label in rows], np.int64),
        np.stack([level_prior(target) for target in targets]),
        targets,
    )


def _fitted(rows: _Rows | None, group: ConditionGroup, given: Sequence[ConditionGroup]) -> Expectation | None:
    """The model of all rows, and what it is worth on studies that it was not fitted on; None of too few."""
    if rows is None or len(np.unique(rows.study_ids)) < _FOLDS:
        return None
    counts = np.bincount(rows.label, minlength=len(SEVERITIES))
    model = _model(rows, np.arange(len(rows.label)), group, given) if counts.min() >= _FEWEST else None
    if model is None:
        return None
    p = rows.prior.copy()
    splitter = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    for rest, mine in splitter.split(p, rows.label, rows.study_ids):
        held_out = _model(rows, rest, group, given)
        if held_out is not None:
            p[mine] = [held_out.probabilities(rows.targets[row], rows.told[row]) for row in mine]
    return replace(model, metrics=_figures(rows, p))


def _figures(rows: _Rows, p: NDArray[np.float64]) -> dict[str, Any]:
    truth = np.eye(len(SEVERITIES))[rows.label]
    return {
        "n": len(rows.label),
        "studies": len(np.unique(rows.study_ids)),
        "log_loss": competition_log_loss(p, truth),
        "prior_log_loss": competition_log_loss(rows.prior, truth),
        "auc_moderate_or_worse": float(roc_auc_score(rows.label > _MILD, 1 - p[:, _MILD])),
        "auc_severe": float(roc_auc_score(rows.label == _SEVERE, p[:, _SEVERE])),
    }


def _model(
    rows: _Rows,
    chosen: NDArray[np.intp],
    group: ConditionGroup,
    given: Sequence[ConditionGroup],
) -> Expectation | None:
    """Both steps, fitted on the chosen rows; None where a kind is lacking."""
    told = np.stack([np.concatenate([rows.told[row][other] for other in given]) for row in chosen])
    prior, label = rows.prior_logits[chosen], rows.label[chosen]
    is_worse = label > _MILD
    worse = _odds(prior[:, 0], told, is_worse, given)
    severe = _odds(prior[is_worse, 1], told[is_worse], label[is_worse] == _SEVERE, given)
    if worse is None or severe is None:
        return None
    return Expectation(group, worse, severe)


def _odds(
    prior_logit: NDArray[np.float64],
    told: NDArray[np.float64],
    happened: NDArray[np.bool_],
    given: Sequence[ConditionGroup],
) -> Odds | None:
    """The penalised maximum of the likelihood, without what would have a negative weight.

    Args:
        told: (n, 2 · groups) of Moderate or worse and of Severe, group after group.
    """
    if happened.all() or not happened.any():
        return None
    columns = np.column_stack([prior_logit, told])
    weights, intercept = np.zeros(columns.shape[1]), float(np.log(happened.mean() / (1 - happened.mean())))
    kept = list(range(columns.shape[1]))
    while kept:
        fit = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000).fit(columns[:, kept], happened)
        if fit.coef_[0].min() >= 0:
            weights[kept], intercept = fit.coef_[0], float(fit.intercept_[0])
            break
        kept.pop(int(fit.coef_[0].argmin()))
    pairs = weights[1:].reshape(-1, 2)
    return Odds(
        intercept,
        float(weights[0]),
        {group: (float(a), float(b)) for group, (a, b) in zip(given, pairs, strict=True)},
    )
