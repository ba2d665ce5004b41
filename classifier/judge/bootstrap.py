"""Intervals over studies: every figure is a function of sums over studies, which are drawn again and again.

Targets of one study hang together, so whole studies are drawn, with replacement (cluster bootstrap: Field
and Welsh, "Bootstrapping clustered data", JRSS B 2007). Because a figure needs only sums per study, a draw is
a matrix product and not another pass over the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

DEFAULT_RESAMPLES = 400
# A 95 % interval from the percentiles of the draws.
_INTERVAL_PERCENTILES = (2.5, 97.5)
# Rows of an AUC that are weighed at once: bounds the memory at about 100 MB.
_AUC_ELEMENTS = 12_000_000


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
