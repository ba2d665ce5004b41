"""Numbers of the slices of a series, and what they say of slices that are missing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from data_prep.read.slice_header import SliceHeader
from data_prep.study import Series

# Number by ``id`` of a slice.
Numbers = Mapping[int, int]
# Numbers of a series, and all that are taken in what it was read from.
Numbering = tuple[Numbers, frozenset[int]]


def numberings_of(item: Series, source: Sequence[SliceHeader]) -> list[Numbering]:
    """Numbers of a series by header, by file and by place in an enhanced stack, those that are distinct.

    Args:
        source: headers of what the series was read from.
    """
    headers: dict[tuple[Path | None, int | None], SliceHeader] = {
        (header.path, None if header.frame is None else header.frame + 1): header for header in source
    }
    own = [headers.get((part.path, part.frame)) for part in item.slices]
    if None in own:
        return []
    found: list[Numbering] = []
    for number_of in (attrgetter("instance_number"), _file_number, attrgetter("stack_position")):
        numbers = [number_of(header) for header in own if header is not None]
        taken = frozenset(n for header in source if (n := number_of(header)) is not None)
        if None not in numbers and len(set(numbers)) == len(numbers):
            pairs = zip(item.slices, numbers, strict=True)
            found.append(({id(part): int(n) for part, n in pairs if n is not None}, taken))
    return found


def leave_room(pair: tuple[int, int], count: int, step: int, taken: frozenset[int]) -> bool:
    """Whether the numbers of two slices leave room for so many between them, and nothing else has these.

    Args:
        step: from one number to the next.
    """
    low, high = sorted(pair)
    if high - low != step * (count + 1):
        return False
    return not any(n in taken for n in range(low + step, high, step))


def holes_in(taken: frozenset[int], share: float) -> list[tuple[int, int, int]]:
    """Numbers before and behind a hole, and how many are missing; none where more of the numbers jump.

    Args:
        share: of the numbers must follow each other.
    """
    order = sorted(taken)
    found = [(a, b, b - a - 1) for a, b in itertools.pairwise(order) if b - a > 1]
    return found if len(order) - 1 - len(found) >= share * (len(order) - 1) else []


def _file_number(header: SliceHeader) -> int | None:
    stem = header.path.stem
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 10 else None
