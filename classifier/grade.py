"""A grade: three calibrated probabilities and where they came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.vocabulary import SEVERITIES, GradeSource, Severity

__all__ = ["SEVERITY_WEIGHTS", "SUM_TOLERANCE", "Grade", "GradeSource"]

# Of the competition's metric, in the order of SEVERITIES.
SEVERITY_WEIGHTS: NDArray[np.float64] = np.array(
    [severity.weight for severity in SEVERITIES], dtype=np.float64
)

SUM_TOLERANCE = 1e-6
_ROUNDED = 2e-9


@dataclass(frozen=True, eq=False)
class Grade:
    """The severity of one target.

    Attributes:
        probabilities: (3,) float64, calibrated and UNWEIGHTED probability of Normal/Mild, Moderate, Severe;
            renormalised on construction. The competition's 1/2/4 weights enter in ``submission.csv`` only.
        source: how it was graded; its text will do.
        flags: codes that a reader should see, such as ``level_absent``.

    Raises:
        ValueError: not three finite numbers in [0, 1] that sum to 1 within 1e-6, or an unknown source.
    """

    probabilities: NDArray[np.float64]
    source: GradeSource
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        p = np.array(self.probabilities, dtype=np.float64)
        if p.shape != (len(SEVERITIES),):
            raise ValueError(f"probabilities must have shape (3,), but got shape {p.shape}")
        if not np.all(np.isfinite(p)) or p.min() < 0 or p.max() > 1 + SUM_TOLERANCE:
            raise ValueError(f"probabilities must be finite and lie in [0, 1], but got {p.tolist()}")
        if abs(float(p.sum()) - 1) > SUM_TOLERANCE:
            raise ValueError(f"probabilities must sum to 1, but got {p.tolist()} with sum {p.sum():.6f}")
        if self.source not in list(GradeSource):
            raise ValueError(f"source must be one of {[*map(str, GradeSource)]}, but got {self.source!r}")
        # What a record rounded comes back as it was written.
        object.__setattr__(self, "probabilities", p if abs(float(p.sum()) - 1) < _ROUNDED else p / p.sum())
        object.__setattr__(self, "source", GradeSource(self.source))
        object.__setattr__(self, "flags", tuple(self.flags))

    @property
    def severity(self) -> Severity:
        """The most probable severity."""
        return SEVERITIES[int(np.argmax(self.probabilities))]
