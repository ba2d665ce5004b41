"""The end of a training: out-of-fold submission and its figures, the report, the final weights with cards."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from classifier.config import GROUP_GRADERS, GraderName
from classifier.expected import Expectations
from classifier.judge.quality import official_terms, quality_tables, score_terms, with_intervals
from classifier.judge.rows import GradedRows
from classifier.learn.expect import fit_expectations, save_expectations
from classifier.learn.sources import severities_in
from classifier.metric import PROBABILITY_COLUMNS
from classifier.metric import score as official_score
from classifier.prior import level_prior
from classifier.storage import load_grader, save_grader
from data_prep.base.files import without_nan, write_json
from data_prep.base.version import git_revision
from data_prep.names import safe_id
from data_prep.problems import DicomRejected
from data_prep.vocabulary import TARGETS, Target, split_row_id
from detector.evaluate import point_errors, summarise
from pipeline import __version__
from pipeline.export.graphs import write_graphs
from pipeline.results.submission import (
    build_submission,
    read_submission,
    validate_submission,
    write_submission,
)
from pipeline.training.calibrating import Calibrated
from pipeline.training.cards import write_cards, write_report
from pipeline.training.data import TrainingData, share_of_severe
from pipeline.training.detecting import read_points
from pipeline.training.grading import OutOfFold
from pipeline.training.plan import TrainSettings
from pipeline.training.stages import Stages, seconds_of

Probabilities = dict[str, dict[Target, NDArray[np.float64]]]


def finish(
    settings: TrainSettings,
    data: TrainingData,
    folds: Mapping[str, int],
    oof: Mapping[GraderName, OutOfFold],
    calibrated: Calibrated,
    detectors: tuple[Path, str],
    graders: Mapping[GraderName, Path],
    points: Path,
    stages: Stages,
) -> dict[str, Any]:
    """Write everything that a finished run holds, and return the figures of ``report.json``.

    Files: ``oof_submission.csv`` (q) and ``oof_probabilities.csv`` (p), ``report.json``, ``report.html``,
    ``weights/detector`` and ``weights/graders``.
    """
    run, plan = stages.run, settings.plan
    p = out_of_fold_probabilities(data.study_ids, oof, calibrated)
    submission = _submission(p, folds, calibrated)
    validate_submission(submission, data.study_ids)
    write_submission(submission, run / "oof_submission.csv")
    plain = _plain(p)
    write_submission(plain, run / "oof_probabilities.csv")
    graded = GradedRows.from_tables(plain, data.labels, weighted=False)
    submitted = GradedRows.from_tables(submission, data.labels)
    figures: dict[str, Any] = {
        "format": "lumbar-train-report/1",
        "versions": {"lumbar": __version__, "git_revision": git_revision()},
        "data": {
            "studies": len(data.study_ids),
            "labels": len(graded),
            "folds": share_of_severe(data.labels, folds),
            "points_taken_by_rules": dict(data.points_taken),
        },
        "plan": plan.to_dict(),
        "score": scores(submitted, folds, settings, data.labels),
        "official": official_score(submission, data.labels).to_dict(),
        "tables": quality_tables(graded, resamples=plan.resamples, seed=plan.seed),
        "calibration": {group.value: item.to_dict() for group, item in calibrated.final.items()},
        "joint_canal": None if calibrated.joint is None else calibrated.joint.to_dict(),
        "any_severe_pull_by_fold": dict(calibrated.pulls),
        "ungraded": {
            name.value: int(sum(graded.group == index) - len(_graded(oof, name)))
            for index, name in enumerate(GROUP_GRADERS)
        },
        "detection": _detection(data, points),
        "seconds": seconds_of(run),
    }
    figures = without_nan(figures)
    labels = {str(row["study_id"]): severities_in(row) for _, row in data.labels.iterrows()}
    expectations = fit_expectations(_seen(oof, calibrated), labels)
    _write_weights(run / "weights", calibrated, detectors[0], graders, expectations, figures)
    write_cards(run / "weights", figures, graded)
    write_json(run / "report.json", figures, indent=1, allow_nan=False)
    write_report(run / "report.html", figures, graded)
    return figures


def out_of_fold_probabilities(
    study_ids: list[str], oof: Mapping[GraderName, OutOfFold], calibrated: Calibrated
) -> Probabilities:
    """Study → target → p (3,): what the graders say, the level prior where they could not look."""
    priors = {target: level_prior(target) for target in TARGETS}
    seen = _seen(oof, calibrated)
    return {study: priors | seen.get(study, {}) for study in study_ids}


def _seen(oof: Mapping[GraderName, OutOfFold], calibrated: Calibrated) -> Probabilities:
    """Study → target → p (3,) of what some grader could look at."""
    p: Probabilities = {}
    # The axial canal first: where the sagittal grader saw the target, too, that one has what both say.
    for name in sorted(oof, key=lambda name: name in GROUP_GRADERS):
        for row_id, probabilities in zip(oof[name].row_ids, calibrated.p[name], strict=True):
            study_id, target = split_row_id(str(row_id))
            p.setdefault(study_id, {})[target] = probabilities
    return p


def _graded(oof: Mapping[GraderName, OutOfFold], name: GraderName) -> set[str]:
    """Rows of a condition group that some grader saw."""
    return {str(row) for other, rows in oof.items() if other.group is name.group for row in rows.row_ids}


def scores(
    rows: GradedRows, folds: Mapping[str, int], settings: TrainSettings, labels: pd.DataFrame
) -> dict[str, Any]:
    """Every term with its interval, the level prior's, what is saved, and the score fold by fold."""
    plan = settings.plan
    ours = official_terms(rows, resamples=plan.resamples, seed=plan.seed)
    prior = official_terms(rows.with_p(rows.prior), resamples=plan.resamples, seed=plan.seed)
    if ours is None or prior is None:
        return {"out_of_fold": None, "level_prior": None, "saved": None, "by_fold": {}}

    fold_of = np.array([folds[study_id] for study_id in rows.study_ids.tolist()])
    by_fold = {str(fold): score_terms(rows.where(fold_of == fold)) for fold in sorted(set(folds.values()))}
    result: dict[str, Any] = {
        "out_of_fold": with_intervals(ours),
        "level_prior": with_intervals(prior),
        "saved": with_intervals({name: prior[name] - ours[name] for name in ours}),
        "by_fold": by_fold,
    }
    oracle = settings.data / "oracle.csv"
    if oracle.is_file():
        truth = GradedRows.from_tables(read_submission(oracle), labels, weighted=False)
        if (best := score_terms(truth)) is not None:
            result["oracle"] = best
            result["skill"] = {
                name: float((prior[name][0] - ours[name][0]) / (prior[name][0] - best[name])) for name in ours
            }
    return result


