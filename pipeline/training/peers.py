"""Whether the other processes of a training are still at work, also those of other machines.

torchrun ends the processes of its own machine when one of them fails; those of other machines would wait for
ever. Every process holds the lock of a file in the run folder, which all of them share, for as long as it
lives, however it ends, and leaves a word in it when it has done its share.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from data_prep.problems import LumbarError
from pipeline.training.ranks import RankFailed, Ranks

# A process that starts may need as long for its imports, before it takes its lock.
GRACE_S = 120.0
_LOOK_EVERY_S = 5.0
_DONE = "done"


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
