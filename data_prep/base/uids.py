"""Unique identifiers: what can be taken for one as it comes, and those derived from what they stand for."""

from __future__ import annotations

import re
import uuid

_NUMBERS, _ROOTED_UID = re.compile(r"[0-9]+(\.[0-9]+)*"), re.compile(r"0*[012](\.[0-9]+)+")
_MAX_LENGTH = 64
# Any fixed value will do; another one would give every derived identifier another value.
_NAMESPACE = uuid.UUID("7f4df2ea-63a5-4a8e-9d1c-25a1d7f0b6c3")


def is_usable_uid(text: str, *, rooted: bool = False) -> bool:
    """Whether a text can be taken for a UID as it comes: digits and dots within the length of one.

    Scanners write components with leading zeros, which PS3.5 forbids; an archive files by them all the same.

    Args:
        rooted: it must have one of the roots 0, 1 and 2 and something below it.
    """
    pattern = _ROOTED_UID if rooted else _NUMBERS
    return len(text) <= _MAX_LENGTH and bool(pattern.fullmatch(text))


def derived_uid(*parts: str) -> str:
    """The UID of these parts, below 2.25 (PS3.5 section B.2): a name-based UUID (RFC 9562 section 5.5)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(parts)).int}"
