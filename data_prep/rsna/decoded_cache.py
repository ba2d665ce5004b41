"""Studies decoded once: one file per study with its geometry and pixels, losslessly, read slice by slice.

A training looks at every study several times (for the detectors' slices, to find its points, to cut its
crops); the RSNA data are 147,218 RLE files, and headers and pixels of each are parsed only for the first
look. A file is a zip archive: ``study.json`` and one deflated entry per slice, whole numbers as 16 bits,
every pixel as the difference to its left neighbour (which halves the size), anything else as float32.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.base.files import atomic_write, file_state, written_by_one
from data_prep.geometry import SlicePlane
from data_prep.names import safe_id
from data_prep.problems import DicomRejected, LumbarError, Reason, Rejection
from data_prep.read.entry import StudyEntry
from data_prep.read.listing import files_below
from data_prep.study import Series, Slice, Study
from data_prep.traits import Image, Traits
from data_prep.vocabulary import SeriesKind

_FORMAT = "lumbar-decoded/3"
_HEADER = "study.json"
_COMPRESSION_LEVEL = 1


class CacheChanged(LumbarError):
    """Another run has put other images of a study into the cache. The message says what to do."""


class DecodedCache:
    """A folder of decoded studies, which runs may share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._wanted: dict[str, str] = {}

    def path(self, study_id: str) -> Path:
        """The file of a study."""
        return self.folder / f"{safe_id(study_id)}.zip"

    def holds(self, entry: StudyEntry) -> bool:
        """Whether the study is here, from the same files and series table."""
        header = self._header(entry.study_id)
        self._wanted[entry.study_id] = inputs_digest(entry)
        return header is not None and header["inputs"] == self._wanted[entry.study_id]

    def digest(self, study_id: str) -> str | None:
        """Of the files that a study was read from and of what is kept of them; None when it is not here."""
        header = self._header(study_id)
        return None if header is None else f"{header['format']} {header['inputs']}"

    def is_rejected(self, study_id: str) -> bool:
        """Whether nothing of a study could be used when it was read."""
        header = self._header(study_id)
        return header is None or "rejected" in header

    def add(self, entry: StudyEntry) -> None:
        """Read a study and write its file, whole or not at all; a rejected one is remembered as such.

        Not where another run has done that since.
        """
        with written_by_one(self.path(entry.study_id)):
            if not self.holds(entry):
                self._add(entry)

    def _add(self, entry: StudyEntry) -> None:
        header: dict[str, Any] = {
            "format": _FORMAT,
            "study_id": entry.study_id,
            "inputs": inputs_digest(entry),
        }
        try:
            study = entry.load()
        except DicomRejected as rejected:
            header |= {
                "rejected": asdict(rejected.rejection),
                "rejections": [asdict(item) for item in rejected.rejections],
            }
            self._write(header, ())
            return
        header["rejections"] = [asdict(item) for item in study.rejections]
        header["flags"] = list(study.flags)
        self._write(header, study.series)

    def _write(self, header: dict[str, Any], series: tuple[Series, ...]) -> None:
        with (
            atomic_write(self.path(header["study_id"]), binary=True) as stream,
            zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL) as archive,
        ):
            header["series"] = [_write_series(archive, number, item) for number, item in enumerate(series)]
            archive.writestr(_HEADER, json.dumps(header))

    def load(self, study_id: str) -> Study:
        """The study, its pixels read from the file when asked for.

        Raises:
            DicomRejected: as when it was read, or the file is missing or damaged.
            CacheChanged: it is no longer that of the images which ``holds`` was last asked about.
        """
        header = self._header(study_id)
        if header is not None and self._wanted.get(study_id, header["inputs"]) != header["inputs"]:
            raise CacheChanged(
                f"another run has put other images of study {study_id} into '{self.folder.name}': give each "
                "data set a cache of its own"
            )
        if header is None:
            message = "not in the decoded cache: run the training again"
            raise DicomRejected(Rejection(Reason.NO_IMAGES, message, study_id))
        rejections = tuple(Rejection.from_record(row) for row in header["rejections"])
        if "rejected" in header:
            raise DicomRejected(Rejection.from_record(header["rejected"]), rejections)
        series = tuple(
            Series(
                study_id,
                row["series_id"],
                None if row["kind"] is None else SeriesKind(row["kind"]),
                tuple(
                    tuple(self._slice(study_id, row["series_id"], item) for item in stack)
                    for stack in row["stacks"]
                ),
                row["kind_source"],
                Traits(**row["traits"] | {"image": Image[row["traits"]["image"]]}),
                row["unused"],
            )
            for row in header["series"]
        )
        return Study(study_id, series, rejections, tuple(header["flags"]))

    def _header(self, study_id: str) -> dict[str, Any] | None:
        try:
            with zipfile.ZipFile(self.path(study_id)) as archive:
                header: dict[str, Any] = json.loads(archive.read(_HEADER))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        return header if header.get("format") == _FORMAT else None

    def _slice(self, study_id: str, series_id: str, row: dict[str, Any]) -> Slice:
        plane = SlicePlane(
            np.array(row["origin_mm"]),
            np.array(row["x_axis"]),
            np.array(row["y_axis"]),
            (row["spacing_mm"][0], row["spacing_mm"][1]),
            (row["shape"][0], row["shape"][1]),
        )
        read = partial(_read_slice, self.path(study_id), row, study_id, series_id)
        return Slice(plane, row["instance_number"], read)


