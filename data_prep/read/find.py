"""Finds the studies under a path, whatever the layout.

Layouts, told apart by names alone:

- RSNA: ``{study}/{series}/{instance}.dcm``, all three numeric. Folder names are the ids and the file name is
  the instance number, whatever the headers say.
- anything else: a tree of DICOM files, grouped by StudyInstanceUID and SeriesInstanceUID, and of NIfTI
  volumes, grouped by BIDS names or folders.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data_prep.names import printable
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.dicom_file import SliceHeader
from data_prep.read.dicom_limits import DEFAULT_LIMITS, ReadLimits
from data_prep.read.entry import StudyEntry, identifier, read_headers
from data_prep.read.listing import files_below, image_files, is_number, natural_order, subfolders
from data_prep.read.nifti_studies import VolumeStudy, is_nifti, is_raw, volume_studies
from data_prep.read.series_table import IMAGE_FOLDERS, SeriesTable, find_series_table


def find_studies(
    path: Path, *, series_table: Path | None = None, limits: ReadLimits = DEFAULT_LIMITS
) -> tuple[StudyEntry, ...]:
    """Find every study under a path.

    Args:
        path: an RSNA images folder, the folder that holds ``train_images`` (else ``test_images``), one RSNA
            study, one RSNA series, a file or any tree of DICOM files or NIfTI volumes, or a BIDS data set.
        series_table: ``study_id, series_id, series_description``. Without it the RSNA names are looked for
            in the folder and the one above; for a study two above, for a series three. Studies that it lists
            for an images folder are entries even when they have no images.

    Raises:
        DicomRejected: the path does not exist, nothing in it can be read, or the table is no series table.
    """
    path = Path(os.path.abspath(path))
    if not path.exists():
        raise DicomRejected(Rejection(Reason.NO_IMAGES, f"{printable(path.name)!r} does not exist"))
    try:
        images = next((path / name for name in IMAGE_FOLDERS if (path / name).is_dir()), path)
        if _is_images_folder(images):
            table = find_series_table(series_table, images, 1)
            return _entries_of_images_folder(images, table, limits)
        if _is_rsna_study(path):
            table = find_series_table(series_table, path, 2)
            return (StudyEntry(path.name, path, kinds=table.get(path.name, {}), limits=limits),)
        if _is_rsna_series(path) and is_number(path.parent.name):
            table, study = find_series_table(series_table, path, 3), path.parent
            kinds = table.get(study.name, {})
            return (StudyEntry(study.name, study, kinds=kinds, only_series=path.name, limits=limits),)
        return _entries_of_tree(path, find_series_table(series_table, path, 1), limits)
    except OSError as error:
        message = f"{printable(path.name)!r} cannot be read ({type(error).__name__})"
        raise DicomRejected(Rejection(Reason.UNREADABLE, message)) from None


def find_all_studies(
    paths: Sequence[Path], *, series_table: Path | None = None, limits: ReadLimits = DEFAULT_LIMITS
) -> tuple[StudyEntry, ...]:
    """Find every study under several paths; NIfTI files that are named one by one belong together by name.

    Raises:
        DicomRejected: as ``find_studies``, for any of the paths.
    """
    if len(paths) == 1:
        return find_studies(paths[0], series_table=series_table, limits=limits)
    named = [Path(os.path.abspath(path)) for path in paths if path.is_file() and is_nifti(path)]
    others = [path for path in paths if not (path.is_file() and is_nifti(path))]
    table = {} if series_table is None else find_series_table(series_table, Path(), 0)
    entries: dict[str, StudyEntry] = {}
    for entry in (
        *(_entry_of_volumes(volume, (), table, limits) for volume in volume_studies(named, limits=limits)),
        *(e for path in others for e in find_studies(path, series_table=series_table, limits=limits)),
    ):
        entries[entry.study_id] = _joined(entries.get(entry.study_id), entry)
    return tuple(entries[study_id] for study_id in sorted(entries, key=natural_order))


def _is_rsna_series(folder: Path) -> bool:
    return (
        is_number(folder.name)
        and folder.is_dir()
        and any(re.fullmatch(r"\d+\.dcm", name) for name in os.listdir(folder))
    )


def _is_rsna_study(folder: Path) -> bool:
    return is_number(folder.name) and any(_is_rsna_series(child) for child in subfolders(folder))


def _is_images_folder(folder: Path) -> bool:
    return folder.is_dir() and (
        folder.name in IMAGE_FOLDERS or any(_is_rsna_study(child) for child in subfolders(folder))
    )


def _entries_of_images_folder(folder: Path, table: SeriesTable, limits: ReadLimits) -> tuple[StudyEntry, ...]:
    entries: dict[str, StudyEntry] = {
        study_id: StudyEntry(study_id, kinds=kinds, limits=limits) for study_id, kinds in table.items()
    }
    for child in subfolders(folder):
        if _is_rsna_study(child):
            kinds = table.get(child.name, {})
            entries[child.name] = StudyEntry(child.name, child, kinds=kinds, limits=limits)
            continue
        for entry in _entries_of_other_folder(child, table, limits):
            entries[entry.study_id] = _joined(entries.get(entry.study_id), entry)
    if not entries:
        raise DicomRejected(Rejection(Reason.NO_IMAGES, f"no study in {printable(folder.name)!r}"))
    return tuple(entries[study_id] for study_id in sorted(entries, key=natural_order))


def _joined(earlier: StudyEntry | None, entry: StudyEntry) -> StudyEntry:
    """One entry of two folders that hold the same study; of an RSNA study's copy only the mention is kept."""
    if earlier is None or earlier.is_only_listed:
        return entry
    if earlier.folder is not None:
        message = "a folder of another layout holds the same study and is not read"
        return replace(
            earlier,
            rejections=(*earlier.rejections, Rejection(Reason.DUPLICATE_STUDY, message, entry.study_id)),
        )
    headers = {
        series_id: (*earlier.headers.get(series_id, ()), *entry.headers.get(series_id, ()))
        for series_id in (*earlier.headers, *entry.headers)
    }
    return replace(earlier, headers=headers, rejections=(*earlier.rejections, *entry.rejections))


