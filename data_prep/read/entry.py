"""One study that was found: its headers are read, its series made, when it is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.names import safe_id
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.acquisitions import acquisitions_of, conflicts
from data_prep.read.choosing import chosen, differing, without_empty
from data_prep.read.dicom_file import read_slices
from data_prep.read.division import divided
from data_prep.read.identity import identity_of, of_one_patient
from data_prep.read.listing import (
    Others,
    files_below,
    files_in,
    hidden_folder,
    image_files,
    is_shadow,
    subfolders,
    unreadable_folder,
)
from data_prep.read.missing import slices_missing
from data_prep.read.nifti import holds_labels
from data_prep.read.nifti_sidecar import is_nifti
from data_prep.read.series import build_series, weightings_compared
from data_prep.read.slice_header import SliceHeader
from data_prep.study import Series, Study
from data_prep.vocabulary import Flag, SeriesKind


@dataclass(frozen=True, eq=False)
class StudyEntry:
    """A study that was found or listed, not read yet.

    Attributes:
        study_id: folder name in the RSNA layout, else StudyInstanceUID.
        folder: the study's folder in the RSNA layout; headers are read by ``load``.
        headers: in a tree of files, the headers by series id, read when the tree was searched.
        rejections: files of a tree that were rejected while it was searched.
        flags: what is to be said of how the study was put together.
        kinds: series id → kind from the series table.
        only_series: load these series of ``folder`` alone; all if none is named.
    """

    study_id: str
    folder: Path | None = field(default=None, repr=False)
    headers: Mapping[str, tuple[SliceHeader, ...]] = field(default_factory=dict, repr=False)
    rejections: tuple[Rejection, ...] = ()
    flags: tuple[str, ...] = ()
    kinds: Mapping[str, SeriesKind | None] = field(default_factory=dict)
    only_series: frozenset[str] = frozenset()

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
            rejections += self._listed_only(headers)
        headers, strangers = of_one_patient(self.study_id, headers)
        rejections += strangers
        flags = self.flags
        if self.folder is not None and _nobody_says_whose(headers.values()):
            flags = (*flags, Flag.IDENTIFIERS_MISSING)
        sources: dict[str, Sequence[SliceHeader]] = {}
        built, empty = without_empty(list(self._build(headers, rejections, sources)))
        rejections += empty
        series = chosen(weightings_compared(built))
        rejections += differing(series, {series_id: own[0].description for series_id, own in sources.items()})
        gaps = slices_missing(self.study_id, series, sources)
        if gaps:
            rejections += gaps
            flags = (*flags, Flag.SLICES_MISSING)
        if series:
            return Study(self.study_id, series, tuple(rejections), flags)
        if not rejections:
            reason, message = Reason.NO_IMAGES, "the study has no images"
        else:
            reason, message = Reason.NO_SERIES, "none of its series can be used"
        raise DicomRejected(Rejection(reason, message, self.study_id), tuple(rejections))

    def _read_folder(
        self, folder: Path, rejections: list[Rejection]
    ) -> Iterator[tuple[str, Sequence[SliceHeader]]]:
        for series_folder in subfolders(folder):
            series_id = identifier(series_folder.name)
            if self.only_series and series_id not in self.only_series:
                continue
            others = Others()
            try:
                files = files_in(series_folder)
                paths = list(image_files(files, others))
            except OSError:
                message = "the folder cannot be read"
                rejections.append(Rejection(Reason.UNREADABLE, message, self.study_id, series_id))
                continue
            _note_volumes(files, others)
            headers = read_headers(paths, rejections, self.study_id, series_id, others)
            rejections += [
                replace(item, study_id=self.study_id, series_id=series_id) for _, item in others.rejections
            ]
            if len(paths) > others.count_of(Reason.OTHER_MODALITY):
                yield series_id, headers

    def _misplaced(self, folder: Path) -> list[Rejection]:
        """Images that lie beside or below the folders of the series."""
        if self.only_series:
            return []
        message = "lies beside or below the folders of the series"
        others = Others()
        hidden: list[Path] = []
        unreadable: list[Path] = []
        below = files_below(folder, unreadable, hidden)
        outside = [path for path in below if path.parent.parent != folder]
        misplaced = [
            Rejection.of(path, Reason.MISPLACED, message, study_id=self.study_id)
            for path in image_files(outside, others)
        ]
        _note_volumes(outside, others)
        # Those of a series are named where it is read.
        deeper = [place for place in unreadable if place.parent != folder]
        found = [*map(unreadable_folder, deeper), *map(hidden_folder, hidden)]
        found += [*(item for _, item in others.rejections)]
        return misplaced + [replace(item, study_id=self.study_id) for item in found]

    def _listed_only(self, found: Mapping[str, object]) -> list[Rejection]:
        """Series that the table lists and nobody has put there."""
        message = "the series table lists it, but it has no images here"
        return [
            Rejection(Reason.LISTED_ONLY, message, self.study_id, series_id)
            for series_id in self.kinds
            if not self.only_series and series_id not in found
        ]

    def _build(
        self,
        headers: Mapping[str, Sequence[SliceHeader]],
        rejections: list[Rejection],
        sources: dict[str, Sequence[SliceHeader]],
    ) -> Iterator[Series]:
        protocol_tells = len({header.protocol for group in headers.values() for header in group}) > 1
        parts: list[tuple[str, list[SliceHeader]]] = []
        for series_id, group in headers.items():
            own, unclear = divided(series_id, group, taken=headers)
            parts += own.items()
            sources.update(dict.fromkeys(own, group))
            rejections += [replace(item, study_id=self.study_id) for item in unclear]
            if not group:
                parts.append((series_id, []))
        for series_id, group in parts:
            if group and group[0].reader is not None and holds_labels(group):
                message = "it holds a few values alone: a segmentation, not an image"
                rejections.append(Rejection(Reason.UNKNOWN_KIND, message, self.study_id, series_id))
                continue
            series: Series | None = None
            unused: tuple[Rejection, ...]
            try:
                series, unused = build_series(
                    self.study_id,
                    series_id,
                    group,
                    numbered_by_name=self.folder is not None,
                    listed_kind=self.kinds.get(series_id),
                    protocol_tells=protocol_tells,
                )
            except DicomRejected as rejected:
                unused = (*rejected.rejections, rejected.rejection)
            rejections += [replace(item, study_id=self.study_id, series_id=series_id) for item in unused]
            if series is not None:
                yield series


def _note_volumes(files: Iterable[Path], others: Others) -> None:
    """Name NIfTI volumes among the images of the RSNA layout, which is one of DICOM files."""
    for file in filter(is_nifti, files):
        if not is_shadow(file):
            others.note(file, "NIfTI volume")


def _nobody_says_whose(folders: Iterable[Sequence[SliceHeader]]) -> bool:
    """Whether the folders of a study show the same twice, and no identifier says that it is one patient."""
    folders = list(folders)
    if any(header.study_uid or any(identity_of(header)[:2]) for headers in folders for header in headers):
        return False
    return bool(conflicts([acquisitions_of(headers) for headers in folders]))


def read_headers(
    paths: Iterable[Path],
    rejections: list[Rejection],
    study_id: str = "",
    series_id: str = "",
    others: Others | None = None,
) -> list[SliceHeader]:
    """Headers of the files that can be read; why the others cannot is added to ``rejections``.

    Args:
        others: told of images of other modalities instead, which may be many.
    """
    headers: list[SliceHeader] = []
    for path in paths:
        try:
            headers += read_slices(path)
        except DicomRejected as rejected:
            why = replace(rejected.rejection, study_id=study_id, series_id=series_id)
            if others is not None and why.reason is Reason.OTHER_MODALITY:
                others.note(path, why.message, why.reason)
            else:
                rejections.append(why)
    return headers


def identifier(text: str) -> str:
    """The text as an identifier that is safe as a file name and in a row id; "" stays empty."""
    return safe_id(text.strip()) if text.strip() else ""
