"""Encryption of associations, sent and received (PS3.15 annex B.12: TLS 1.2 or later, as BCP 195 asks)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any, Final

# A caller that is silent while it should greet holds its own thread for so long, and nobody else.
_GREETING_S: Final = 15.0


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
