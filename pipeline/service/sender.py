"""The sending side: results go to the destination until it confirms each of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE

from pipeline.service.config import Peer, ServiceConfig
from pipeline.service.dicomweb import Archive, ArchiveFailed, store
from pipeline.service.spool import Spool

log = logging.getLogger("lumbar.serve")

_SOP_CLASSES = (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
)
_TIMEOUT_S = 30
_IDLE_S = 5.0


class Sender:
    """The sending side; ``run`` returns when ``stop`` is set."""

    def __init__(self, config: ServiceConfig, spool: Spool, new_results: threading.Event) -> None:
        self._config, self._spool, self._new_results = config, spool, new_results
        self._ae = AE(ae_title=config.ae_title)
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = _TIMEOUT_S
        self._ae.connection_timeout = _TIMEOUT_S
        for sop_class in _SOP_CLASSES:
            self._ae.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])

    def run(self, stop: threading.Event) -> None:
        """Deliver until told to stop. After a failure, wait twice as long as before, up to a limit."""
        wait_s = self._config.retry_s
        while not stop.is_set():
            self._new_results.clear()
            left = self.deliver(stop)
            if left:
                log.warning("%d results wait for %s", left, self._config.destination.name)
                stop.wait(wait_s)
                wait_s = min(2 * wait_s, self._config.max_retry_s)
            else:
                wait_s = self._config.retry_s
                self._new_results.wait(_IDLE_S)

    def deliver(self, stop: threading.Event | None = None) -> int:
        """Send what waits. Returns how many results still do."""
        try:
            paths = self._spool.waiting_results()
            if paths:
                self._send(paths, stop)
            return len(self._spool.waiting_results())
        except Exception as error:  # its message may quote a header
            log.error("delivery failed (%s)", type(error).__name__)
            return 1

    def _send(self, paths: Sequence[Path], stop: threading.Event | None) -> None:
        destination = self._config.destination
        if isinstance(destination, Archive):
            self._stow(destination, paths, stop)
        else:
            self._c_store(destination, paths, stop)

    def _stow(self, archive: Archive, paths: Sequence[Path], stop: threading.Event | None) -> None:
        for path in paths:
            if stop is not None and stop.is_set():
                return
            if (result := _read(path)) is None:
                continue
            try:
                store(archive, result)
            except ArchiveFailed as failed:
                log.warning("%s: not taken (%s)", path.stem, failed)
                if failed.is_unreachable:
                    return
                continue
            self._spool.delivered(path)
            log.info("%s: delivered", path.stem)

    def _c_store(self, peer: Peer, paths: Sequence[Path], stop: threading.Event | None) -> None:
        tls = None if peer.tls is None else (peer.tls.to_send(), peer.host)
        association = self._ae.associate(peer.host, peer.port, ae_title=peer.ae_title, tls_args=tls)
        if not association.is_established:
            return
        try:
            for path in paths:
                if not association.is_established or (stop is not None and stop.is_set()):
                    return
                if (result := _read(path)) is None:
                    continue
                # A result that the destination does not take must not keep it from the others.
                try:
                    status = association.send_c_store(result)
                except ValueError:
                    log.warning("the destination does not accept this kind of object")
                    continue
                code = status.get("Status")
                # Warnings (PS3.4 table B.2-1) mean that it was stored.
                if code == 0 or (code is not None and code & 0xF000 == 0xB000):
                    self._spool.delivered(path)
                    log.info("%s: delivered", path.stem)
                    if code:
                        log.warning(
                            "%s: the destination changed or dropped elements (0x%04X)", path.stem, code
                        )
                else:
                    shown = "no answer" if code is None else f"status 0x{code:04X}"
                    log.warning("%s: not taken (%s)", path.stem, shown)
        finally:
            if association.is_established:
                association.release()


def _read(path: Path) -> Dataset | None:
    """A result that waits; None for one that a bad disk has spoilt, which must not keep back the others."""
    try:
        return pydicom.dcmread(path)
    except Exception as error:  # its message may quote a header
        log.error("%s: the result cannot be read (%s)", path.stem, type(error).__name__)
        return None
