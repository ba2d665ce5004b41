"""The receiving side: C-ECHO and C-STORE, within limits, nothing kept that is no MR image."""

from __future__ import annotations

import hashlib
import io
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.events import Event
from pynetdicom.pdu import A_RELEASE_RQ
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    Verification,
    register_uid,
    uid_to_service_class,
)

from data_prep.base.uids import is_usable_uid
from data_prep.names import printable
from data_prep.read.dicom_fast import Elements
from data_prep.read.dicom_limits import DEFAULT_LIMITS, TRANSFER_SYNTAXES
from data_prep.read.dicom_parse import BoundedFile, parsed
from pipeline.service.config import ServiceConfig
from pipeline.service.spool import Spool, SpoolFull

log = logging.getLogger("lumbar.serve")

# Status codes of C-STORE: PS3.4 table B.2-1.
SUCCESS, OUT_OF_RESOURCES, NOT_THIS_CLASS, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000

_GRADED_CLASSES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")
# Anonymisers have given one SOPInstanceUID to all images of a series, and to those of two patients.
_TELLING = ("PatientID", "SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient", "EchoTime")
# An A-ASSOCIATE-RQ may name every storage class with every transfer syntax.
_MIN_LONGEST_PDU = 256 * 1024
_GREETING_TIMEOUT_S, _TIMEOUT_S = 15, 60
_LAST_ASSOCIATIONS_S = 10.0
_MAX_PRIVATE_CLASSES = 1000
# Identifiers stand before this in the data set of an image.
_START_BYTES = 64 * 1024
# Why an image that ended its association was refused, instead of a status.
TOO_LONG = "size"


@dataclass
class _Transfer:
    """What one association has brought: study and series of its images.

    Attributes:
        series: of all its images.
        last: that of the last image, which came at ``touched_s``.
        unplaced: images that were refused before any study was known: identifier, and why.
    """

    series: set[tuple[str, str]] = field(default_factory=set)
    last: tuple[str, str] | None = None
    touched_s: float = 0.0
    unplaced: list[tuple[str, str]] = field(default_factory=list)

    def begin(self, series: tuple[str, str]) -> None:
        """An image of a series has come."""
        self.series.add(series)
        self.last, self.touched_s = series, time.monotonic()


