"""What must be true of a changed study beside the plain one, and whether it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from classifier.prior import level_prior
from data_prep.vocabulary import LEVELS, TARGETS, Condition, Flag, Level, Target
from pipeline.prediction import StudyPrediction

UNSURE = frozenset(
    {
        "numbering_uncertain",
        "transitional_suspected",
        "no_level_found",
        "series_disagree",
        "no_signal",
        "level_at_edge",
        "spine_curved",
    }
)


# Share of a grade.
_READ_AS_WELL = 0.25


@dataclass(frozen=True)
class Expected:
    """What a quirk may change, and what must be said about it.

    Attributes:
        probability: largest allowed difference of any probability of a target that both studies grade.
        levels_mm: largest allowed movement of the canal point and the disc centre of a level.
        points_mm: largest allowed movement of the point of a target that both studies grade, to the nearest
            place where the changed one reads a quarter of the grade or more. Where pixels change, a point
            may go to the neighbouring slice, which is up to 6 mm away.
        flags: each must be raised.
        may_flag: may be raised beside those that the plain study has.
        instead: one of these may stand for a difference beyond the limits: the program is unsure and says so.
        codes: each must be given as a reason code.
        may_code: may be given as well.
        ungraded: conditions whose targets must not be graded, and be flagged: they get what is expected from
            other grades of the level, or the level prior.
        may_be_ungraded: any target may be so.
        rejected: the study must be rejected: 25 level priors.
        checked: codes that ``lumbar check`` must name.
    """

    probability: float = 1e-6
    levels_mm: float = 1e-3
    points_mm: float = 1e-3
    flags: frozenset[str] = frozenset()
    may_flag: frozenset[str] = frozenset()
    instead: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    may_code: frozenset[str] = frozenset()
    ungraded: frozenset[Condition] = frozenset()
    may_be_ungraded: bool = False
    rejected: bool = False
    checked: frozenset[str] = frozenset()

    @property
    def words(self) -> str:
        """For the table."""
        if self.rejected:
            parts = ["study rejected"]
        elif self.probability <= 1e-6:
            parts = ["same grades, exactly"]
        else:
            parts = [f"grades within {self.probability:g}, levels within {self.levels_mm:g} mm"]
        if self.instead:
            parts[0] += f" or {' / '.join(sorted(self.instead))}"
        if self.ungraded:
            parts.append(f"not graded: {', '.join(sorted(item.label for item in self.ungraded))}")
        if self.may_be_ungraded:
            parts.append("not graded where nothing can be seen")
        parts += sorted({*self.flags, *self.codes})
        parts += [f"check: {code}" for code in sorted(self.checked)]
        return "; ".join(parts)


@dataclass(frozen=True)
class Compared:
    """One changed study beside its plain one.

    Attributes:
        holds: whether every expectation is met.
        why: what is not met.
        probability: largest difference of the 75 probabilities over targets that both grade; NaN: none.
        by_condition: the same per condition.
        grades_changed: of these targets, how many have another severity.
        compared: how many targets both grade.
        levels_mm: largest movement of a level's canal point or disc centre; NaN: no level in common.
        points_mm: largest movement of the point of a target that both grade; NaN: none.
        levels_lost: levels that the plain study has and the changed one has not.
        flags: raised, that the plain study does not have.
        codes: reason code → how often it was given.
        rejected: whether the study was rejected.
    """

    holds: bool
    why: tuple[str, ...]
    probability: float = float("nan")
    by_condition: Mapping[str, float] = field(default_factory=dict)
    grades_changed: int = 0
    compared: int = 0
    levels_mm: float = float("nan")
    points_mm: float = float("nan")
    levels_lost: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    codes: Mapping[str, int] = field(default_factory=dict)
    rejected: bool = False


def compare(
    plain: StudyPrediction,
    changed: StudyPrediction,
    expected: Expected,
    *,
    turn: np.ndarray | None = None,
    checked: frozenset[str] = frozenset(),
) -> Compared:
    """Judge a changed study.

    Args:
        turn: (3, 3) by which the quirk turned the patient: undone before points are compared.
        checked: codes that ``lumbar check`` gave for the changed data.
    """
    differences = {
        target: float(np.abs(plain.grades[target].probabilities - changed.grades[target].probabilities).max())
        for target in TARGETS
        if plain.grades[target].source.is_graded and changed.grades[target].source.is_graded
    }
    levels_mm = max(_level_movements(plain, changed, turn), default=float("nan"))
    moved = [_movement(plain, changed, target, turn) for target in differences]
    flags = tuple(flag for flag in changed.flags if flag not in plain.flags)
    codes: dict[str, int] = {}
    for rejection in changed.rejections:
        codes[rejection.reason.value] = codes.get(rejection.reason.value, 0) + 1
    probability = max(differences.values(), default=float("nan"))
    points_mm = max(moved, default=float("nan"))
    why = [*_invariants(changed), *_grades(plain, changed, expected)]
    limits = (
        (probability, expected.probability, "grades differ by {:.3g}"),
        (levels_mm, expected.levels_mm, "levels moved by {:.3g} mm"),
        (points_mm, expected.points_mm, "points moved by {:.3g} mm"),
    )
    if not (expected.instead & set(changed.flags)):
        why += [words.format(value) for value, limit, words in limits if value > limit]
    allowed = {*expected.flags, *expected.may_flag, *expected.instead, *plain.flags}
    if expected.rejected:
        allowed.add("study_rejected")
    why += [f"flag {flag} is missing" for flag in sorted(expected.flags - set(changed.flags))]
    why += [f"flag {flag} is not expected" for flag in sorted(set(flags) - allowed)]
    why += [f"code {code} is missing" for code in sorted(expected.codes - set(codes))]
    unexpected = set(codes) - expected.codes - expected.may_code - {r.reason.value for r in plain.rejections}
    why += [f"code {code} is not expected" for code in sorted(unexpected)]
    why += [f"lumbar check does not name {code}" for code in sorted(expected.checked - checked)]
    if changed.rejected != expected.rejected:
        why.append("the study was rejected" if changed.rejected else "the study was not rejected")
    return Compared(
        holds=not why,
        why=tuple(why),
        probability=probability,
        by_condition={
            condition.value: max(own)
            for condition in Condition
            if (own := [value for target, value in differences.items() if target.condition is condition])
        },
        grades_changed=sum(
            plain.grades[target].severity is not changed.grades[target].severity for target in differences
        ),
        compared=len(differences),
        levels_mm=levels_mm,
        points_mm=points_mm,
        levels_lost=tuple(level.label for level in LEVELS if _lost(plain, changed, level)),
        flags=flags,
        codes=codes,
        rejected=changed.rejected,
    )


def _lost(plain: StudyPrediction, changed: StudyPrediction, level: Level) -> bool:
    have, now = (item.levels.levels if item.levels else {} for item in (plain, changed))
    return level in have and level not in now


def _level_movements(
    plain: StudyPrediction, changed: StudyPrediction, turn: np.ndarray | None
) -> list[float]:
    """How far canal points and disc centres moved in the patient, mm; the quirk's own turn is undone."""
    before, after = (item.levels.levels if item.levels else {} for item in (plain, changed))
    return [
        _apart(old, new, turn)
        for level in LEVELS
        if level in before and level in after
        for old, new in (
            (before[level].canal_mm, after[level].canal_mm),
            (before[level].disc_mm, after[level].disc_mm),
        )
    ]


