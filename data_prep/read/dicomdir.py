"""What a DICOMDIR says should lie beside it; nothing is read by way of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from data_prep.problems import Reason, Rejection

_MAX_BYTES = 64 * 1024 * 1024
# Directory Record Type IMAGE and Referenced File ID, which follows it (PS3.3 section F.5); DICOMDIRs are in
# Explicit VR Little Endian, so the two are found without parsing what is around them.
_IMAGE = re.compile(rb"\x04\x00\x30\x14CS\x06\x00IMAGE \x04\x00\x00\x15CS(..)", re.DOTALL)
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def is_dicomdir(path: Path) -> bool:
    """Whether a file is called so."""
    return path.name.lower() == "dicomdir"


def missing_images(path: Path, files: Iterable[Path]) -> Rejection | None:
    """What is to be said of a DICOMDIR that names images which are not there; None if nothing.

    Nothing is said of one that none of the files belongs to.

    Args:
        files: of the tree that it lies in.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        named = set(_named(path.read_bytes()))
    except OSError:
        return None
    here = {
        tuple(part.casefold() for part in file.relative_to(path.parent).parts)
        for file in files
        if file.is_relative_to(path.parent)
    }
    missing = named - here
    if not missing or missing == named:
        return None
    message = f"it names {len(named)} images, and {len(missing)} of them are not here"
    return Rejection.of(path, Reason.LISTED_FILES, message)


def _named(content: bytes) -> Iterable[tuple[str, ...]]:
    for found in _IMAGE.finditer(content):
        size = int.from_bytes(found[1], "little")
        text = content[found.end() : found.end() + size].decode("latin-1").strip("\0 ")
        parts = text.split("\\")
        if all(map(_PART.fullmatch, parts)):
            yield tuple(part.casefold() for part in parts)
