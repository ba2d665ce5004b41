"""Images that belong together so far, while a tree is divided into studies, and how pieces are joined."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeVar

from data_prep.problems import Reason, Rejection
from data_prep.read.acquisitions import acquisitions_of, conflict, conflicts
from data_prep.read.identity import Identity, clusters, disagree, identity_of, joined
from data_prep.read.slice_header import SliceHeader

# More parts than this are not compared pair by pair: each is an image, and they are looked at together.
MANY = 24
_T = TypeVar("_T")
# A folder with more studies than this is a data set, whose patients may have one series each.
_SERIES_OF_AN_EXAMINATION = 12
_PIECE_SHARE = 1 / 3
_FEWEST_OF_A_SERIES = 3
_PIECES = (
    "images of several studies or patients lie together here, and some show a part of an examination alone: "
    "they may belong together"
)
_MISFIT = "its images name several studies that do not fit together: each is graded by itself"


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


def fragments_joined(parts: list[Part]) -> list[Part]:
    """Join parts that each show one thing, where they share patient and folder and complement each other."""
    waiting = [part for part in parts if len(part.labels) == 1 and len(part.leaves) == 1]
    result = [part for part in parts if part not in waiting]
    for up in (0, 1):
        pools: dict[tuple[str, ...], list[Part]] = defaultdict(list)
        for part in waiting:
            (leaf,) = part.leaves
            pools[leaf[: len(leaf) - up] if up else leaf].append(part)
        waiting = []
        for pool in pools.values():
            done, left = _pool_joined(pool, is_one_folder=not up)
            result += done
            waiting += left
    return result + waiting


def _pool_joined(pool: list[Part], *, is_one_folder: bool) -> tuple[list[Part], list[Part]]:
    """Fragments of one folder, or of folders beside each other: those that are done with, and those left."""
    done: list[Part] = []
    left: list[Part] = []
    number = clusters([part.identity for part in pool])
    for cluster in sorted(set(number.values())):
        group = [part for part in pool if number[part.identity] == cluster]
        patients = {part.headers[0].patient_id for part in group}
        if len(group) < 2 or len(patients) != 1 or ("" in patients and not is_one_folder):
            left += group
        elif fit([part.headers for part in group]):
            merged = Part([item for part in group for item in part.found])
            merged.is_joined_by_folder = not any(merged.identity[:2])
            done.append(merged)
        elif len(group) > MANY:
            merged = Part([item for part in group for item in part.found], is_refused=True)
            done.append(merged)
        elif patients != {""}:
            for part in group:
                say(part, _MISFIT)
            done += group
        else:
            left += group
    return done, left


def studies_completed(parts: Sequence[Part]) -> list[Part]:
    """Join a piece to the one study of its patient that lies in its folder, or beside it, and lacks it."""
    result: list[Part] = []
    pieces: list[Part] = []
    wholes: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        patient_id = part.identity.patient_id
        if patient_id and _is_piece(part, part.labels):
            pieces.append(part)
        else:
            result.append(part)
            wholes[patient_id].append(part)
    for piece in pieces:
        (leaf,) = piece.leaves
        near = [
            whole
            for whole in wholes[piece.identity.patient_id]
            if not disagree(whole.identity, piece.identity)
            and any(leaf in (other, (*other[:-1], *leaf[-1:])) for other in whole.leaves)
        ]
        if len(near) == 1 and fit([near[0].headers, piece.headers]):
            near[0].found += piece.found
            continue
        if near:
            for part in (*near, piece):
                say(part, _MISFIT)
        result.append(piece)
    return result


def _is_piece(part: Part, labels: set[tuple[str, ...]]) -> bool:
    return len(labels) == 1 and len(part.leaves) == 1


def say_of_pieces(parts: Sequence[Part]) -> None:
    """Say so where images lie together that name different studies, and some are no whole examination."""
    by_leaf: dict[tuple[str, ...], Counter[Part]] = defaultdict(Counter)
    for part in parts:
        for item in part.found:
            by_leaf[item.place][part] += 1
    labels = {part: part.labels for part in parts}
    pieces = {part for part in parts if _is_piece(part, labels[part])}
    said: set[Part] = set()
    beside: dict[tuple[str, ...], set[Part]] = defaultdict(set)
    for leaf, counts in by_leaf.items():
        beside[leaf[:-1]].update(counts if leaf else ())
        few = max(_FEWEST_OF_A_SERIES, _PIECE_SHARE * max(counts.values()))
        if len(counts) > 1 and (
            min(counts.values()) < few or any(_lacking(part, counts, labels) for part in pieces & set(counts))
        ):
            said.update(counts)
    for together in beside.values():
        if len(together) <= _SERIES_OF_AN_EXAMINATION:
            for piece in together & pieces:
                others = _lacking(piece, together, labels)
                said.update({piece, *others} if others else ())
    for part in parts:
        if part in said:
            say(part, _PIECES)


def _lacking(piece: Part, others: Iterable[Part], labels: Mapping[Part, set[tuple[str, ...]]]) -> set[Part]:
    """Those that do not show what a piece shows."""
    return {other for other in others if not labels[other] & labels[piece]}


def say(part: Part, message: str) -> None:
    """Say once that a study is not what its identifiers say."""
    if all(item.reason is not Reason.STUDY_DIVIDED for item in part.rejections):
        part.rejections.append(Rejection(Reason.STUDY_DIVIDED, message))
