"""Finds the studies under a path and loads them, whatever the layout.

Layouts, told apart by names alone:

- RSNA: ``{study}/{series}/{instance}.dcm``, all three numeric. Folder names are the ids and the file name is
  the instance number, whatever the headers say.
- anything else: a tree of DICOM files, grouped by StudyInstanceUID and SeriesInstanceUID.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.belonging import acquisitions, of_one_patient
from data_prep.dicom import SliceHeader, is_dicom, read_slice
from data_prep.dicom_checks import DEFAULT_LIMITS, ReadLimits
from data_prep.files import input_label, printable, safe_id
from data_prep.series import build_series
from data_prep.series_table import IMAGE_FOLDERS, SeriesTable, find_series_table
from data_prep.study_types import DicomRejected, Reason, Rejection, Series, Study
from data_prep.vocabulary import SeriesKind

_IGNORED = ("__macosx", "dicomdir", "thumbs.db")


@dataclass(frozen=True, eq=False)
class StudyEntry:
    """A study that was found or listed, not read yet.

    Attributes:
        study_id: folder name in the RSNA layout, else StudyInstanceUID.
        folder: the study's folder in the RSNA layout; headers are read by ``load``.
        headers: in a tree of files, the headers by series id, read when the tree was searched.
        rejections: files of a tree that were rejected while it was searched.
        kinds: series id → kind from the series table.
        only_series: load this series of ``folder`` alone.
    """

    study_id: str
    folder: Path | None = field(default=None, repr=False)
    headers: Mapping[str, tuple[SliceHeader, ...]] = field(default_factory=dict, repr=False)
    rejections: tuple[Rejection, ...] = ()
    kinds: Mapping[str, SeriesKind | None] = field(default_factory=dict)
    only_series: str | None = None
    limits: ReadLimits = DEFAULT_LIMITS

    @property
    def is_only_listed(self) -> bool:
        """Whether the series table names the study, but nothing of it was found."""
        return self.folder is None and not self.headers and not self.rejections

    def load(self) -> Study:
        """Read all headers, type the series and put their slices in order. No pixels are kept.

        Returns:
            The study. Files and series that were not used are in its ``rejections``.

        Raises:
            DicomRejected: no image exists or none can be used; ``rejections`` says what was rejected.
        """
        rejections = list(self.rejections)
        headers: Mapping[str, Sequence[SliceHeader]] = self.headers
        if self.folder is not None:
            headers = dict(self._read_folder(self.folder, rejections))
            rejections += self._misplaced(self.folder)
        headers, strangers = of_one_patient(self.study_id, headers)
        rejections += strangers
        series = list(self._build(headers, rejections))
        if series:
            return Study(self.study_id, tuple(series), tuple(rejections))
        if not rejections:
            reason, message = Reason.NO_IMAGES, "the study has no images"
        else:
            reason, message = Reason.NO_SERIES, "none of its series can be used"
        raise DicomRejected(Rejection(reason, message, self.study_id), tuple(rejections))

    def _read_folder(
        self, folder: Path, rejections: list[Rejection]
    ) -> Iterator[tuple[str, Sequence[SliceHeader]]]:
        for series_folder in _subfolders(folder):
            series_id = _identifier(series_folder.name)
            if self.only_series not in (None, series_id):
                continue
            try:
                paths = list(_image_files(_files(series_folder)))
            except OSError:
                message = "the folder cannot be read"
                rejections.append(Rejection(Reason.UNREADABLE, message, self.study_id, series_id))
                continue
            if paths:
                yield series_id, _read_all(paths, self.limits, rejections, self.study_id, series_id)

    def _misplaced(self, folder: Path) -> list[Rejection]:
        """Images that lie beside or below the folders of the series."""
        if self.only_series is not None:
            return []
        message = "lies beside or below the folders of the series"
        return [
            Rejection(Reason.MISPLACED, message, self.study_id, file=input_label(path.name))
            for path in _image_files(_files_below(folder, []))
            if len(path.relative_to(folder).parts) != 2
        ]

    def _build(
        self, headers: Mapping[str, Sequence[SliceHeader]], rejections: list[Rejection]
    ) -> Iterator[Series]:
        parts = [
            part for series_id, group in headers.items() for part in acquisitions(series_id, group).items()
        ]
        for series_id, group in parts:
            try:
                series, unused = build_series(
                    self.study_id,
                    series_id,
                    group,
                    numbered_by_name=self.folder is not None,
                    listed_kind=self.kinds.get(series_id),
                    limits=self.limits,
                )
            except DicomRejected as rejected:
                rejections.extend((*rejected.rejections, rejected.rejection))
                continue
            rejections.extend(unused)
            yield series


def find_studies(
    path: Path, *, series_table: Path | None = None, limits: ReadLimits = DEFAULT_LIMITS
) -> tuple[StudyEntry, ...]:
    """Find every study under a path.

    Args:
        path: an RSNA images folder, the folder that holds ``train_images`` (else ``test_images``), one RSNA
            study, one RSNA series, or a file or any tree of DICOM files.
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
        if _is_rsna_series(path) and _is_number(path.parent.name):
            table, study = find_series_table(series_table, path, 3), path.parent
            kinds = table.get(study.name, {})
            return (StudyEntry(study.name, study, kinds=kinds, only_series=path.name, limits=limits),)
        return _entries_of_tree(path, find_series_table(series_table, path, 1), limits)
    except OSError as error:
        message = f"{printable(path.name)!r} cannot be read ({type(error).__name__})"
        raise DicomRejected(Rejection(Reason.UNREADABLE, message)) from None


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _is_rsna_series(folder: Path) -> bool:
    return (
        _is_number(folder.name)
        and folder.is_dir()
        and any(re.fullmatch(r"\d+\.dcm", name) for name in os.listdir(folder))
    )


