"""What a user names, as a folder to look for studies in: a folder, a zip, a folder with zips in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from data_prep.base.files import remove_abandoned, temporary_folder
from data_prep.names import folder_id
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.archives import DEFAULT_ARCHIVE_LIMITS, extract_archive, is_archive
from data_prep.read.listing import files_below, is_shadow
from data_prep.read.series_table import IMAGE_FOLDERS, SERIES_TABLES

_TABLES_UP = 3
_UNPACKED = "lumbar-zip-"


@contextmanager
def opened_input(
    path: Path, *, progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[Path, tuple[Rejection, ...]]]:
    """A folder to look for studies in: the path itself or, for a zip, a temporary folder with its files.

    For a folder with zips in it, that is a temporary folder of links in which each zip is a folder.

    Args:
        progress: called with members done and in all while an archive is unpacked.

    Yields:
        The folder, and the members of the archive that were refused. The folder is removed afterwards.

    Raises:
        DicomRejected: no archive in spite of its name, or one beyond the limits.
    """
    inside = () if is_archive(path) else archives_in(path)
    if not inside and not is_archive(path):
        yield path, ()
        return
    remove_abandoned(_UNPACKED)
    with temporary_folder(_UNPACKED) as temporary:
        if inside:
            folder, rejections = _unpacked_in_place(path, inside, temporary, progress)
        else:
            # A study's id may be the name of its folder, so that of the archive takes its place.
            folder = temporary / folder_id(path.stem)
            rejections = extract_archive(path, folder, progress=progress)
            folder = inner_folder(folder)
        try:
            yield folder, rejections
        except DicomRejected as rejected:
            if rejected.rejection.reason is not Reason.NO_IMAGES:
                raise
            # Nothing was found, perhaps because of these.
            raise DicomRejected(rejected.rejection, (*rejections, *rejected.rejections)) from None


def archives_in(path: Path) -> tuple[Path, ...]:
    """The zips of a folder, by their names; none of a file."""
    if not path.is_dir():
        return ()
    zips = (file for file in files_below(path, []) if file.suffix.lower() == ".zip")
    return tuple(file for file in zips if is_archive(file) and not is_shadow(file))


def _unpacked_in_place(
    path: Path,
    archives: tuple[Path, ...],
    temporary: Path,
    progress: Callable[[int, int], None] | None,
) -> tuple[Path, tuple[Rejection, ...]]:
    """A folder of links to what a folder holds, its zips unpacked where they lie, and what was refused."""
    path = Path(os.path.abspath(path))
    top = temporary / "around" / (path.name or "input")
    around = {folder for archive in archives for folder in archive.parents}
    _link_tree(path, top, around, frozenset(archives))
    for name in SERIES_TABLES:
        tables = (folder / name for folder in list(path.parents)[:_TABLES_UP] if (folder / name).is_file())
        if (table := next(tables, None)) is not None:
            (top.parent / name).symlink_to(table)
    rejections: list[Rejection] = []
    left = DEFAULT_ARCHIVE_LIMITS.max_total_bytes
    for number, archive in enumerate(archives):
        folder = temporary / "zips" / str(number) / (folder_id(archive.stem) or "zip")
        bounded = replace(DEFAULT_ARCHIVE_LIMITS, max_total_bytes=left)
        try:
            rejections += extract_archive(archive, folder, limits=bounded, progress=progress)
        except DicomRejected as rejected:  # a bad zip never ends the others
            why = rejected.rejection
            rejections.append(Rejection.of(archive, why.reason, why.message))
            continue
        left -= sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        inner = inner_folder(folder)
        place = top / archive.parent.relative_to(path) if archive.is_relative_to(path) else top
        _free_name(place / inner.name).symlink_to(inner)
    return top, tuple(rejections)


def _link_tree(source: Path, target: Path, around: set[Path], left_out: frozenset[Path]) -> None:
    target.mkdir(parents=True)
    for child in sorted(source.iterdir()):
        if child in left_out:
            continue
        # A link to a folder with zips in it, too: they are never unpacked into the folder itself.
        if child in around and child.is_dir():
            _link_tree(child, target / child.name, around, left_out)
        else:
            (target / child.name).symlink_to(child)


def _free_name(path: Path) -> Path:
    """The path, or with a number behind it where something is there already."""
    names = (path.with_name(f"{path.name}-{number}") for number in range(2, 100_000))
    return path if not os.path.lexists(path) else next(name for name in names if not os.path.lexists(name))


def inner_folder(folder: Path) -> Path:
    """The folder without the wrappers around it: archives often hold one folder that holds everything."""
    while True:
        children = list(folder.iterdir())
        only = children[0] if len(children) == 1 else None
        if only is None or not only.is_dir() or only.name.isdigit() or only.name in IMAGE_FOLDERS:
            return folder
        folder = only