def _movement(
    plain: StudyPrediction, changed: StudyPrediction, target: Target, turn: np.ndarray | None
) -> float:
    before, after = (
        item.levels.point(target.condition, target.level) if item.levels else None
        for item in (plain, changed)
    )
    if before is None or after is None:
        return 0.0
    read = [after, *(other for other in after.also if other.share >= _READ_AS_WELL)]
    return min(_apart(before.xyz_mm, reading.xyz_mm, turn) for reading in read)


def _apart(before: np.ndarray, after: np.ndarray, turn: np.ndarray | None) -> float:
    return float(np.linalg.norm((after if turn is None else turn.T @ after) - before))


def _invariants(changed: StudyPrediction) -> list[str]:
    """What is true of every study: 25 sound rows, and what is not graded says so, and whence its figures.

    A grade that is one says nothing, but that axial slices alone show its canal.
    """
    why = []
    for target in TARGETS:
        grade = changed.grades[target]
        if not np.isfinite(grade.probabilities).all() or abs(grade.probabilities.sum() - 1) > 1e-6:
            why.append(f"{target.column} has no sound probabilities")
        if grade.source.is_graded == bool(set(grade.flags) - {Flag.AXIAL_ONLY}):
            why.append(f"{target.column} is {grade.source} with flags {grade.flags}")
        if grade.source == "prior" and not np.allclose(grade.probabilities, level_prior(target), atol=1e-6):
            why.append(f"{target.column} is not graded, but has other figures than the level prior")
        beside = [
            other
            for other in TARGETS
            if other.level is target.level and changed.grades[other].source.is_graded
        ]
        if grade.source == "expected" and (not beside or changed.rejected):
            why.append(f"{target.column} is expected from nothing")
    return why


def _grades(plain: StudyPrediction, changed: StudyPrediction, expected: Expected) -> list[str]:
    """Targets that are graded and should not be, or the reverse."""
    if expected.rejected:
        return [f"{t.column} was graded" for t in TARGETS if changed.grades[t].source.is_graded][:1]
    why = []
    for condition in Condition:
        own = [target for target in TARGETS if target.condition is condition]
        graded = [t.level.label for t in own if changed.grades[t].source.is_graded]
        lost = [
            t.level.label
            for t in own
            if plain.grades[t].source.is_graded and not changed.grades[t].source.is_graded
        ]
        if condition in expected.ungraded and graded:
            why.append(f"{condition.value} is graded at {', '.join(graded)}")
        elif condition not in expected.ungraded and lost and not expected.may_be_ungraded:
            why.append(f"{condition.value} is not graded at {', '.join(lost)}")
    return why
