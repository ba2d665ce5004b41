"""A white page in page pixels, and slices shown on it: what every picture is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.base.files import atomic_write
from data_prep.crops import black_and_white, display_axes, resample
from data_prep.geometry import FloatArray, SlicePlane
from data_prep.levels import PointSource
from data_prep.problems import DicomRejected
from data_prep.study import Slice
from data_prep.vocabulary import LEVELS

# Reports take slices and colours from here, and are written where matplotlib is not installed.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

# Okabe and Ito's colour-blind safe palette; the level's name always stands beside its colour.
LEVEL_COLOURS = dict(zip(LEVELS, ("#F0E442", "#56B4E9", "#CC79A7", "#009E73", "#E69F00"), strict=True))

DPI = 100
# A montage then has 2310 pixels, 210 per inch on a page of A4: sharp in print.
PRINT_SCALE = 1.5
# Noise does not compress: higher levels only take time.
_PNG_LEVEL = 3
# To look at, a picture of two thirds of the pixels need not be averaged from finer ones.
_ONCE_UP_TO = 1.5
# What stands at the end of a patient axis: x to the left, y to the back, z to the head.
_AXIS_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))
_MARKERS = {PointSource.SEEN: "o", PointSource.PREDICTED: "o", PointSource.ANNOTATED: "D"}


@cache
def _outline() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground="black")]


@dataclass(frozen=True)
class Page:
    """A white page with page pixels as coordinates, y downwards.

    Attributes:
        ground: uint8 (rows, columns), pixels of the file: the images, which lie below all that is drawn.
        scale: pixels of the file per page pixel.
    """

    figure: Figure
    canvas: FigureCanvasAgg
    axes: Axes
    ground: NDArray[np.uint8]
    scale: float = 1.0

    @classmethod
    def blank(cls, width: float, height: float, scale: float = 1.0) -> Page:
        """Nothing on it yet."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI * scale, facecolor="none")
        canvas = FigureCanvasAgg(figure)
        columns, rows = canvas.get_width_height()
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.axis("off")
        return cls(figure, canvas, axes, np.full((rows, columns), 255, np.uint8), scale)

    def image(self, pixels: NDArray[np.uint8], left: float, top: float) -> tuple[float, float]:
        """Grey values, one pixel of the file each, from the nearest on, whose place is returned."""
        row, column = round(top * self.scale), round(left * self.scale)
        room = self.ground[row : row + pixels.shape[0], column : column + pixels.shape[1]]
        room[:] = pixels[: room.shape[0], : room.shape[1]]
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

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """A line of text, its left end at x and its middle at y; ``style`` as in ``Axes.text``."""
        # Dollar signs in identifiers must not start mathematics.
        self.axes.text(x, y, text, parse_math=False, **{"fontsize": 10, "va": "center", **style})

    def label(self, x: float, y: float, text: str, colour: str = "white", **style: Any) -> None:
        """Text that can be read on any grey."""
        self.text(x, y, text, color=colour, weight="bold", path_effects=_outline(), **style)

    def frame(self, left: float, top: float, size: float, colour: str, style: str = "-") -> None:
        from matplotlib.patches import Rectangle

        self.axes.add_artist(
            Rectangle((left, top), size, size, fill=False, edgecolor=colour, linewidth=3, linestyle=style)
        )

    def cross(self, x: float, y: float) -> None:
        """A thin cross at the point that was graded, small enough not to hide it."""
        self.line([x], [y], marker="+", markersize=9, markeredgewidth=2.2, color="black")
        self.line([x], [y], marker="+", markersize=8, markeredgewidth=0.9, color="#F0E442")

    def line(self, x: Sequence[float], y: Sequence[float], **style: Any) -> None:
        """A line or marker; ``style`` as in ``Line2D``. ``Axes.plot`` takes several times as long."""
        from matplotlib.lines import Line2D

        self.axes.add_artist(Line2D(x, y, **style))

    def save(self, path: Path) -> None:
        """Write a PNG atomically; the same content gives the same bytes."""
        from PIL import Image, PngImagePlugin

        software = PngImagePlugin.PngInfo()
        software.add_text("Software", "lumbar")
        # Images as they are, not by ``imshow`` or ``figimage``, which resample them: a third of the time.
        ground = np.dstack([self.ground] * 3 + [np.full_like(self.ground, 255)])
        renderer: Any = self.canvas.get_renderer()  # type: ignore[no-untyped-call]
        renderer.clear()
        renderer.draw_image(renderer.new_gc(), 0, 0, ground[::-1])
        self.figure.draw(renderer)
        drawn = np.asarray(renderer.buffer_rgba())[:, :, :3]
        with atomic_write(path, binary=True) as stream:
            Image.fromarray(drawn).save(
                stream, "PNG", compress_level=_PNG_LEVEL, dpi=(DPI * self.scale,) * 2, pnginfo=software
            )


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
        """A disc; filled: seen by a detector, open: predicted by geometry. A diamond: set by a person."""
        x, y = self.at(xyz_mm)
        filled = source is not PointSource.PREDICTED
        shape, face = _MARKERS[source], colour if filled else "none"
        style: dict[str, Any] = {"marker": shape, "markersize": size, "markerfacecolor": face}
        self.page.line([x], [y], markeredgecolor="black", markeredgewidth=3.2, **style)
        self.page.line([x], [y], markeredgecolor=colour, markeredgewidth=1.6, **style)

    def ring(self, xyz_mm: FloatArray, radius_mm: float, colour: str) -> None:
        """How far the point may be off, to scale."""
        if radius_mm <= 0:
            return
        from matplotlib.patches import Circle

        radius = radius_mm * self.px_per_mm
        for width, edge in ((2.6, "black"), (1.2, colour)):
            self.page.axes.add_artist(
                Circle(self.at(xyz_mm), radius, fill=False, edgecolor=edge, linewidth=width)
            )

    def line(self, start_mm: FloatArray, end_mm: FloatArray, colour: str) -> None:
        (x0, y0), (x1, y1) = self.at(start_mm), self.at(end_mm)
        self.page.line([x0, x1], [y0, y1], color="black", linewidth=3)
        self.page.line([x0, x1], [y0, y1], color=colour, linewidth=1.4)

    def scale_bar(self, length_mm: float) -> None:
        """A bar with its length at the lower right."""
        length = length_mm * self.px_per_mm
        right, y = self.left + self.width - 10, self.top + self.height - 10
        self.page.line([right - length, right], [y, y], color="black", linewidth=5)
        self.page.line([right - length, right], [y, y], color="white", linewidth=2.5)
        text = f"{length_mm:.0f} mm"
        self.page.label(right - length / 2, y - 11, text, ha="center", fontsize=9)

    def sides(self, fontsize: float = 11) -> None:
        """The patient's directions at the edges of the slice."""
        left, right, top, _ = edge_letters(self.grid)
        middle = self.top + self.height / 2
        self.page.label(self.left + 6, middle, left, fontsize=fontsize)
        self.page.label(self.left + self.width - 6, middle, right, ha="right", fontsize=fontsize)
        self.page.label(self.left + self.width / 2, self.top + 11, top, ha="center", fontsize=fontsize)


