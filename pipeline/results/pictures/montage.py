"""One picture per study: where the levels are, what was read at each target, and how it was graded."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier.config import GraderName
from classifier.target_crops import reading_point
from data_prep.crops import extract_crop
from data_prep.geometry import FloatArray
from data_prep.levels import LevelPoint, SpineLevels
from data_prep.study import Slice, Study
from data_prep.vocabulary import LEVELS, Condition, ConditionGroup, Level, SeriesKind, Severity, Target
from pipeline.prediction import StudyPrediction
from pipeline.results.pictures.canvas import Page
from pipeline.results.pictures.displayed import LEVEL_COLOURS, eight_bits
from pipeline.results.pictures.readings import Opinion, Reading, reading_of_prediction

# From Okabe and Ito's colour-blind safe palette; the grade also stands there in words.
SEVERITY_COLOURS = {
    Severity.NORMAL_MILD: "#56B4E9",
    Severity.MODERATE: "#E69F00",
    Severity.SEVERE: "#D55E00",
}
_NO_GRADE_COLOUR = "#999999"

# As a reader sees the patient: the right side on the left.
COLUMNS: tuple[tuple[Condition, str], ...] = (
    (Condition.RIGHT_NEURAL_FORAMINAL_NARROWING, "right foramen, T1"),
    (Condition.RIGHT_SUBARTICULAR_STENOSIS, "right recess, axial"),
    (Condition.SPINAL_CANAL_STENOSIS, "canal, T2"),
    (Condition.LEFT_SUBARTICULAR_STENOSIS, "left recess, axial"),
    (Condition.LEFT_NEURAL_FORAMINAL_NARROWING, "left foramen, T1"),
)
CROP_SIZE_MM = 60.0

_WIDTH, _HEIGHT = 1540, 1030
_PANEL = (20, 80, 520, 900)  # left, top, width, height of the sagittal slice, in page pixels
_GRID_LEFT, _GRID_TOP, _CELL_WIDTH, _CELL_HEIGHT, _TILE_PX = 620, 80, 182, 182, 148
_SAGITTAL_BAR_MM, _TILE_BAR_MM = 50.0, 20.0
_OFF_MM = 5.0


def draw_montage(study: Study | None, prediction: StudyPrediction, path: Path) -> None:
    """Draw the middle sagittal slice with the five levels and, beside each, what was graded there.

    Args:
        study: None when it could not be loaded: the page then says why.
    """
    draw_readings(study, [reading_of_prediction(prediction)], path)


def draw_readings(
    study: Study | None, readings: Sequence[Reading], path: Path, *, scale: float = 1.0
) -> None:
    """Draw a montage of each reading of a study, side by side.

    Args:
        study: None when it could not be loaded.
        readings: annotated and detected, or one of them. A grade that differs from the first one's is marked.
        scale: pixels of the file per page pixel; a page has 1540 × 1030 for each reading.
    """
    page = Page.blank(_WIDTH * len(readings), _HEIGHT, scale)
    for place, reading in enumerate(readings):
        _draw_reading(page, study, reading, place * _WIDTH, readings[0] if place else None)
    page.save(path)


def _draw_reading(
    page: Page, study: Study | None, reading: Reading, left: float, other: Reading | None
) -> None:
    page.text(left + 20, 22, f"Study {reading.study_id} · {reading.who}", size=16, face="Bold")
    page.text(left + 20, 44, reading.summary, size=11, colour="#444444")
    _draw_sagittal(page, study, reading.levels, left)
    for column, (_, title) in enumerate(COLUMNS):
        x = left + _GRID_LEFT + column * _CELL_WIDTH + _TILE_PX / 2
        page.text(x, _GRID_TOP - 14, title, align="center", face="Bold")
    for row, level in enumerate(LEVELS):
        top = _GRID_TOP + row * _CELL_HEIGHT
        x = left + _GRID_LEFT - 12
        page.text(x, top + _TILE_PX / 2, level.label, align="right", size=12, face="Bold")
        for column, (condition, _) in enumerate(COLUMNS):
            target = Target(condition, level)
            corner = left + _GRID_LEFT + column * _CELL_WIDTH, top
            point = read_at(reading.levels, condition, level)
            _draw_tile(page, study, point, target, reading.opinions[target], corner)
            compared = None if other is None else other.opinions[target]
            _draw_opinion(page, reading.opinions[target], compared, corner)
    # On lines of their own: what the graders learned from must be read.
    page.text(left + 20, _HEIGHT - 12, reading.footer, face="Oblique")
    page.text(
        left + 20,
        _HEIGHT - 32,
        "L and R are the patient's. Ring: uncertainty to scale. Cross: the point graded. Dashed: not graded.",
    )


def _draw_sagittal(page: Page, study: Study | None, levels: SpineLevels, left: float) -> None:
    x, top, width, height = _PANEL
    shown = None if study is None else middle_slice(study, levels)
    middle = canal_middle_mm(levels)
    panel = None
    if shown is not None:
        panel = page.panel(shown, left + x, top, width, height, around_mm=middle)
    if panel is None:
        place = left + x + width / 2, top + height / 2
        page.text(*place, "no sagittal slice to show", align="center", size=12)
        return
    for level, found in levels.levels.items():
        colour = LEVEL_COLOURS[level]
        panel.line(found.disc_mm, found.canal_mm, colour)
        panel.ring(found.canal_mm, found.uncertainty_mm, colour)
        panel.mark(found.canal_mm, colour, found.source)
        at_x, at_y = panel.at(found.canal_mm)
        beside = max(14.0, found.uncertainty_mm * panel.px_per_mm + 8)
        # On a curved spine no slice holds every canal point: say so where this one does not.
        off_mm = abs(float(panel.grid.distance_mm(found.canal_mm)))
        words = f"{level.label} ({off_mm:.0f} mm off)" if off_mm > _OFF_MM else level.label
        page.label(at_x + beside, at_y, words, colour, size=13)
    panel.sides()
    panel.scale_bar(_SAGITTAL_BAR_MM)


def _draw_tile(
    page: Page,
    study: Study | None,
    point: LevelPoint | None,
    target: Target,
    opinion: Opinion,
    corner: tuple[float, float],
) -> None:
    left, top = corner
    size_px = round(_TILE_PX * page.scale)
    pixels = None if study is None or point is None else crop_at(study, point, size_px)
    if pixels is None:
        why = textwrap.fill(opinion.why, 18)
        page.text(left + _TILE_PX / 2, top + _TILE_PX / 2, why, align="center", colour="#555555")
        return
    page.image(pixels, left, top)
    page.cross(left + _TILE_PX / 2, top + _TILE_PX / 2)
    if target.condition.series_kind is SeriesKind.AXIAL_T2:
        page.label(left + 6, top + 12, "R")
        page.label(left + _TILE_PX - 16, top + 12, "L")
    elif target.condition.side is not None:
        page.label(left + 6, top + 12, target.condition.side.value[0].upper())
    if target == Target(COLUMNS[-1][0], LEVELS[-1]):
        length = _TILE_BAR_MM / CROP_SIZE_MM * _TILE_PX
        right, y = left + _TILE_PX - 9, top + _TILE_PX - 9
        page.bar(right, y, length, f"{_TILE_BAR_MM:.0f} mm", width=4, size=8)


def _draw_opinion(page: Page, opinion: Opinion, other: Opinion | None, corner: tuple[float, float]) -> None:
    left, top = corner
    severity = opinion.severity
    colour = _NO_GRADE_COLOUR if severity is None else SEVERITY_COLOURS[severity]
    page.frame(left, top, _TILE_PX, colour, dashed=not opinion.sure)
    differs = other is not None and None not in (other.severity, severity) and other.severity != severity
    page.text(
        left + _TILE_PX / 2,
        top + _TILE_PX + 15,
        f"{opinion.words} ≠" if differs else opinion.words,
        align="center",
        face="Bold" if severity is not None and severity.index else "",
    )


def read_at(levels: SpineLevels, condition: Condition, level: Level) -> LevelPoint | None:
    """Where a target is read: its point, for a canal perhaps on the slice beside; None without a point."""
    point = levels.point(condition, level)
    if point is None or condition.group is not ConditionGroup.SPINAL:
        return point
    return reading_point(GraderName.SPINAL, levels, Target(condition, level))


def crop_at(study: Study, point: LevelPoint, size_px: int) -> NDArray[np.uint8] | None:
    """The slice around a point, 60 mm wide: (size_px, size_px).

    None where no slice shows it, for a neighbour would mislead.
    """
    series = next((item for item in study.series if point.is_on(item)), None)
    if series is None:
        return None
    crop = extract_crop(series, point.xyz_mm, size_mm=CROP_SIZE_MM, size_px=size_px, slices=1)
    return eight_bits(crop.pixels[0]) if crop.valid[0] and crop.inside else None


def canal_middle_mm(levels: SpineLevels) -> FloatArray | None:
    """(3,) the mean of the canal points that were found, patient LPS; None without any."""
    if not levels.levels:
        return None
    return np.asarray(np.mean([level.canal_mm for level in levels.levels.values()], axis=0))


def middle_slice(study: Study, levels: SpineLevels) -> Slice | None:
    """The sagittal slice nearest to the canal, T2 before T1; the middle one when no level is known."""
    middle = canal_middle_mm(levels)
    for kind in (SeriesKind.SAGITTAL_T2, SeriesKind.SAGITTAL_T1):
        for series in study.of_kind(kind):
            if middle is not None:
                return series.nearest(middle)[0]
            return series.slices[len(series.slices) // 2]
    return None
