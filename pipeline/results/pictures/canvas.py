"""A white page in page pixels, and slices on it with marks: what every picture is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.base.files import atomic_write
from data_prep.geometry import FloatArray, SlicePlane
from data_prep.levels import PointSource
from data_prep.study import Slice
from pipeline.results.pictures.displayed import displayed, edge_letters

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont


DPI = 100
# A montage then has 2310 pixels, 210 per inch on a page of A4: sharp in print.
PRINT_SCALE = 1.5
# Noise does not compress: higher levels only take time.
_PNG_LEVEL = 2
_ANCHORS = {"left": "lm", "center": "mm", "right": "rm"}
_OUTLINE_PT = 1.3
# Of the size of letters: their middle lies above that of their line.
_RAISED = 0.07
# Of OpenCV's coordinates, 1/16 pixel.
_SHIFT = 4


@dataclass(frozen=True)
class _Text:
    """A line of text, or several: where its middle or end lies on the page, and how it looks."""

    place: tuple[float, float]
    text: str
    size: float
    colour: str
    anchor: str
    face: str
    outlined: bool


@dataclass(frozen=True)
class Page:
    """A white page with page pixels as coordinates, y downwards.

    Drawn by OpenCV, written on by Pillow in matplotlib's typeface: matplotlib took three times as long.

    Attributes:
        picture: uint8 (rows, columns, 3) RGB, pixels of the file.
        texts: written when it is saved, above everything else.
        scale: pixels of the file per page pixel.
    """

    picture: NDArray[np.uint8]
    scale: float = 1.0
    texts: list[_Text] = field(default_factory=list)

    @classmethod
    def blank(cls, width: float, height: float, scale: float = 1.0) -> Page:
        """Nothing on it yet."""
        return cls(np.full((round(height * scale), round(width * scale), 3), 255, np.uint8), scale)

    def image(self, pixels: NDArray[np.uint8], left: float, top: float) -> tuple[float, float]:
        """Grey values, one pixel of the file each, from the nearest on, whose place is returned."""
        row, column = round(top * self.scale), round(left * self.scale)
        room = self.picture[row : row + pixels.shape[0], column : column + pixels.shape[1]]
        room[:] = pixels[: room.shape[0], : room.shape[1], None]
        return column / self.scale, row / self.scale

    def panel(
        self,
        item: Slice,
        left: float,
        top: float,
        width: float,
        height: float,
        *,
        around_mm: FloatArray | None = None,
    ) -> Panel | None:
        """Show a slice in a room of page pixels, in its middle; None when it cannot be decoded.

        ``around_mm``: see ``displayed``.
        """
        room = round(width * self.scale), round(height * self.scale)
        image = displayed(item, *room, around_mm=around_mm)
        if image is None:
            return None
        pixels, grid = image
        left += round((width - pixels.shape[1] / self.scale) / 2)
        return Panel(self, grid, *self.image(pixels, left, top))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 10,
        colour: str = "black",
        align: str = "left",
        face: str = "",
        outlined: bool = False,
    ) -> None:
        """Text with its middle at y, and x at its ``left``, ``center`` or ``right``.

        Args:
            size: of the letters in points.
            face: ``Bold``, ``Oblique`` or plain.
            outlined: in black, to be read on any grey.
        """
        self.texts.append(_Text((x, y), text, size, colour, _ANCHORS[align], face, outlined))

    def label(
        self, x: float, y: float, text: str, colour: str = "white", *, size: float = 10, align: str = "left"
    ) -> None:
        """Text that can be read on any grey."""
        self.text(x, y, text, size=size, colour=colour, align=align, face="Bold", outlined=True)

    def frame(self, left: float, top: float, size: float, colour: str, *, dashed: bool = False) -> None:
        """A square of lines of 3 points."""
        width = 3 * DPI / 72
        on, step = (3.7 * width, 5.3 * width) if dashed else (size + width, size + width)
        for near in (-width / 2, size - width / 2):
            for at in np.arange(-width / 2, size + width / 2, step).tolist():
                until = min(at + on, size + width / 2)
                self.fill(left + at, top + near, left + until, top + near + width, colour)
                self.fill(left + near, top + at, left + near + width, top + until, colour)

    def fill(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        """A rectangle, its edges moved to those of pixels."""
        x0, y0, x1, y1 = (max(0, round(at * self.scale)) for at in (left, top, right, bottom))
        self.picture[y0:y1, x0:x1] = _rgb(colour)

    def cross(self, x: float, y: float) -> None:
        """A thin cross at the point that was graded, small enough not to hide it."""
        for points, width, colour in ((8.5, 1.8, "black"), (8, 0.9, "#F0E442")):
            reach = points / 2 * DPI / 72
            self.line((x - reach, y), (x + reach, y), colour, width)
            self.line((x, y - reach), (x, y + reach), colour, width)

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: str, width: float) -> None:
        """A straight line, its width in points."""
        ends = self._fixed(start), self._fixed(end)
        cv2.line(self.picture, *ends, _rgb(colour), self._width(width), cv2.LINE_AA, _SHIFT)

    def bar(self, right: float, y: float, length: float, words: str, *, width: float, size: float) -> None:
        """A scale bar that ends at ``right``, with its length above; ``width`` in points."""
        half, rim = width / 4 * DPI / 72, 1.5
        self.fill(right - length - rim, y - half - rim, right + rim, y + half + rim, "black")
        self.fill(right - length, y - half, right, y + half, "white")
        self.label(right - length / 2, y - 2.2 * width, words, align="center", size=size)

    def circle(
        self, middle: tuple[float, float], radius: float, colour: str, width: float | None = None
    ) -> None:
        """A circle of a radius in page pixels, its line in points; a disc without a width."""
        thickness = cv2.FILLED if width is None else self._width(width)
        # A disc of OpenCV reaches to the far edge of the last pixel.
        fixed = round((radius * self.scale - (0.5 if width is None else 0.0)) * (1 << _SHIFT))
        cv2.circle(self.picture, self._fixed(middle), fixed, _rgb(colour), thickness, cv2.LINE_AA, _SHIFT)

    def diamond(self, middle: tuple[float, float], reach: float, colour: str) -> None:
        """A square on its corner, filled; ``reach`` from its middle to a corner in page pixels."""
        x, y = middle
        corners = [(x - reach, y), (x, y - reach), (x + reach, y), (x, y + reach)]
        fixed = np.array([self._fixed(corner) for corner in corners], dtype=np.int32)
        cv2.fillConvexPoly(self.picture, fixed, _rgb(colour), cv2.LINE_AA, _SHIFT)

    def save(self, path: Path) -> None:
        """Write a PNG atomically; the same content gives the same bytes."""
        from PIL import Image, ImageDraw, PngImagePlugin

        software = PngImagePlugin.PngInfo()
        software.add_text("Software", "lumbar")
        image = Image.fromarray(self.picture)
        draw = ImageDraw.Draw(image)
        for text in self.texts:
            (x, y), size = text.place, text.size * DPI / 72
            draw.text(
                (x * self.scale, (y - _RAISED * size) * self.scale),
                text.text,
                fill=text.colour,
                font=_font(size * self.scale, text.face),
                anchor=text.anchor,
                align="center",
                stroke_width=self._width(_OUTLINE_PT) if text.outlined else 0,
                stroke_fill="black",
            )
        with atomic_write(path, binary=True) as stream:
            image.save(
                stream, "PNG", compress_level=_PNG_LEVEL, dpi=(DPI * self.scale,) * 2, pnginfo=software
            )

    def _width(self, points: float) -> int:
        """Of a line, in pixels of the file."""
        return max(1, round(points * DPI / 72 * self.scale))

    def _fixed(self, place: tuple[float, float]) -> tuple[int, int]:
        """A place on the page for OpenCV, which counts from the middle of the first pixel."""
        x, y = (round((at * self.scale - 0.5) * (1 << _SHIFT)) for at in place)
        return x, y


@cache
def _rgb(colour: str) -> tuple[int, ...]:
    from PIL import ImageColor

    return ImageColor.getrgb(colour)


@cache
def _font(size: float, face: str) -> FreeTypeFont:
    """Of matplotlib, which is not imported for it; ``size`` in pixels."""
    from PIL import ImageFont

    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
    name = f"DejaVuSans-{face}.ttf" if face else "DejaVuSans.ttf"
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True)
class Panel:
    """A slice on a page.

    Attributes:
        page: it is on.
        grid: of the pixels that are shown, square and upright.
        left, top: corner on the page.
    """

    page: Page
    grid: SlicePlane
    left: float
    top: float

    @property
    def width(self) -> float:
        return self.grid.shape[1] / self.page.scale

    @property
    def height(self) -> float:
        return self.grid.shape[0] / self.page.scale

    @property
    def px_per_mm(self) -> float:
        """Page pixels per millimetre."""
        return 1 / (self.grid.spacing_mm[0] * self.page.scale)

    def at(self, xyz_mm: FloatArray) -> tuple[float, float]:
        """Where a patient point (3,) lies on the page, projected onto the slice."""
        x, y = (self.grid.to_px(xyz_mm) + 0.5) / self.page.scale
        return self.left + float(x), self.top + float(y)

    def mark(self, xyz_mm: FloatArray, colour: str, source: PointSource, size: float = 6) -> None:
        """A disc; filled: seen by a detector, open: predicted by geometry. A diamond: set by a person.

        ``size`` is its width in points.
        """
        middle, radius = self.at(xyz_mm), size / 2 * DPI / 72
        if source is PointSource.PREDICTED:
            for width, edge in ((3.2, "black"), (1.6, colour)):
                self.page.circle(middle, radius, edge, width)
            return
        draw = self.page.diamond if source is PointSource.ANNOTATED else self.page.circle
        for beyond_pt, face in ((1.6, "black"), (0.8, colour)):
            draw(middle, radius + beyond_pt * DPI / 72, face)

    def ring(self, xyz_mm: FloatArray, radius_mm: float, colour: str) -> None:
        """How far the point may be off, to scale."""
        if radius_mm > 0:
            for width, edge in ((2.2, "black"), (1.0, colour)):
                self.page.circle(self.at(xyz_mm), radius_mm * self.px_per_mm, edge, width)

    def line(self, start_mm: FloatArray, end_mm: FloatArray, colour: str) -> None:
        """A straight line between two patient points."""
        for width, edge in ((3.0, "black"), (1.4, colour)):
            self.page.line(self.at(start_mm), self.at(end_mm), edge, width)

    def scale_bar(self, length_mm: float) -> None:
        """A bar with its length at the lower right."""
        length = length_mm * self.px_per_mm
        right, y = self.left + self.width - 10, self.top + self.height - 10
        self.page.bar(right, y, length, f"{length_mm:.0f} mm", width=5, size=9)

    def sides(self) -> None:
        """The patient's directions at the edges of the slice."""
        left, right, top, _ = edge_letters(self.grid)
        middle = self.top + self.height / 2
        self.page.label(self.left + 6, middle, left, size=11)
        self.page.label(self.left + self.width - 6, middle, right, align="right", size=11)
        self.page.label(self.left + self.width / 2, self.top + 11, top, align="center", size=11)
