"""A study as it lies on disk, held in memory so that quirks can change it: read, change, write elsewhere."""

from __future__ import annotations

import copy
import csv
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from data_prep.rsna.tables import COORDINATES_FILE, LABELS_FILE
from data_prep.vocabulary import SeriesKind

IMAGES, SERIES_TABLE = "train_images", "train_series_descriptions.csv"


@dataclass(frozen=True, eq=False)
class StoredImage:
    """One DICOM file.

    Attributes:
        series_id: of the folder that it came from; names the series whatever the quirk does to ``path``.
        path: where it lies below the input, with ``/``.
        dataset: its content with File Meta; never changed in place, see ``changed``.
    """

    series_id: str
    path: str
    dataset: Dataset
    _written: list[tuple[Dataset, bytes]] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def position_mm(self) -> NDArray[np.float64]:
        """(3,) ImagePositionPatient."""
        return np.array([float(v) for v in self.dataset.ImagePositionPatient])

    @property
    def axes(self) -> NDArray[np.float64]:
        """(2, 3) directions of increasing column and of increasing row, patient LPS."""
        return np.array([float(v) for v in self.dataset.ImageOrientationPatient]).reshape(2, 3)

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """(between rows, between columns), as in PixelSpacing."""
        rows, columns = self.dataset.PixelSpacing
        return float(rows), float(columns)

    def pixels(self) -> NDArray[np.uint16]:
        """Stored values (rows, columns) of an image that no quirk has encoded."""
        shape = int(self.dataset.Rows), int(self.dataset.Columns)
        return np.frombuffer(self.dataset.PixelData, "<u2").reshape(shape)

    def changed(self, **elements: Any) -> StoredImage:
        """The image with other elements by keyword; None takes an element out."""
        dataset = _with_own_elements(self.dataset)
        for keyword, value in elements.items():
            if value is None:
                dataset.pop(keyword, None)
            else:
                setattr(dataset, keyword, value)
        return replace(self, dataset=dataset)

    def content(self) -> bytes:
        """The file; made once for all studies that have the same data set."""
        for dataset, written in self._written:
            if dataset is self.dataset:
                return written
        with io.BytesIO() as stream:
            self.dataset.save_as(stream, enforce_file_format=True)
            written = stream.getvalue()
        self._written[:] = [(self.dataset, written)]
        return written

    def with_pixels(self, pixels: NDArray[Any], **elements: Any) -> StoredImage:
        """The image with other 12-bit values (rows, columns), clipped and rounded, and other elements."""
        values = np.clip(np.rint(pixels), 0, 4095).astype("<u2")
        rows, columns = values.shape
        return self.changed(PixelData=values.tobytes(), Rows=rows, Columns=columns, **elements)

    def at(self, path: str) -> StoredImage:
        """The same file elsewhere."""
        return replace(self, path=path)

    def called(self, name: str) -> StoredImage:
        """The same file under another name."""
        return self.at(f"{self.path.rpartition('/')[0]}/{name}")

    def in_geometry(
        self, position_mm: NDArray[np.float64], axes: NDArray[np.float64] | None = None
    ) -> StoredImage:
        """The image at another place, (3,) and (2, 3)."""
        axes = self.axes if axes is None else axes
        return self.changed(
            ImagePositionPatient=[f"{value:.9g}" for value in position_mm],
            ImageOrientationPatient=[f"{value:.9f}" for value in axes.ravel()],
        )


