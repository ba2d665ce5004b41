"""Images that belong together so far, while a tree is divided into studies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeVar

from data_prep.problems import Rejection
from data_prep.read.acquisitions import acquisitions_of, conflict, conflicts
from data_prep.read.identity import Identity, identity_of, joined
from data_prep.read.slice_header import SliceHeader

# More parts than this are not compared pair by pair: each is an image, and they are looked at together.
MANY = 24
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Found:
    """An image and the names of the folders it lies in, from the top of the input."""

    header: SliceHeader
    place: tuple[str, ...]


@dataclass(eq=False)
class Part:
    """Images that belong together so far, and what is to be said of them."""

    found: list[Found]
    rejections: list[Rejection] = field(default_factory=list)
    is_refused: bool = False
    is_joined_by_folder: bool = False

    @property
    def headers(self) -> list[SliceHeader]:
        """Of its images."""
        return [item.header for item in self.found]

    @property
    def identity(self) -> Identity:
        """What its images say together of patient and day."""
        found = Identity()
        for item in dict.fromkeys(map(identity_of, self.headers)):
            found = joined(found, item)
        return found

    @property
    def patient(self) -> Identity:
        """Whose it is, whatever the day."""
        return self.identity._replace(study_date="")

    @property
    def labels(self) -> set[tuple[str, ...]]:
        """What it shows: a label for each acquisition."""
        return {item.label for item in acquisitions_of(self.headers)}

    @property
    def leaves(self) -> set[tuple[str, ...]]:
        """The folders that it lies in."""
        return {item.place for item in self.found}


def fit(parts: Sequence[Sequence[SliceHeader]]) -> bool:
    """Whether parts complement each other: none shows what another shows already."""
    if len(parts) <= MANY:
        return not conflicts([acquisitions_of(part) for part in parts])
    found = acquisitions_of((header for part in parts for header in part), by_series=False)
    if any(item.has_shared_places for item in found):
        return False
    return not any(conflict(a, b) for a, b in combinations(found, 2))


def grouped(found: Iterable[_T], key: Callable[[_T], Hashable]) -> dict[Hashable, list[_T]]:
    """Things by what a key gives, in their order."""
    groups: dict[Hashable, list[_T]] = defaultdict(list)
    for item in found:
        groups[key(item)].append(item)
    return groups
