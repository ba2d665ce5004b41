"""Where studies are done: in this process, in processes of this machine, or in actors of a Ray cluster.

An engine hands back what was done as it comes; it writes nothing that a later run would take for finished.
Workers of an engine load the models once. A worker that dies costs a restart: its study is done again by
another one, and a study that was in hand every time is given up with a reason, which costs nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from data_prep.problems import LumbarError, Reason, Rejection
from data_prep.read.entry import StudyEntry
from pipeline.batch.study_work import FinishedStudy, StudyWork
from pipeline.grade import Pipeline

# How often a worker may die with the same study in hand, or in a row before its models are loaded.
MAX_DEATHS = 3

LoadPipeline = Callable[[], Pipeline]
# Called with a study id and the stage that begins.
TellStage = Callable[[str, str], None]
Studies = Generator[tuple[StudyEntry, FinishedStudy | Rejection], None, None]


class EngineFailed(LumbarError):
    """No worker can be had. The message says why; what was finished stays."""

    advice = "start it again when that is mended; it goes on where it was"


class Engine(Protocol):
    """Does studies."""

    def finish(self, work: StudyWork, entries: Iterable[StudyEntry], tell: TellStage) -> Studies:
        """Every study once, as they come, in any order; a Rejection for one that was given up.

        Args:
            work: what is done with a study.
            entries: looked at as workers become free.
            tell: told which stage of which study begins, by engines that know.

        Raises:
            EngineFailed: no worker can be had.
        """
        ...


class InThisProcess:
    """One study after the other, with models that are loaded already; files go straight to their place."""

    def __init__(self, pipeline: Pipeline, out: Path) -> None:
        self._pipeline, self._out = pipeline, out

    def finish(self, work: StudyWork, entries: Iterable[StudyEntry], tell: TellStage) -> Studies:
        """See ``Engine``; nothing is given up."""
        for entry in entries:
            record = work.do(self._pipeline, entry, self._out, partial(tell, entry.study_id))
            yield entry, FinishedStudy(record)


@dataclass(frozen=True)
class Ready:
    """A worker has loaded its models and waits for a study."""


@dataclass(frozen=True)
class Died:
    """A worker is gone or of no use; ``how`` is for people."""

    how: str


Event = Ready | Died | FinishedStudy


class Crew(Protocol):
    """Workers of one kind; a worker has one study in hand, or none.

    Attributes:
        size: how many are wanted at a time.
    """

    size: int

    def hire(self) -> Hashable:
        """Start a worker; it is Ready or Died later."""
        ...

    def give(self, worker: Hashable, entry: StudyEntry) -> None:
        """Put a study into the hand of a worker that is ready; it is a FinishedStudy, or Died, later."""
        ...

    def wait(self) -> Sequence[tuple[Hashable, Event]]:
        """What happened next; perhaps nothing, after a while. A worker that died is forgotten."""
        ...


class WorkerEngine(ABC):
    """An engine with a crew: what to do when workers come, finish and die."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    @abstractmethod
    def crew(self, work: StudyWork, first: StudyEntry) -> AbstractContextManager[Crew]:
        """A crew without workers; they end with the block. ``first`` is a study that will be done."""

    def finish(self, work: StudyWork, entries: Iterable[StudyEntry], tell: TellStage) -> Studies:
        """See ``Engine``; stages are not told."""
        queue = _Queue(entries)
        first = queue.first()
        if first is None:
            return
        with self.crew(work, first) as crew:
            yield from self._with_crew(crew, queue)

    def _with_crew(self, crew: Crew, queue: _Queue) -> Studies:
        starting: set[Hashable] = set()
        idle: list[Hashable] = []
        busy: dict[Hashable, StudyEntry] = {}
        failed_starts = 0

        def give() -> None:
            while idle and (entry := queue.take()) is not None:
                worker = idle.pop()
                crew.give(worker, entry)
                busy[worker] = entry

        while True:
            give()
            wanted = min(crew.size, len(busy) + queue.waiting(crew.size))
            if not wanted:
                return
            while failed_starts < MAX_DEATHS and len(starting) + len(idle) + len(busy) < wanted:
                starting.add(crew.hire())
            for worker, event in crew.wait():
                if isinstance(event, Ready):
                    starting.remove(worker)
                    idle.append(worker)
                    failed_starts = 0
                elif isinstance(event, FinishedStudy):
                    finished = busy.pop(worker)
                    idle.append(worker)
                    give()  # first: who gets the result may take long to write it
                    yield finished, event
                elif worker in starting:
                    starting.remove(worker)
                    failed_starts += 1
                    if failed_starts >= MAX_DEATHS and not (starting or idle or busy):
                        raise EngineFailed(f"no worker can start: {event.how}")
                    self.say(f"a worker did not start: {event.how}")
                elif worker in idle:
                    idle.remove(worker)
                else:
                    entry = busy.pop(worker)
                    failed_starts = 0  # its memory is free, and nobody else may be left
                    self.say(f"the worker with study {entry.study_id} is lost: {event.how}")
                    if (given_up := queue.died(entry)) is not None:
                        yield entry, given_up


class _Queue:
    """Studies in their order, looked at as late as possible; one whose worker died comes next."""

    def __init__(self, entries: Iterable[StudyEntry]) -> None:
        self._more = iter(entries)
        self._next: deque[StudyEntry] = deque()
        self._deaths: Counter[str] = Counter()

    def first(self) -> StudyEntry | None:
        """The next study, which stays."""
        return self._next[0] if self.waiting(1) else None

    def waiting(self, most: int) -> int:
        """How many studies wait, counted up to ``most``."""
        while len(self._next) < most and (entry := next(self._more, None)) is not None:
            self._next.append(entry)
        return min(len(self._next), most)

    def take(self) -> StudyEntry | None:
        """The next study, which is then in somebody's hand."""
        return self._next.popleft() if self.waiting(1) else None

    def died(self, entry: StudyEntry) -> Rejection | None:
        """Put a study back whose worker died; why it is given up, if that was once too often."""
        self._deaths[entry.study_id] += 1
        if self._deaths[entry.study_id] < MAX_DEATHS:
            self._next.appendleft(entry)
            return None
        message = f"its worker ended {MAX_DEATHS} times while it was being graded"
        return Rejection(Reason.WORKER_DIED, message, entry.study_id)
