"""How good the graders are: the official score, and what a reader of a paper would ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classifier.calibration import calibration_error_by_chance
from classifier.judge.quality import figures_of, score_terms
from classifier.judge.rows import GradedRows
from classifier.predict import Grader
from data_prep.levels import SpineLevels
from data_prep.pixel_cache import PixelCache
from data_prep.problems import DicomRejected, Rejection
from data_prep.vocabulary import CONDITIONS, SEVERITIES, ConditionGroup, GradeSource, Severity, Target

if TYPE_CHECKING:
    from classifier.learn.crop_cache import LabelledStudy

# Which the tables have, with intervals.
_NOT_SHOWN = ("severe_recall", "ece")
_SEVERE, _MILD = Severity.SEVERE.index, Severity.NORMAL_MILD.index


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
        (of these, counted with what is expected of them, or the level prior), ``flags``.

    Raises:
        ValueError: nothing to evaluate, or a target of a study is there twice.
    """
    rows = list(graded)
    if not rows:
        raise ValueError("no labelled target with a study: nothing to evaluate")
    places = Counter((row.study_id, row.target) for row in rows)
    if twice := [target.row_id(study_id) for (study_id, target), count in places.items() if count > 1]:
        raise ValueError(f"{len(twice)} targets are graded twice, such as {twice[0]}: give each series once")
    flags = [flag for row in rows for flag in row.flags]
    known = any(0 < value < 1 for row in rows for value in row.truth)
    columns = as_rows(rows)
    return {
        "score": score_terms(columns),
        "prior_score": score_terms(columns.with_p(columns.prior)),
        "oracle_score": score_terms(columns.with_p(np.array([row.truth for row in rows]))) if known else None,
        "groups": {
            group.value: group_figures(part)
            for index, group in enumerate(ConditionGroup)
            if len(part := columns.where(columns.group == index))
        },
        "conditions": {
            condition.value: group_figures(part)
            for index, condition in enumerate(CONDITIONS)
            if len(part := columns.where(columns.condition == index))
        },
        "n_studies": len({row.study_id for row in rows}),
        "n_targets": len(rows),
        "n_not_graded": sum(not row.source.is_graded for row in rows),
        "flags": {flag: flags.count(flag) for flag in sorted(set(flags))},
    }


def group_figures(rows: GradedRows) -> dict[str, float | int | None]:
    """Figures of a condition or a group of them, and what calibration errors right predictions would show."""
    said = {"ece_severe": rows.p[:, _SEVERE], "ece_moderate_or_worse": 1 - rows.p[:, _MILD]}
    found: dict[str, float | int | None] = {"n": len(rows)}
    for name, value in figures_of(rows).items():
        if name in _NOT_SHOWN:
            continue
        found[name] = value
        if name in said:
            found[f"{name}_by_chance"] = calibration_error_by_chance(said[name])
    return found
