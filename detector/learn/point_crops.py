"""What the second look learns from: crops with an annotated point in the middle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.base.rows import Rows
from data_prep.base.workers import in_order
from data_prep.levels import LevelPoint
from data_prep.partition import Part, part_of
from data_prep.problems import DicomRejected, Rejection
from data_prep.read.entry import StudyEntry
from data_prep.read.find import find_studies
from data_prep.rsna.annotations import annotated_points
from data_prep.rsna.tables import read_tables
from data_prep.study import Study
from detector.learn.slices import SlicesUnusable
from detector.learn.study_slices import LeftOut
from detector.look.refiner import point_crop
from detector.spec import RefinerSpec


@dataclass(frozen=True, eq=False)
class PointCrops(Rows):
    """Crops with their point in the middle: uint8 (n, side, side), level int64 (n,), study (n,)."""

    pixels: NDArray[np.uint8]
    level: NDArray[np.int64]
    study: NDArray[np.str_]


def point_crops(study: Study, points: Sequence[LevelPoint], spec: RefinerSpec) -> PointCrops:
    """Crops around the points of a study that the refiner moves and whose slice can be decoded."""
    found = [
        (np.rint(crop.pixels[0] * 255).astype(np.uint8), point.level.index)
        for point in points
        if point.condition.group is spec.group
        and (crop := point_crop(study, point, spec, margin=True)) is not None
    ]
    side = spec.size_px + 2 * spec.margin_px
    return PointCrops(
        np.array([pixels for pixels, _ in found], np.uint8).reshape(-1, side, side),
        np.array([level for _, level in found], np.int64),
        np.array([study.study_id] * len(found), np.str_),
    )


def cut_point_crops(
    data: Sequence[Path],
    spec: RefinerSpec,
    *,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda _: None,
    left_out: LeftOut | None = None,
) -> tuple[PointCrops, PointCrops]:
    """Crops around the annotated points of data sets in the RSNA layout: training part and validation part.

    Studies of the test part are in neither (``data_prep.partition``).

    Args:
        left_out: what cannot be used is added here.

    Raises:
        SlicesUnusable: no data set has such points on its slices.
    """
    entries = []
    for folder in data:
        coordinates = read_tables(folder).coordinates
        if coordinates is None:
            raise SlicesUnusable(f"'{folder.name}' needs train_label_coordinates.csv")
        rows = {str(name): table for name, table in coordinates.groupby("study_id")}
        entries += [
            (entry, rows[entry.study_id])
            for entry in find_studies(folder)
            if entry.study_id in rows
            and not entry.is_only_listed
            and part_of(entry.study_id) is not Part.TEST
        ]
    left_out = left_out or LeftOut()
    parts = []
    for study_id, crops, rejections, problems in in_order(partial(_cut, spec=spec), entries, jobs):
        parts += [crops] if crops is not None and len(crops) else []
        left_out.rejections.extend(rejections)
        left_out.problems.extend(problems)
        progress(study_id)
    if not parts:
        raise SlicesUnusable(f"no {spec.group.value} point lies on a slice of these data sets")
    found = PointCrops.join(parts)
    train = np.array([part_of(name) is Part.TRAIN for name in found.study.tolist()])
    if not train.any():
        raise SlicesUnusable("all studies belong to the validation or test part: nothing to learn from")
    return found.where(train), found.where(~train)


def _cut(
    item: tuple[StudyEntry, pd.DataFrame], spec: RefinerSpec
) -> tuple[str, PointCrops | None, tuple[Rejection, ...], tuple[str, ...]]:
    entry, coordinates = item
    try:
        study = entry.load()
    except DicomRejected as rejected:
        return entry.study_id, None, (*rejected.rejections, rejected.rejection), ()
    points, problems = annotated_points(study, coordinates)
    return entry.study_id, point_crops(study, points, spec), study.rejections, problems
