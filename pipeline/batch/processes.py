"""Studies in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from data_prep.base.backend import available_threads
from data_prep.base.workers import available_memory_mb, end_with_parent, on_one_thread
from data_prep.read.entry import StudyEntry
from pipeline.batch.engines import Crew, Died, Event, LoadPipeline, Ready, WorkerEngine
from pipeline.batch.study_work import StudyWork, clean_up_after_workers
from pipeline.quiet import failure_in_words, say_failures_without_values, silence_libraries

_CONTEXT = multiprocessing.get_context("spawn")
_PATIENCE_S = 5.0
# What a worker takes at most, models and a study (docs/speed.md), with room to spare.
_WORKER_MB = 900
# A worker takes about three seconds to start, which so many studies of its own win back.
_PAYS_FROM = {"drawn": 3, "plain": 8}


def jobs_for(studies: int, *, drawn: bool) -> int:
    """Processes that finish so many studies soonest on this machine; 1: in this process, on all threads.

    One study does not keep even two processors busy all the time; as many as there are processors do.

    Args:
        drawn: whether each study gets pictures or a report, which take longer than its grades.
    """
    worth = studies // _PAYS_FROM["drawn" if drawn else "plain"]
    return int(max(1, min(available_threads(), worth, available_memory_mb() // _WORKER_MB)))


class LocalPool(WorkerEngine):
    """Processes of this machine, one thread each.

    Args:
        load: loads the models, in each process; must be importable there.
    """

    def __init__(self, load: LoadPipeline, jobs: int, *, say: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(say)
        self._load, self._jobs = load, jobs

    @contextmanager
    def crew(self, work: StudyWork, first: StudyEntry) -> Iterator[Crew]:
        """See ``WorkerEngine``."""
        crew = _ProcessCrew(self._load, work, self._jobs)
        try:
            yield crew
        finally:
            crew.close()


class _ProcessCrew:
    """A worker is the connection to its process."""

    def __init__(self, load: LoadPipeline, work: StudyWork, size: int) -> None:
        self._load, self._work, self.size = load, work, size
        self._processes: dict[Connection, SpawnProcess] = {}
        self._busy: set[Connection] = set()

    def hire(self) -> Hashable:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(
            target=_serve, args=(theirs, self._load, self._work, os.getpid()), daemon=True
        )
        process.start()
        # So that ours is at its end when the process is.
        theirs.close()
        self._processes[ours] = process
        return ours

    def give(self, worker: Hashable, entry: StudyEntry) -> None:
        assert isinstance(worker, Connection)
        self._busy.add(worker)
        with suppress(OSError):  # dead already: ``wait`` will say so
            worker.send(entry)

    def wait(self) -> Sequence[tuple[Hashable, Event]]:
        events: list[tuple[Hashable, Event]] = []
        for worker in wait(list(self._processes)):
            assert isinstance(worker, Connection)
            self._busy.discard(worker)
            try:
                event = worker.recv()
            except (EOFError, OSError):
                process = self._processes.pop(worker)
                process.join(_PATIENCE_S)
                worker.close()
                event = Died(f"its process ended with code {process.exitcode}")
            if isinstance(event, Exception):
                raise event
            events.append((worker, event))
        return events

    def close(self) -> None:
        for worker, process in self._processes.items():
            worker.close()  # who waits for a study ends by itself
            if worker in self._busy:
                process.terminate()
        for process in self._processes.values():
            process.join(_PATIENCE_S)
            process.kill()


def _serve(connection: Connection, load: LoadPipeline, work: StudyWork, parent: int) -> None:
    """A worker: models once, then one study after the other until nobody gives any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what an interruption means
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so scratch files are removed
    end_with_parent(parent)
    silence_libraries()
    say_failures_without_values()
    on_one_thread()
    clean_up_after_workers()
    try:
        pipeline = load()
        connection.send(Ready())
        while True:
            connection.send(work.do_in_memory(pipeline, connection.recv()))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:  # a full disk, weights that were changed meanwhile: the driver's to say
        try:
            connection.send(error)
        except Exception:  # nobody is left to say it to, or it cannot be sent; multiprocessing would quote it
            print(failure_in_words(type(error), error.__traceback__), file=sys.stderr)
