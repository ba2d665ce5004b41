"""``report.html``: everything about one study in one file that opens anywhere, offline."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

from classifier.measure.agreement import contradictions, target_of
from classifier.measure.quantities import KINDS, NOT_MEASURED_WORDS, Measured, Quantity
from data_prep.base.files import write_whole
from data_prep.levels import LevelPoint, SpineLevels
from data_prep.problems import counted
from data_prep.study import Study
from data_prep.vocabulary import LEVELS, SEVERITIES, Condition, GradeSource, Level, Severity, Side, Target
from pipeline.prediction import StudyPrediction
from pipeline.results.draft import draft_text, usual_words
from pipeline.results.pictures.displayed import LEVEL_COLOURS
from pipeline.results.pictures.montage import COLUMNS, read_at
from pipeline.results.report.images import ShownSeries, shown_crop, shown_series
from pipeline.results.report.pages import render
from pipeline.results.words import (
    SOURCE_NAMES,
    SOURCE_WORDS,
    flag_words,
    numbering_words,
    place_words,
    reading_words,
    series_use_words,
    share_words,
    target_words,
)


@dataclass(frozen=True)
class MeasuredRow:
    """A quantity in the table of measurements.

    Attributes:
        name: with the side and the unit.
        levels: a cell for each level, None where it was not measured.
        whole: of the whole spine.
    """

    name: str
    levels: tuple[tuple[str, str, str] | None, ...]
    whole: tuple[str, str, str] | None


@dataclass(frozen=True)
class Cell:
    """One target in the table of a report.

    Attributes:
        name: column name of the target: its id in the page.
        shares: severity, its column name and its probability in percent.
        crop: data URI, or None.
        place: of its slice among the pictures: series and slice, or None.
        measured: what stands beside the grade: name, value with uncertainty, what is usual.
        contradicted: measurements that do not fit the grade, in words.
    """

    name: str
    title: str
    severity: Severity
    shares: tuple[tuple[str, str, float], ...]
    source: GradeSource
    flags: tuple[str, ...]
    crop: str | None
    place: tuple[int, int] | None
    where: str
    measured: tuple[tuple[str, str, str], ...]
    contradicted: tuple[str, ...]

    @property
    def is_graded(self) -> bool:
        return self.source.is_graded

    @property
    def words(self) -> str:
        return self.severity.value if self.is_graded else "Not graded"

    @property
    def top_share(self) -> str:
        return share_words(max(share for _, _, share in self.shares) / 100)


def write_report(study: Study | None, prediction: StudyPrediction, path: Path) -> None:
    """Write the report of one study.

    Args:
        study: None when it could not be loaded: the report then says why.
        path: HTML file to write; the same study and prediction give the same bytes.
    """
    write_whole(path, render_report(study, prediction))


def render_report(study: Study | None, prediction: StudyPrediction) -> str:
    """The report as text; see ``write_report``."""
    levels = prediction.found
    series = () if study is None else shown_series(study, levels)
    rows = [
        (level, [_cell(study, prediction, levels, series, condition, level) for condition, _ in COLUMNS])
        for level in LEVELS
    ]
    cells = [cell for _, row in rows for cell in row]
    # A page has room for some: first what grades were read on all the same.
    said = sorted(counted(prediction.rejections), key=lambda one: one[0].standing == "rejected")
    return render(
        "report.html",
        script="report.js",
        study_id=prediction.study_id,
        rejected=prediction.rejected,
        levels_found=len(levels.levels),
        numbering=numbering_words(levels.numbering_confidence, prediction.flags),
        seen=[(row, series_use_words(row.used_for, row.ignored)) for row in prediction.series],
        flags=[
            *(flag_words(flag) for flag in prediction.flags),
            *(reading_words(shift, share) for shift, share in levels.other_readings.items()),
        ],
        rejections=[(item, more, item.reason.advice) for item, more in said],
        columns=[place_words(condition) for condition, _ in COLUMNS],
        rows=rows,
        counts={source: sum(cell.source == source for cell in cells) for source in SOURCE_WORDS},
        source_words=SOURCE_WORDS,
        source_names=SOURCE_NAMES,
        series=series,
        colours=LEVEL_COLOURS,
        learned_from=prediction.provenance.learned_from,
        measured=_measured_rows(prediction),
        not_measured=NOT_MEASURED_WORDS,
        draft=draft_text(prediction),
        provenance=prediction.provenance.to_dict(),
    )


def _cell(
    study: Study | None,
    prediction: StudyPrediction,
    levels: SpineLevels,
    series: tuple[ShownSeries, ...],
    condition: Condition,
    level: Level,
) -> Cell:
    target = Target(condition, level)
    grade, point = prediction.grades[target], levels.point(condition, level)
    where = "No point."
    if point is not None:
        where = f"Point {point.source}, uncertain by about {point.uncertainty_mm:.0f} mm"
        if point.sight is not None:
            where += f", on instance {point.sight.instance_number}"
        beside = None if study is None else _read_beside(study, levels, point)
        where += "." if beside is None else f"; by axial slices read on {beside}."
    return Cell(
        name=target.column,
        title=target_words(target),
        severity=grade.severity,
        shares=tuple(
            (severity.value, severity.column, 100 * float(p))
            for severity, p in zip(SEVERITIES, grade.probabilities, strict=True)
        ),
        source=grade.source,
        flags=tuple(flag_words(flag) for flag in grade.flags),
        crop=None if study is None else shown_crop(study, levels, condition, level),
        place=_place_of(target.column, series),
        where=where,
        measured=tuple(
            (item.kind.short, item.words, usual_words(item))
            for item in prediction.measurements
            if target_of(item) == target
        ),
        contradicted=tuple(
            item.words
            for item in contradictions(prediction.grades, prediction.measurements)
            if item.target == target
        ),
    )


def _read_beside(study: Study, levels: SpineLevels, point: LevelPoint) -> int | None:
    """The instance on which a target is read, if it is not that of its point."""
    read = read_at(levels, point.condition, point.level)
    series = next((item for item in study.series if point.is_on(item)), None)
    if read is None or series is None or point.sight is None:
        return None
    instance = series.nearest(read.xyz_mm)[0].instance_number
    return None if instance == point.sight.instance_number else instance


def _measured_rows(prediction: StudyPrediction) -> list[MeasuredRow]:
    """A row for each quantity, and for each side where it has two; right before left."""
    rows = []
    for quantity, side in product(Quantity, (None, Side.RIGHT, Side.LEFT)):
        found = {
            item.level: item
            for item in prediction.measurements
            if item.quantity is quantity and item.side is side
        }
        if found:
            kind = KINDS[quantity]
            name = kind.words if side is None else f"{kind.words}, {side}"
            rows.append(
                MeasuredRow(
                    f"{name} ({kind.unit})" if kind.unit else name,
                    tuple(_measured_cell(found.get(level)) for level in LEVELS),
                    _measured_cell(found.get(None)),
                )
            )
    return rows


def _measured_cell(item: Measured | None) -> tuple[str, str, str] | None:
    """Value with its uncertainty, what is usual, and ``low`` or ``high`` where it is not."""
    if item is None:
        return None
    figures = f"{item.kind.figure(item.value)} ± {item.kind.figure(item.uncertainty)}"
    return figures, usual_words(item), "" if item.verdict == "usual" else item.verdict


def _place_of(name: str, series: tuple[ShownSeries, ...]) -> tuple[int, int] | None:
    for number, item in enumerate(series):
        for place, shown in enumerate(item.slices):
            if any(point.target == name for point in shown.points):
                return number, place
    return None
