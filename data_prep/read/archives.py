"""Zip archives as input: unpacked within bounds, under names of our own.

``zipfile`` keeps members inside the folder, but it unpacks whatever they grow to: every bound is checked
while the bytes arrive, whatever the archive claims. Layout: PKWARE APPNOTE 6.3, sections 4.3.12–4.3.16.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from data_prep.names import input_label, safe_id
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.listing import (
    DICOM,
    DIRECTORY,
    LOOKED_AT_BYTES,
    Others,
    Spoilt,
    format_of_content,
    is_hidden,
    may_be_image,
)
from data_prep.read.own import is_picture_of

_CHUNK_BYTES = 1024 * 1024
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED_BIT = 0x1
_ANY_DEPTH, _MOST_BYTES = 65_536, 1 << 32
# The end of central directory record has 22 bytes and a comment of at most 65,535.
_END_BYTES, _END_SIGNATURE = 22, b"PK\x05\x06"
_LOCATOR_BYTES, _LOCATOR_SIGNATURE = 20, b"PK\x06\x07"
_END64_BYTES, _END64_SIGNATURE = 56, b"PK\x06\x06"
# What the plain record says where that of zip64 has the number.
_IN_ZIP64 = 0xFFFFFFFF
_UNPACKED_NAMES = (".dcm", ".csv", ".nii", ".nii.gz", ".json")
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    IndexError,
)


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold and grow to.

    Attributes:
        max_members: entries, folders among them. The largest RSNA study has some 500 slices.
        max_directory_bytes: of the central directory, which is read into memory as a whole.
        max_member_bytes: of one file, unpacked.
        max_total_bytes: of all files, unpacked.
        max_depth: folders around a file.
    """

    max_members: int = 200_000
    max_directory_bytes: int = 32 * 1024 * 1024
    max_member_bytes: int = 128 * 1024 * 1024
    max_total_bytes: int = 16 * 1024 * 1024 * 1024
    max_depth: int = 16


DEFAULT_ARCHIVE_LIMITS = ArchiveLimits()


