"""The report of a training: one HTML page that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from classifier.judge.plots import confusion_figure, reliability_figure, roc_figure
from classifier.judge.quality import FIGURES
from classifier.judge.rows import GradedRows
from data_prep.base.files import write_whole
from data_prep.vocabulary import ConditionGroup
from pipeline.training.cards import with_interval


def write_report(path: Path, figures: Mapping[str, Any], rows: GradedRows) -> None:
    """Write the page."""
    pictures = {
        "Reliability: how often what was given a probability was so": reliability_figure(rows),
        "ROC": roc_figure(rows),
        "Confusion: label against the most probable severity": confusion_figure(rows),
    }
    environment = Environment(
        loader=PackageLoader("pipeline.training"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["with_interval"] = with_interval
    page = environment.get_template("report.html").render(
        figures=figures,
        names=FIGURES,
        groups=[group.value for group in ConditionGroup],
        pictures={title: _embedded(figure) for title, figure in pictures.items()},
        hours=sum(figures["seconds"].values()) / 3600,
    )
    write_whole(path, page)


def _embedded(figure: Figure) -> str:
    """A picture as the text that an ``img`` shows."""
    stream = io.BytesIO()
    # Without the software's version, so that the same figures give the same page.
    figure.savefig(stream, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
