"""Finds the studies under a path, whatever the layout.

Layouts, told apart by names alone:

- RSNA: ``{study}/{series}/{instance}.dcm``, all three numeric. Folder names are the ids and the file name is
  the instance number, whatever the headers say.
- anything else: a tree of DICOM files, divided into studies by ``studies_among``, and of NIfTI volumes,
  grouped by BIDS names or folders.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data_prep.names import folder_id, input_label
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.dicom_file import SliceHeader
from data_prep.read.dicom_limits import DEFAULT_LIMITS, ReadLimits
from data_prep.read.entry import StudyEntry, identifier, read_headers
from data_prep.read.grouping import Found, Group, studies_among
from data_prep.read.listing import (
    Others,
    files_below,
    files_in,
    image_files,
    is_number,
    natural_order,
    subfolders,
)
from data_prep.read.nifti import is_nifti
from data_prep.read.nifti_studies import VolumeStudy, is_raw, volume_studies
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
        raise DicomRejected(Rejection(Reason.NO_IMAGES, f"{input_label(path.name)!r} does not exist"))
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
        message = f"{input_label(path.name)!r} cannot be read ({type(error).__name__})"
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
    others = _Tree(folder, limits)
    for child in subfolders(folder):
        if _is_rsna_study(child):
            kinds = table.get(child.name, {})
            entries[child.name] = StudyEntry(child.name, child, kinds=kinds, limits=limits)
        else:
            others.read(files_below(child, others.unreadable), inside=child)
    others.read(files_in(folder), inside=folder)
    for entry in others.entries(table, kept_ids=frozenset(entries)):
        entries[entry.study_id] = _joined(entries.get(entry.study_id), entry)
    if not entries:
        raise DicomRejected(Rejection(Reason.NO_IMAGES, f"no study in {input_label(folder.name)!r}"))
    return tuple(entries[study_id] for study_id in sorted(entries, key=natural_order))


def _joined(earlier: StudyEntry | None, entry: StudyEntry) -> StudyEntry:
    """What stands for a study that is there twice: of an RSNA study's copy only the mention is kept."""
    if earlier is None or earlier.is_only_listed:
        return entry
    if not entry.headers:
        return replace(earlier, rejections=(*earlier.rejections, *entry.rejections))
    message = "a folder of another layout holds the same study and is not read"
    return replace(
        earlier, rejections=(*earlier.rejections, Rejection(Reason.DUPLICATE_STUDY, message, entry.study_id))
    )


def _entries_of_tree(path: Path, table: SeriesTable, limits: ReadLimits) -> tuple[StudyEntry, ...]:
    """Read every header under a path and divide the images into studies."""
    tree = _Tree(path.parent if path.is_file() else path, limits)
    tree.read([path] if path.is_file() else files_below(path, tree.unreadable))
    entries = tree.entries(table)
    if not any(entry.headers for entry in entries):
        rejections = tuple(item for entry in entries for item in entry.rejections)
        if any(item.reason is Reason.NOT_TOLD_APART for item in rejections):
            return entries
        message = f"no readable DICOM image or NIfTI volume in {input_label(path.name)!r}"
        bare = tuple(replace(item, study_id="") for item in rejections)
        raise DicomRejected(Rejection(Reason.NO_IMAGES, message), bare)
    return entries


