"""One picture per series: the slices that carry points, with the points on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_prep.geometry import FloatArray, Orientation
from data_prep.levels import LevelPoint
from data_prep.names import safe_id
from data_prep.study import Series, Slice, Study
from data_prep.vocabulary import Side
from pipeline.results.pictures.canvas import Page, Panel
from pipeline.results.pictures.displayed import LEVEL_COLOURS
from pipeline.results.pictures.montage import canal_middle_mm
from pipeline.results.pictures.readings import ANNOTATED, Reading
from pipeline.results.words import numbering_words

_COLUMNS = 4
_PANEL_PX = 400
_GAP_PX = 12
_TITLE_PX = 66
_CAPTION_PX = 26
_MIN_WIDTH = 900
_BAR_MM = {Orientation.SAGITTAL: 50.0, Orientation.CORONAL: 50.0, Orientation.AXIAL: 30.0}
_LEGEND = "● seen  ○ predicted by geometry  ◆ annotated · ring: uncertainty (1 sd), to scale"


def draw_overlays(
    study: Study, readings: Sequence[Reading], folder: Path, *, scale: float = 1.0
) -> tuple[Path, ...]:
    """Draw every slice on which a point was decided, series after series.

    Args:
        readings: annotated and detected, side by side for every slice, or one of them.
        scale: pixels of the file per page pixel.

    Returns:
        The files written, ``{folder}/{study_id}_{series_id}.png``; none for a series without points.
    """
    written = []
    for series in study.series:
        shown = [_points_of(series, reading) for reading in readings]
        if any(shown):
            path = folder / f"{safe_id(study.study_id)}_{safe_id(series.series_id)}.png"
            _draw_series(series, readings, shown, path, scale)
            written.append(path)
    return tuple(written)


def _points_of(series: Series, reading: Reading) -> dict[int, list[LevelPoint]]:
    """Points by the place of their slice in the series."""
    order = {item.instance_number: place for place, item in enumerate(series.slices)}
    found: dict[int, list[LevelPoint]] = {}
    for point in reading.levels.points:
        if point.sight is not None and point.is_on(series) and point.sight.instance_number in order:
            found.setdefault(order[point.sight.instance_number], []).append(point)
    return found


def _draw_series(
    series: Series,
    readings: Sequence[Reading],
    shown: Sequence[dict[int, list[LevelPoint]]],
    path: Path,
    scale: float,
) -> None:
    places = sorted(set().union(*shown))
    per_slice = len(readings)
    columns = min(max(1, _COLUMNS // per_slice), len(places)) * per_slice
    rows = -(-len(places) * per_slice // columns)
    step = _PANEL_PX + _GAP_PX
    page = Page.blank(
        max(columns * step + _GAP_PX, _MIN_WIDTH), _TITLE_PX + rows * (step + _CAPTION_PX), scale
    )
    kind = series.kind.value if series.kind else "kind unknown"
    who = " beside ".join(reading.who for reading in readings)
    title = f"Study {series.study_id} · series {series.series_id} · {kind} · {who}"
    page.text(_GAP_PX, 22, title, size=13, face="Bold")
    numbering = [
        numbering_words(r.levels.numbering_confidence, r.levels.flags) for r in readings if r.who != ANNOTATED
    ]
    page.text(_GAP_PX, 48, " · ".join([*numbering, _LEGEND]), colour="#444444")
    panels = [
        (place, reading, points.get(place, []))
        for place in places
        for reading, points in zip(readings, shown, strict=True)
    ]
    middle = canal_middle_mm(readings[-1].levels)
    for number, (place, reading, points) in enumerate(panels):
        left = _GAP_PX + number % columns * step
        top = _TITLE_PX + number // columns * (step + _CAPTION_PX)
        item = series.slices[place]
        caption = f"instance {item.instance_number} · {where_words(item, middle)}"
        page.text(left, top + _PANEL_PX + 14, f"{caption} · {reading.who}" if per_slice > 1 else caption)
        _draw_slice(page, item, points, left, top)
    page.save(path)


def where_words(item: Slice, middle_mm: FloatArray | None) -> str:
    """Where a slice lies: for a sagittal one how far to which side of the canal."""
    orientation = item.plane.orientation
    if orientation is not Orientation.SAGITTAL or middle_mm is None:
        return f"{orientation.value} slice"
    centre = item.plane.to_mm(item.plane.to_px(middle_mm))
    aside = float(centre[0] - middle_mm[0])
    if abs(aside) < 2:
        return "at the middle of the canal"
    return f"{abs(aside):.0f} mm {'left' if aside > 0 else 'right'} of the canal"


def _draw_slice(page: Page, item: Slice, points: Sequence[LevelPoint], left: float, top: float) -> None:
    panel = page.panel(item, left, top, _PANEL_PX, _PANEL_PX)
    if panel is None:
        page.text(left + _PANEL_PX / 2, top + _PANEL_PX / 2, "cannot be decoded", align="center")
        return
    for point in points:
        _draw_point(panel, point)
    if not points:
        page.label(left + _PANEL_PX / 2, top + 30, "no point here", align="center")
    panel.sides()
    panel.scale_bar(_BAR_MM[item.plane.orientation])


def _draw_point(panel: Panel, point: LevelPoint) -> None:
    colour = LEVEL_COLOURS[point.level]
    panel.ring(point.xyz_mm, point.uncertainty_mm, colour)
    panel.mark(point.xyz_mm, colour, point.source, size=5)
    x, y = panel.at(point.xyz_mm)
    beside = point.uncertainty_mm * panel.px_per_mm + 8
    right = point.condition.side is Side.RIGHT
    side = "" if point.condition.side is None else f" {point.condition.side.value[0].upper()}"
    ring = f" ±{point.uncertainty_mm:.0f} mm" if point.uncertainty_mm > 0 else ""
    panel.page.label(
        x + (-beside if right else beside),
        y,
        f"{point.level.label}{side}{ring}",
        colour,
        align="right" if right else "left",
        size=9,
    )
