"""Several processes on one training: they share independent jobs and meet where all results are needed.

Folds, detectors and graders are independent of each other, so processes need exchange no gradients: each
takes its share of the jobs, on a GPU of its own when there are several, and files say what is done. It is
torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK), or processes that ``lumbar train --processes`` starts.

torchrun ends the processes of its own machine when one of them fails; those of other machines would wait for
ever. So every process holds the lock of a file in the run folder, which all of them share, for as long as it
lives, however it ends, and leaves a word in it when it has done its share.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_prep.problems import LumbarError

_Item = TypeVar("_Item")
_POLL_SECONDS = 0.5
# A process that starts may need as long for its imports, before it takes its lock.
GRACE_S = 120.0
_LOOK_EVERY_S = 5.0
_DONE = "done"


class RankFailed(LumbarError):
    """Another process of this training ended with an error."""


@dataclass(frozen=True)
class Ranks:
    """Which of several processes this is.

    Attributes:
        rank, world: 0 … world − 1, and how many there are.
        local_rank: rank on this machine: the number of its GPU.
        check: raises RankFailed when another process has failed; called while waiting.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    check: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank must lie in 0 … {self.world - 1}, but got {self.rank}")

    @classmethod
    def taken_from_environment(cls) -> Ranks:
        """As torchrun says; alone without it.

        The variables are taken out: ultralytics reads them when it is imported, and would wait for the other
        processes to train the same network, which here have trainings of their own. Call it before that.
        """
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local_rank = int(os.environ.get("LOCAL_RANK", str(rank)))
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            os.environ.pop(name, None)
        return cls(rank, world, local_rank)

    def mine(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """The share of this process."""
        return items[self.rank :: self.world]

    def wait(self, items: Iterable[_Item], is_done: Callable[[_Item], bool]) -> None:
        """Come back when all items are done; the other processes are at work."""
        for item in items:
            while not is_done(item):
                self.check()
                time.sleep(_POLL_SECONDS)


class RunInUse(LumbarError):
    """Another process is at work in the run folder."""


class Peers:
    """The processes of a run, as files ``.lock{rank}`` tell."""

    def __init__(self, run: Path, ranks: Ranks) -> None:
        """Take the lock of this process. Raises RunInUse."""
        self._run, self._ranks = run, ranks
        self._missed: dict[int, float] = {}
        self._looked = time.monotonic()
        self._lock = self._path(ranks.rank).open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunInUse(f"another training is at work in '{run.name}'") from None
        self._lock.truncate(0)

    def _path(self, rank: int) -> Path:
        return self._run / f".lock{rank}"

    def leave(self, *, done: bool) -> None:
        """Give the lock back; ``done``: this process is not needed any more."""
        if done:
            self._lock.write(_DONE)
            self._lock.flush()
        self._lock.close()

    def check(self) -> None:
        """Look after the others now and then. Raises RankFailed: one is gone and has not done its share."""
        self._ranks.check()
        now = time.monotonic()
        if now - self._looked < min(_LOOK_EVERY_S, GRACE_S):
            return
        self._looked = now
        gone = set(self._gone())
        self._missed = {rank: self._missed.get(rank, now) for rank in gone}
        for rank, since in self._missed.items():
            if now - since >= GRACE_S:
                raise RankFailed(f"process {rank} of this training ended; start it again: it goes on")

    def _gone(self) -> Iterator[int]:
        for rank in range(self._ranks.world):
            # One that has no file yet has never been here.
            with suppress(OSError), self._path(rank).open() as file:
                if rank == self._ranks.rank or file.read() == _DONE:
                    continue
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                yield rank
