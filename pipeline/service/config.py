"""What a node is called, where it listens, whom it answers, and its limits."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.results.dicom import ResultObject
from pipeline.service.dicomweb import Archive
from pipeline.service.tls import Tls

# PS3.5 table 6.2-1, VR AE: at most 16 printable characters, no backslash, not only spaces.
_AE_TITLE = re.compile(r"(?! *$)[\x20-\x5b\x5d-\x7e]{1,16}")
_PEER = re.compile(r"(?P<ae>[^@]+)@(?P<host>[^@]+):(?P<port>[0-9]{1,5})")


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
