"""The table of series: what each series of a study was seen as, what it was used for, or why it was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from classifier.grade import Grade
from data_prep.levels import SpineLevels
from data_prep.problems import Rejection
from data_prep.study import Series, Study
from data_prep.vocabulary import ConditionGroup, Target

LEVELS_USE: Final = "levels"
NOT_LUMBAR: Final = "other_part_of_patient"
NOT_NEEDED: Final = "not_needed"


@dataclass(frozen=True)
class SeriesRow:
    """One series of a study.

    Attributes:
        series_id: of the folder or the header; a part of a series has a number behind it.
        seen_as: kind, "" where it was not told.
        told_by: who says so: table, header, image, assumed; "" where nobody does.
        plane: sagittal, axial or coronal; "" if it was not read.
        slices: images in it.
        image: plain, water image, fat image …
        used_for: ``levels`` and groups of conditions: spinal, foraminal, subarticular.
        ignored: a code; "" if it was used.
    """

    series_id: str
    seen_as: str = ""
    told_by: str = ""
    plane: str = ""
    slices: int = 0
    image: str = ""
    used_for: tuple[str, ...] = ()
    ignored: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "used_for": list(self.used_for)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SeriesRow:
        """Read ``to_dict``'s form. Raises TypeError for another."""
        return cls(**{**values, "used_for": tuple(values["used_for"])})


def series_rows(
    study: Study | None,
    levels: SpineLevels | None,
    grades: Mapping[Target, Grade],
    rejections: Sequence[Rejection],
) -> tuple[SeriesRow, ...]:
    """A row for each series that was read, in the order of the study, and for each that was not."""
    found = levels or SpineLevels("")
    rows = [_row(item, found, grades) for item in (study.series if study is not None else ())]
    known = {row.series_id for row in rows}
    for rejection in rejections:
        if rejection.series_id and not rejection.file and rejection.series_id not in known:
            known.add(rejection.series_id)
            rows.append(SeriesRow(rejection.series_id, ignored=rejection.reason.value))
    return tuple(rows)


def _row(series: Series, levels: SpineLevels, grades: Mapping[Target, Grade]) -> SeriesRow:
    graded = {
        point.condition.group
        for point in levels.points
        if point.is_on(series) and grades[Target(point.condition, point.level)].source.is_graded
    }
    used = [LEVELS_USE] if series.series_id in levels.voters else []
    used += [group.value for group in ConditionGroup if group in graded]
    ignored = series.unused
    if series.series_id in levels.set_aside:
        ignored = NOT_LUMBAR
    if not used and not ignored:
        ignored = NOT_NEEDED
    return SeriesRow(
        series.series_id,
        "" if series.kind is None else series.kind.value,
        series.kind_source,
        series.orientation.value,
        len(series.slices),
        series.traits.image.words,
        tuple(used),
        "" if used else ignored,
    )
