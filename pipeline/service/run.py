"""The whole service: starts its parts, and ends them when it is told to."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from pipeline.grade import Pipeline
from pipeline.quiet import silence_libraries
from pipeline.service.config import Peer, ServiceConfig
from pipeline.service.receiver import Receiver
from pipeline.service.sender import Sender
from pipeline.service.spool import Spool
from pipeline.service.worker import Worker

log = logging.getLogger("lumbar.serve")


def set_up_log() -> None:
    """Our own lines to stderr; those of the DICOM libraries, which quote headers, nowhere."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
    silence_libraries()


def serve(config: ServiceConfig, load: Callable[[], Pipeline], spool: Spool) -> None:
    """Serve until SIGTERM or SIGINT.

    It receives, and delivers what an earlier run left, before the models are there. When it is told to stop,
    a study that is being graded is finished first, within seconds; everything else is on disk.

    Raises:
        OSError: the port cannot be had.
    """
    stop, new_results = threading.Event(), threading.Event()

    def told_to_stop(number: int, _: FrameType | None) -> None:
        log.info("%s: stopping", signal.Signals(number).name)
        stop.set()
        new_results.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told_to_stop)
    receiver = Receiver(config, spool)
    receiver.start()
    how = " with TLS" if config.tls is not None else ""
    log.info("%s listens on %s:%d%s", config.ae_title, config.host, config.port, how)
    if not config.is_local and not config.allowed_callers:
        log.warning("any AE that reaches this address may send; name callers with --allow")
    if isinstance(config.destination, Peer) and config.destination.is_open:
        log.warning("results go to another machine unencrypted; see --tls")
    threads = [_started(Sender(config, spool, new_results).run, stop)]
    try:
        worker = Worker(config, spool, load(), new_results)
        threads.append(_started(worker.run, stop))
        log.info("ready: results go to %s", config.destination)
        while not stop.wait(1.0):
            pass
    finally:
        stop.set()
        new_results.set()
        receiver.stop()
        for thread in threads:
            thread.join()
    log.info("stopped")


def _started(run: Callable[[threading.Event], None], stop: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=run, args=(stop,))
    thread.start()
    return thread
