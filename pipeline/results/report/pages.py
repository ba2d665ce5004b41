"""Pages for a browser, from the templates of the project; one of them is ``index.html``.

Nothing is fetched: pictures, styles and script lie in the page, and a content security policy with the
hash of the script forbids everything else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from data_prep.base.files import write_whole
from data_prep.problems import Rejection
from data_prep.read.own import is_result
from data_prep.vocabulary import SEVERITIES, Condition, ConditionGroup, GradeSource, Level, Target
from pipeline.results.words import (
    NOT_A_DEVICE,
    flag_words,
    numbering_words,
    refusal_sentences,
    share_words,
    target_words,
)


def render(template: str, *, script: str, **values: Any) -> str:
    """Fill a template of the project; every value is escaped.

    Args:
        template: name in ``pipeline/results/report/templates``.
        script: name of the one script that the page may run.
        values: what the template asks for; a missing one is an error.
    """
    code = _text_of(script)
    # The policy allows this script by its hash, so it must come into the page as it is, unescaped.
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    return (
        _environment()
        .get_template(template)
        .render(
            script=Markup(code),
            script_hash=digest,
            style=Markup(_text_of("style.css")),
            not_a_device=NOT_A_DEVICE,
            **values,
        )
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipeline.results.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@cache
def _text_of(name: str) -> str:
    return files("pipeline.results.report").joinpath("templates", name).read_text(encoding="utf-8")


def worst_words(targets: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """The worst grade of some target records, for sorting and in words; (-1, …) when none was graded."""
    graded = [row for row in targets if GradeSource(row["source"]).is_graded]
    if not graded:
        return -1, "not graded"
    rank = {severity.value: severity.index for severity in SEVERITIES}

    def badness(row: Mapping[str, Any]) -> tuple[int, float]:
        return rank[row["severity"]], max(row["probabilities"].values())

    worst = max(graded, key=badness)
    level = Level(worst["level"]).label
    index = rank[worst["severity"]]
    return index, worst["severity"] if index == 0 else f"{worst['severity']}, {level}"


def least_certain_words(targets: Sequence[Mapping[str, Any]]) -> tuple[float, str]:
    """The grade with the lowest probability, for sorting and in words; (2, "") when none was graded."""
    graded = [row for row in targets if GradeSource(row["source"]).is_graded]
    if not graded:
        return 2.0, ""
    least = min(graded, key=lambda row: max(row["probabilities"].values()))
    p = max(least["probabilities"].values())
    target = Target(Condition(least["condition"]), Level(least["level"]))
    return p, f"{target_words(target)}, {share_words(p)}"


def write_index(
    records: Sequence[Mapping[str, Any]],
    reports: Mapping[str, str],
    path: Path,
    *,
    learned_from: str,
    rejections: Sequence[Rejection] = (),
) -> None:
    """Write ``index.html``: a line per study, to be sorted and filtered, with links to the reports.

    Args:
        records: of ``predictions.json``.
        reports: study id → place of its report, relative to ``path``.
        learned_from: what the graders learned from, and the licence, in words.
        rejections: of the input as a whole, which no report says.
    """
    rows = []
    for record in records:
        by_group: dict[str, list[Mapping[str, Any]]] = {}
        for row in record["targets"]:
            by_group.setdefault(Condition(row["condition"]).group.value, []).append(row)
        worst = {group: worst_words(targets) for group, targets in by_group.items()}
        found = sum(level is not None for level in record["levels"].values())
        rows.append(
            {
                "study_id": record["study_id"],
                "report": reports.get(record["study_id"]),
                "worst": [worst[group.value] for group in ConditionGroup],
                "least_certain": least_certain_words(record["targets"]),
                "levels": found,
                "numbering": record["numbering_confidence"],
                "numbering_words": numbering_words(
                    record["numbering_confidence"], record["flags"]
                ).removeprefix("numbering ")
                if found
                else "no level",
                "flags": [flag_words(flag) for flag in record["flags"]],
                "rejected": record["rejected"],
                "n_rejections": len(record["rejections"]),
                "n_unused": sum(
                    Rejection.from_record(row).standing == "rejected" for row in record["rejections"]
                ),
            }
        )
    write_whole(
        path,
        render(
            "index.html",
            script="index.js",
            rows=rows,
            learned_from=learned_from,
            of_no_study=refusal_sentences(rejections),
        ),
    )


def remove_index(path: Path) -> None:
    """Remove the page of an earlier run, which may show other grades than the tables now hold."""
    if is_result(path):
        path.unlink(missing_ok=True)
