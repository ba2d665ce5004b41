"""The connection to a Ray cluster, or to a Ray that is started on this machine for one run.

Ray is an optional extra: nothing here imports it before a run asks for it, and nothing else that takes time,
so that a Ray can start while the rest of the program is being imported. A Ray of our own listens on the
loopback address alone, wants a token, reports no usage and has no dashboard; its files go with it.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any

from pipeline.batch.failures import EngineFailed
from pipeline.batch.scratch import clean_scratch

HOW_TO_INSTALL = "Ray is not installed: pip install '.[ray]' in the project's folder"
SOMEBODY_ELSE = (
    "this process had imported Ray before, and so one that it starts would want no token: "
    "start the run in a process of its own, or give the address of a cluster"
)
_OBJECT_STORE_BYTES = 256 * 1024**2
_ANSWER_S = 10.0

# Waits until Ray is connected and returns the module. Raises EngineFailed: there is none.
ConnectedRay = Callable[[], Any]


def is_installed() -> bool:
    """Whether ``import ray`` would work; imports nothing."""
    return find_spec("ray") is not None


@contextmanager
def connecting(address: str | None = None, jobs: int | None = None) -> Iterator[ConnectedRay]:
    """Connect to Ray in the background; what it gives waits for that, and returns the module.

    A Ray that was started here ends with the block. It starts within seconds, in processes of its own: time
    in which the rest of the program can be imported. Must be entered in the thread that uses Ray.

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
        with _essential_processes_alone(ray) if address is None else nullcontext():
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, ImportError, OSError) as error:
        where = f"at {address}" if address else "on this machine"
        raise EngineFailed(f"no Ray {where} ({type(error).__name__})") from error
    return ray


@contextmanager
def _essential_processes_alone(ray: Any) -> Iterator[None]:
    """Let ``ray.init`` start neither autoscaler, log monitor nor dashboard server.

    A Ray of one machine and one run has no use for them; they cost two seconds of every run, and the server
    would listen. There is no option for that, so methods that are not public are replaced for the moment:
    should another Ray not have them, it starts what it always did.
    """
    node = getattr(getattr(ray._private, "node", None), "Node", None)
    replaced = {
        name: getattr(node, name)
        for name in ("start_monitor", "start_log_monitor", "start_api_server")
        if hasattr(node, name)
    }
    for name in replaced:
        setattr(node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in replaced.items():
            setattr(node, name, method)


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
