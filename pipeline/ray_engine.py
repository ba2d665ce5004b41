"""Studies in actors of a Ray cluster, or of a Ray that is started on this machine for one run.

Ray is an optional extra: nothing here imports it before a run asks for it. A Ray of our own listens on the
loopback address alone, wants a token, reports no usage and has no dashboard; its files go with it.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_prep.study_entry import StudyEntry
from pipeline.engines import Crew, Died, EngineFailed, Event, LoadPipeline, Ready, WorkerEngine
from pipeline.prediction import Provenance
from pipeline.study_work import FinishedStudy, StudyWork, clean_scratch, input_files, on_one_thread

HOW_TO_INSTALL = "Ray is not installed: pip install '.[ray]' in the project's folder"
SOMEBODY_ELSE = (
    "this process had imported Ray before, and so one that it starts would want no token: "
    "start the run in a process of its own, or give the address of a cluster"
)
_OBJECT_STORE_BYTES = 256 * 1024**2
_PATIENCE_S = 60.0
_ANSWER_S = 10.0

# Waits until Ray is connected and returns the module. Raises EngineFailed: there is none.
ConnectedRay = Callable[[], Any]


def is_installed() -> bool:
    """Whether ``import ray`` would work; imports nothing."""
    return find_spec("ray") is not None


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
        if self.image is not None:
            try:
                same = self.image.stat().st_size == self.image_bytes
            except OSError:
                same = False
            if not same:
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
        on_one_thread()
        clean_scratch()
        self._pipeline = self._load()
        return expected.differences(self._pipeline.provenance)

    def finish(self, entry: StudyEntry) -> FinishedStudy:
        """Do one study."""
        return self._work.do_in_memory(self._pipeline, entry)


class RayEngine(WorkerEngine):
    """Actors that load the models once.

    Args:
        load: loads the models, in each actor; must be importable on every node.
        provenance: of the driver's models: a node with others is not used.
        connected: what ``connecting`` gives.
        jobs: how many actors; None: as many as the cluster has processors.
        say: told what a person should know.
    """

    def __init__(
        self,
        load: LoadPipeline,
        provenance: Provenance,
        connected: ConnectedRay,
        jobs: int | None = None,
        *,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(say)
        self._load, self._provenance, self._connected, self._jobs = load, provenance, connected, jobs

    @contextmanager
    def crew(self, work: StudyWork, first: StudyEntry) -> Iterator[Crew]:
        """See ``WorkerEngine``. Raises EngineFailed: there is no Ray."""
        ray = self._connected()
        size = self._jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
        expected = Expected.of(self._provenance, first)
        yield _ActorCrew(ray, self._load, work, size, expected, self.say)


@contextmanager
def connecting(address: str | None = None, jobs: int | None = None) -> Iterator[ConnectedRay]:
    """Connect to Ray in the background; what it gives waits for that, and returns the module.

    A Ray that was started here ends with the block. It starts within seconds, in processes of its own: time
    in which the driver can load its models. Must be entered in the thread that uses Ray.

    Args:
        address: of a running cluster; None starts a Ray on this machine.
        jobs: processors of that Ray; None: those of the machine.

    Raises:
        EngineFailed: Ray is not installed, or somebody else has set it up in this process; what it gives
            raises it, too: there is no Ray at the address, or it does not start.
    """
    if not is_installed():
        raise EngineFailed(HOW_TO_INSTALL)
    with ExitStack() as stack:
        options = stack.enter_context(_ray_of_our_own(jobs)) if address is None else {}
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # Else Ray takes SIGTERM for a crash: it prints stacks, in an endless loop at times, and nothing ends.
        os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"
        # Here, not in the background: modules that two threads import at a time may be seen half made.
        import ray

        background = stack.enter_context(ThreadPoolExecutor(1))
        connected = background.submit(_connect, ray, address, options)
        stack.callback(_disconnect, ray, connected)
        yield connected.result


def _connect(ray: Any, address: str | None, options: Mapping[str, Any]) -> Any:
    if address is not None:
        _check_answers(address)
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, ImportError, OSError) as error:
        where = f"at {address}" if address else "on this machine"
        raise EngineFailed(f"no Ray {where} ({type(error).__name__})") from error
    return ray


def _disconnect(ray: Any, connected: Future[Any]) -> None:
    """Wait for the connection and end it; what workers of this machine could not remove goes, too."""
    if connected.exception() is None:
        ray.shutdown()
        clean_scratch()


@contextmanager
def _ray_of_our_own(jobs: int | None) -> Iterator[dict[str, Any]]:
    """Arguments of ``ray.init`` for a Ray that only this process reaches, which must end within the block."""
    environment = own_environment()
    if not environment:
        raise EngineFailed(SOMEBODY_ELSE)
    with (
        tempfile.TemporaryDirectory(prefix="lumbar-ray-", ignore_cleanup_errors=True) as folder,
        _environment(environment),
    ):
        yield {
            "num_cpus": jobs,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
            "_temp_dir": folder,
        }


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes. Raises EngineFailed: nobody answers at host:port."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except OSError:
        raise EngineFailed(f"no Ray at {address}: nobody answers") from None


@cache
def own_environment() -> dict[str, str]:
    """Environment of a Ray of our own: on the loopback address, with a token, modules found as here.

    The same for the life of this process, because Ray remembers the token; empty when somebody else has
    imported Ray already, who then decides: it reads these when it is imported.
    """
    if "ray" in sys.modules:
        return {}
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # makes the loopback address that of this node
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_worker_niceness": "0",  # as workers of the local pool; Ray would let everything else go first
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
        self._in_hand[worker.finish.remote(entry)] = worker

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
            event = Died(f"it failed ({type(error.cause).__name__})")
        except self._ray.exceptions.RayError as error:
            hint = "; is lumbar installed on its node?" if starts else ""
            event = Died(f"its actor or its node is gone ({type(error).__name__}){hint}")
        if isinstance(event, Died):
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(worker)
        return worker, event
