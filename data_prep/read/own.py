"""What the program itself has written: an output folder may lie in its input, or be it.

Its results are told from images by what they are, never by the name of a folder alone: a patient's folder may
be called ``sc`` or ``reports``, and hold images beside them.
"""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path
from typing import Final

MANUFACTURER: Final = "lumbar (open source)"
# Without what is in every header before it, Manufacturer comes within the first few hundred bytes.
_LOOKED_AT_BYTES = 4096
_MANUFACTURER_TAG = b"\x08\x00\x70\x00"
_LONGEST_HEAD = 8
_TABLES = ("predictions.json", "submission.csv")
_PICTURES = "pictures"
_DICOM_FOLDERS = {"sr", "sr-comprehensive", "sc", "gsps", "kos"}
_FOLDERS = _DICOM_FOLDERS | {"reports", _PICTURES, "studies", "bids"}
_RECORD = b'{"marker": "'
# What pictures and reports say of themselves, near their start.
_MARKS = {".png": b"tEXtSoftware\0lumbar", ".html": b", lumbar report</title>"}


def is_own(path: Path) -> bool:
    """Whether a file is a result of the program, where it writes it: a DICOM object or a picture."""
    if not may_be_own(path):
        return False
    if path.parent.name == _PICTURES:
        return path.suffix == ".png" and _record_of(path).is_file()
    try:
        with path.open("rb") as file:
            return names_the_program(file.read(_LOOKED_AT_BYTES))
    except OSError:
        return False


def is_result(path: Path) -> bool:
    """Whether a DICOM object, a picture or a report says of itself that the program wrote it."""
    try:
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT_BYTES)
    except OSError:
        return False
    mark = _MARKS.get(path.suffix)
    return names_the_program(start) if mark is None else mark in start


def may_be_own(path: Path) -> bool:
    """Whether a file lies where the program writes DICOM objects or pictures, by the names of its folders."""
    folder = path.parent
    return folder.name == _PICTURES or folder.name in _DICOM_FOLDERS or folder.parent.name == "gsps"


def is_picture_of(path: Path, members: Container[Path]) -> bool:
    """Whether a member of an archive is a picture by the program, the record of its study beside it."""
    return path.parent.name == _PICTURES and path.suffix == ".png" and _record_of(path) in members


def _record_of(picture: Path) -> Path:
    return picture.parent.parent / "studies" / f"{picture.stem}.json"


def names_the_program(start: bytes) -> bool:
    """Whether the first bytes of a DICOM file name the program as the manufacturer."""
    at = start.find(_MANUFACTURER_TAG)
    value = start[at : at + len(_MANUFACTURER_TAG) + _LONGEST_HEAD + len(MANUFACTURER)]
    return at >= 0 and MANUFACTURER.encode() in value


def is_output(folder: Path) -> bool:
    """Whether the program has written its results there, or the first of them before it was killed."""
    if all((folder / name).is_file() for name in _TABLES):
        return True
    try:
        with os.scandir(folder / "studies") as entries:
            first = next((entry.path for entry in entries if entry.name.endswith(".json")), "")
    except OSError:
        return False
    return bool(first) and is_record(Path(first))


def is_record(path: Path) -> bool:
    """Whether a file is what the program writes of a study that is done."""
    try:
        with path.open("rb") as file:
            return file.read(len(_RECORD)) == _RECORD
    except OSError:
        return False


def is_of_output(folder: Path) -> bool:
    """Whether a folder is an output folder, or one that the program made in one: no study by itself."""
    return is_output(folder) or (folder.name in _FOLDERS and is_output(folder.parent))
