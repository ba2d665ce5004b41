"""A white page in pixel coordinates, and slices displayed on it: what every picture is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from data_prep.crops import display_axes, normalise, resample
from data_prep.files import atomic_write
from data_prep.geometry import FloatArray, SlicePlane
from data_prep.study_types import DicomRejected, Slice
from data_prep.vocabulary import LEVELS

# Okabe and Ito's colour-blind safe palette; the level's name always stands beside its colour.
LEVEL_COLOURS = dict(zip(LEVELS, ("#F0E442", "#56B4E9", "#CC79A7", "#009E73", "#E69F00"), strict=True))

DPI = 100


@dataclass(frozen=True)
class Page:
    """A white page with pixel coordinates, y downwards."""

    figure: Figure
    axes: Axes

    @classmethod
    def blank(cls, width: int, height: int) -> Page:
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.axis("off")
        return cls(figure, axes)

    def image(self, pixels: NDArray[np.float32], left: float, top: float) -> None:
        """Grey values in [0, 1], one page pixel each."""
        rows, columns = pixels.shape
        self.axes.imshow(
            pixels,
            cmap="gray",
            vmin=0,
            vmax=1,
            extent=(left, left + columns, top + rows, top),
            interpolation="nearest",
            aspect="auto",
        )

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """A line of text, its left end at x and its middle at y; ``style`` as in ``Axes.text``."""
        # Dollar signs in identifiers must not start mathematics.
        self.axes.text(x, y, text, parse_math=False, **{"fontsize": 9, "va": "center", **style})

    def label(self, x: float, y: float, text: str, colour: str = "white", **style: Any) -> None:
        """Text that can be read on any grey."""
        outline = [withStroke(linewidth=2.5, foreground="black")]
        self.text(x, y, text, color=colour, weight="bold", path_effects=outline, **style)

    def mark(self, x: float, y: float, colour: str, *, seen: bool) -> None:
        """A point; filled: seen by a detector, open: predicted by geometry."""
        self.axes.plot(
            x,
            y,
            marker="o",
            markersize=7,
            color=colour,
            markerfacecolor=colour if seen else "none",
            markeredgewidth=2,
        )

    def frame(self, left: float, top: float, size: float, colour: str, style: str = "-") -> None:
        self.axes.add_patch(
            Rectangle((left, top), size, size, fill=False, edgecolor=colour, linewidth=3, linestyle=style)
        )

    def cross(self, x: float, y: float) -> None:
        """A thin cross at the point that was graded, small enough not to hide it."""
        self.axes.plot(x, y, marker="+", markersize=8, markeredgewidth=0.8, color="#F0E442")

    def save(self, path: Path) -> None:
        """Write a PNG atomically; the same content gives the same bytes."""
        # imshow sets limits of its own.
        width, height = self.figure.get_size_inches() * DPI
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(height, 0)
        with atomic_write(path, binary=True) as stream:
            self.figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": "lumbar"})


def numbering_words(confidence: float) -> str:
    """How sure the numbering is, for a caption; never 100 %, which no reading of an image is."""
    sure = "over 99%" if confidence > 0.99 else f"{confidence:.0%}"
    return f"numbering {sure} sure"


def displayed(
    item: Slice, width: int, height: int, *, around_mm: FloatArray | None = None
) -> tuple[NDArray[np.float32], SlicePlane] | None:
    """A slice, upright and with square pixels.

    Args:
        item: the slice.
        width, height: of the room for it, in pixels.
        around_mm: (3,) patient point; the slice then fills the height, and what does not fit into the
            width is cut off as far from this point as can be. None shows the whole slice.

    Returns:
        float32 (rows ≤ height, columns ≤ width) in [0, 1], and its grid; None when it cannot be decoded.
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
    image = resample(pixels, plane, grid)[None]
    return normalise(image, np.array([True]))[0], grid
