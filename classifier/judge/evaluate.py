"""How good the graders are: the official score, and what a reader of a paper would ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from classifier.calibration import calibration_error_by_chance, expected_calibration_error
from classifier.judge.rows import GradedRows
from classifier.metric import PROBABILITY_COLUMNS, score
from classifier.predict import Grader
from classifier.prior import competition_log_loss, competition_weighted, level_prior
from data_prep.levels import SpineLevels
from data_prep.pixel_cache import PixelCache
from data_prep.problems import DicomRejected, Rejection
from data_prep.vocabulary import (
    CONDITIONS,
    SEVERITIES,
    TARGETS,
    ConditionGroup,
    GradeSource,
    Severity,
    Target,
)

if TYPE_CHECKING:
    from classifier.learn.crop_cache import LabelledStudy


@dataclass(frozen=True, eq=False)
class GradedTarget:
    """One labelled target and what was predicted for it.

    Attributes:
        label: severity index as a reader gave it.
        truth: (3,) probability of each severity; one-hot when only the label is known.
        probabilities: (3,) calibrated, unweighted.
        flags: of the grade.
    """

    study_id: str
    target: Target
    label: int
    truth: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    flags: tuple[str, ...] = ()
    source: GradeSource = GradeSource.SEEN


def grade_labelled(
    grader: Grader, load: Callable[[], LabelledStudy], rejections: list[Rejection], problems: list[str]
) -> list[GradedTarget]:
    """Grade a study at its annotated points; targets without a label are left out.

    Args:
        load: loads the study, as in ``classifier.learn.sources``.
        rejections: files, series and studies that cannot be used are added here.
        problems: what is wrong with annotated points that are left out is added here.
    """
    try:
        item = load()
    except DicomRejected as rejected:
        rejections += (*rejected.rejections, rejected.rejection)
        return []
    cache = PixelCache(item.study)
    grades = grader.grade(cache.study, SpineLevels(item.study.study_id, points=item.points))
    rejections += (*item.study.rejections, *cache.rejections)
    problems += item.problems
    return [
        GradedTarget(
            item.study.study_id,
            target,
            label,
            item.truth[target],
            grades[target].probabilities,
            grades[target].flags,
            GradeSource(grades[target].source),
        )
        for target, label in item.labels.items()
    ]


def as_rows(graded: Sequence[GradedTarget]) -> GradedRows:
    """The same as columns, for tables and plots."""
    return GradedRows(
        study_ids=np.array([row.study_id for row in graded], dtype=np.str_),
        condition=np.array([CONDITIONS.index(row.target.condition) for row in graded], dtype=np.int64),
        level=np.array([row.target.level.index for row in graded], dtype=np.int64),
        label=np.array([row.label for row in graded], dtype=np.int64),
        p=np.array([row.probabilities for row in graded], dtype=np.float64).reshape(-1, len(SEVERITIES)),
    )


def evaluate(graded: Iterable[GradedTarget]) -> dict[str, Any]:
    """All figures of a set of graded targets.

    Returns:
        ``score`` with its terms (the official metric; None unless every group has a label),
        ``prior_score`` (the level prior's), ``oracle_score`` (the true probabilities' where they are known),
        ``groups`` and ``conditions`` (see ``group_figures``), ``n_studies``, ``n_targets``, ``n_not_graded``
        (of these, counted with the level prior that they got), ``flags``.

    Raises:
        ValueError: nothing to evaluate, or a target of a study is there twice.
    """
    rows = list(graded)
    if not rows:
        raise ValueError("no labelled target with a study: nothing to evaluate")
    places = Counter((row.study_id, row.target) for row in rows)
    if twice := [target.row_id(study_id) for (study_id, target), count in places.items() if count > 1]:
        raise ValueError(f"{len(twice)} targets are graded twice, such as {twice[0]}: give each series once")
    prior = [level_prior(row.target) for row in rows]
    truth = [row.truth for row in rows]
    flags = [flag for row in rows for flag in row.flags]
    known = any(0 < value < 1 for row in rows for value in row.truth)
    return {
        "score": _official(rows, [row.probabilities for row in rows]),
        "prior_score": _official(rows, prior),
        "oracle_score": _official(rows, truth) if known else None,
        "groups": {
            group.value: group_figures(members)
            for group in ConditionGroup
            if (members := [row for row in rows if row.target.condition.group is group])
        },
        "conditions": {
            condition.value: group_figures(members)
            for condition in CONDITIONS
            if (members := [row for row in rows if row.target.condition is condition])
        },
        "n_studies": len({row.study_id for row in rows}),
        "n_targets": len(rows),
        "n_not_graded": sum(row.source is GradeSource.PRIOR for row in rows),
        "flags": {flag: flags.count(flag) for flag in sorted(set(flags))},
    }


def group_figures(rows: list[GradedTarget]) -> dict[str, float | int | None]:
    """Figures of a condition or a group of them; AUC and balanced figures are None without both classes."""
    p = np.array([row.probabilities for row in rows])
    label = np.array([row.label for row in rows])
    one_hot = np.eye(len(SEVERITIES))[label]
    decided = p.argmax(axis=1)
    # Under the competition's weights the cheapest decision is the largest q, which dares to say severe.
    weighted = competition_weighted(p).argmax(axis=1)
    severe, worse = label == Severity.SEVERE.index, label >= Severity.MODERATE.index
    recalls = [(weighted == severity)[label == severity].mean() for severity in np.unique(label)]
    several = len(set(label.tolist())) > 1
    return {
        "n": len(rows),
        "log_loss": competition_log_loss(p, one_hot),
        "prior_log_loss": competition_log_loss(np.array([level_prior(row.target) for row in rows]), one_hot),
        "accuracy": float((decided == label).mean()),
        "balanced_accuracy": float(np.mean(recalls)) if several else None,
        "kappa_linear": float(cohen_kappa_score(label, decided, weights="linear")) if several else None,
        "auc_severe": _auc(severe, p[:, Severity.SEVERE.index]),
        "auc_moderate_or_worse": _auc(worse, 1 - p[:, Severity.NORMAL_MILD.index]),
        "ece_severe": expected_calibration_error(p[:, Severity.SEVERE.index], severe),
        "ece_severe_by_chance": calibration_error_by_chance(p[:, Severity.SEVERE.index]),
        "ece_moderate_or_worse": expected_calibration_error(1 - p[:, Severity.NORMAL_MILD.index], worse),
        "ece_moderate_or_worse_by_chance": calibration_error_by_chance(1 - p[:, Severity.NORMAL_MILD.index]),
    }


def _auc(happened: NDArray[np.bool_], probability: NDArray[np.float64]) -> float | None:
    return float(roc_auc_score(happened, probability)) if 0 < happened.sum() < len(happened) else None


def _official(rows: list[GradedTarget], probabilities: list[NDArray[np.float64]]) -> dict[str, float] | None:
    """The metric's terms for unweighted probabilities, submitted competition-weighted."""
    if {row.target.condition.group for row in rows} != set(ConditionGroup):
        return None
    labels: dict[str, dict[str, str | None]] = {}
    for row in rows:
        cells = labels.setdefault(row.study_id, {target.column: None for target in TARGETS})
        cells[row.target.column] = SEVERITIES[row.label].value
    table = pd.DataFrame([{"study_id": study_id, **cells} for study_id, cells in labels.items()])
    q = competition_weighted(probabilities)
    submission = pd.DataFrame(q, columns=PROBABILITY_COLUMNS)
    submission.insert(0, "row_id", [row.target.row_id(row.study_id) for row in rows])
    terms = score(submission, table).to_dict()
    return {name: terms[name] for name in ("score", *(g.value for g in ConditionGroup), "any_severe_spinal")}
