"""The whole service: starts its parts, and ends them when it is told to."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from types import FrameType

from pipeline.predict import Pipeline
from pipeline.service.config import ServiceConfig
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
    for name in ("pynetdicom", "pydicom", "highdicom"):
        foreign = logging.getLogger(name)
        foreign.handlers[:] = [logging.NullHandler()]
        foreign.propagate = False


def serve(config: ServiceConfig, pipeline: Pipeline, spool: Spool) -> None:
    """Serve until SIGTERM or SIGINT.

    A study that is being graded is finished first, within seconds; everything else is on disk.

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
    worker = Worker(config, spool, pipeline, new_results)
    sender = Sender(config, spool, new_results)
    receiver.start()
    threads = [
        threading.Thread(target=part.run, args=(stop,), name=type(part).__name__) for part in (worker, sender)
    ]
    for thread in threads:
        thread.start()
    log.info(
        "ready: %s listens on %s:%d, results go to %s",
        config.ae_title,
        config.host,
        config.port,
        config.destination,
    )
    if not config.is_local and not config.allowed_callers:
        log.warning("any AE that reaches this address may send; name callers with --allow")
    while not stop.wait(1.0):
        pass
    receiver.stop()
    for thread in threads:
        thread.join()
    log.info("stopped")
