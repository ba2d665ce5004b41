"""What the commands print on stdout when they are done, also on a terminal of 80 columns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.base.manifest import Bundle, named_bundle
from data_prep.names import printable
from data_prep.partition import Part, part_of
from data_prep.vocabulary import Condition
from pipeline.commands import console
from pipeline.commands.console import list_rejections, out, print_rows, say, tell
from pipeline.results.words import place_words

if TYPE_CHECKING:
    from classifier.metric import ScoreReport
    from data_prep.rsna.check import CheckReport
    from detector.learn.study_slices import LeftOut
    from pipeline.batch.run import BatchReport

_FEW_STUDIES = 20
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


def print_batch(report: BatchReport) -> None:
    """What a run did, and where its results are."""
    resumed = f", {report.n_resumed} of them by an earlier run" if report.n_resumed else ""
    say(f"{report.n_graded} of {report.n_studies} studies graded{resumed}")
    if nothing := report.n_studies - report.n_rejected - report.n_graded:
        say(f"nothing     in {nothing} more studies could be graded: their flags say why")
    counts = Counter(report.counts)
    beside = f" ({counts['expected']} expected from the other grades of their level)"
    say(
        f"grades      {counts['seen']} graded where a detector saw them, "
        f"{counts['predicted']} where geometry placed them, {counts['expected'] + counts['prior']} not graded"
        f"{beside if counts['expected'] else ''}"
    )
    if report.flags:
        flags = ", ".join(f"{flag} × {count}" for flag, count in sorted(report.flags.items()))
        say(f"flags       {flags}")
    said = Counter(item.standing for item in report.rejections)
    for standing, word in (("rejected", "not used"), ("missing", "incomplete"), ("doubtful", "doubtful")):
        if said[standing]:
            say(f"{word:<11} {said[standing]} files, series or studies: {report.refused}")
    say(f"submission  {report.submission}")
    say(f"targets     {report.targets}")
    say(f"predictions {report.predictions}")
    if report.pictures is not None:
        say(f"pictures    {report.pictures}")
    if len(report.reports) == 1:
        say(f"report      {report.reports[0]}")
    if report.index is not None:
        say(f"reports     {report.index}")


def print_training(figures: Mapping[str, Any], run: Path) -> None:
    """The out-of-fold score, and where the weights and the report are."""
    from pipeline.training.cards import with_interval

    score = figures["score"]
    if score["out_of_fold"] is not None:
        rows = [
            {
                "": term.replace("_", " "),
                "out of fold": with_interval(item, 4),
                "level prior": f"{score['level_prior'][term]['value']:.4f}",
                "saved": with_interval(score["saved"][term], 4),
            }
            for term, item in score["out_of_fold"].items()
        ]
        print_rows("official metric, lower is better (95 % over studies)", rows)
    out.print(f"report      {run / 'report.html'}")
    out.print(f"weights     {run / 'weights'}")
    out.print(f"next        lumbar predict INPUT -o OUT --models {run}")


def print_check(report: CheckReport, *, images: bool) -> None:
    """What a data set holds, and every quirk in it; ``images``: whether they were looked at."""
    counts = f"{report.series} series, {report.slices} slices, {report.points} annotated points in images"
    usable = f"{report.studies_loaded} of {report.studies} studies can be used: {counts}"
    out.print(usable if images else "the tables alone were checked, no image was read")
    for problem in report.problems:
        out.print(f"- {printable(str(problem))}")
    if report.problems and not any(problem.fatal for problem in report.problems):
        say("quirks stop nothing: what training does about them is in docs/training.md, label cleaning")


def print_score(
    report: ScoreReport, intervals: Mapping[str, Any] | None, prior: Mapping[str, Any] | None
) -> None:
    """The official metric, term by term, with 95 % intervals over studies, beside the level prior's."""
    terms = (
        ("spinal", report.spinal, f"{report.n_spinal} rows"),
        ("foraminal", report.foraminal, f"{report.n_foraminal} rows"),
        ("subarticular", report.subarticular, f"{report.n_subarticular} rows"),
        ("any severe spinal", report.any_severe_spinal, f"{report.n_any_severe_studies} studies"),
        ("score", report.score, f"{report.n_rows} rows"),
    )
    print_rows(
        "RSNA 2024 lumbar spine, official metric",
        [
            {
                "": name,
                "log loss": f"{loss:.4f}",
                "95 % interval": _interval(intervals, name.replace(" ", "_")),
                "level prior": "–" if prior is None else f"{prior[name.replace(' ', '_')]['value']:.4f}",
                "n": count,
            }
            for name, loss, count in terms
        ],
    )
    if report.n_unlabelled:
        say(f"{report.n_unlabelled} targets have no label, and are not scored")
    if report.n_any_severe_studies < _FEW_STUDIES:
        say("intervals over so few studies, here and below, say little")


