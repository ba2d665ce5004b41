"""Looks a data set over: tables and images, every quirk and every rejection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_prep.levels import LevelPoint
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.entry import StudyEntry
from data_prep.read.find import find_studies
from data_prep.rsna.annotations import annotated_points
from data_prep.rsna.table_quirks import Problem, TablesInvalid, problem
from data_prep.rsna.tables import RsnaTables, read_tables
from data_prep.study import Series, Study
from data_prep.vocabulary import CONDITIONS

_MESSAGES = {
    "listed_without_images": "study that is listed but has no images",
    "several_orientations": "series of several stacks with different angles",
    "mixed_shapes": "series whose images differ in size",
    "instance_order": "series whose instance numbers are not in spatial order",
    "kind_not_from_table": "series whose kind was told from its headers or images",
    "sides_exchanged": "annotated point whose side is that of the other one of its pair",
    "kind_missing": "study with images, but without a series of one of the three kinds",
    "levels_spacing": "study whose annotated levels lie too near to each other for a patient, or too far, in "
    "most: are x and y pixels of these images?",
}
# Between neighbouring levels, on average: 36 mm in adults; half of it in millimetres taken for pixels, or in
# pixels of a picture that was enlarged.
_LEVELS_APART_MM = (20.0, 48.0)
_LEAST_LEVELS = 3


@dataclass(frozen=True)
class CheckReport:
    """What a data set holds and what is odd in it.

    Attributes:
        studies: found in the images or listed in the series table.
        studies_loaded, series, slices: what can be used.
        points: annotated points that lie in a loaded image.
        problems: quirks, and what makes the tables unusable (``fatal``).
        rejections: files, series and studies that cannot be used. Studies without images are in ``problems``.
    """

    studies: int
    studies_loaded: int
    series: int
    slices: int
    points: int
    problems: tuple[Problem, ...]
    rejections: tuple[Rejection, ...]

    @property
    def is_usable(self) -> bool:
        """Whether nothing is fatal; quirks and rejections are allowed."""
        return not any(item.fatal for item in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"is_usable": self.is_usable}


def check_data(
    data: Path, *, images: bool = True, progress: Callable[[int, int], None] = lambda *_: None
) -> CheckReport:
    """Check the tables of a data set and, unless told otherwise, its images.

    All headers are read, and the middle slice of every series is decoded.

    Args:
        data: a folder in the RSNA layout.
        progress: called with (studies done, studies in all).
    """
    tables, problems = _tables(data)
    counts: dict[str, int] = defaultdict(int)
    places: dict[str, list[str]] = defaultdict(list)
    rejections: list[Rejection] = []
    entries = _entries(data, rejections) if images else ()
    for done, entry in enumerate(entries, start=1):
        _check_study(entry, tables.coordinates, counts, places, rejections)
        progress(done, len(entries))
    if len(places["levels_spacing"]) <= counts["spaced"] / 2:  # a child, or a wrong point
        del places["levels_spacing"]
    problems += [
        problem(code, _MESSAGES.get(code, "annotated point that lies in no loaded image"), found)
        for code, found in places.items()
    ]
    return CheckReport(
        studies=len(entries),
        studies_loaded=counts["studies"],
        series=counts["series"],
        slices=counts["slices"],
        points=counts["points"],
        problems=tuple(problems),
        rejections=tuple(rejections),
    )


def _tables(data: Path) -> tuple[RsnaTables, list[Problem]]:
    try:
        tables = read_tables(data)
    except TablesInvalid as invalid:
        return RsnaTables(None, None, None), list(invalid.problems)
    return tables, list(tables.problems)


def _entries(data: Path, rejections: list[Rejection]) -> tuple[StudyEntry, ...]:
    try:
        return find_studies(data)
    except DicomRejected as rejected:
        rejections.extend((*rejected.rejections, rejected.rejection))
        return ()


def _check_study(
    entry: StudyEntry,
    coordinates: pd.DataFrame | None,
    counts: dict[str, int],
    places: dict[str, list[str]],
    rejections: list[Rejection],
) -> None:
    try:
        study = entry.load()
    except DicomRejected as rejected:
        if rejected.rejection.reason is Reason.NO_IMAGES:
            places["listed_without_images"].append(entry.study_id)
        else:
            rejections.extend((*rejected.rejections, rejected.rejection))
        return
    rejections.extend(study.rejections)
    counts["studies"] += 1
    for series in study.series:
        counts["series"] += 1
        counts["slices"] += len(series.slices)
        for code in _series_quirks(series):
            places[code].append(f"{study.study_id}/{series.series_id}")
        rejections.extend(_decoding_failures(series))
    if len({series.kind for series in study.series}) < 3:
        places["kind_missing"].append(study.study_id)
    if coordinates is not None:
        _check_points(study, coordinates, counts, places)


def _series_quirks(series: Series) -> list[str]:
    found = []
    first = series.slices[0].plane
    if any(not stack[0].plane.is_parallel_to(first) for stack in series.stacks):
        found.append("several_orientations")
    if len({item.plane.shape for item in series.slices}) > 1:
        found.append("mixed_shapes")
    for stack in series.stacks:
        numbers = [item.instance_number for item in stack]
        if numbers not in (sorted(numbers), sorted(numbers, reverse=True)):
            found.append("instance_order")
            break
    if series.kind_source != "table":
        found.append("kind_not_from_table")
    return found


def _decoding_failures(series: Series) -> list[Rejection]:
    try:
        series.slices[len(series.slices) // 2].pixels()
    except DicomRejected as rejected:
        return [rejected.rejection]
    return []


def _check_points(
    study: Study, coordinates: pd.DataFrame, counts: dict[str, int], places: dict[str, list[str]]
) -> None:
    points, problems = annotated_points(study, coordinates)
    counts["points"] += len(points)
    if (apart_mm := _levels_apart_mm(points)) is not None:
        counts["spaced"] += 1
        if not _LEVELS_APART_MM[0] < apart_mm < _LEVELS_APART_MM[1]:
            places["levels_spacing"].append(study.study_id)
    for text in problems:
        code, _, place = text.partition(": ")
        if code != "placeholder_point":  # the tables have listed these
            places[code].append(place)


def _levels_apart_mm(points: Iterable[LevelPoint]) -> float | None:
    """How far neighbouring levels lie from each other on average; None for fewer than three."""
    found = []
    for condition in CONDITIONS:
        places = {point.level.index: point.xyz_mm for point in points if point.condition is condition}
        if len(places) >= _LEAST_LEVELS:
            first, last = min(places), max(places)
            found.append(float(np.linalg.norm(places[last] - places[first])) / (last - first))
    return float(np.median(found)) if found else None