def _is_rsna_study(folder: Path) -> bool:
    return _is_number(folder.name) and any(_is_rsna_series(child) for child in _subfolders(folder))


def _is_images_folder(folder: Path) -> bool:
    return folder.is_dir() and (
        folder.name in IMAGE_FOLDERS or any(_is_rsna_study(child) for child in _subfolders(folder))
    )


def _entries_of_images_folder(folder: Path, table: SeriesTable, limits: ReadLimits) -> tuple[StudyEntry, ...]:
    entries: dict[str, StudyEntry] = {
        study_id: StudyEntry(study_id, kinds=kinds, limits=limits) for study_id, kinds in table.items()
    }
    for child in _subfolders(folder):
        if _is_rsna_study(child):
            kinds = table.get(child.name, {})
            entries[child.name] = StudyEntry(child.name, child, kinds=kinds, limits=limits)
            continue
        for entry in _entries_of_other_folder(child, table, limits):
            entries[entry.study_id] = _joined(entries.get(entry.study_id), entry)
    if not entries:
        raise DicomRejected(Rejection(Reason.NO_IMAGES, f"no study in {printable(folder.name)!r}"))
    return tuple(entries[study_id] for study_id in sorted(entries, key=_natural))


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
    own_id = _identifier(child.name) or "study"
    kinds = table.get(own_id, {})
    try:
        found = _entries_of_tree(child, table, limits)
    except DicomRejected as rejected:
        bad = tuple(replace(item, study_id=own_id) for item in rejected.rejections)
        return (StudyEntry(own_id, rejections=bad, kinds=kinds, limits=limits),)
    if _is_number(child.name) and len(found) == 1:
        return (replace(found[0], study_id=own_id, kinds=kinds),)
    return found


