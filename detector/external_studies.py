"""External slices of one patient as a study, so that the detector is judged on them as on any other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from data_prep.study_types import LevelPoint, PointSource, Series, Slice, Study
from data_prep.vocabulary import LEVELS, Condition, SeriesKind
from detector.slices import ExternalSlices


def external_study(
    source: ExternalSlices, patient: str, *, slice_gap_mm: float, every: int
) -> tuple[Study, tuple[LevelPoint, ...]]:
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
    slices, planes = [], {}
    for index, file in files.items():
        if (index - middle) % every:
            continue
        image = source.read_averaged(file)
        planes[index] = source.plane(image, x_mm=index * slice_gap_mm)
        slices.append(Slice(planes[index], index, _reader(image)))
    series = Series(patient, f"{patient}-t2", SeriesKind.SAGITTAL_T2, (tuple(slices),), "table")
    annotated = []
    for level in LEVELS:
        rows = points[
            (points["level"] == level.label) & points["slice_index"].isin(planes) & points["canal_x"].notna()
        ]
        if rows.empty:
            continue
        row = rows.iloc[int((rows["slice_index"] - middle).abs().argmin())]
        xy = (float(row["canal_x"]), float(row["canal_y"]))
        index = int(row["slice_index"])
        annotated.append(
            LevelPoint(
                condition=Condition.SPINAL_CANAL_STENOSIS,
                level=level,
                xyz_mm=planes[index].to_mm(xy),
                source=PointSource.ANNOTATED,
                series_id=series.series_id,
                instance_number=index,
                xy_px=xy,
            )
        )
    return Study(patient, (series,)), tuple(annotated)


def _reader(image: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:
    return lambda: image