@dataclass(frozen=True, eq=False)
class StoredStudy:
    """The files of one study and its lines of the series table.

    Attributes:
        images: in the order of their paths.
        kinds: series id → kind in the series table; empty: there is no table.
        others: path → content of files that are no images.
        tables: lines of this study in the annotation tables, by file name; written when put into ``others``.
    """

    study_id: str
    images: tuple[StoredImage, ...]
    kinds: Mapping[str, SeriesKind]
    others: Mapping[str, bytes] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Where the study lies below the input, in the RSNA layout."""
        return f"{IMAGES}/{self.study_id}"

    def of(self, *series_ids: str) -> tuple[StoredImage, ...]:
        """The images of some series, in their order."""
        return tuple(image for image in self.images if image.series_id in series_ids)

    def ids_of(self, kind: SeriesKind) -> list[str]:
        """Ids of the series of a kind, in the order of the table."""
        return [series_id for series_id, listed in self.kinds.items() if listed is kind]

    def each(
        self, change: Callable[[StoredImage], StoredImage | None], only: tuple[str, ...] | None = None
    ) -> StoredStudy:
        """The study with every image changed, or left out (None); ``only`` those of some series."""
        images = []
        for image in self.images:
            new = change(image) if only is None or image.series_id in only else image
            if new is not None:
                images.append(new)
        return replace(self, images=tuple(images))

    def each_series(
        self, change: Callable[[list[StoredImage]], list[StoredImage]], only: tuple[str, ...] | None = None
    ) -> StoredStudy:
        """The study with the list of images of every series changed; they come in spatial order."""
        images: list[StoredImage] = []
        for series_id in dict.fromkeys(image.series_id for image in self.images):
            own = list(self.of(series_id))
            images += change(in_space(own)) if only is None or series_id in only else own
        return replace(self, images=tuple(images))

    def plus(self, *images: StoredImage, others: Mapping[str, bytes] | None = None) -> StoredStudy:
        """The study with more files."""
        return replace(self, images=(*self.images, *images), others={**self.others, **(others or {})})

    def led_by(self, *images: StoredImage) -> StoredStudy:
        """The study without its table, with more images before its own."""
        return replace(self, images=(*images, *self.images), kinds={})

    def holding(self, files: Mapping[str, bytes]) -> StoredStudy:
        """The study with files, some of them in the places of images."""
        return self.each(lambda image: None if image.path in files else image).plus(others=files)

    def without_table(self) -> StoredStudy:
        """The study alone: no series table says what its series show."""
        return replace(self, kinds={})

    def as_tree(self, *, one_folder: bool = False) -> StoredStudy:
        """The layout of an export: no table, folders and files whose names say nothing."""
        series = list(dict.fromkeys(image.series_id for image in self.images))

        def place(image: StoredImage) -> StoredImage:
            folder = "export" if one_folder else f"export/SE{series.index(image.series_id):03d}"
            number = image.name.removesuffix(".dcm")
            return image.at(f"{folder}/IM{series.index(image.series_id)}_{number}")

        return self.each(place).without_table()


Quirk = Callable[[StoredStudy, np.random.Generator], StoredStudy]


def in_space(images: list[StoredImage]) -> list[StoredImage]:
    """Images along the normal of the first one, which points to the left, the back or the head."""
    normal = np.cross(*images[0].axes)
    normal *= np.sign(normal[np.argmax(np.abs(normal))])
    return sorted(images, key=lambda image: float(image.position_mm @ normal))


@lru_cache(maxsize=4)
def read_study(data: Path, study_id: str) -> StoredStudy:
    """Read one study of a data set in the RSNA layout; RLE is decoded, so that quirks find plain pixels."""
    with (data / SERIES_TABLE).open(newline="", encoding="utf-8") as file:
        kinds = {
            row["series_id"]: SeriesKind(row["series_description"])
            for row in csv.DictReader(file)
            if row["study_id"] == study_id
        }
    images = []
    for path in sorted((data / IMAGES / study_id).rglob("*.dcm"), key=_numbers):
        dataset = pydicom.dcmread(path)
        if dataset.file_meta.TransferSyntaxUID == RLELossless:
            dataset.decompress(generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        images.append(StoredImage(path.parent.name, path.relative_to(data).as_posix(), dataset))
    tables = {name: pd.read_csv(data / name, dtype=str) for name in (LABELS_FILE, COORDINATES_FILE)}
    own = {name: table[table["study_id"] == study_id] for name, table in tables.items()}
    return StoredStudy(study_id, tuple(images), kinds, tables=own)


def write_study(study: StoredStudy, out: Path) -> Path:
    """Write all files and, if there is one, the series table below a folder, which is returned."""
    for image in study.images:
        path = out / image.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.content())
    for name, content in study.others.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    if study.kinds:
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("study_id", "series_id", "series_description"))
        writer.writerows((study.study_id, series_id, kind.value) for series_id, kind in study.kinds.items())
        (out / SERIES_TABLE).write_text(lines.getvalue(), encoding="utf-8")
    return out


def change_study(data: Path, study_id: str, quirk: Quirk, out: Path, *, seed: int = 0) -> Path:
    """Write one study of a data set with a quirk into another folder, which is returned."""
    return write_study(quirk(read_study(data, study_id), np.random.default_rng(seed)), out)


def _with_own_elements(dataset: Dataset) -> Dataset:
    """A copy whose elements may be set; what they hold is shared, which pydicom would copy, too."""
    made: Dataset = object.__new__(type(dataset))
    made.__dict__.update(dataset.__dict__)
    made.__dict__["_dict"] = {tag: copy.copy(element) for tag, element in dataset._dict.items()}
    made.__dict__["_private_blocks"] = {}
    if "file_meta" in made.__dict__:
        made.__dict__["file_meta"] = _with_own_elements(dataset.file_meta)
    return made


def _numbers(path: Path) -> list[tuple[int, str]]:
    return [
        (int(part) if re.fullmatch(r"\d+", part) else 0, part) for part in (*path.parent.parts, path.stem)
    ]
