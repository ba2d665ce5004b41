"""Finds the studies under a path, whatever the layout.

Layouts, told apart by names:

- RSNA: ``{study}/{series}/{instance}.dcm``, all three numeric. Folder names are the ids and the file name is
  the instance number, whatever the headers say. Not where two of the series folders hold several series: they
  are an examination each, of patients who have numbers.
- anything else: a tree of DICOM files, divided into studies by ``studies_among``, and of NIfTI volumes,
  grouped by BIDS names or folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from data_prep.names import input_label
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.entry import StudyEntry, read_headers
from data_prep.read.listing import (
    DICOM,
    files_below,
    files_in,
    format_of,
    holds_images,
    is_number,
    natural_order,
    subfolders,
)
from data_prep.read.nifti_sidecar import is_nifti
from data_prep.read.nifti_studies import volume_studies
from data_prep.read.own import is_of_output
from data_prep.read.series_table import IMAGE_FOLDERS, SeriesTable, find_series_table
from data_prep.read.tree import Tree, entry_of_volumes, is_dicomdir
from data_prep.read.weighting import shown_label
from data_prep.vocabulary import SeriesKind

_HOLDERS = ("archive", "disc image", "encrypted file")


def find_studies(path: Path, *, series_table: Path | None = None) -> tuple[StudyEntry, ...]:
    """Find every study under a path.

    Args:
        path: an RSNA images folder, the folder that holds ``train_images`` (else ``test_images``), one RSNA
            study, one RSNA series, a file or any tree of DICOM files or NIfTI volumes, or a BIDS data set; a
            DICOMDIR stands for the folder that it lies in.
        series_table: ``study_id, series_id, series_description``. Without it the RSNA names are looked for
            in the folder and the one above; for a study two above, for a series three. Studies that it lists
            for an images folder are entries even when they have no images.

    Raises:
        DicomRejected: the path does not exist, nothing in it can be read, or the table is no series table.
    """
    path = _named(path)
    with _readable(path):
        found = _entries_of_rsna(path, series_table)
        if found is not None:
            return found
        return _entries_of_trees([path], series_table)


def find_all_studies(paths: Sequence[Path], *, series_table: Path | None = None) -> tuple[StudyEntry, ...]:
    """Find every study under several paths.

    Folders and files that are not in the RSNA layout are divided as if they lay in one folder: the series of
    a study may be named one by one, and two patients whose folders have one name stay two. NIfTI files that
    are named one by one belong together by name. Of a folder with both ``train_images`` and ``test_images``
    both are read.

    Raises:
        DicomRejected: as ``find_studies``, for any of the paths.
    """
    named = [_named(path) for path in paths]
    named += [other for path in named if (other := _second_images_folder(path)) and other not in named]
    if len(named) == 1:
        return find_studies(named[0], series_table=series_table)
    volumes = [path for path in named if path.is_file() and is_nifti(path)]
    table = {} if series_table is None else find_series_table(series_table, Path(), 0)
    found = [entry_of_volumes(volume, (), table) for volume in volume_studies(volumes)]
    trees: list[Path] = []
    for path in named:
        if path in volumes:
            continue
        with _readable(path):
            entries = _entries_of_rsna(path, series_table)
        if entries is None:
            trees.append(path)
        found += entries or ()
    if trees:
        kept_ids = frozenset(entry.study_id for entry in found)
        found += _entries_of_trees(trees, series_table, kept_ids)
    joined: dict[str, StudyEntry] = {}
    for entry in found:
        joined[entry.study_id] = _joined(joined.get(entry.study_id), entry)
    return tuple(joined[study_id] for study_id in sorted(joined, key=natural_order))


def _named(path: Path) -> Path:
    """What was named, absolute; for the list of a disc, the disc."""
    path = Path(os.path.abspath(path))
    return path.parent if is_dicomdir(path) and path.is_file() else path


def _second_images_folder(path: Path) -> Path | None:
    """The images folder that ``find_studies`` leaves aside for the first one, if there are two."""
    folders = [path / name for name in IMAGE_FOLDERS if (path / name).is_dir()]
    return folders[1] if len(folders) > 1 and subfolders(folders[1]) else None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Refuses a path that is not there, or cannot be read."""
    if not path.exists():
        raise DicomRejected(Rejection(Reason.NO_IMAGES, f"{input_label(path.name)!r} does not exist"))
    try:
        yield
    except OSError as error:
        message = f"{input_label(path.name)!r} cannot be read ({type(error).__name__})"
        raise DicomRejected(Rejection(Reason.UNREADABLE, message)) from None


def _entries_of_rsna(path: Path, series_table: Path | None) -> tuple[StudyEntry, ...] | None:
    """The studies of an images folder, a study or a series of the RSNA layout; None for anything else."""
    images = next((path / name for name in IMAGE_FOLDERS if (path / name).is_dir()), path)
    if _is_images_folder(images):
        table = find_series_table(series_table, images, 1)
        beside = None if images == path else _beside(path)
        return _entries_of_images_folder(images, table, beside)
    if _is_rsna_study(path):
        if _holds_examinations(path):
            return None
        table = find_series_table(series_table, path, 2)
        return (StudyEntry(path.name, path, kinds=table.get(path.name, {})),)
    if _is_rsna_series(path) and is_number(path.parent.name):
        table, study = find_series_table(series_table, path, 3), path.parent
        kinds = table.get(study.name, {})
        return (StudyEntry(study.name, study, kinds=kinds, only_series=frozenset({path.name})),)
    return None


