"""Grades that their measurements contradict.

A grade is contradicted only where a measurement lies clearly on the other side: beyond the limit by twice its
uncertainty. The limits are wide on purpose: a grade judges shape and contact, too, which no length tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from classifier.grade import Grade
from classifier.measure.quantities import Measured, Quantity
from data_prep.vocabulary import Condition, Level, Severity, Target

_SURE: Final = 2.0
# Quantity → (Normal/Mild is contradicted below, Severe is contradicted above).
LIMITS: Final[Mapping[Quantity, tuple[float, float]]] = {
    Quantity.CANAL_DEPTH: (8.0, 12.0),
    Quantity.SAC_AREA: (75.0, 130.0),
    # Of RSNA's foramina above 12 mm readers call none Severe, of those below 5 mm a sixth Normal/Mild.
    Quantity.FORAMEN_HEIGHT: (8.0, 12.0),
}

# The sac tapers at the sacrum: a small one is no stenosis there.
_TOO_SMALL_TELLS_NOTHING: Final = frozenset({(Quantity.SAC_AREA, Level.L5_S1)})


@dataclass(frozen=True)
class Contradiction:
    """A grade and the measurement that does not fit it."""

    target: Target
    severity: Severity
    measured: Measured

    @property
    def words(self) -> str:
        """``graded Severe, but dural sac, front to back, is 14.2 ± 0.9 mm``."""
        return f"graded {self.severity.value}, but {self.measured.kind.words} is {self.measured.words}"


def contradictions(grades: Mapping[Target, Grade], measured: Iterable[Measured]) -> tuple[Contradiction, ...]:
    """All of them, in the order of the measurements; a target that was not graded has none."""
    found = []
    for item in measured:
        target = target_of(item)
        limits = LIMITS.get(item.quantity)
        if target is None or limits is None or not grades[target].source.is_graded:
            continue
        severity, margin = grades[target].severity, _SURE * item.uncertainty
        tells = (item.quantity, item.level) not in _TOO_SMALL_TELLS_NOTHING
        too_small = tells and severity is Severity.NORMAL_MILD and item.value + margin < limits[0]
        too_large = severity is Severity.SEVERE and item.value - margin > limits[1]
        if too_small or too_large:
            found.append(Contradiction(target, severity, item))
    return tuple(found)


def target_of(item: Measured) -> Target | None:
    """The target that a measurement stands beside, or None: the disc, or the whole spine."""
    group, level = item.kind.beside, item.level
    return None if group is None or level is None else Target(Condition.of(group, item.side), level)
