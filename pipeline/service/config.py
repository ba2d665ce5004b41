"""What a node is called, where it listens, whom it answers, its limits, and encryption.

Of associations, sent and received: PS3.15 annex B.12, TLS 1.2 or later, as BCP 195 asks.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Any, Final

from pipeline.results.dicom import ResultObject
from pipeline.service.dicomweb import Archive

# A caller that is silent while it should greet holds its own thread for so long, and nobody else.
_GREETING_S: Final = 15.0
# PS3.5 table 6.2-1, VR AE: at most 16 printable characters, no backslash, not only spaces.
_AE_TITLE = re.compile(r"(?! *$)[\x20-\x5b\x5d-\x7e]{1,16}")
_PEER = re.compile(r"(?P<ae>[^@]+)@(?P<host>[^@]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class Tls:
    """What one side shows and whom it trusts.

    Attributes:
        authority: certificates (PEM) that sign the other side's; None: those of the system when sending, and
            any caller when receiving.
        certificate, key: shown to the other side (PEM); a key may lie in the file of its certificate.

    Raises:
        ValueError: a key without its certificate, or a file that does not hold what it should.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if self.key is not None and self.certificate is None:
            raise ValueError("a key needs the certificate that it belongs to")
        self._prepared(ssl.create_default_context())

    def to_send(self) -> ssl.SSLContext:
        """For associations that this program asks for: the other side must prove its name."""
        return self._prepared(ssl.create_default_context())

    def to_receive(self) -> ssl.SSLContext:
        """For associations that others ask for: with an authority, they must show a certificate of it."""
        context = _Receiving(ssl.PROTOCOL_TLS_SERVER)
        if self.authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return self._prepared(context)

    def _prepared(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self.authority is not None:
                context.load_verify_locations(self.authority)
            if self.certificate is not None:
                # Without a password here, the library would ask for it at the terminal.
                context.load_cert_chain(self.certificate, self.key, password=lambda: b"")
        except OSError as error:
            # Of a certificate: KEY_VALUES_MISMATCH, NO_START_LINE; of a file: why it cannot be read.
            why = getattr(error, "reason", None) or error.strerror or type(error).__name__
            said = str(why).replace("_", " ").lower()
            raise ValueError(
                f"a certificate or key cannot be used ({said}): give PEM files, with the certificate's key "
                "without a password"
            ) from None
        return context


class _Receiving(ssl.SSLContext):
    """Greets in the thread of the association: the library would let everyone wait for one silent caller."""

    def wrap_socket(self, sock: socket, *positional: Any, **keywords: Any) -> ssl.SSLSocket:
        sock.settimeout(_GREETING_S)
        return super().wrap_socket(sock, *positional, **{**keywords, "do_handshake_on_connect": False})


def checked_ae_title(text: str) -> str:
    """An AE title without spaces around it. Raises ValueError."""
    text = text.strip()
    if not _AE_TITLE.fullmatch(text):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return text


@dataclass(frozen=True)
class Peer:
    """A DICOM node to send to, encrypted where ``tls`` is given. Raises ValueError: a wrong title or port."""

    ae_title: str
    host: str
    port: int
    tls: Tls | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ae_title", checked_ae_title(self.ae_title))
        _check_port(self.port)

    @classmethod
    def parse(cls, text: str, tls: Tls | None = None) -> Peer:
        """Read ``AETITLE@host:port``. Raises ValueError."""
        found = _PEER.fullmatch(text.strip())
        if found is None:
            raise ValueError("a destination is written AETITLE@host:port")
        return cls(found["ae"], found["host"].strip("[]"), int(found["port"]), tls)

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """For the log."""
        return self.ae_title

    @property
    def is_open(self) -> bool:
        """Whether patients would travel unencrypted to another machine."""
        return self.tls is None and self.host not in ("127.0.0.1", "::1", "localhost")


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise ValueError(f"a port lies between 1 and 65535, but got {port}")


@dataclass(frozen=True)
class ServiceConfig:
    """Everything that shapes the service.

    Attributes:
        spool: folder for images and results on their way; holds patient data, so keep it to yourself.
        destination: who gets the results: a node by C-STORE, or a DICOMweb archive by STOW-RS.
        ae_title: of this node; callers must call it by this name.
        host, port: where it listens.
        tls: of associations that others ask for; None: not encrypted.
        allowed_callers: AE titles that may call; empty: any.
        quiet_s: a study is graded when no image of it has come for so long.
        max_associations: at once; more are turned away.
        max_pdu_bytes: longest PDU that is received.
        max_file_bytes: longest image; a longer one ends its association.
        max_spool_bytes: images in the spool; beyond it, senders get "out of resources" and try again later.
        keep_s: images of graded studies are kept so long, for late ones that join them.
        retry_s, max_retry_s: first and longest wait before a failed delivery is tried again.
        max_attempts: a study that ended the program so often is given up.
        objects: what is sent.

    Raises:
        ValueError: a title, port or limit that makes no sense.
    """

    spool: Path = field(repr=False)
    destination: Peer | Archive
    ae_title: str = "LUMBAR"
    host: str = "127.0.0.1"
    port: int = 11112
    tls: Tls | None = None
    allowed_callers: tuple[str, ...] = ()
    quiet_s: float = 30.0
    max_associations: int = 8
    max_pdu_bytes: int = 128 * 1024
    max_file_bytes: int = 64 * 1024 * 1024
    max_spool_bytes: int = 20 * 1024**3
    keep_s: float = 24 * 3600.0
    retry_s: float = 5.0
    max_retry_s: float = 300.0
    max_attempts: int = 3
    objects: tuple[ResultObject, ...] = (ResultObject.SR, ResultObject.SC)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ae_title", checked_ae_title(self.ae_title))
        callers = tuple(checked_ae_title(title) for title in self.allowed_callers)
        object.__setattr__(self, "allowed_callers", callers)
        _check_port(self.port)
        for name in ("max_associations", "max_file_bytes", "max_spool_bytes", "max_attempts", "retry_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, but got {getattr(self, name)}")
        if self.max_pdu_bytes < 4096:
            raise ValueError(f"max_pdu_bytes must be at least 4096, but got {self.max_pdu_bytes}")
        if min(self.quiet_s, self.keep_s) < 0 or self.max_retry_s < self.retry_s:
            raise ValueError("quiet_s and keep_s must not be negative, and max_retry_s not below retry_s")
        if self.tls is not None and self.tls.certificate is None:
            raise ValueError("a node that listens encrypted needs a certificate of its own")
        if not self.objects:
            raise ValueError("there must be something to send: --sr, --sc, --gsps or --kos")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can call."""
        return self.host in ("127.0.0.1", "::1", "localhost")