def _entries_of_tree(path: Path, table: SeriesTable, limits: ReadLimits) -> tuple[StudyEntry, ...]:
    """Read every header under a path and group by the identifiers in them."""
    studies: dict[str, dict[str, list[SliceHeader]]] = {}
    studies_below: dict[Path, set[str]] = defaultdict(set)
    top = path.parent if path.is_file() else path
    rejected: list[tuple[Path, Rejection]] = []
    unreadable: list[Path] = []
    for file in _image_files([path] if path.is_file() else _files_below(path, unreadable)):
        rejections: list[Rejection] = []
        headers = _read_all([file], limits, rejections)
        rejected += [(file.parent, rejection) for rejection in rejections]
        for header in headers:
            study_id = _identifier(header.study_uid) or _identifier(top.name) or "study"
            series_id = _series_identifier(header) or _identifier(file.parent.name) or "series"
            studies.setdefault(study_id, {}).setdefault(series_id, []).append(header)
            for folder in (file.parent, *file.parent.parents):
                studies_below[folder].add(study_id)
    for folder in unreadable:
        place = printable(folder.name)
        rejected.append((folder, Rejection(Reason.UNREADABLE, "the folder cannot be read", file=place)))
    if not studies:
        message = f"no readable DICOM image in {printable(path.name)!r}"
        raise DicomRejected(Rejection(Reason.NO_IMAGES, message), tuple(item for _, item in rejected))
    by_study: dict[str, list[Rejection]] = defaultdict(list)
    for folder, rejection in rejected:
        study_id = _study_of_folder(folder, studies_below)
        by_study[study_id].append(replace(rejection, study_id=study_id))
    return tuple(
        StudyEntry(
            study_id,
            headers={series_id: tuple(group) for series_id, group in studies.get(study_id, {}).items()},
            rejections=tuple(by_study.get(study_id, ())),
            kinds=table.get(study_id, {}),
            limits=limits,
        )
        for study_id in sorted({*studies, *by_study}, key=_natural)
    )


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
        return min(known, key=_natural)
    return _identifier(inner.name)


def _read_all(
    paths: Iterable[Path],
    limits: ReadLimits,
    rejections: list[Rejection],
    study_id: str = "",
    series_id: str = "",
) -> list[SliceHeader]:
    headers = []
    for path in paths:
        try:
            headers.append(read_slice(path, limits=limits, study_id=study_id, series_id=series_id))
        except DicomRejected as rejected:
            rejections.append(rejected.rejection)
    return headers


def _identifier(text: str) -> str:
    """The text as an identifier that is safe as a file name and in a row id; "" stays empty."""
    return safe_id(text.strip()) if text.strip() else ""


def _series_identifier(header: SliceHeader) -> str:
    """SeriesInstanceUID. The RSNA files write ``{study}.{series}`` there; the table knows the second part."""
    uid = header.series_uid
    if _is_number(header.study_uid):
        uid = uid.removeprefix(f"{header.study_uid}.")
    return _identifier(uid)


def _natural(text: str) -> tuple[bool, int, str]:
    return (not _is_number(text), int(text) if _is_number(text) else 0, text)


def _path_order(path: Path) -> tuple[tuple[bool, int, str], ...]:
    return tuple(_natural(part if part != path.name else path.stem) for part in path.parts)


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _IGNORED


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    return sorted((child for child in found if not _is_ignored(child.name)), key=_path_order)


def _files(folder: Path) -> list[Path]:
    return sorted((Path(entry.path) for entry in os.scandir(folder) if not entry.is_dir()), key=_path_order)


def _files_below(folder: Path, unreadable: list[Path]) -> Iterator[Path]:
    """All files of a tree; folders that cannot be listed are added to ``unreadable``."""
    try:
        files, children = _files(folder), _subfolders(folder)
    except OSError:
        unreadable.append(folder)
        return
    yield from files
    for child in children:
        if not child.is_symlink():
            yield from _files_below(child, unreadable)


def _image_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Files that are, or by their name claim to be, DICOM images."""
    for path in paths:
        if not _is_ignored(path.name) and (path.suffix.lower() == ".dcm" or is_dicom(path)):
            yield path
