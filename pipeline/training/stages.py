"""Jobs that leave a marker when they are done, so that a training killed at any time goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from data_prep.base.files import write_whole
from pipeline.training.ranks import Peers, Ranks

_Item = TypeVar("_Item")

# Not .json: the folder may be one of weights, whose manifest lists such files.
DONE_FILE = "done.marker"
_STARTED_FILE = "started.marker"
# The networks that are trained on all studies.
FINAL = "final"


def digest_of(content: Any) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        name: folder below the run that the work writes into, such as ``fold0/detector/sagittal``.
        digest: of everything that the result depends on.
        work: does it, in that folder; may find there what an earlier attempt of the same digest left.
    """

    name: str
    digest: str
    work: Callable[[Path], None]


class Stages:
    """The jobs of a run, in its folder."""

    def __init__(self, run: Path, ranks: Ranks, say: Callable[[str], None]) -> None:
        self.run, self.say = run, say
        run.mkdir(parents=True, exist_ok=True)
        self._peers = Peers(run, ranks)
        self.ranks = replace(ranks, check=self._peers.check)

    def do(self, jobs: Sequence[Job]) -> None:
        """Do this process's share of the jobs that are not done, then wait for the others."""
        for job in self.ranks.mine(jobs):
            if self.is_done(job):
                self.say(f"{job.name}: done before")
                continue
            folder = self.run / job.name
            if _digest_in(folder / _STARTED_FILE) != job.digest:
                # What is there is of another configuration.
                shutil.rmtree(folder, ignore_errors=True)
                write_whole(folder / _STARTED_FILE, json.dumps({"digest": job.digest}))
            started = time.monotonic()
            job.work(folder)
            seconds = time.monotonic() - started
            done = {"digest": job.digest, "seconds": round(seconds, 1)}
            write_whole(folder / DONE_FILE, json.dumps(done))
            self.say(f"{job.name}: {seconds:.0f} s")
        self.ranks.wait(jobs, self.is_done)

    def parts(
        self, name: str, digest: str, items: Sequence[_Item], work: Callable[[Sequence[_Item], Path], None]
    ) -> list[Job]:
        """The same work on many items, as a job for each process."""
        world = self.ranks.world
        shares = {rank: items[rank::world] for rank in range(world)}
        return [Job(f"{name}{rank}of{world}", digest, partial(work, mine)) for rank, mine in shares.items()]

    def is_done(self, job: Job) -> bool:
        """Whether the job was finished with the same inputs."""
        return _digest_in(self.run / job.name / DONE_FILE) == job.digest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        """Let another training into the folder; after a failure the others miss this process."""
        self._peers.leave(done=failure is None)


def seconds_of(run: Path) -> dict[str, float]:
    """How long every finished job of a run took, by name; interrupted attempts are not counted."""
    found = {}
    for path in sorted(run.rglob(DONE_FILE)):
        with suppress(OSError, ValueError, KeyError):
            found[str(path.parent.relative_to(run))] = float(json.loads(path.read_text())["seconds"])
    return found


def fold_name(fold: int | str) -> str:
    """Folder of a fold below the run."""
    return f"fold{fold}" if isinstance(fold, int) else fold


def _digest_in(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
