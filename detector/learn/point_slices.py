"""Single sagittal slices of many patients with their levels: a folder of pictures and a table of points.

``images/`` holds the pictures, head up and front left. ``level_points.csv`` has ``slice`` (file name),
``patient``, ``modality`` (T1, T2), ``level``, ``canal_x``, ``canal_y`` (pixels) and, if it is known,
``spacing_mm``. If there is a ``discs.csv`` (``slice, level, disc_x, disc_y``: centres of disc boxes) discs
are taken from it, and the points, which such sets have on the rear edge of the disc, only number them.
Patients on whom two annotators differ by a level (``numbering_vs_counted_boxes`` other than ``same``) are
left out.

And external slices of one patient as a study, so that the detector is judged on them as on any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.geometry import SlicePlane
from data_prep.levels import LevelPoint
from data_prep.partition import Part, part_of
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import LEVELS, Level, SeriesKind
from detector.learn.slices import (
    AnnotatedStudy,
    ExternalSlices,
    LabelledSlice,
    SlicesUnusable,
    canal_point,
    picture_plane,
    read_picture,
    slice_table,
)
from detector.look.canonical import canonical_image
from detector.spec import SAGITTAL

DISC_COLUMNS = ("slice", "level", "disc_x", "disc_y")
POINT_COLUMNS = ("slice", "patient", "modality", "level", "canal_x", "canal_y")
# Rear edges of neighbouring discs are farther apart than canal points: 35.5 36.2 34.9 30.5 mm at a known
# spacing.
_REAR_EDGE_GAPS_MM = (35.5, 36.2, 34.9, 30.5)
_LABELS = tuple(level.label for level in LEVELS)


def point_slice_table(folder: Path, part: Part | None = None) -> pd.DataFrame:
    """The table of points of one part of the patients (or all), with ``spacing_mm`` in every row.

    Raises:
        SlicesUnusable: a column is missing or the table has no row to use.
    """
    path = folder / "level_points.csv"
    table = slice_table(path, POINT_COLUMNS, "it names the levels of the slices")
    if "numbering_vs_counted_boxes" in table.columns:
        table = table[table["numbering_vs_counted_boxes"] == "same"]
    if table.empty:
        raise SlicesUnusable(f"{folder.name}/{path.name} names no slice that can be used")
    if "spacing_mm" not in table.columns:
        table = table.assign(spacing_mm=_spacing_of(table))
    if part is not None:
        patients = {name for name in table["patient"].unique() if part_of(patient_id(folder, name)) is part}
        table = table[table["patient"].isin(patients)]
    return table


def patient_id(folder: Path, patient: str) -> str:
    """The name by which a patient is assigned to a part, one for every folder of the same source.

    ``spider_slices`` and ``spider_t2_space`` hold the same patients: the first word of the folder counts.
    """
    return f"{folder.name.split('_')[0]}-{patient.lstrip('0')}"


def _spacing_of(table: pd.DataFrame) -> float:
    """Millimetres a pixel that give the levels their usual distance, median over the folder."""
    found = []
    for _, rows in table.drop_duplicates(["slice", "level"]).groupby("slice"):
        at = rows.set_index("level").reindex(list(_LABELS))[["canal_x", "canal_y"]].to_numpy(float)
        gaps = np.linalg.norm(np.diff(at, axis=0), axis=1)
        found += (np.array(_REAR_EDGE_GAPS_MM) / gaps)[np.isfinite(gaps)].tolist()
    if not found:
        raise SlicesUnusable("no spacing_mm, and no two neighbouring levels to tell it from")
    return float(np.median(found))


def labelled_point_slices(folder: Path, part: Part) -> list[LabelledSlice]:
    """Slices of one part of the patients, for the sagittal detector. Raises SlicesUnusable."""
    table = point_slice_table(folder, part)
    discs = folder / "discs.csv"
    boxes = slice_table(discs, DISC_COLUMNS, "it has the discs") if discs.is_file() else None
    told = "canal" if boxes is None else "disc"
    found = []
    for name, rows in table.groupby("slice", sort=True):
        pixels, plane = _read(folder, str(name), rows)
        known = rows if boxes is None else boxes[boxes["slice"] == name]
        known = known[known["level"].isin(SAGITTAL.level_names)]
        points = np.full((len(known), len(SAGITTAL.keypoints), 2), np.nan)
        points[:, SAGITTAL.keypoints.index(told)] = known[[f"{told}_x", f"{told}_y"]].to_numpy(float)
        names = tuple(str(level) for level in known["level"])
        if names:
            patient = patient_id(folder, str(rows["patient"].iloc[0]))
            canonical = canonical_image(
                plane, pixels, mm_per_px=SAGITTAL.mm_per_px, max_side_px=SAGITTAL.max_canvas_px
            )
            keypoints = canonical.plane.to_px(plane.to_mm(points))
            found.append(LabelledSlice(canonical.image, names, keypoints, patient, str(name)))
    return found


def point_slice_cases(folder: Path, part: Part | None) -> list[AnnotatedStudy]:
    """Every slice as a study of its own, with its points as canal points. Raises SlicesUnusable."""
    cases = []
    for name, rows in point_slice_table(folder, part).groupby("slice", sort=True):
        pixels, plane = _read(folder, str(name), rows)
        kind = SeriesKind.SAGITTAL_T1 if rows["modality"].iloc[0] == "T1" else SeriesKind.SAGITTAL_T2
        study_id = Path(str(name)).stem
        item = Slice(plane, 1, partial(np.asarray, pixels))
        series = Series(study_id, f"{study_id}-series", kind, ((item,),), "table")
        points = tuple(
            canal_point(series, 1, Level.parse(row["level"]), (float(row["canal_x"]), float(row["canal_y"])))
            for _, row in rows.drop_duplicates("level").iterrows()
            if row["level"] in _LABELS and np.isfinite(row["canal_x"])
        )
        cases.append((Study(study_id, (series,)), points))
    return cases


def _read(folder: Path, name: str, rows: pd.DataFrame) -> tuple[NDArray[np.float32], SlicePlane]:
    """The picture of some rows of the table, and where it lies."""
    pixels = read_picture(folder, name, f"{folder.name}/level_points.csv")
    return pixels, picture_plane(pixels, float(rows["spacing_mm"].iloc[0]))


def external_study(
    source: ExternalSlices, patient: str, *, slice_gap_mm: float, every: int
) -> AnnotatedStudy:
    """A sagittal T2 series from a patient's slices, labelled or not, and canal points of its middle slices.

    Args:
        slice_gap_mm: distance of neighbouring slices of the source.
        every: keep one slice in so many, for thin slices that should be as far apart as clinical ones.

    Each level's point is taken from the kept slice nearest to the middle that has it.
    """
    points = source.points()
    points = points[points["patient"].astype(str) == patient]
    files = source.files_of(str(points["file"].iloc[0]))
    labelled = sorted(points["slice_index"].unique())
    middle = labelled[len(labelled) // 2]
    kept = {index: file for index, file in files.items() if (index - middle) % every == 0}
    series = external_series(source, patient, f"{patient}-t2", kept, slice_gap_mm)
    annotated = []
    for level in LEVELS:
        rows = points[
            (points["level"] == level.label) & points["slice_index"].isin(kept) & points["canal_x"].notna()
        ]
        if not rows.empty:
            row = rows.iloc[int((rows["slice_index"] - middle).abs().argmin())]
            annotated.append(annotated_row(series, level, row))
    return Study(patient, (series,)), tuple(annotated)


def external_series(
    source: ExternalSlices, study_id: str, series_id: str, files: Mapping[int, str], slice_gap_mm: float
) -> Series:
    """External slices by their index, as instance number, ``slice_gap_mm`` apart."""
    slices = []
    for index, file in files.items():
        image = source.read_averaged(file)
        plane = picture_plane(image, source.mm_per_px, x_mm=index * slice_gap_mm)
        slices.append(Slice(plane, index, partial(np.asarray, image)))
    return Series(study_id, series_id, SeriesKind.SAGITTAL_T2, (tuple(slices),), "table")


def annotated_row(series: Series, level: Level, row: pd.Series) -> LevelPoint:
    """The canal point of a row of the table, on its slice."""
    xy_px = float(row["canal_x"]), float(row["canal_y"])
    return canal_point(series, int(row["slice_index"]), level, xy_px)
