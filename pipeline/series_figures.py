"""One picture per series: the slices that carry points, with the points on them."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from data_prep.files import safe_id
from data_prep.study_types import LevelPoint, PointSource, Series, Slice, SpineLevels, Study
from data_prep.vocabulary import Side
from pipeline.page import LEVEL_COLOURS, Page, displayed, numbering_words

_COLUMNS = 5
_PANEL_PX = 330
_GAP_PX = 10
_TITLE_PX = 60
_CAPTION_PX = 22


def draw_overlays(study: Study, levels: SpineLevels, folder: Path) -> tuple[Path, ...]:
    """Draw every slice on which a point was decided, series after series.

    Filled marks were seen by a detector, open ones predicted by geometry.

    Returns:
        The files written, ``{folder}/{study_id}_{series_id}.png``; none for a series without points.
    """
    written = []
    for series in study.series:
        points = [point for point in levels.points if point.series_id == series.series_id]
        if points:
            path = folder / f"{safe_id(study.study_id)}_{safe_id(series.series_id)}.png"
            _draw_series(series, points, levels, path)
            written.append(path)
    return tuple(written)


def _draw_series(series: Series, points: list[LevelPoint], levels: SpineLevels, path: Path) -> None:
    order = {item.instance_number: place for place, item in enumerate(series.slices)}
    points = sorted((p for p in points if p.instance_number in order), key=lambda p: order[_instance(p)])
    slices = [(series.by_instance(number), list(group)) for number, group in groupby(points, key=_instance)]
    columns = min(_COLUMNS, max(1, len(slices)))
    rows = -(-len(slices) // columns)
    step = _PANEL_PX + _GAP_PX
    page = Page.blank(max(columns * step + _GAP_PX, 700), _TITLE_PX + rows * (step + _CAPTION_PX))
    kind = series.kind.value if series.kind else "kind unknown"
    page.text(_GAP_PX, 20, f"Series {series.series_id} · {kind}", fontsize=12, weight="bold")
    numbering = numbering_words(levels.numbering_confidence)
    page.text(_GAP_PX, 42, f"{numbering} · filled: seen, open: predicted by geometry", color="#444444")
    for place, (item, group) in enumerate(slices):
        left = _GAP_PX + place % columns * step
        top = _TITLE_PX + place // columns * (step + _CAPTION_PX)
        _draw_slice(page, item, group, left, top)
    page.save(path)


def _instance(point: LevelPoint) -> int:
    return -1 if point.instance_number is None else point.instance_number


def _draw_slice(page: Page, item: Slice, points: list[LevelPoint], left: int, top: int) -> None:
    page.text(left, top + _PANEL_PX + 12, f"instance {item.instance_number}", color="#444444")
    image = displayed(item, _PANEL_PX, _PANEL_PX)
    if image is None:
        page.text(left + _PANEL_PX / 2, top + _PANEL_PX / 2, "cannot be decoded", ha="center")
        return
    pixels, grid = image
    page.image(pixels, left, top)
    for point in points:
        x, y = grid.to_px(point.xyz_mm) + 0.5
        colour = LEVEL_COLOURS[point.level]
        page.mark(left + x, top + y, colour, seen=point.source is PointSource.SEEN)
        right = point.condition.side is Side.RIGHT
        side = "" if point.condition.side is None else f" {point.condition.side.value[0].upper()}"
        page.label(
            left + x + (-10 if right else 10),
            top + y,
            f"{point.level.label}{side}",
            colour,
            ha="right" if right else "left",
        )