def _entries_of_other_folder(child: Path, table: SeriesTable, limits: ReadLimits) -> tuple[StudyEntry, ...]:
    """A folder beside RSNA studies without their layout: one that is numeric, or empty, is still a study."""
    own_id = identifier(child.name) or "study"
    kinds = table.get(own_id, {})
    try:
        found = _entries_of_tree(child, table, limits)
    except DicomRejected as rejected:
        bad = tuple(replace(item, study_id=own_id) for item in rejected.rejections)
        return (StudyEntry(own_id, rejections=bad, kinds=kinds, limits=limits),)
    if is_number(child.name) and len(found) == 1:
        return (replace(found[0], study_id=own_id, kinds=kinds),)
    return found


def _entries_of_tree(path: Path, table: SeriesTable, limits: ReadLimits) -> tuple[StudyEntry, ...]:
    """Read every header under a path and group by the identifiers in them."""
    studies: dict[str, dict[str, list[SliceHeader]]] = {}
    studies_below: dict[Path, set[str]] = defaultdict(set)
    top = path.parent if path.is_file() else path
    rejected: list[tuple[Path, Rejection]] = []
    unreadable: list[Path] = []
    files = [path] if path.is_file() else [f for f in files_below(path, unreadable) if is_raw(f, top)]
    volumes = volume_studies(files, limits=limits)
    for volume in volumes:
        for folder in {folder for place in volume.folders for folder in (place, *place.parents)}:
            studies_below[folder].add(volume.study_id)
    for file in image_files(files):
        rejections: list[Rejection] = []
        headers = read_headers([file], limits, rejections)
        rejected += [(file.parent, rejection) for rejection in rejections]
        for header in headers:
            study_id = identifier(header.study_uid) or identifier(top.name) or "study"
            series_id = _series_identifier(header) or identifier(file.parent.name) or "series"
            studies.setdefault(study_id, {}).setdefault(series_id, []).append(header)
            for folder in (file.parent, *file.parent.parents):
                studies_below[folder].add(study_id)
    for folder in unreadable:
        place = printable(folder.name)
        rejected.append((folder, Rejection(Reason.UNREADABLE, "the folder cannot be read", file=place)))
    if not studies and not any(volume.headers for volume in volumes):
        message = f"no readable DICOM image or NIfTI volume in {printable(path.name)!r}"
        unread = (item for volume in volumes for item in volume.rejections)
        raise DicomRejected(Rejection(Reason.NO_IMAGES, message), (*(item for _, item in rejected), *unread))
    by_study: dict[str, list[Rejection]] = defaultdict(list)
    for folder, rejection in rejected:
        study_id = _study_of_folder(folder, studies_below)
        by_study[study_id].append(replace(rejection, study_id=study_id))
    of_volumes = []
    for volume in volumes:
        beside = () if volume.study_id in studies else by_study.pop(volume.study_id, ())
        of_volumes.append(_entry_of_volumes(volume, studies, table, limits, beside))
    of_dicom = [
        StudyEntry(
            study_id,
            headers={series_id: tuple(group) for series_id, group in studies.get(study_id, {}).items()},
            rejections=tuple(by_study.get(study_id, ())),
            kinds=table.get(study_id, {}),
            limits=limits,
        )
        for study_id in {*studies, *by_study}
    ]
    return tuple(sorted((*of_dicom, *of_volumes), key=lambda entry: natural_order(entry.study_id)))


def _entry_of_volumes(
    volume: VolumeStudy,
    taken: Container[str],
    table: SeriesTable,
    limits: ReadLimits,
    others: Sequence[Rejection] = (),
) -> StudyEntry:
    """The study of some volumes; ``others`` are rejected files beside them."""
    study_id = f"{volume.study_id}-nifti" if volume.study_id in taken else volume.study_id
    rejections = (*others, *(replace(item, study_id=study_id) for item in volume.rejections))
    kinds = table.get(study_id, {})
    return StudyEntry(study_id, headers=volume.headers, rejections=rejections, kinds=kinds, limits=limits)


def _study_of_folder(folder: Path, studies_below: Mapping[Path, set[str]]) -> str:
    """The study that a folder of rejected files belongs to.

    It is the one study of the nearest folder around it that holds any. Beside several studies, a folder that
    holds none of them is taken for a study of its own, so that one whose every file is bad is not lost.
    """
    inner = folder
    while folder not in studies_below:
        inner, folder = folder, folder.parent
    known = studies_below[folder]
    if len(known) == 1 or inner == folder:
        return min(known, key=natural_order)
    return identifier(inner.name)


def _series_identifier(header: SliceHeader) -> str:
    """SeriesInstanceUID. The RSNA files write ``{study}.{series}`` there; the table knows the second part."""
    uid = header.series_uid
    if is_number(header.study_uid):
        uid = uid.removeprefix(f"{header.study_uid}.")
    return identifier(uid)
