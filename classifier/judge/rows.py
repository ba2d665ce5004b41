"""Labelled targets and what was said of them, as columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from classifier.grade import SEVERITY_WEIGHTS
from classifier.judge.bootstrap import FloatArray
from classifier.metric import PROBABILITY_COLUMNS, long_labels
from classifier.prior import competition_weighted, level_prior_counts
from data_prep.base.rows import Rows
from data_prep.vocabulary import CONDITIONS, LEVELS, SEVERITIES, TARGET_BY_COLUMN, ConditionGroup, Target

_LEAST = 1e-15  # as log losses are clipped


@dataclass(frozen=True, eq=False)
class GradedRows(Rows):
    """Labelled targets and their probabilities, as columns.

    Attributes:
        study_ids: (n,) str.
        condition, level: (n,) index in CONDITIONS and LEVELS.
        label: (n,) severity index that a reader gave.
        p: float64 (n, 3) calibrated, unweighted probabilities.
    """

    study_ids: NDArray[np.str_]
    condition: NDArray[np.int64]
    level: NDArray[np.int64]
    label: NDArray[np.int64]
    p: FloatArray

    def with_p(self, p: FloatArray) -> GradedRows:
        """The same targets with other probabilities (n, 3)."""
        return replace(self, p=p)

    @property
    def group(self) -> NDArray[np.int64]:
        """(n,) index in ConditionGroup."""
        groups = list(ConditionGroup)
        of = np.array([groups.index(condition.group) for condition in CONDITIONS])
        return np.asarray(of[self.condition])

    @property
    def prior(self) -> FloatArray:
        """(n, 3) the level prior of every row, from the real RSNA label table."""
        counts = level_prior_counts()
        return np.asarray((counts / counts.sum(axis=2, keepdims=True))[self.group, self.level])

    @classmethod
    def from_tables(
        cls, submission: pd.DataFrame, labels: pd.DataFrame, *, weighted: bool = True
    ) -> GradedRows:
        """Labelled rows of a submission, in the order of ``long_labels``.

        Args:
            submission: validated, ``row_id`` and three probabilities per row.
            labels: in the shape of ``train.csv``.
            weighted: the probabilities are q, and are taken back to p ∝ q / (1, 2, 4); else they are p.
        """
        truth = long_labels(labels)
        q = submission.set_index(submission["row_id"].astype(str))[PROBABILITY_COLUMNS].astype(float)
        p = q.loc[truth["row_id"]].to_numpy(np.float64)
        if weighted:
            p = p / SEVERITY_WEIGHTS
        targets = [TARGET_BY_COLUMN[name] for name in truth["target"]]
        return cls(
            study_ids=truth["study_id"].to_numpy().astype(str),
            condition=np.array([CONDITIONS.index(target.condition) for target in targets], np.int64),
            level=np.array([target.level.index for target in targets], np.int64),
            label=truth["severity"].to_numpy(np.int64),
            p=p / p.sum(axis=1, keepdims=True),
        )


def worst_cases(rows: GradedRows) -> pd.DataFrame:
    """A row per labelled target, by what it costs: its label's weight times minus log of the label's q.

    Returns:
        ``row_id``, ``study_id``, ``condition``, ``level``, ``label``, ``grade`` (the most probable), three
        calibrated probabilities, ``loss``.
    """
    numbers = range(len(rows))
    q = competition_weighted(rows.p)[numbers, rows.label]
    targets = [Target(CONDITIONS[c], LEVELS[v]) for c, v in zip(rows.condition, rows.level, strict=True)]
    table = pd.DataFrame(
        {
            "row_id": [t.row_id(study) for t, study in zip(targets, rows.study_ids, strict=True)],
            "study_id": rows.study_ids,
            "condition": [target.condition.value for target in targets],
            "level": [target.level.value for target in targets],
            "label": [SEVERITIES[index].value for index in rows.label],
            "grade": [SEVERITIES[index].value for index in rows.p.argmax(axis=1)],
            **{name: rows.p[:, index].round(6) for index, name in enumerate(PROBABILITY_COLUMNS)},
            "loss": (SEVERITY_WEIGHTS[rows.label] * -np.log(np.clip(q, _LEAST, 1))).round(4),
        }
    )
    return table.sort_values(["loss", "row_id"], ascending=[False, True], kind="stable")
