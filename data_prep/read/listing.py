"""Image files of a folder or a tree, in the order that people count in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_prep.read.dicom_file import is_dicom

_IGNORED = ("__macosx", "dicomdir", "thumbs.db")


def is_number(name: str) -> bool:
    """Whether a name is a whole number, as all names of the RSNA layout are."""
    return name.isascii() and name.isdigit()


def natural_order(text: str) -> tuple[bool, int, str]:
    """Key that puts 2 before 10, and numbers before other names."""
    return (not is_number(text), int(text) if is_number(text) else 0, text)


def _sibling_order(path: Path) -> tuple[tuple[bool, int, str], str]:
    return natural_order(path.stem), path.name


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _IGNORED


def subfolders(folder: Path) -> list[Path]:
    """Folders directly in a folder, in order; none if it is not one."""
    if not folder.is_dir():
        return []
    found = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    return sorted((child for child in found if not _is_ignored(child.name)), key=_sibling_order)


def files_in(folder: Path) -> list[Path]:
    """Everything else directly in a folder, in order. Raises OSError."""
    return sorted(
        (Path(entry.path) for entry in os.scandir(folder) if not entry.is_dir()), key=_sibling_order
    )


def files_below(folder: Path, unreadable: list[Path]) -> Iterator[Path]:
    """All files of a tree; folders that cannot be listed are added to ``unreadable``."""
    try:
        files, children = files_in(folder), subfolders(folder)
    except OSError:
        unreadable.append(folder)
        return
    yield from files
    for child in children:
        if not child.is_symlink():
            yield from files_below(child, unreadable)


def image_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Files that are, or by their name claim to be, DICOM images."""
    for path in paths:
        if not _is_ignored(path.name) and (path.suffix.lower() == ".dcm" or is_dicom(path)):
            yield path
