"""Plots of how graders do: reliability, ROC, confusion. Probabilities are p, calibrated and unweighted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from classifier.judge.quality import confusion, reliability
from classifier.judge.rows import GradedRows
from data_prep.base.files import atomic_write
from data_prep.vocabulary import SEVERITIES, ConditionGroup, Severity

# Okabe and Ito's colour-blind safe palette; every line is named as well.
_COLOURS = {"severe": "#D55E00", "moderate or worse": "#0072B2"}


def _event(rows: GradedRows, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probability of an event, and whether it happened."""
    if name == "severe":
        return rows.p[:, Severity.SEVERE.index], rows.label == Severity.SEVERE.index
    return 1 - rows.p[:, Severity.NORMAL_MILD.index], rows.label > Severity.NORMAL_MILD.index


def reliability_figure(rows: GradedRows) -> Figure:
    """How often what was given a probability happened; one panel per condition group."""
    return _panels(rows, _draw_reliability)


def roc_figure(rows: GradedRows) -> Figure:
    """ROC curves of severe and of moderate or worse; one panel per condition group."""
    return _panels(rows, _draw_roc)


def confusion_figure(rows: GradedRows) -> Figure:
    """Label against the most probable severity, counts and shares of each label; one panel per group."""
    return _panels(rows, _draw_confusion)


def save_figures(rows: GradedRows, folder: Path) -> None:
    """Write ``reliability.png``, ``roc.png`` and ``confusion.png``."""
    for name, figure in (
        ("reliability", reliability_figure(rows)),
        ("roc", roc_figure(rows)),
        ("confusion", confusion_figure(rows)),
    ):
        with atomic_write(folder / f"{name}.png", binary=True) as stream:
            figure.savefig(stream, format="png")


def _panels(rows: GradedRows, draw: Callable[[Axes, GradedRows], None]) -> Figure:
    figure = Figure(figsize=(10.5, 4.0), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for index, (axes, group) in enumerate(
        zip(figure.subplots(1, len(ConditionGroup), squeeze=False)[0], ConditionGroup, strict=True)
    ):
        part = rows.where(rows.group == index)
        axes.set_title(f"{group.value} (n = {len(part)})")
        if len(part):
            draw(axes, part)
    return figure


def _draw_reliability(axes: Axes, rows: GradedRows) -> None:
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
    for name, colour in _COLOURS.items():
        points = reliability(*_event(rows, name))
        axes.plot(
            [point["probability"] for point in points],
            [point["frequency"] for point in points],
            marker="o",
            markersize=4,
            color=colour,
            label=name,
        )
    axes.set(xlabel="probability given", ylabel="how often it was so", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left", frameon=False)


def _draw_roc(axes: Axes, rows: GradedRows) -> None:
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
    for name, colour in _COLOURS.items():
        probability, happened = _event(rows, name)
        if 0 < happened.sum() < len(happened):
            false, true, _ = roc_curve(happened, probability)
            area = roc_auc_score(happened, probability)
            axes.plot(false, true, color=colour, label=f"{name}, AUC {area:.3f}")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", frameon=False)


def _draw_confusion(axes: Axes, rows: GradedRows) -> None:
    counts = confusion(rows)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        dark = shares[row, column] > 0.5
        axes.text(
            column,
            row,
            f"{count}\n{shares[row, column]:.0%}",
            ha="center",
            va="center",
            color="white" if dark else "black",
        )
    names = [severity.value for severity in SEVERITIES]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names, rotation=90, va="center")
    axes.set(xlabel="most probable", ylabel="label")
