"""Tables of figures on a terminal of 80 columns. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.vocabulary import Condition
from pipeline.commands import console
from pipeline.results.words import place_words

# What has room there; --json has every figure.
_SHOWN_TOGETHER = (
    {"log_loss": "log loss", "kappa_linear": "linear kappa", "ece": "ECE of p"},
    {
        "auc_severe": "AUC severe",
        "auc_moderate_or_worse": "AUC moderate+",
        "severe_recall": "severe found*",
    },
)
_SHOWN_PER_LEVEL = {
    "log_loss": "loss",
    "kappa_linear": "kappa",
    "auc_severe": "AUC sev",
    "auc_moderate_or_worse": "AUC mod",
    "severe_recall": "found*",
    "ece": "ECE",
}


def print_tables(tables: Sequence[Mapping[str, Any]]) -> None:
    """``classifier.judge.quality.quality_tables`` for the terminal."""
    for shown in _SHOWN_TOGETHER:
        rows = [
            {"": _short(row["condition"]), "n": str(row["n"])}
            | {title: _with_interval(row[name]) for name, title in shown.items()}
            for row in tables
            if row["level"] == "all"
        ]
        console.print_rows("all levels (95 % intervals over studies)", rows)
    console.say("* share of Severe found where at most a tenth of the others is called so")
    rows = [
        {"": _short(row["condition"]), "level": row["level"], "n": str(row["n"])}
        | {title: _figure(row[name]["value"]) for name, title in _SHOWN_PER_LEVEL.items()}
        for row in tables
        if row["level"] != "all" and row["condition"] in set(Condition)
    ]
    console.print_rows("level by level", rows)


def print_review(curve: Sequence[Mapping[str, float | None]]) -> None:
    """``classifier.judge.quality.review_curve`` for the terminal."""
    rows = [
        {
            "looked at again": f"{row['reviewed']:.0%}",
            "accuracy": _figure(row["accuracy"]),
            "linear kappa": _figure(row["kappa_linear"]),
            "severe missed": _figure(row["missed_severe"]),
        }
        for row in curve
    ]
    console.print_rows("what a reader gains who looks again at the least certain targets", rows)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _short(condition: str) -> str:
    """``left_neural_foraminal_narrowing`` → ``left foramen``; condition groups keep their name."""
    return place_words(Condition(condition)) if condition in set(Condition) else condition


def _with_interval(item: Mapping[str, Any]) -> str:
    if item["value"] is None or item["interval"] is None:
        return _figure(item["value"])
    return f"{item['value']:.3f} {item['interval'][0]:.2f}–{item['interval'][1]:.2f}"