def _interval(intervals: Mapping[str, Any] | None, term: str) -> str:
    found = None if intervals is None else intervals[term]["interval"]
    return "–" if found is None else f"{found[0]:.4f} to {found[1]:.4f}"


def tell_of_known(study_ids: Iterable[str], weights: Path | None, *, graders: bool = False) -> None:
    """A word on stderr where models are measured on studies that they know, or may know.

    Args:
        weights: as the command line names them, see ``named_bundle``.
        graders: whether the graders are measured: those of ``open`` were calibrated on some studies.
    """
    from data_prep.rsna.known import said_of_calibrated, said_of_known

    bundle, said = named_bundle(weights), None
    if bundle is Bundle.RESEARCH:
        said = said_of_known(study_ids)
    elif bundle is Bundle.OPEN and graders:
        said = said_of_calibrated(study_ids)
    elif bundle is None and weights is not None:
        if (tested := _said_of_test_part(set(study_ids), weights)) is not None:
            tell(f"note: {tested}")
            return
        said = _said_of_own(set(study_ids))
    if said:
        tell(f"note: {said}; --part test leaves them out")


def _said_of_test_part(study_ids: set[str], weights: Path) -> str | None:
    """That weights have learned from studies of the test part, too, as those of ``lumbar train`` have."""
    if learned_from_all(weights):
        return (
            "these graders are those of lumbar train, or began as such, which learns from all studies of its "
            "data, those of the test part, too: its report.json has the figures of unseen ones, out of fold"
        )
    sources = [source for described in _descriptions(weights) for source in described.get("sources", ())]
    learned = {patient for source in sources for patient in source.get("patients", ())} & study_ids
    if not any(part_of(study_id) is Part.TEST for study_id in learned):
        return None
    return (
        f"these detectors learned from {len(learned)} of these {len(study_ids)} studies, of the test part, "
        "too, as those of lumbar train do: figures are flattered here"
    )


def learned_from_all(weights: Path) -> bool:
    """Whether graders are the final ones of ``lumbar train``, which leave no study of their data out."""
    return any(
        described.get("metrics", {}).get("held_out_studies") == 0 for described in _descriptions(weights)
    )


def _descriptions(weights: Path) -> Iterator[dict[str, Any]]:
    """What stands beside the networks of a folder."""
    for path in sorted(weights.glob("*.json")):
        try:
            described = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(described, dict):
            yield described


def _said_of_own(study_ids: set[str]) -> str | None:
    """What holds of weights that somebody trained, of which nothing says what they learned from."""
    known = sum(part_of(study_id) is not Part.TEST for study_id in study_ids)
    if not known:
        return None
    return (
        f"{known} of these {len(study_ids)} studies are of the parts that trainings learn from and calibrate "
        "on (lumbar train: all): weights that were trained on this data are flattered here"
    )


@contextmanager
def told_of_left_out() -> Iterator[LeftOut]:
    """Takes what of annotated studies cannot be used; all of it is told, also where nothing is left."""
    from detector.learn.study_slices import LeftOut

    left_out = LeftOut()
    try:
        yield left_out
    finally:
        for text in left_out.studies:
            tell(f"note: {text}")
        list_rejections(left_out.rejections)
        tell_of_points(left_out.problems)


def tell_of_points(problems: Iterable[str]) -> None:
    """A word on stderr for each kind of annotated points that are left out."""
    from data_prep.rsna.annotations import points_left_out

    for item in points_left_out(problems):
        tell(f"note: {item.said}")


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