def inputs_digest(entry: StudyEntry) -> str:
    """SHA-256 of the file list of a study (place, ``file_state``) and its series kinds."""
    files = []
    if entry.folder is not None:
        for path in sorted(files_below(entry.folder, [])):
            files.append((str(path.relative_to(entry.folder)), *file_state(path)))
    for group in entry.headers.values():
        for header in group:
            files.append((header.path.name, *file_state(header.path)))
    content = {"files": files, "kinds": {series: str(kind) for series, kind in entry.kinds.items()}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_series(archive: zipfile.ZipFile, number: int, series: Series) -> dict[str, Any]:
    stacks = []
    for stack_number, stack in enumerate(series.stacks):
        rows = []
        for index, item in enumerate(stack):
            row: dict[str, Any] = {
                "origin_mm": item.plane.origin_mm.tolist(),
                "x_axis": item.plane.x_axis.tolist(),
                "y_axis": item.plane.y_axis.tolist(),
                "spacing_mm": list(item.plane.spacing_mm),
                "shape": list(item.plane.shape),
                "instance_number": item.instance_number,
            }
            try:
                content, row["stored"] = _packed(item.pixels())
            except DicomRejected as rejected:
                row["rejected"] = asdict(rejected.rejection)
            else:
                row["entry"] = f"{number}/{stack_number}/{index}"
                archive.writestr(row["entry"], content)
            rows.append(row)
        stacks.append(rows)
    return {
        "series_id": series.series_id,
        "kind": None if series.kind is None else series.kind.value,
        "kind_source": series.kind_source,
        "traits": asdict(series.traits) | {"image": series.traits.image.name},
        "unused": series.unused,
        "stacks": stacks,
    }


def _packed(pixels: NDArray[np.float32]) -> tuple[bytes, str]:
    """Bytes of an image and how they are stored."""
    whole = pixels.astype(np.uint16) if pixels.size and 0 <= pixels.min() <= pixels.max() < 65536 else None
    if whole is None or not np.array_equal(whole, pixels):
        return pixels.astype("<f4").tobytes(), "float32"
    # 16-bit differences wrap round, and so does their sum: nothing is lost.
    steps = np.diff(whole, axis=1, prepend=np.uint16(0)).astype("<u2")
    # Low and high bytes apart: the high ones are nearly constant.
    return steps.view(np.uint8).reshape(-1, 2).T.tobytes(), "uint16 steps"


def _read_slice(path: Path, row: dict[str, Any], study_id: str, series_id: str) -> NDArray[np.float32]:
    if "rejected" in row:
        raise DicomRejected(Rejection.from_record(row["rejected"]))
    rows, columns = row["shape"]
    try:
        with zipfile.ZipFile(path) as archive:
            content = np.frombuffer(archive.read(row["entry"]), np.uint8)
        if row["stored"] == "float32":
            return content.view("<f4").reshape(rows, columns).astype(np.float32)
        steps = np.ascontiguousarray(content.reshape(2, -1).T).view("<u2").reshape(rows, columns)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        message = f"cannot be read from the decoded cache ({type(error).__name__})"
        raise DicomRejected(Rejection(Reason.BAD_PIXELS, message, study_id, series_id)) from None
    return np.cumsum(steps, axis=1, dtype=np.uint16).astype(np.float32)
