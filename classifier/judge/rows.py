"""Labelled targets and what was said of them, as columns; intervals over their studies.

Every figure is a function of sums over studies, which are drawn again and again. Targets of one study hang
together, so whole studies are drawn, with replacement (cluster bootstrap: Field and Welsh, "Bootstrapping
clustered data", JRSS B 2007). Because a figure needs only sums per study, a draw is a matrix product and not
another pass over the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from classifier.grade import SEVERITY_WEIGHTS
from classifier.metric import PROBABILITY_COLUMNS, long_labels
from classifier.prior import competition_weighted, level_prior_counts
from data_prep.base.rows import Rows
from data_prep.vocabulary import CONDITIONS, LEVELS, SEVERITIES, TARGET_BY_COLUMN, ConditionGroup, Target

_LEAST = 1e-15  # as log losses are clipped
FloatArray = NDArray[np.float64]
DEFAULT_RESAMPLES = 400
# A 95 % interval from the percentiles of the draws.
_INTERVAL_PERCENTILES = (2.5, 97.5)
# Rows of an AUC that are weighed at once: bounds the memory at about 100 MB.
_AUC_ELEMENTS = 12_000_000


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


@dataclass(frozen=True, eq=False)
class StudyDraws:
    """How often each study occurs in the data (first row) and in every resample.

    Attributes:
        counts: float64 (1 + resamples, studies); row 0 is all ones.
    """

    counts: FloatArray

    @classmethod
    def make(cls, studies: int, *, resamples: int = DEFAULT_RESAMPLES, seed: int = 0) -> StudyDraws:
        """Draws with replacement; the same for the same seed. Raises ValueError without a study."""
        if studies < 1 or resamples < 0:
            raise ValueError(f"need a study and resamples ≥ 0, but got {studies} and {resamples}")
        generator = np.random.default_rng(seed)
        drawn = generator.multinomial(studies, np.full(studies, 1 / studies), size=resamples)
        return cls(np.concatenate([np.ones((1, studies)), drawn]).astype(np.float64))

    def sums(self, study: NDArray[np.int64], values: FloatArray) -> FloatArray:
        """Sum of values (n, ...) over the rows of the drawn studies: (1 + resamples, ...)."""
        per_study = np.zeros((self.counts.shape[1], *values.shape[1:]))
        np.add.at(per_study, study, values)
        return np.tensordot(self.counts, per_study, axes=1)

    def auc(self, study: NDArray[np.int64], score: FloatArray, happened: NDArray[np.bool_]) -> FloatArray:
        """(1 + resamples,) area under the ROC curve, ties counting half; NaN where a class is missing."""
        order = np.argsort(score, kind="stable")
        ordered, positive, rows = score[order], happened[order], study[order]
        # Rows of the same score form one group.
        group = np.concatenate([[0], np.cumsum(np.diff(ordered) != 0)]) if len(ordered) else np.zeros(0)
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        out = []
        step = max(1, _AUC_ELEMENTS // max(1, len(rows)))
        for first in range(0, len(self.counts), step):
            weight = self.counts[first : first + step, rows]
            up = np.add.reduceat(weight * positive, starts, axis=1)
            down = np.add.reduceat(weight * ~positive, starts, axis=1)
            below = np.cumsum(down, axis=1) - down / 2
            with np.errstate(invalid="ignore", divide="ignore"):
                pairs = up.sum(axis=1) * down.sum(axis=1)
                out.append(
                    np.where(pairs > 0, (up * below).sum(axis=1) / np.where(pairs > 0, pairs, 1), np.nan)
                )
        return np.concatenate(out)

    def recall(
        self,
        study: NDArray[np.int64],
        score: FloatArray,
        happened: NDArray[np.bool_],
        *,
        false_alarms: float,
    ) -> FloatArray:
        """(1 + resamples,) largest share found at a threshold that alarms at most this share of the others.

        NaN where a class is missing. Rows of the same score are found together or not at all.
        """
        order = np.argsort(-score, kind="stable")
        positive, rows = happened[order], study[order]
        last = np.append(np.diff(score[order]) != 0, True) if len(order) else np.zeros(0, dtype=bool)
        out = []
        step = max(1, _AUC_ELEMENTS // max(1, len(rows)))
        for first in range(0, len(self.counts), step):
            weight = self.counts[first : first + step, rows]
            found = np.cumsum(weight * positive, axis=1)[:, last]
            alarms = np.cumsum(weight * ~positive, axis=1)[:, last]
            ok = alarms <= false_alarms * alarms[:, -1:]
            best = np.max(np.where(ok, found, 0.0), axis=1)
            both = (found[:, -1] > 0) & (alarms[:, -1] > 0)
            out.append(np.where(both, best / np.maximum(found[:, -1], 1e-12), np.nan))
        return np.concatenate(out)


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Element by element; NaN where nothing was drawn."""
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, numerator / safe, np.nan)


def value_and_interval(draws: FloatArray) -> tuple[float | None, tuple[float, float] | None]:
    """The figure itself (draw 0) and its 95 % interval; None where it is not defined."""
    value, rest = float(draws[0]), draws[1:][np.isfinite(draws[1:])]
    if not np.isfinite(value):
        return None, None
    if not len(rest):
        return value, None
    low, high = np.percentile(rest, _INTERVAL_PERCENTILES)
    return value, (float(low), float(high))