def _submission(p: Probabilities, folds: Mapping[str, int], calibrated: Calibrated) -> pd.DataFrame:
    """All studies in order; the canal rows of a fold pulled as the other folds advise."""
    parts = [
        build_submission({study: p[study]}, any_severe_pull=calibrated.pulls.get(folds[study], 0.0))
        for study in p
    ]
    return pd.concat(parts, ignore_index=True)


def _plain(p: Probabilities) -> pd.DataFrame:
    rows = [
        (target.row_id(study), *values) for study, grades in p.items() for target, values in grades.items()
    ]
    return pd.DataFrame(rows, columns=["row_id", *PROBABILITY_COLUMNS])


def _detection(data: TrainingData, points: Path) -> dict[str, Any]:
    """Errors of the out-of-fold points against the annotated ones, per condition group."""
    errors = []
    for study_id in data.study_ids:
        try:
            study = data.cache.load(study_id)
        except DicomRejected:
            continue
        annotated = data.annotated(study)
        if annotated:
            errors.append(point_errors(study, read_points(points / f"{safe_id(study_id)}.json"), annotated))
    if not errors:
        return {}
    return {group: asdict(figures) for group, figures in summarise(pd.concat(errors)).items()}


def _write_weights(
    folder: Path,
    calibrated: Calibrated,
    detectors: Path,
    graders: Mapping[GraderName, Path],
    expectations: Expectations,
    figures: Mapping[str, Any],
) -> None:
    """Final weights in the layout that ``lumbar predict`` takes, and nothing of an earlier training."""
    for name in ("detector", "graders"):
        shutil.rmtree(folder / name, ignore_errors=True)
    target = folder / "detector"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(detectors.iterdir(), key=lambda path: path.name == "manifest.json"):
        if path.suffix in (".safetensors", ".json"):
            shutil.copyfile(path, target / path.name)
    for group, run in graders.items():
        stored = load_grader(run, group)
        metrics = {**stored.metrics, "out_of_fold": _of_group(figures, group)}
        joint = calibrated.joint if group is GraderName.SPINAL_AXIAL else None
        save_grader(
            folder / "graders", stored.config, stored.network, calibrated.final[group], metrics, joint
        )
    save_expectations(folder / "graders", expectations)
    for name in ("detector", "graders"):
        write_graphs(folder / name)


def _of_group(figures: Mapping[str, Any], group: GraderName) -> dict[str, Any]:
    return next(
        (row for row in figures["tables"] if row["condition"] == group.value and row["level"] == "all"), {}
    )
