"""One picture per study: where the levels are, what was read at each target, and how it was graded."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier.grade import Grade
from data_prep.crops import extract_crop
from data_prep.geometry import FloatArray
from data_prep.study_types import LevelPoint, PointSource, Slice, SpineLevels, Study
from data_prep.vocabulary import LEVELS, Condition, SeriesKind, Severity, Target
from pipeline.page import LEVEL_COLOURS, Page, displayed, numbering_words
from pipeline.prediction import StudyPrediction

FOOTER = "Graders trained on synthetic anatomy - not a medical device"

# From Okabe and Ito's colour-blind safe palette; the grade also stands there in words.
SEVERITY_COLOURS = {
    Severity.NORMAL_MILD: "#56B4E9",
    Severity.MODERATE: "#E69F00",
    Severity.SEVERE: "#D55E00",
}
_PRIOR_COLOUR = "#999999"

# As a reader sees the patient: the right side on the left.
COLUMNS: tuple[tuple[Condition, str], ...] = (
    (Condition.RIGHT_NEURAL_FORAMINAL_NARROWING, "right foramen, T1"),
    (Condition.RIGHT_SUBARTICULAR_STENOSIS, "right recess, axial"),
    (Condition.SPINAL_CANAL_STENOSIS, "canal, T2"),
    (Condition.LEFT_SUBARTICULAR_STENOSIS, "left recess, axial"),
    (Condition.LEFT_NEURAL_FORAMINAL_NARROWING, "left foramen, T1"),
)
_CROP_SIZE_MM = 60.0

_WIDTH, _HEIGHT = 1540, 1030
_PANEL = (20, 80, 520, 900)  # left, top, width, height of the sagittal slice, in pixels
_GRID_LEFT, _GRID_TOP, _CELL_WIDTH, _CELL_HEIGHT, _TILE_PX = 620, 80, 182, 182, 148


def draw_montage(study: Study | None, prediction: StudyPrediction, path: Path) -> None:
    """Draw the middle sagittal slice with the five levels and, beside each, what was graded there.

    Args:
        study: None when it could not be loaded: the page then says why.
        prediction: its grades.
        path: PNG to write.
    """
    page = Page.blank(_WIDTH, _HEIGHT)
    levels = prediction.levels or SpineLevels(prediction.study_id)
    page.text(20, 28, f"Study {prediction.study_id}", fontsize=16, weight="bold")
    page.text(20, 56, _summary(prediction, levels), fontsize=10, color="#444444")
    _draw_sagittal(page, study, levels)
    for column, (_, title) in enumerate(COLUMNS):
        page.text(
            _GRID_LEFT + column * _CELL_WIDTH + _TILE_PX / 2,
            _GRID_TOP - 14,
            title,
            ha="center",
            weight="bold",
        )
    for row, level in enumerate(LEVELS):
        top = _GRID_TOP + row * _CELL_HEIGHT
        page.text(_GRID_LEFT - 12, top + _TILE_PX / 2, level.label, ha="right", fontsize=12, weight="bold")
        for column, (condition, _) in enumerate(COLUMNS):
            target = Target(condition, level)
            left = _GRID_LEFT + column * _CELL_WIDTH
            _draw_target(
                page, study, levels.point(condition, level), target, prediction.grades[target], left, top
            )
    page.text(_WIDTH - 20, _HEIGHT - 18, FOOTER, ha="right", fontsize=10, style="italic")
    page.text(
        20,
        _HEIGHT - 18,
        "L and R are the patient's. Cross: the point graded. Dashed frame: level prior, not graded.",
        fontsize=9,
    )
    page.save(path)


def _summary(prediction: StudyPrediction, levels: SpineLevels) -> str:
    if prediction.rejected:
        reason = prediction.rejections[-1]
        return f"rejected: [{reason.reason.value}] {reason.message}; every grade is the level prior"
    flags = f" · flags: {', '.join(prediction.flags)}" if prediction.flags else ""
    return f"{len(levels.levels)} of 5 levels found · {numbering_words(levels.numbering_confidence)}{flags}"


def _draw_sagittal(page: Page, study: Study | None, levels: SpineLevels) -> None:
    left, top, width, height = _PANEL
    shown = None if study is None else middle_slice(study, levels)
    middle = canal_middle_mm(levels)
    image = None if shown is None else displayed(shown, width, height, around_mm=middle)
    if image is None:
        page.text(left + width / 2, top + height / 2, "no sagittal slice to show", ha="center", fontsize=12)
        return
    pixels, grid = image
    left += (width - pixels.shape[1]) // 2
    page.image(pixels, left, top)
    for level, spine_level in levels.levels.items():
        x, y = grid.to_px(spine_level.canal_mm) + 0.5
        disc_x, disc_y = grid.to_px(spine_level.disc_mm) + 0.5
        colour = LEVEL_COLOURS[level]
        page.axes.plot([left + disc_x, left + x], [top + disc_y, top + y], color=colour, linewidth=1)
        page.mark(left + x, top + y, colour, seen=spine_level.source is PointSource.SEEN)
        page.label(left + x + 12, top + y, level.label, colour, fontsize=12)
    page.label(left + 8, top + pixels.shape[0] / 2, "A")
    page.label(left + pixels.shape[1] - 18, top + pixels.shape[0] / 2, "P")


def _draw_target(
    page: Page,
    study: Study | None,
    point: LevelPoint | None,
    target: Target,
    grade: Grade,
    left: int,
    top: int,
) -> None:
    pixels = None if study is None or point is None else _tile(study, point)
    prior = grade.source == "prior"
    if pixels is None:
        page.text(
            left + _TILE_PX / 2,
            top + _TILE_PX / 2,
            textwrap.fill(", ".join(grade.flags).replace("_", " ") or "no image", 18),
            ha="center",
            color="#666666",
        )
    else:
        page.image(pixels, left, top)
        page.cross(left + _TILE_PX / 2, top + _TILE_PX / 2)
        if target.condition.series_kind is SeriesKind.AXIAL_T2:
            page.label(left + 6, top + 12, "R")
            page.label(left + _TILE_PX - 16, top + 12, "L")
        elif target.condition.side is not None:
            page.label(left + 6, top + 12, target.condition.side.value[0].upper())
    severity = grade.severity
    colour = _PRIOR_COLOUR if prior else SEVERITY_COLOURS[severity]
    page.frame(left, top, _TILE_PX, colour, "--" if prior else "-")
    text = "level prior" if prior else f"{severity.value} {grade.probabilities.max():.0%}"
    page.text(
        left + _TILE_PX / 2,
        top + _TILE_PX + 14,
        text,
        ha="center",
        weight="bold" if severity.index else "normal",
    )


def _tile(study: Study, point: LevelPoint) -> NDArray[np.float32] | None:
    """The slice around a point; None where no slice shows it, for a neighbour would mislead."""
    series = next((item for item in study.series if item.series_id == point.series_id), None)
    if series is None or point.xy_px is None:
        return None
    crop = extract_crop(series, point.xyz_mm, size_mm=_CROP_SIZE_MM, size_px=_TILE_PX, slices=1)
    return crop.pixels[0] if crop.valid[0] and crop.inside else None


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