def _is_rsna_series(folder: Path) -> bool:
    if not (is_number(folder.name) and folder.is_dir()):
        return False
    with os.scandir(folder) as entries:
        return any(re.fullmatch(r"\d+\.dcm", entry.name) and not entry.is_dir() for entry in entries)


def _is_rsna_study(folder: Path) -> bool:
    return is_number(folder.name) and any(_is_rsna_series(child) for child in subfolders(folder))


def _holds_examinations(folder: Path) -> bool:
    """Whether two folders of what looks like an RSNA study each hold an examination: more than one series.

    The first and the last file of each folder are looked at: sagittal and axial, or T1 and T2.
    """
    found, children = 0, [child for child in subfolders(folder) if _is_rsna_series(child)]
    for left, child in zip(range(len(children), 0, -1), children, strict=True):
        if found + left < 2:  # whatever the others hold
            return False
        files = [file for file in files_in(child) if file.suffix.lower() == ".dcm"]
        ends = [read_headers([file], []) for file in (files[0], files[-1])]
        (plane, weighting), (other_plane, other) = (
            shown_label(headers)[:2] if headers else ("", "") for headers in ends
        )
        found += bool(plane and other_plane) and (
            plane != other_plane or bool(weighting and other and weighting != other)
        )
    return found > 1


def _is_images_folder(folder: Path) -> bool:
    return folder.is_dir() and (
        folder.name in IMAGE_FOLDERS or any(_is_rsna_study(child) for child in subfolders(folder))
    )


def _beside(path: Path) -> Tree:
    """What lies beside the images folders of a data set and holds images, too."""
    tree = Tree(path)
    for child in subfolders(path):
        if child.name not in IMAGE_FOLDERS and holds_images(child, or_else=_may_hold_images):
            tree.read(files_below(child, tree.unreadable, tree.hidden))
    tree.read(file for file in files_in(path) if _may_hold_images(file) or format_of(file) == DICOM)
    return tree


def _may_hold_images(file: Path) -> bool:
    """Whether a file is a volume, or of a kind that holds files, of which a data set has none of its own."""
    return is_nifti(file) or format_of(file).endswith(_HOLDERS)


def _entries_of_images_folder(
    folder: Path, table: SeriesTable, beside: Tree | None
) -> tuple[StudyEntry, ...]:
    entries: dict[str, StudyEntry] = {
        study_id: StudyEntry(study_id, kinds=kinds) for study_id, kinds in table.items()
    }
    others = Tree(folder)
    for child in subfolders(folder):
        if _is_rsna_study(child) and not _holds_examinations(child):
            kinds = table.get(child.name, {})
            entries[child.name] = StudyEntry(child.name, child, kinds=kinds)
        else:
            inside = None if is_of_output(child) else child
            others.read(files_below(child, others.unreadable, others.hidden), inside=inside)
    others.read(files_in(folder), inside=folder)
    for tree in (others, *([beside] if beside else [])):
        for entry in tree.entries(table, kept_ids=frozenset(entries)):
            entries[entry.study_id] = _joined(entries.get(entry.study_id), entry)
    if not entries:
        raise DicomRejected(Rejection(Reason.NO_IMAGES, f"no study in {input_label(folder.name)!r}"))
    return tuple(entries[study_id] for study_id in sorted(entries, key=natural_order))


def _joined(earlier: StudyEntry | None, entry: StudyEntry) -> StudyEntry:
    """What stands for a study that is there twice: of a second copy only the mention is kept."""
    if earlier is None or earlier.is_only_listed:
        return entry
    if entry.folder is None and not entry.headers:
        return replace(earlier, rejections=(*earlier.rejections, *entry.rejections))
    if entry.folder is not None and entry.folder == earlier.folder:
        series = earlier.only_series | entry.only_series
        return replace(
            earlier, only_series=series if earlier.only_series and entry.only_series else frozenset()
        )
    message = "another folder holds the same study and is not read"
    return replace(
        earlier, rejections=(*earlier.rejections, Rejection(Reason.DUPLICATE_STUDY, message, entry.study_id))
    )


def _entries_of_trees(
    paths: Sequence[Path],
    series_table: Path | None,
    kept_ids: frozenset[str] = frozenset(),
) -> tuple[StudyEntry, ...]:
    """Read every header under some paths and divide the images into studies."""
    folders = [path.parent if path.is_file() else path for path in paths]
    tree = Tree(Path(os.path.commonpath(folders)))
    table: dict[str, Mapping[str, SeriesKind | None]] = {}
    for path in paths:
        before = tree.count
        with _readable(path):
            table |= find_series_table(series_table, path, 1)
            tree.read([path] if path.is_file() else files_below(path, tree.unreadable, tree.hidden))
        if len(paths) > 1 and tree.count == before:
            raise _nothing_in(path)
    entries = tree.entries(table, kept_ids)
    if not any(entry.headers for entry in entries):
        rejections = tuple(item for entry in entries for item in entry.rejections)
        if any(item.reason is Reason.NOT_TOLD_APART for item in rejections):
            return entries
        raise _nothing_in(paths[0], tuple(replace(item, study_id="") for item in rejections))
    return entries


def _nothing_in(path: Path, rejections: tuple[Rejection, ...] = ()) -> DicomRejected:
    message = f"no readable DICOM image or NIfTI volume in {input_label(path.name)!r}"
    return DicomRejected(Rejection(Reason.NO_IMAGES, message), rejections)
