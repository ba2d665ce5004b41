"""A row of the robustness table, and the words with which rows state what may come of a quirk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from data_prep.vocabulary import Condition, ConditionGroup, SeriesKind
from pipeline.prediction import StudyPrediction
from tests.hostile.quirks.expected import UNSURE, Expected
from tests.hostile.quirks.stored import Quirk

T1, T2, AXIAL = SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2, SeriesKind.AXIAL_T2
SPINAL, FORAMINAL, SUBARTICULAR = (
    frozenset(condition for condition in Condition if condition.group is group) for group in ConditionGroup
)
# Of ``Row.studies``: a study may come in several parts, each of which must be said to be one.
MANY = -1
EVERYTHING = frozenset(Condition)

# Exact: the same stored values. Rounded: the same picture through other arithmetic. Requantised: errors far
# below the noise. Resampled: the same picture on another grid. Degraded: another picture. Registered wrongly:
# the same picture at other coordinates, which must be flagged. Without T1: it helps to place the discs.
EXACT: Final = Expected()
ROUNDED = Expected(probability=0.02, levels_mm=0.3, points_mm=6.0)
REQUANTISED = Expected(probability=0.10, levels_mm=1.0, points_mm=7.0)
# Grey values or pixels were lost, and that is said.
LOSSY = Expected(
    probability=0.35,
    levels_mm=2.0,
    points_mm=9.0,
    flags=frozenset({"degraded_input"}),
    may_flag=UNSURE,
)
RESAMPLED = Expected(probability=0.35, levels_mm=3.0, points_mm=9.0, may_flag=UNSURE)
DEGRADED = Expected(
    probability=0.70,
    levels_mm=6.0,
    points_mm=12.0,
    may_flag=UNSURE | {"level_absent", "sacrum_unseen"},
    instead=UNSURE,
    may_be_ungraded=True,
)
# Slices are lost, and what is left may show it.
GAPS = replace(
    DEGRADED, may_flag=DEGRADED.may_flag | {"slices_missing"}, may_code=frozenset({"slices_missing"})
)
WITHOUT_T1 = replace(RESAMPLED, ungraded=FORAMINAL, flags=frozenset({"no_sagittal_t1"}))
# The canal is graded on both views where both are there.
WITHOUT_AXIAL = replace(DEGRADED, ungraded=SUBARTICULAR)
TURNED = frozenset({"orientation_doubtful"})
REGISTERED_WRONGLY = Expected(
    flags=TURNED | {"numbering_uncertain"},
    instead=TURNED,
    may_flag=UNSURE | {"level_absent", "sacrum_unseen"},
    may_be_ungraded=True,
)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: for ``--only``.
        title: what is changed.
        quirk: the change, given the prediction of the plain study.
        expected: what may come of it.
        turn: (3, 3) by which it turns the patient.
        studies: how many studies the changed files hold.
        afterwards: done to the folder that was written: links, names that no other system has.
    """

    name: str
    title: str
    quirk: Callable[[StudyPrediction], Quirk]
    expected: Expected
    turn: np.ndarray | None = None
    studies: int = 1
    afterwards: Callable[[Path], object] | None = None


def row(
    name: str,
    title: str,
    quirk: Quirk,
    expected: Expected = EXACT,
    turn: np.ndarray | None = None,
    studies: int = 1,
    afterwards: Callable[[Path], object] | None = None,
) -> Row:
    """A row whose quirk needs not know the plain study."""
    return Row(name, title, lambda _: quirk, expected, turn, studies, afterwards)


def but(base: Expected, **changes: object) -> Expected:
    """An expectation with other values; sets may be given as any collection."""
    values = {**base.__dict__, **changes}
    for key in ("flags", "may_flag", "instead", "codes", "may_code", "ungraded", "checked"):
        values[key] = frozenset(values[key])
    return Expected(**values)
