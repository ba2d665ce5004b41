"""The official metric of the RSNA 2024 Lumbar Spine Degenerative Classification.

Three log losses with sample weights 1/2/4 for Normal/Mild / Moderate / Severe, left and right pooled
(spinal, foraminal, subarticular), and a fourth for "any spinal level severe" per study; their mean.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from classifier.grade import SEVERITY_WEIGHTS
from data_prep.vocabulary import (
    SEVERITIES,
    SUBMISSION_COLUMNS,
    TARGET_BY_COLUMN,
    TARGETS,
    ConditionGroup,
    Severity,
)

PROBABILITY_COLUMNS = list(SUBMISSION_COLUMNS[1:])
_SEVERITY_INDEX = {severity.value: severity.index for severity in SEVERITIES}


@dataclass(frozen=True)
class ScoreReport:
    """The score and what it is made of; lower is better, 0 is perfect.

    Attributes:
        score: plain mean of the four terms.
        spinal, foraminal, subarticular, any_severe_spinal: weighted log losses.
        n_studies: studies of the label table.
        n_rows: rows scored.
        n_spinal, n_foraminal, n_subarticular: rows scored in each group.
        n_any_severe_studies: studies in the any-severe-spinal term.
        n_unlabelled: rows without a label, not scored.
    """

    score: float
    spinal: float
    foraminal: float
    subarticular: float
    any_severe_spinal: float
    n_studies: int
    n_rows: int
    n_spinal: int
    n_foraminal: int
    n_subarticular: int
    n_any_severe_studies: int
    n_unlabelled: int

    def to_dict(self) -> dict[str, float | int]:
        """Plain numbers, ``score`` and the four terms first."""
        return asdict(self)


def long_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """One row per labelled target of a label table in the shape of ``train.csv``.

    Args:
        labels: ``study_id`` and 25 columns ``{condition}_{level}``; empty cells are left out.

    Returns:
        Columns ``row_id`` (str), ``study_id`` (str), ``target`` (column name), ``group``, ``level`` (str),
        ``severity`` (0, 1, 2), ``weight`` (1, 2, 4), in the order of study, then target.

    Raises:
        ValueError: columns are missing or a cell is no severity; every problem is named.
    """
    missing = [name for name in ("study_id", *TARGET_BY_COLUMN) if name not in labels.columns]
    if missing:
        raise ValueError(f"the label table lacks the columns {', '.join(missing)}")
    columns = [target.column for target in TARGETS]
    table = labels[["study_id", *columns]].astype({"study_id": str})
    # Study after study, not column after column, as melt would give.
    long = table.set_index("study_id")[columns].stack(future_stack=True).dropna()
    out = long.reset_index()
    out.columns = pd.Index(["study_id", "target", "label"])
    out["severity"] = out["label"].map(_SEVERITY_INDEX)
    unknown = sorted(out.loc[out["severity"].isna(), "label"].astype(str).unique())
    if unknown:
        raise ValueError(f"the label table has unknown severities: {', '.join(map(repr, unknown))}")
    out["severity"] = out["severity"].astype(int)
    out["weight"] = SEVERITY_WEIGHTS[out["severity"]]
    out["row_id"] = out["study_id"] + "_" + out["target"]
    out["group"] = out["target"].map(lambda name: TARGET_BY_COLUMN[name].condition.group.value)
    out["level"] = out["target"].map(lambda name: TARGET_BY_COLUMN[name].level.value)
    return out[["row_id", "study_id", "target", "group", "level", "severity", "weight"]]


def weighted_log_loss(
    severity: NDArray[np.int64], probabilities: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    """Mean of −ln p(true class), weighted: ``sklearn.metrics.log_loss`` with ``sample_weight``.

    Args:
        severity: (n,) true class.
        probabilities: (n, classes) summing to 1; clipped to [eps, 1 − eps] of float64, as sklearn does.
        weights: (n,) sample weights.
    """
    eps = np.finfo(np.float64).eps
    true = np.clip(probabilities, eps, 1 - eps)[np.arange(len(severity)), severity]
    return float(np.average(-np.log(true), weights=weights))


def score(submission: pd.DataFrame, labels: pd.DataFrame) -> ScoreReport:
    """The official metric with all its terms.

    Args:
        submission: ``row_id, normal_mild, moderate, severe``; every labelled row exactly once, other rows
            are not looked at. Probabilities are divided by their sum, as the official metric does.
        labels: a label table in the shape of ``train.csv``; rows without a label are not scored.

    Raises:
        ValueError: a labelled row is missing or there twice, a probability is not finite or negative, or a
            condition group has no label at all. ``pipeline.results.submission`` lists such problems.
    """
    truth = long_labels(labels)
    for group in ConditionGroup:
        if not (truth["group"] == group.value).any():
            raise ValueError(f"no {group.value} row has a label: the score is not defined")
    rows = submission.assign(row_id=submission["row_id"].astype(str))
    rows = rows[rows["row_id"].isin(truth["row_id"])]
    if rows["row_id"].duplicated().any() or len(rows) != len(truth):
        raise ValueError(
            f"the submission must have each of the {len(truth)} labelled rows once, but has "
            f"{rows['row_id'].nunique()} of them in {len(rows)} rows"
        )
    predicted = rows.set_index("row_id").loc[truth["row_id"], PROBABILITY_COLUMNS].to_numpy(np.float64)
    if not np.all(np.isfinite(predicted)) or predicted.min() < 0 or predicted.sum(axis=1).min() <= 0:
        raise ValueError("probabilities must be finite, not negative, and not all zero")
    return _terms(truth, predicted / predicted.sum(axis=1, keepdims=True), n_studies=len(labels))


def by_study(
    study: NDArray[Any], severity: NDArray[np.int64], severe: NDArray[np.float64], weight: NDArray[np.float64]
) -> pd.DataFrame:
    """Per study of canal rows: whether any is ``severe``, the largest ``predicted`` q and ``weight``."""
    rows = {
        "study": study,
        "severe": severity == Severity.SEVERE.index,
        "predicted": severe,
        "weight": weight,
    }
    return pd.DataFrame(rows).groupby("study").max()


def _terms(truth: pd.DataFrame, predicted: NDArray[np.float64], *, n_studies: int) -> ScoreReport:
    severity, weight = truth["severity"].to_numpy(), truth["weight"].to_numpy()
    in_group = {group: (truth["group"] == group.value).to_numpy() for group in ConditionGroup}
    loss = {
        group: weighted_log_loss(severity[rows], predicted[rows], weight[rows])
        for group, rows in in_group.items()
    }
    spinal = in_group[ConditionGroup.SPINAL]
    study = by_study(
        truth["study_id"].to_numpy()[spinal],
        severity[spinal],
        predicted[spinal, Severity.SEVERE.index],
        weight[spinal],
    )
    p_severe = study["predicted"].to_numpy()
    any_severe = weighted_log_loss(
        study["severe"].to_numpy(int), np.stack([1 - p_severe, p_severe], axis=1), study["weight"].to_numpy()
    )
    return ScoreReport(
        score=float(np.mean([*loss.values(), any_severe])),
        spinal=loss[ConditionGroup.SPINAL],
        foraminal=loss[ConditionGroup.FORAMINAL],
        subarticular=loss[ConditionGroup.SUBARTICULAR],
        any_severe_spinal=any_severe,
        n_studies=n_studies,
        n_rows=len(truth),
        n_spinal=int(spinal.sum()),
        n_foraminal=int(in_group[ConditionGroup.FORAMINAL].sum()),
        n_subarticular=int(in_group[ConditionGroup.SUBARTICULAR].sum()),
        n_any_severe_studies=len(study),
        n_unlabelled=n_studies * len(TARGETS) - len(truth),
    )
