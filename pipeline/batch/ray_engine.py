"""Studies in actors of a Ray cluster that is running.

Ray is an optional extra: nothing here imports it before a run asks for it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_prep.base.backend import BackendUnusable
from data_prep.base.manifest import WeightsRejected
from data_prep.base.workers import on_one_thread
from data_prep.problems import LumbarError
from data_prep.read.entry import StudyEntry
from pipeline.batch.engines import Crew, Died, EngineFailed, Event, LoadPipeline, Ready, WorkerEngine
from pipeline.batch.study_work import (
    FinishedStudy,
    StudyWork,
    clean_up_after_workers,
    file_size,
    files_seen,
    input_files,
)
from pipeline.prediction import Provenance
from pipeline.quiet import silence_libraries

HOW_TO_INSTALL = "Ray is not installed: pip install 'lumbar[ray]'"
_PATIENCE_S = 60.0
_ANSWER_S = 10.0


def is_installed() -> bool:
    """Whether ``import ray`` would work; imports nothing."""
    return find_spec("ray") is not None


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module ``ray``, connected to a running cluster for as long as the block lasts.

    Raises:
        EngineFailed: Ray is not installed, or there is no cluster at the address.
    """
    if not is_installed():
        raise EngineFailed(HOW_TO_INSTALL)
    _check_answers(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Else Ray takes SIGTERM for a crash: it prints stacks, in an endless loop at times, and nothing ends.
    os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"
    import ray

    mine = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ImportError, OSError) as error:
        raise EngineFailed(f"no Ray at {address} ({type(error).__name__})") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, mine)  # Ray takes it, and would end the run with another code
    try:
        yield ray
    finally:
        ray.shutdown()
        clean_up_after_workers()


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes. Raises EngineFailed: nobody answers at host:port."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except OSError:
        raise EngineFailed(f"no Ray at {address}: nobody answers") from None


@dataclass(frozen=True)
class Expected:
    """What a node must have for its results to be those of any other.

    Attributes:
        provenance: models, configuration and versions, as the driver has them.
        image: a file of the input, or None if no study has one.
        image_bytes: its size.
    """

    provenance: str
    image: Path | None
    image_bytes: int

    @classmethod
    def of(cls, provenance: Provenance, entry: StudyEntry) -> Expected:
        """As seen from here."""
        image = next((path for _, path in input_files(entry) if path.is_file()), None)
        return cls(_plain(provenance), image, image.stat().st_size if image else 0)

    def differences(self, provenance: Provenance) -> str:
        """Why a node cannot be used, or nothing."""
        if self.image is not None and file_size(self.image) != self.image_bytes:
            return "it does not see the images: put them on a disk that every node has at the same path"
        mine, theirs = json.loads(_plain(provenance)), json.loads(self.provenance)
        for part in ("software", "models", "configuration"):
            for name in sorted({*mine[part], *theirs[part]}):
                if mine[part].get(name) != theirs[part].get(name):
                    return f"it has another {name}: install the same software and weights on every node"
        return ""


def _plain(provenance: Provenance) -> str:
    return json.dumps(provenance.to_dict(), sort_keys=True)


class StudyActor:
    """A worker on some node; made a Ray actor when there is a Ray."""

    def __init__(self, load: LoadPipeline, work: StudyWork) -> None:
        self._load, self._work = load, work

    def start(self, expected: Expected) -> str:
        """Load the models; why this node cannot be used, or nothing."""
        silence_libraries()
        on_one_thread()
        clean_up_after_workers()
        self._pipeline = self._load()
        return expected.differences(self._pipeline.provenance)

    def finish(self, entry: StudyEntry, seen: str) -> FinishedStudy:
        """Do one study.

        Raises:
            OtherFiles: they are not those that the driver saw, of which ``seen`` is the digest. What lacks
                here would be graded as if it had never been.
        """
        if files_seen(entry) != seen:
            raise OtherFiles("it sees other files of this study than the machine that asks")
        return self._work.do_in_memory(self._pipeline, entry)


class OtherFiles(LumbarError):
    """A node that does not see the files of a study, or a part of them alone."""

    advice = "put the images on a disk that every node has at the same path"


class RayEngine(WorkerEngine):
    """Actors that load the models once.

    Args:
        load: loads the models, in each actor; must be importable on every node.
        provenance: of the driver's models: a node with others is not used.
        address: of the cluster, ``host:port``.
        jobs: how many actors; None: as many as the cluster has processors.
    """

    def __init__(
        self,
        load: LoadPipeline,
        provenance: Provenance,
        address: str,
        jobs: int | None = None,
        *,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(say)
        self._load, self._provenance, self._address, self._jobs = load, provenance, address, jobs

    @contextmanager
    def crew(self, work: StudyWork, first: StudyEntry) -> Iterator[Crew]:
        """See ``WorkerEngine``. Raises EngineFailed: there is no Ray."""
        with connected(self._address) as ray:
            size = self._jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
            expected = Expected.of(self._provenance, first)
            yield _ActorCrew(ray, self._load, work, size, expected, self.say)


class _ActorCrew:
    def __init__(
        self,
        ray: Any,
        load: LoadPipeline,
        work: StudyWork,
        size: int,
        expected: Expected,
        say: Callable[[str], None],
    ) -> None:
        self._ray, self.size, self._say = ray, size, say
        # No restarts by Ray: who asks for a study again, and where, is decided by the engine.
        self._actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(StudyActor)
        self._arguments = (ray.put(load), ray.put(work))
        self._expected = expected
        self._in_hand: dict[Any, Hashable] = {}
        self._starting: set[Hashable] = set()

    def hire(self) -> Hashable:
        actor = self._actor.remote(*self._arguments)
        self._in_hand[actor.start.remote(self._expected)] = actor
        self._starting.add(actor)
        worker: Hashable = actor
        return worker

    def give(self, worker: Any, entry: StudyEntry) -> None:
        self._in_hand[worker.finish.remote(entry, files_seen(entry))] = worker

    def wait(self) -> Sequence[tuple[Hashable, Event]]:
        ready, _ = self._ray.wait(list(self._in_hand), timeout=_PATIENCE_S)
        if not ready:
            self._say("waiting for the cluster: no worker has started or finished for a minute")
        return [self._event(reference) for reference in ready]

    def _event(self, reference: Any) -> tuple[Hashable, Event]:
        worker = self._in_hand.pop(reference)
        starts = worker in self._starting
        self._starting.discard(worker)
        event: Event
        try:
            result = self._ray.get(reference)
            event = result if isinstance(result, FinishedStudy) else Died(result) if result else Ready()
        except self._ray.exceptions.RayTaskError as error:
            known = isinstance(error.cause, (WeightsRejected, BackendUnusable, OtherFiles))
            said = f": {error.cause}" if known else ""
            event = Died(f"it failed ({type(error.cause).__name__}){said}")
        except self._ray.exceptions.RayError as error:
            hint = "; is lumbar installed on its node?" if starts else ""
            event = Died(f"its actor or its node is gone ({type(error).__name__}){hint}")
        if isinstance(event, Died):
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(worker)
        return worker, event