def edge_letters(plane: SlicePlane) -> tuple[str, str, str, str]:
    """The patient direction at the left, right, upper and lower edge of an image.

    R and L right and left, A and P front and back, H and F head and foot: the patient's
    (DICOM PS3.3 C.7.6.1.1.1).
    """
    letters = []
    for axis in (plane.x_axis, plane.y_axis):
        main = int(np.argmax(np.abs(axis)))
        pair = _AXIS_LETTERS[main]
        letters += [*(pair if axis[main] > 0 else pair[::-1])]
    return letters[0], letters[1], letters[2], letters[3]


def displayed(
    item: Slice, width: int, height: int, *, around_mm: FloatArray | None = None
) -> tuple[NDArray[np.uint8], SlicePlane] | None:
    """A slice, upright and with square pixels, stretched between its robust black and white.

    Args:
        item: the slice.
        width, height: of the room for it, in pixels.
        around_mm: (3,) patient point; the slice then fills the height, and what does not fit into the
            width is cut off as far from this point as can be. None shows the whole slice.

    Returns:
        uint8 (rows ≤ height, columns ≤ width), and its grid; None when it cannot be decoded.
    """
    try:
        pixels = item.pixels()
    except DicomRejected:
        return None
    plane = item.plane
    rightwards, downwards = display_axes(plane)
    rows, columns = plane.shape
    corners = plane.to_mm([[-0.5, -0.5], [columns - 0.5, rows - 0.5]]) - plane.centre_mm
    left_mm, right_mm = np.sort(corners @ rightwards)
    top_mm, bottom_mm = np.sort(corners @ downwards)
    step_mm = max((right_mm - left_mm) / width, (bottom_mm - top_mm) / height)
    if around_mm is not None:
        step_mm = (bottom_mm - top_mm) / height
        shown_mm = min(width * step_mm, right_mm - left_mm)
        middle_mm = float((around_mm - plane.centre_mm) @ rightwards)
        left_mm = np.clip(middle_mm - shown_mm / 2, left_mm, right_mm - shown_mm)
        right_mm = left_mm + shown_mm
    shape = (max(1, round((bottom_mm - top_mm) / step_mm)), max(1, round((right_mm - left_mm) / step_mm)))
    origin = plane.centre_mm + (left_mm + step_mm / 2) * rightwards + (top_mm + step_mm / 2) * downwards
    grid = SlicePlane(origin, rightwards, downwards, (step_mm, step_mm), shape)
    return resample(_stretched(pixels), plane, grid, once_up_to=_ONCE_UP_TO), grid


def _stretched(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Between robust black and white; in 8 bits already, which are resampled in a third of the time."""
    found = black_and_white(pixels)
    if found is None:
        return np.zeros(pixels.shape, np.uint8)
    black, white = found
    per_step = 255 / (white - black)
    return np.asarray(cv2.convertScaleAbs(np.maximum(pixels, black), alpha=per_step, beta=-black * per_step))


def eight_bits(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Grey values in [0, 1] as 0 to 255."""
    return np.rint(grey * np.float32(255)).astype(np.uint8)
