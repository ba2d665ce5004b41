"""Model cards and report of a training, from the figures of the run: nothing in them is typed by hand."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from classifier.judge.plots import confusion_figure, reliability_figure, roc_figure
from classifier.judge.quality import FIGURES
from classifier.judge.rows import GradedRows
from data_prep.base.files import atomic_write, write_whole
from data_prep.vocabulary import ConditionGroup

_NOT_A_DEVICE = (
    "Not a medical device. The figures above hold for data like those that it was trained on; on other "
    "scanners and patients they may be worse."
)


def write_cards(weights: Path, figures: Mapping[str, Any], rows: GradedRows) -> None:
    """Write ``detector/detectors.md``, and ``graders/graders.md`` with the picture ``reliability.png``.

    Args:
        rows: out of fold, for the picture.
    """
    detector, graders = weights / "detector", weights / "graders"
    write_whole(detector / "detectors.md", _detectors(figures, _files(detector)))
    write_whole(graders / "graders.md", _graders(figures, _files(graders)))
    with atomic_write(graders / "reliability.png", binary=True) as stream:
        reliability_figure(rows).savefig(stream, format="png")


def _files(folder: Path) -> str:
    return ", ".join(f"`{path.stem}`" for path in sorted(folder.glob("*.safetensors")))


def _head(title: str, figures: Mapping[str, Any], rows: Mapping[str, str]) -> list[str]:
    data, plan, versions = figures["data"], figures["plan"], figures["versions"]
    table = {
        **rows,
        "data": f"{data['studies']} studies, {data['labels']} labels, all of them for these final weights",
        "judged": f"out of fold: {plan['folds']} folds by study; every study by networks that never saw it",
        "seed": str(plan["seed"]),
        "points left out": ", ".join(f"{n} {rule}" for rule, n in data["points_taken_by_rules"].items())
        or "none",
        "made by": f"`lumbar train` {versions['lumbar']}, revision {versions['git_revision']}",
        "licence": "AGPL-3.0; the data's own licence binds, too",
    }
    return [
        f"# Model card: {title}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {_cell(value)} |" for name, value in table.items()),
        "",
        "## Measured out of fold",
        "",
    ]


def _detectors(figures: Mapping[str, Any], files: str) -> str:
    plan = figures["plan"]["detectors"]
    lines = _head(
        "level detectors (sagittal, axial, foramen)",
        figures,
        {
            "files": f"{files}: `.safetensors` (fp16), `.json`, `.graph`; `numbering.json`",
            "training": f"{plan['epochs']} epochs of {plan['samples_per_epoch']} views, started from "
            f"{plan['start']} weights, {plan['phantoms']} synthetic studies mixed in; second look "
            f"at canal and foramen points: {plan['point_epochs']} epochs",
        },
    )
    lines += [
        "Points of detectors that never saw the study, against the annotated ones.",
        "",
        "| group | n | missing | in plane median, mm | 95 % | within 6 mm | wrong level | wrong side |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for group, row in figures["detection"].items():
        lines.append(
            f"| {group} | {row['n']} | {row['missing']} | {_number(row['median_in_plane_mm'], 2)} "
            f"| {_number(row['p95_in_plane_mm'], 2)} | {row['within_in_plane']['6']:.1%} "
            f"| {row['wrong_level']} | {row['wrong_side']} |"
        )
    return "\n".join([*lines, "", "## Limits", "", _NOT_A_DEVICE, ""])


def _graders(figures: Mapping[str, Any], files: str) -> str:
    plan, score = figures["plan"], figures["score"]
    lines = _head(
        "severity graders (canal, foramen, recess)",
        figures,
        {
            "files": f"{files}: `.safetensors` (fp16), `.json`, `.graph`",
            "output": "evidence z; p from the level prior, temperature, bias and share of the prior in the "
            "`.json`; calibrated, unweighted. Only `submission.csv` carries q ∝ (1, 2, 4)·p",
            "training": f"started from {plan['graders']['start']} weights; changes "
            f"`{json.dumps(plan['graders']['changes'])}`; labels in doubt: {plan['cleaning']['noise']}",
        },
    )
    if score["out_of_fold"] is not None:
        lines += [
            "Official score, lower is better, with 95 % intervals over studies.",
            "",
            "| term | these graders | level prior | saved |",
            "|---|---|---|---|",
        ]
        for term in score["out_of_fold"]:
            cells = [with_interval(score[part][term]) for part in ("out_of_fold", "level_prior", "saved")]
            lines.append(f"| {term.replace('_', ' ')} | {' | '.join(cells)} |")
        lines.append("")
    lines += [
        "| group | n | AUC severe | AUC moderate or worse | linear kappa | calibration error of p |",
        "|---|---|---|---|---|---|",
    ]
    groups = {group.value for group in ConditionGroup}
    for row in figures["tables"]:
        if row["condition"] in groups and row["level"] == "all":
            cells = [
                with_interval(row[name])
                for name in ("auc_severe", "auc_moderate_or_worse", "kappa_linear", "ece")
            ]
            lines.append(f"| {row['condition']} | {row['n']} | {' | '.join(cells)} |")
    lines += ["", "![Reliability: how often what was given a probability was so](reliability.png)"]
    return "\n".join([*lines, "", "## Limits", "", _NOT_A_DEVICE, ""])


def with_interval(item: Mapping[str, Any] | None, digits: int = 3) -> str:
    """``0.512 (0.498 to 0.527)``, or a dash where a figure is not defined."""
    if item is None or item["value"] is None:
        return "–"
    text = _number(item["value"], digits)
    if item["interval"] is None:
        return text
    return f"{text} ({_number(item['interval'][0], digits)} to {_number(item['interval'][1], digits)})"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


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