def is_archive(path: Path) -> bool:
    """Whether a path is a regular file that is, or by its name claims to be, a zip archive."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".zip":
        return True
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", _END_SIGNATURE)


def safe_parts(name: str, max_depth: int) -> tuple[str, ...] | None:
    """The parts of a member's name as names of our own; None for what is never read.

    Numbers, UIDs and other plain names stay, so that the RSNA layout is still seen; everything else is
    replaced (``safe_id``), so that no part can lead out of a folder, hide, or name a device.
    """
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".", "..")]
    if not parts or len(parts) > max_depth:
        return None
    if any(map(is_hidden, parts)):
        return None
    stem, dot, suffix = parts[-1].rpartition(".")
    last = (
        f"{safe_id(stem)}.{suffix}" if dot and suffix.isalnum() and suffix.isascii() else safe_id(parts[-1])
    )
    return (*(safe_id(part) for part in parts[:-1]), last)


def extract_archive(
    path: Path,
    folder: Path,
    *,
    limits: ArchiveLimits = DEFAULT_ARCHIVE_LIMITS,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Rejection, ...]:
    """Unpack the DICOM files, NIfTI volumes and tables of a zip archive.

    Other files are passed over, as they are in a folder. Links are never followed or made. Files get the
    time of change of the archive, so that a batch that is started again finds the same input.

    Args:
        folder: made here; must not exist or be empty.
        progress: called with members done and in all.

    Returns:
        The members that were refused, each with its reason.

    Raises:
        DicomRejected: ``bad_archive``, or ``archive_too_large`` for too many members or bytes in all.
    """
    name = input_label(path.name)
    try:
        _check_directory(path, limits)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > limits.max_members:
                raise _too_large(name, f"{len(members)} members; the limit is {limits.max_members}")
            folder.mkdir(parents=True, exist_ok=True)
            changed = path.stat().st_mtime_ns
            return _extract_members(archive, members, folder, name, limits, changed, progress)
    except _BROKEN as error:
        message = f"{name!r} is no zip archive that can be read ({type(error).__name__})"
        raise DicomRejected(Rejection(Reason.BAD_ARCHIVE, message)) from None


def _extract_members(
    archive: zipfile.ZipFile,
    members: list[zipfile.ZipInfo],
    folder: Path,
    name: str,
    limits: ArchiveLimits,
    changed_ns: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[Rejection, ...]:
    rejections: list[Rejection] = []
    others, spoilt = Others(), Spoilt()
    left = limits.max_total_bytes
    there = {folder.joinpath(*parts) for m in members if (parts := safe_parts(m.filename, limits.max_depth))}
    for done, member in enumerate(members, 1):
        if progress is not None:
            progress(done, len(members))
        if member.is_dir():
            continue
        parts = safe_parts(member.filename, limits.max_depth)
        if parts is None:
            note_left_out(member.filename, _start_of(archive, member), others, limits)
            continue
        target = folder.joinpath(*parts)
        refusal = _refusal(member, target, limits)
        if refusal is None:
            try:
                with archive.open(member) as source:
                    start = source.read(LOOKED_AT_BYTES)
                    looks = format_of_content(start, target.name, member.file_size)
                    if looks in (DICOM, DIRECTORY) or target.name.lower().endswith(_UNPACKED_NAMES):
                        left -= _copy(start, source, target, min(limits.max_member_bytes, left))
                        spoilt.beside.add(target.parent)
                        os.utime(target, ns=(changed_ns, changed_ns))
                    elif looks:
                        if not is_picture_of(target, there):
                            others.note(target, looks)
                    elif may_be_image(target.name):
                        spoilt.note(target, start)
                    else:
                        left -= len(start)
                continue
            except _Grows:
                target.unlink(missing_ok=True)
                if left <= limits.max_member_bytes:
                    raise _too_large(
                        name, f"it unpacks to more than {limits.max_total_bytes} bytes in all"
                    ) from None
                left -= limits.max_member_bytes
                refusal = Reason.TOO_LARGE, f"it unpacks to more than {limits.max_member_bytes} bytes"
            except _BROKEN as error:
                target.unlink(missing_ok=True)
                refusal = Reason.UNREADABLE, f"it cannot be unpacked ({type(error).__name__})"
        reason, message = refusal
        rejections.append(Rejection(reason, message, file=input_label(parts[-1])))
    spoilt.tell(others)
    return (*rejections, *(rejection for _, rejection in others.rejections))


def note_left_out(
    name: str, start: bytes, others: Others, limits: ArchiveLimits = DEFAULT_ARCHIVE_LIMITS
) -> None:
    """Note a file that ``safe_parts`` has no place for, if it lies too deep or begins like an image."""
    path = PurePosixPath(name.replace("\\", "/"))
    if safe_parts(name, _ANY_DEPTH):
        looks = f"file below more than {limits.max_depth - 1} folders"
        others.note(Path(path), looks, Reason.MISPLACED)
    elif format_of_content(start, "", _MOST_BYTES) == DICOM:
        others.note(Path(path), "hidden DICOM file")


def _start_of(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(member) as source:
            return source.read(LOOKED_AT_BYTES)
    except _BROKEN:
        return b""


class _Grows(Exception):
    """A member that unpacks to more than it may."""


def _refusal(member: zipfile.ZipInfo, target: Path, limits: ArchiveLimits) -> tuple[Reason, str] | None:
    """Why a member is not unpacked at all, from what the directory says of it."""
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return Reason.LINK, "a link or device in an archive is never followed"
    if member.flag_bits & _ENCRYPTED_BIT:
        return Reason.ENCRYPTED, "it is encrypted"
    if member.compress_type not in _METHODS:
        return Reason.UNREADABLE, f"compression method {member.compress_type} is not supported"
    if target.suffix.lower() == ".zip":
        return Reason.NESTED_ARCHIVE, "an archive within an archive is not read"
    if member.file_size > limits.max_member_bytes:
        return Reason.TOO_LARGE, f"{member.file_size} bytes; the limit is {limits.max_member_bytes} bytes"
    if target.exists() or any(parent.is_file() for parent in target.parents):
        return Reason.DUPLICATE, "another member has the same name"
    return None


def _copy(start: bytes, source: IO[bytes], target: Path, limit: int) -> int:
    """Write a member, of which the start was read; returns the bytes that were unpacked. Raises _Grows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unpacked = 0
    with target.open("xb") as file:
        while start:
            unpacked += len(start)
            if unpacked > limit:
                raise _Grows
            file.write(start)
            start = source.read(_CHUNK_BYTES)
    return unpacked


def _check_directory(path: Path, limits: ArchiveLimits) -> None:
    """Refuse a central directory that would fill the memory, before ``zipfile`` reads it as a whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _END_BYTES - 0xFFFF))
        tail = file.read()
        at = tail.rfind(_END_SIGNATURE)
        if at < 0 or len(tail) - at < _END_BYTES:
            raise zipfile.BadZipFile("no end of central directory")
        (plain,) = struct.unpack("<I", tail[at + 12 : at + 16])
        told = [] if plain == _IN_ZIP64 else [plain]
        end = size - len(tail) + at
        if end >= _LOCATOR_BYTES:
            file.seek(end - _LOCATOR_BYTES)
            locator = file.read(_LOCATOR_BYTES)
            if locator.startswith(_LOCATOR_SIGNATURE):
                file.seek(struct.unpack("<Q", locator[8:16])[0])
                record = file.read(_END64_BYTES)
                # `zipfile` looks right before the locator; whichever of the two is larger counts.
                file.seek(max(0, end - _LOCATOR_BYTES - _END64_BYTES))
                for found in (record, file.read(_END64_BYTES)):
                    if found.startswith(_END64_SIGNATURE) and len(found) == _END64_BYTES:
                        told += struct.unpack("<Q", found[40:48])
    directory = max(told, default=plain)
    if directory > limits.max_directory_bytes:
        raise _too_large(
            input_label(path.name),
            f"its directory has {directory} bytes; the limit is {limits.max_directory_bytes} bytes",
        )


def _too_large(name: str, message: str) -> DicomRejected:
    return DicomRejected(Rejection(Reason.ARCHIVE_TOO_LARGE, f"{name!r}: {message}"))