class Receiver:
    """Listens from ``start`` until ``stop``."""

    def __init__(self, config: ServiceConfig, spool: Spool) -> None:
        self._config, self._spool = config, spool
        self._received: dict[int, int] = {}
        self._starts: dict[int, bytes] = {}
        self._dropped: dict[int, int] = {}
        self._transfers: dict[int, _Transfer] = {}
        self._private_classes: set[str] = set()
        self._server: Any = None
        self._ae = AE(ae_title=config.ae_title)
        self._ae.require_called_aet = True
        self._ae.require_calling_aet = list(config.allowed_callers)
        self._ae.maximum_associations = config.max_associations
        self._ae.maximum_pdu_size = config.max_pdu_bytes
        self._ae.acse_timeout = _GREETING_TIMEOUT_S
        self._ae.dimse_timeout = self._ae.network_timeout = _TIMEOUT_S
        self._ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            # All, because a sender that forwards a study gives up when one of its objects is not taken.
            self._ae.add_supported_context(str(context.abstract_syntax), list(TRANSFER_SYNTAXES))

    def start(self) -> None:
        """Listen, in threads of their own. Raises OSError: the port is taken."""
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._bound_pdus),
            (evt.EVT_CONN_CLOSE, self._forget),
            (evt.EVT_REQUESTED, self._support_private_classes),
            (evt.EVT_ACCEPTED, self._log_refused_contexts),
            (evt.EVT_REJECTED, self._log_refused),
            (evt.EVT_ABORTED, self._break_off),
            (evt.EVT_PDU_RECV, self._count),
            (evt.EVT_C_STORE, self._store),
        ]
        address = (self._config.host, self._config.port)
        tls = None if self._config.tls is None else self._config.tls.to_receive()
        self._server = self._ae.start_server(address, block=False, evt_handlers=handlers, ssl_context=tls)

    def stop(self) -> None:
        """Take no new association, give those that run a moment, then end them: senders try again."""
        self._server.shutdown()
        until = time.monotonic() + _LAST_ASSOCIATIONS_S
        while any(one.is_established for one in self._ae.active_associations) and time.monotonic() < until:
            time.sleep(0.1)
        self._ae.shutdown()

    def _bound_pdus(self, event: Event) -> None:
        """Refuse a PDU that claims to be longer than was agreed: the library would read up to 4 GiB."""
        connection: Any = event.assoc.dul.socket
        longest, receive = max(self._config.max_pdu_bytes, _MIN_LONGEST_PDU), connection.recv

        def bounded(count: int) -> bytearray:
            if count > longest:
                log.warning("a PDU of %d bytes was refused; the limit is %d", count, longest)
                raise OSError("PDU too long")
            received: bytearray = receive(count)
            return received

        connection.recv = bounded

    def _forget(self, event: Event) -> None:
        self._received.pop(id(event.assoc), None)
        self._starts.pop(id(event.assoc), None)
        dropped = self._dropped.pop(id(event.assoc), 0)
        if dropped:
            log.info("%d objects that are no MR images were taken and dropped", dropped)

    def _support_private_classes(self, event: Event) -> None:
        """Take storage classes that nobody knows: who forwards a study stops at the first refusal.

        Whatever is no known service is taken for storage, in any transfer syntax. Nothing of it is kept.
        """
        acceptor: Any = event.assoc.acceptor
        asked: Any = event.assoc.requestor.primitive
        known = {str(context.abstract_syntax) for context in acceptor.supported_contexts}
        added = []
        for context in asked.presentation_context_definition_list:
            uid = str(context.abstract_syntax)
            if uid in known or uid_to_service_class(uid) not in (ServiceClass, StorageServiceClass):
                continue
            if uid not in self._private_classes:
                if len(self._private_classes) >= _MAX_PRIVATE_CLASSES:
                    continue
                keyword = f"Unknown{hashlib.sha256(uid.encode()).hexdigest()[:16]}"
                register_uid(uid, keyword, StorageServiceClass)
                self._private_classes.add(uid)
            known.add(uid)
            added.append(build_context(uid, [str(syntax) for syntax in context.transfer_syntax]))
        acceptor.supported_contexts = [*acceptor.supported_contexts, *added]

    def _log_refused(self, event: Event) -> None:
        asked: Any = event.assoc.requestor.primitive
        called, caller = (
            printable(str(title)).strip() for title in (asked.called_ae_title, asked.calling_ae_title)
        )
        own = self._config.ae_title
        log.warning("an association from %r to %r was refused; this node is %r", caller, called, own)

    def _log_refused_contexts(self, event: Event) -> None:
        refused = event.assoc.rejected_contexts
        if refused:
            classes = ", ".join(sorted({str(context.abstract_syntax) for context in refused})[:5])
            log.warning("%d kinds of objects or encodings were not accepted: %s", len(refused), classes)

    def _end_as_it_should(self, event: Event) -> None:
        transfer = self._ended(event)
        for study_uid, series_uid in transfer.series:
            self._spool.note_whole(study_uid, series_uid)

    def _break_off(self, event: Event) -> None:
        """Aborted by either side, or the connection was lost: of the series in hand images may be missing."""
        log.warning("an association was aborted: images may be missing")
        transfer = self._ended(event)
        # Long after the last image, a sender that keeps its association for the next study was ended.
        if (
            transfer.last is not None
            and time.monotonic() - transfer.touched_s < _TIMEOUT_S - _GREETING_TIMEOUT_S
        ):
            self._spool.note_cut(*transfer.last)

    def _ended(self, event: Event) -> _Transfer:
        """What an association has brought that is over."""
        transfer = self._transfers.pop(id(event.assoc), _Transfer())
        for study_uid in {study_uid for study_uid, _ in transfer.series}:
            self._spool.end_arriving(study_uid)
        return transfer

    def _count(self, event: Event) -> None:
        """End an association whose message grows beyond the limit, while it grows; see one released."""
        if isinstance(event.pdu, A_RELEASE_RQ):
            self._end_as_it_should(event)
        for item in getattr(event.pdu, "presentation_data_value_items", ()):
            value = item.presentation_data_value
            before = self._received.get(id(event.assoc), 0)
            if before > self._config.max_file_bytes:
                return  # it is being ended
            length = before + len(value)
            # Of the message control header bit 0: of a command; bit 1: the last fragment (PS3.8 annex E.2).
            control = value[0] if value[:1] else 0
            self._received[id(event.assoc)] = 0 if control & 2 else length
            if control & 1:
                self._starts[id(event.assoc)] = b""
            elif len(start := self._starts.get(id(event.assoc), b"")) < _START_BYTES:
                self._starts[id(event.assoc)] = start + value[1:]
            if length > self._config.max_file_bytes:
                log.warning("an object beyond %d bytes was refused", self._config.max_file_bytes)
                study_uid, sop_uid, image = self._named(event, item.presentation_context_id)
                self._refuse(event, sop_uid, TOO_LONG, study_uid, image)
                event.assoc.abort()
                return

    def _named(self, event: Event, context_id: int) -> tuple[str, str, bytes]:
        """Study and identity of an image of which the start is here; empty where that does not tell them."""
        syntax = next(
            (
                context.transfer_syntax[0]
                for context in event.assoc.accepted_contexts
                if context.context_id == context_id and context.transfer_syntax
            ),
            "",
        )
        try:
            meta = create_file_meta(
                sop_class_uid=MRImageStorage, sop_instance_uid=UID("1.2"), transfer_syntax=UID(syntax)
            )
            content = b"\0" * 128 + b"DICM" + encode_file_meta(meta) + self._starts[id(event.assoc)]
            return _identity_of(_header_of(content))
        except Exception:  # foreign code may quote the header
            return "", "", b""

    def _refuse(self, event: Event, sop_uid: str, why: str, study_uid: str = "", image: bytes = b"") -> None:
        """Note with its study that an image is turned away; of an unknown one, with that of its neighbour."""
        transfer = self._transfers.setdefault(id(event.assoc), _Transfer())
        if not study_uid and transfer.last is not None:
            study_uid = transfer.last[0]
        if study_uid:
            self._spool.note_refused(study_uid, sop_uid, why, image)
        else:
            transfer.unplaced.append((sop_uid, why))

    def _store(self, event: Event) -> int:
        """Keep an MR image; acknowledge and drop anything else. Never raises."""
        try:
            return self._kept(event)
        except SpoolFull:
            log.warning("the spool is full: an image was turned away")
        except OSError as error:
            log.error("an image could not be written (%s)", error.strerror or type(error).__name__)
        except Exception as error:  # foreign code may quote the header
            log.warning("an object was not understood (%s)", type(error).__name__)
            request: Any = event.request
            self._refuse(event, str(request.AffectedSOPInstanceUID), f"{NOT_UNDERSTOOD:04X}")
            return NOT_UNDERSTOOD
        return OUT_OF_RESOURCES

    def _kept(self, event: Event) -> int:
        request: Any = event.request
        if request.AffectedSOPClassUID not in _GRADED_CLASSES:
            self._dropped[id(event.assoc)] = self._dropped.get(id(event.assoc), 0) + 1
            return SUCCESS
        content = event.encoded_dataset()
        header = _header_of(content)
        study_uid, sop_uid, image = _identity_of(header)
        announced = str(request.AffectedSOPInstanceUID).strip(" \0")
        status = SUCCESS
        if header.get("SOPClassUID", request.AffectedSOPClassUID) != request.AffectedSOPClassUID:
            status = NOT_THIS_CLASS
        elif not study_uid or sop_uid != announced:
            status = NOT_UNDERSTOOD
        if status != SUCCESS:
            log.warning(
                "an image was refused (0x%04X): no StudyInstanceUID, or not the class or UID announced",
                status,
            )
            self._refuse(event, announced, f"{status:04X}", study_uid, image)
            return status
        transfer = self._transfers.setdefault(id(event.assoc), _Transfer())
        series = (study_uid, str(header.get("SeriesInstanceUID") or ""))
        if study_uid not in {known for known, _ in transfer.series}:
            self._spool.begin_arriving(study_uid)
        transfer.begin(series)
        for unplaced in transfer.unplaced:
            self._spool.note_refused(study_uid, *unplaced)
        transfer.unplaced.clear()
        try:
            self._spool.store(study_uid, sop_uid, content, image)
        except (SpoolFull, OSError):
            self._refuse(event, sop_uid, f"{OUT_OF_RESOURCES:04X}", study_uid, image)
            raise
        return SUCCESS


def _header_of(content: bytes) -> Dataset:
    """What tells an image, of a file of it, or of its start."""
    try:
        with BoundedFile(io.BytesIO(content), DEFAULT_LIMITS) as file:
            return parsed(file, (*_IDENTIFIERS, *_TELLING), DEFAULT_LIMITS, stop_before_pixels=True)[0]
    except OSError as error:  # pydicom's word for bytes that end too early: no fault of the disk
        raise EOFError from error


def _identity_of(header: Dataset) -> tuple[str, str, bytes]:
    """Study, if it is usable, SOPInstanceUID, and what tells two images of that from each other."""
    study_uid, sop_uid = (
        str(header.get(k) or "").strip(" \0") for k in ("StudyInstanceUID", "SOPInstanceUID")
    )
    elements = Elements(header)
    image = b"\\".join(elements.raw(keyword).strip(b" \0") for keyword in _TELLING)
    return study_uid if is_usable_uid(study_uid) else "", sop_uid, image
