"""The whole service: starts its parts and ends them, and grades what has settled in the spool."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType

from pydicom.dataset import Dataset

from data_prep.names import printable
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.entry import StudyEntry
from data_prep.read.find import find_studies
from data_prep.vocabulary import Flag
from pipeline.grade import Pipeline
from pipeline.quiet import silence_libraries
from pipeline.results.dicom.write import DicomResults
from pipeline.service.config import Peer, ServiceConfig
from pipeline.service.receiver import TOO_LONG, Receiver
from pipeline.service.sender import Sender
from pipeline.service.spool import Spool, WaitingStudy

_POLL_S = 1.0
_REFUSED_WHY = {TOO_LONG: "longer than allowed: its association was ended"}
log = logging.getLogger("lumbar.serve")


class Worker:
    """The grading side; ``run`` returns when ``stop`` is set."""

    def __init__(
        self, config: ServiceConfig, spool: Spool, pipeline: Pipeline, new_results: threading.Event
    ) -> None:
        self._config, self._spool, self._pipeline = config, spool, pipeline
        self._results = DicomResults(config.objects)
        self._new_results = new_results

    def run(self, stop: threading.Event) -> None:
        """Grade until told to stop; the study in hand is finished first."""
        pause_s = _POLL_S
        while not stop.wait(pause_s):
            try:
                self.grade_settled(stop)
                self._spool.clean(self._config.keep_s)
                pause_s = _POLL_S
            except OSError as error:  # a full disk may be emptied again
                pause_s = min(max(2 * pause_s, self._config.retry_s), self._config.max_retry_s)
                reason = error.strerror or type(error).__name__
                log.error(
                    "the spool cannot be used (%s): studies wait, next try in %.0f s; what to do: make room "
                    "on its disk, which must be writable",
                    reason,
                    pause_s,
                )
            except Exception as error:  # the service outlives whatever a study may do
                log.error("internal failure (%s)", type(error).__name__)

    def grade_settled(self, stop: threading.Event | None = None) -> None:
        """Grade every study that has settled.

        Raises:
            OSError: of the first study for which the disk failed; the others were done.
        """
        failed: OSError | None = None
        for study in self._spool.settled(self._config.quiet_s):
            if stop is not None and stop.is_set():
                return
            try:
                self._grade(study)
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _grade(self, study: WaitingStudy) -> None:
        if study.attempts >= self._config.max_attempts:
            log.error("%s: given up after %d attempts", study.key, study.attempts)
            self._spool.finish(study, "failed")
            return
        self._spool.begin(study)
        log.info("%s: grading %d images", study.key, len(study.instances))
        try:
            outcome, results = self._graded(study)
            self._spool.finish(study, outcome, results)
        except OSError:
            self._spool.postpone(study)  # no fault of the study
            raise
        except Exception as error:  # its message may quote a header
            log.error("%s: grading failed (%s)", study.key, type(error).__name__)
            return
        self._new_results.set()
        log.info("%s: %s, %d results to send", study.key, outcome, len(results))

    def _graded(self, waiting: WaitingStudy) -> tuple[str, tuple[Dataset, ...]]:
        """What became of a study, and its results."""
        try:
            entries = find_studies(waiting.images)
        except DicomRejected as rejected:
            _list(waiting.key, (*rejected.rejections, rejected.rejection))
            return "unreadable", ()
        # One StudyInstanceUID may hold images of two patients: each gets results of their own.
        outcomes: list[str] = []
        results: list[Dataset] = []
        for entry in entries:
            outcome, built = self._graded_entry(waiting, entry)
            outcomes.append(outcome)
            results += built
        return ", ".join(dict.fromkeys(outcomes)), tuple(results)

    def _graded_entry(self, waiting: WaitingStudy, entry: StudyEntry) -> tuple[str, tuple[Dataset, ...]]:
        """What became of one patient's images, and the results."""
        log.info("%s: study %s", waiting.key, printable(entry.study_id))
        if waiting.is_incomplete:
            log.warning("%s: images may be missing, and the results say so", waiting.key)
            refused = [
                Rejection(
                    Reason.IMAGE_REFUSED,
                    _REFUSED_WHY.get(why, f"refused with status 0x{why}"),
                    entry.study_id,
                )
                for why in waiting.refused_why
            ]
            entry = replace(
                entry,
                flags=(*entry.flags, Flag.TRANSFER_INCOMPLETE),
                rejections=(*entry.rejections, *refused),
            )
        prediction, study = self._pipeline.predict_entry(entry)
        _list(waiting.key, prediction.rejections)
        if study is None or prediction.rejected:
            return "rejected", ()
        if not any(grade.source.is_graded for grade in prediction.grades.values()):
            log.info("%s: flags %s", waiting.key, ", ".join(prediction.flags) or "none")
            return "nothing to grade", ()
        try:
            return "graded", self._results.build(study, prediction)
        except DicomRejected as refused:
            _list(waiting.key, (refused.rejection,))
            return "refused", ()


def _list(key: str, rejections: Sequence[Rejection]) -> None:
    """Reason codes, how often, and what to do: file names of the spool would tell nobody anything."""
    counts = Counter((rejection.standing, rejection.reason) for rejection in rejections)
    for (standing, reason), count in counts.items():
        log.warning("%s: %s [%s] × %d; what to do: %s", key, standing, reason.value, count, reason.advice)


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