class _Tree:
    """What is read of a tree of files, before it is divided into studies."""

    def __init__(self, top: Path, limits: ReadLimits) -> None:
        self.unreadable: list[Path] = []
        self._top, self._limits = top, limits
        self._found: list[Found] = []
        self._rejected: list[tuple[Path, Rejection]] = []
        self._others = Others()
        self._volumes: list[Path] = []
        self._empty: list[Path] = []

    def read(self, files: Iterable[Path], inside: Path | None = None) -> None:
        """Read the headers of all images; ``inside`` is a folder that is a study even if it has none."""
        files = [file for file in files if is_raw(file, self._top)]
        self._volumes += [file for file in files if is_nifti(file)]
        before = self._count
        for file in image_files(files, self._others):
            rejections: list[Rejection] = []
            headers = read_headers([file], self._limits, rejections)
            self._rejected += [(file.parent, rejection) for rejection in rejections]
            self._found += [Found(header, self._place(file.parent)) for header in headers]
        nothing = before == self._count and not any(map(is_nifti, files))
        if inside is not None and inside != self._top and nothing:
            self._empty.append(inside)

    @property
    def _count(self) -> int:
        return len(self._found) + len(self._rejected) + len(self._others.found)

    def _place(self, folder: Path) -> tuple[str, ...]:
        if folder.is_relative_to(self._top):
            return folder.relative_to(self._top).parts
        return folder.parts[1:]  # where a link has led

    def entries(self, table: SeriesTable, kept_ids: frozenset[str] = frozenset()) -> tuple[StudyEntry, ...]:
        """The studies, and one for each folder of which nothing can be read; ``kept_ids`` are taken."""
        rejected = [*self._rejected, *self._others.rejections]
        rejected += [
            (folder, Rejection.of(folder, Reason.UNREADABLE, "the folder cannot be read"))
            for folder in self.unreadable
        ]
        groups = self._renamed(studies_among(self._found, self._top.name), kept_ids)
        below: dict[Path, set[str]] = defaultdict(set)
        for group in groups:
            places = {item.place for item in group.found} or {()}
            for place in places:
                folder = self._top.joinpath(*place)
                for around in (folder, *folder.parents):
                    below[around].add(group.study_id)
        volumes = volume_studies(self._volumes, limits=self._limits)
        for volume in volumes:
            for around in {up for place in volume.folders for up in (place, *place.parents)}:
                below[around].add(volume.study_id)
        by_study: dict[str, list[Rejection]] = defaultdict(list)
        for group in groups:
            by_study[group.study_id] += group.rejections
        for folder, rejection in rejected:
            study_id = _study_of_folder(folder, below) if below else folder_id(self._top.name) or "study"
            by_study[study_id].append(replace(rejection, study_id=study_id))
        by_group = {group.study_id: group for group in groups}
        of_volumes = []
        for volume in volumes:
            beside = () if volume.study_id in by_group else by_study.pop(volume.study_id, ())
            of_volumes.append(_entry_of_volumes(volume, by_group, table, self._limits, beside))
        ids = {*by_group, *by_study, *(folder_id(path.name) for path in self._empty)}
        of_dicom = [
            StudyEntry(
                study_id,
                headers=_by_series(by_group[study_id].found) if study_id in by_group else {},
                rejections=tuple(by_study.get(study_id, ())),
                flags=by_group[study_id].flags if study_id in by_group else (),
                kinds=table.get(study_id, {}),
                limits=self._limits,
            )
            for study_id in ids
        ]
        return tuple(sorted((*of_dicom, *of_volumes), key=lambda entry: natural_order(entry.study_id)))

    def _renamed(self, groups: tuple[Group, ...], kept_ids: frozenset[str]) -> tuple[Group, ...]:
        """A numeric folder beside RSNA studies names its study, if it holds one and no other folder does."""
        tops = [{item.place[0] for item in group.found if item.place} for group in groups]
        named = []
        for group, own in zip(groups, tops, strict=True):
            (name,) = own if len(own) == 1 else ("",)
            alone = sum(name in other for other in tops) == 1
            is_named = is_number(name) and alone and bool(kept_ids) and name not in kept_ids
            named.append(replace(group, study_id=name) if is_named else group)
        return tuple(named)


def _by_series(found: Iterable[Found]) -> dict[str, tuple[SliceHeader, ...]]:
    series: dict[str, list[SliceHeader]] = defaultdict(list)
    for item in found:
        place = folder_id(item.place[-1]) if item.place else ""
        series[_series_identifier(item.header) or place or "series"].append(item.header)
    return {series_id: tuple(headers) for series_id, headers in series.items()}


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
    while folder not in studies_below and folder != folder.parent:
        inner, folder = folder, folder.parent
    if folder not in studies_below:  # a link has led out of the tree
        return min((study for known in studies_below.values() for study in known), key=natural_order)
    known = studies_below[folder]
    if len(known) == 1 or inner == folder:
        return min(known, key=natural_order)
    return folder_id(inner.name)


def _series_identifier(header: SliceHeader) -> str:
    """SeriesInstanceUID. The RSNA files write ``{study}.{series}`` there; the table knows the second part."""
    uid = header.series_uid
    if is_number(header.study_uid):
        uid = uid.removeprefix(f"{header.study_uid}.")
    return identifier(uid)
