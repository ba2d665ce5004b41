"""Labelled slices that a detector learns from, at canonical scale, wherever they come from.

Two sources today: a folder of external images with a CSV of points, and studies in the RSNA layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.base.csv_files import trouble_with_table
from data_prep.geometry import FloatArray, SlicePlane
from data_prep.levels import LevelPoint, PointSource, Sight
from data_prep.problems import LumbarError
from data_prep.study import Series, Study
from data_prep.vocabulary import Condition, Level
from detector.look.canonical import canonical_image
from detector.spec import SAGITTAL, DetectorSpec

# A study and its annotated points.
AnnotatedStudy = tuple[Study, tuple[LevelPoint, ...]]

DISC_LABEL = 1
PIXEL_COLUMNS = ("disc_x", "disc_y", "canal_x", "canal_y", "spacing_mm")
EXTERNAL_COLUMNS = ("patient", "slice_index", "file", "level", "disc_x", "disc_y", "canal_x", "canal_y")


class SlicesUnusable(LumbarError):
    """The data cannot train a detector. The message says what is wrong and what to do."""


def slice_table(path: Path, columns: tuple[str, ...], tells: str) -> pd.DataFrame:
    """A table beside slices: patients and files as text, pixels and millimetres as numbers, NaN where empty.

    Patients that are numbers lose zeros in front: one table has 7, the next one 007.

    Args:
        columns: that it must have.
        tells: what it is there for, for the message when it is missing.

    Raises:
        SlicesUnusable: no such table, or not one that can be used.
    """
    name = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        raise SlicesUnusable(f"{name} not found: {tells}")
    if trouble := trouble_with_table(path):
        raise SlicesUnusable(f"{name} {trouble}")
    try:
        table = pd.read_csv(path, dtype={"patient": str, "slice": str, "file": str}, encoding="utf-8-sig")
    except ValueError as error:
        raise SlicesUnusable(f"{name} cannot be read as a table ({type(error).__name__})") from None
    if missing := [column for column in columns if column not in table.columns]:
        raise SlicesUnusable(f"{name}: columns missing: {', '.join(missing)}")
    if "patient" in table.columns:
        table["patient"] = table["patient"].str.strip().str.replace(r"^0+(?=\d+$)", "", regex=True)
    for column in (column for column in PIXEL_COLUMNS if column in table.columns):
        try:
            table[column] = pd.to_numeric(table[column])
        except ValueError:
            raise SlicesUnusable(f"{name}: column {column} holds something else than numbers") from None
    return table


@dataclass(frozen=True, eq=False)
class LabelledSlice:
    """One canonical slice with its objects.

    Attributes:
        image: uint8 (rows, columns) at the detector's ``mm_per_px``.
        names: n object names: a level (``L1/L2``) or, for axial slices, ``level``.
        keypoints_px: float64 (n, keypoints, 2), (column, row); NaN where not annotated.
        counting: places of keypoints that only tell which object is where: a training does not learn to put
            them there.
        labels: uint8 (rows, columns) tissue map (0 background, 1 disc, 2 vertebra, 3 canal), or None.
        patient: no two parts of a split share one.
        name: where the slice comes from, for messages.
    """

    image: NDArray[np.uint8]
    names: tuple[str, ...]
    keypoints_px: FloatArray
    patient: str
    name: str
    labels: NDArray[np.uint8] | None = None
    counting: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        expected = (len(self.names),)
        if self.keypoints_px.ndim != 3 or self.keypoints_px.shape[:1] != expected:
            raise ValueError(
                f"keypoints_px must have shape ({len(self.names)}, k, 2), but got {self.keypoints_px.shape}"
            )


@dataclass(frozen=True)
class ExternalSlices:
    """A folder of images with a CSV of points, as a source of labelled slices.

    Attributes:
        root: folder with ``images/`` and, when there are any, ``masks/`` of the same names.
        points_csv: columns ``patient, slice_index, file, level, disc_x, disc_y, canal_x, canal_y``
            (pixels, column and row; empty when unknown).
        mm_per_px: pixel size of the images (isotropic).
        average_slices: mean over this many neighbouring slices, for thin slices that
            should look as thick as clinical ones (1 = off).
    """

    root: Path
    points_csv: Path
    mm_per_px: float
    average_slices: int = 1

    def misnumbered(self) -> frozenset[str]:
        """Patients whose tissue maps show a disc below the lowest labelled one in half of their slices.

        Levels are counted up from the lowest disc: where a collapsed L5/S1 was overlooked, every level of
        the table is one too high. Patients without tissue maps pass.
        """
        found = []
        for patient, rows in self.points().groupby("patient"):
            lowest = rows.groupby("file")["disc_y"].max()
            below = [self._shows_disc_below(str(file), float(y)) for file, y in lowest.items()]
            if np.mean(below) >= 0.5:
                found.append(str(patient))
        return frozenset(found)

    def _mask(self, file: str) -> NDArray[np.uint8] | None:
        """The tissue map as it is stored, or None when there is none."""
        path = self.root / "masks" / file
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
        return None if mask is None else np.asarray(mask, dtype=np.uint8)

    def _shows_disc_below(self, file: str, y_px: float) -> bool:
        mask = self._mask(file)
        if mask is None:
            return False
        _, _, stats, centres = cv2.connectedComponentsWithStats((mask == DISC_LABEL).astype(np.uint8))
        area_mm2 = stats[1:, cv2.CC_STAT_AREA] * self.mm_per_px**2
        drop_mm = (centres[1:, 1] - y_px) * self.mm_per_px
        return bool(np.any((area_mm2 >= 10) & (drop_mm >= 12)))

    def load(self, patients: frozenset[str], spec: DetectorSpec = SAGITTAL) -> list[LabelledSlice]:
        """Labelled slices of these patients, in the order of the table.

        Raises:
            SlicesUnusable: a column or an image is missing, or no slice is left.
        """
        points = self.points()
        points = points[points["patient"].astype(str).isin(patients) & points["level"].isin(spec.level_names)]
        slices = [self._load_slice(str(file), rows, spec) for file, rows in points.groupby("file", sort=True)]
        if not slices:
            raise SlicesUnusable(f"{self.points_csv.name}: no labelled slice of the wanted patients")
        return slices

    def points(self) -> pd.DataFrame:
        """The table of points. Raises SlicesUnusable."""
        return slice_table(self.points_csv, EXTERNAL_COLUMNS, "give the CSV of points of the slices")

    def _load_slice(self, file: str, rows: pd.DataFrame, spec: DetectorSpec) -> LabelledSlice:
        image = self.read_averaged(file)
        plane = picture_plane(image, self.mm_per_px)
        canonical = canonical_image(plane, image, mm_per_px=spec.mm_per_px, max_side_px=spec.max_canvas_px)
        keypoints = rows[["disc_x", "disc_y", "canal_x", "canal_y"]].to_numpy(float).reshape(-1, 2, 2)
        return LabelledSlice(
            image=canonical.image,
            names=tuple(rows["level"]),
            keypoints_px=canonical.plane.to_px(plane.to_mm(keypoints)),
            patient=str(rows["patient"].iloc[0]),
            name=file,
            labels=self._labels(file, plane, canonical.plane),
        )

    def files_of(self, file: str) -> dict[int, str]:
        """All images of the patient of ``file`` (names ``{patient}_{slice index}.ext``), by slice index."""
        prefix, suffix = Path(file).stem.rpartition("_")[0], Path(file).suffix
        found = (path.name for path in (self.root / "images").glob(f"{prefix}_*{suffix}"))
        return dict(sorted((int(Path(name).stem.rpartition("_")[2]), name) for name in found))

    def _labels(self, file: str, plane: SlicePlane, target: SlicePlane) -> NDArray[np.uint8] | None:
        """The tissue map on the canonical grid, or None when there is none."""
        mask = self._mask(file)
        if mask is None:
            return None
        rows, columns = target.shape
        xy = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)
        at = np.rint(plane.to_px(target.to_mm(xy))).astype(int)
        at = np.clip(at, 0, np.array([mask.shape[1], mask.shape[0]]) - 1)
        return mask[at[..., 1], at[..., 0]]

    def read_averaged(self, file: str) -> NDArray[np.float32]:
        """The image, averaged with its neighbours of the same patient that exist and have its shape."""
        read = partial(read_picture, self.root, table=self.points_csv.name)
        middle = read(file)
        stem, suffix = Path(file).stem, Path(file).suffix
        patient, _, number = stem.rpartition("_")
        if self.average_slices < 2 or not number.isdigit():
            return middle
        half = self.average_slices // 2
        stack = [middle]
        for offset in (o for o in range(-half, half + 1) if o != 0):
            name = f"{patient}_{int(number) + offset:0{len(number)}d}{suffix}"
            if (self.root / "images" / name).is_file():
                neighbour = read(name)
                if neighbour.shape == middle.shape:
                    stack.append(neighbour)
        return np.mean(stack, axis=0, dtype=np.float32)


def read_picture(folder: Path, name: str, table: str) -> NDArray[np.float32]:
    """A picture (rows, columns) of ``images/`` that a table names. Raises SlicesUnusable."""
    image = cv2.imread(str(folder / "images" / name), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise SlicesUnusable(f"images/{name} is named in {table} but cannot be read")
    return image.astype(np.float32)


def picture_plane(image: NDArray[np.float32], mm_per_px: float, *, x_mm: float = 0.0) -> SlicePlane:
    """A picture as a sagittal slice at ``x_mm``, head up and front left."""
    return SlicePlane(
        origin_mm=np.array([x_mm, 0.0, 0.0]),
        x_axis=np.array([0.0, 1.0, 0.0]),
        y_axis=np.array([0.0, 0.0, -1.0]),
        spacing_mm=(mm_per_px, mm_per_px),
        shape=(image.shape[0], image.shape[1]),
    )


def canal_point(series: Series, instance_number: int, level: Level, xy_px: tuple[float, float]) -> LevelPoint:
    """The annotated canal point of a level on a slice."""
    return LevelPoint(
        condition=Condition.SPINAL_CANAL_STENOSIS,
        level=level,
        xyz_mm=series.by_instance(instance_number).plane.to_mm(xy_px),
        source=PointSource.ANNOTATED,
        sight=Sight(series.series_id, instance_number, xy_px),
    )


def split_patients(patients: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """Patients that train, and every fifth that only chooses (thresholds, epochs, calibration)."""
    validation = frozenset(patients[2::5])
    return frozenset(patients) - validation, validation
