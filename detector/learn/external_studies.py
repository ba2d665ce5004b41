"""External slices of one patient as a study, so that the detector is judged on them as on any other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.levels import LevelPoint
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import LEVELS, Level, SeriesKind
from detector.learn.slices import AnnotatedStudy, ExternalSlices, canal_point, picture_plane


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
    series = _series(source, patient, f"{patient}-t2", kept, slice_gap_mm)
    annotated = []
    for level in LEVELS:
        rows = points[
            (points["level"] == level.label) & points["slice_index"].isin(kept) & points["canal_x"].notna()
        ]
        if not rows.empty:
            row = rows.iloc[int((rows["slice_index"] - middle).abs().argmin())]
            annotated.append(_annotated(series, level, row))
    return Study(patient, (series,)), tuple(annotated)


def external_slice_studies(source: ExternalSlices, patient: str) -> list[AnnotatedStudy]:
    """Every labelled slice of a patient as a study of its own, with its canal points."""
    points = source.points()
    points = points[(points["patient"].astype(str) == patient) & points["canal_x"].notna()]
    cases = []
    for file, rows in points.groupby("file", sort=True):
        name = Path(str(file)).stem
        index = int(rows["slice_index"].iloc[0])
        series = _series(source, name, f"{name}-t2", {index: str(file)}, 0.0)
        by_level = {str(row["level"]): row for _, row in rows.iterrows()}
        annotated = [
            _annotated(series, level, by_level[level.label]) for level in LEVELS if level.label in by_level
        ]
        cases.append((Study(name, (series,)), tuple(annotated)))
    return cases


def _series(
    source: ExternalSlices, study_id: str, series_id: str, files: Mapping[int, str], slice_gap_mm: float
) -> Series:
    """Slices by their index, as instance number, ``slice_gap_mm`` apart."""
    slices = []
    for index, file in files.items():
        image = source.read_averaged(file)
        plane = picture_plane(image, source.mm_per_px, x_mm=index * slice_gap_mm)
        slices.append(Slice(plane, index, partial(np.asarray, image)))
    return Series(study_id, series_id, SeriesKind.SAGITTAL_T2, (tuple(slices),), "table")


def _annotated(series: Series, level: Level, row: pd.Series) -> LevelPoint:
    """The canal point of a row of the table, on its slice."""
    xy_px = float(row["canal_x"]), float(row["canal_y"])
    return canal_point(series, int(row["slice_index"]), level, xy_px)
