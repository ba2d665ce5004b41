"""One thing that is wrong or odd in a data set, with examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from data_prep.problems import LumbarError

_EXAMPLES = 5


@dataclass(frozen=True)
class Problem:
    """A kind of problem.

    Attributes:
        code: for programs.
        message: for people.
        count: how often it occurs.
        examples: where, at most 5.
        fatal: the data cannot be used; otherwise a quirk that the program survives.
    """

    code: str
    message: str
    count: int
    examples: tuple[str, ...]
    fatal: bool

    @property
    def said(self) -> str:
        """Code, number and examples."""
        shown = f" ({', '.join(self.examples)}{', …' if self.count > len(self.examples) else ''})"
        return f"[{self.code}] {self.count} x {self.message}{shown if self.examples else ''}"

    def __str__(self) -> str:
        return f"{'error' if self.fatal else 'quirk'} {self.said}"


class TablesInvalid(LumbarError, ValueError):
    """Tables that cannot be used; ``problems`` holds all that was found, fatal or not."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(item) for item in problems if item.fatal))
        self.problems = problems

    def __reduce__(self) -> tuple[type[TablesInvalid], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


def problem(code: str, message: str, places: Iterable[object], *, fatal: bool = False) -> Problem:
    """A problem counted by its places, the first of which are its examples."""
    named = [str(place) for place in places]
    return Problem(code, message, len(named), tuple(named[:_EXAMPLES]), fatal)


def quirk(code: str, message: str, places: Iterable[object]) -> list[Problem]:
    """The same of what can be survived; nothing without a place."""
    found = problem(code, message, places)
    return [found] if found.count else []
