"""Every quality figure that docs/quality.md and the model cards state, measured in one run on reporting data.

    python -m benchmarks.quality --jobs 2 --shared ../shared -o benchmarks/results

Synthetic patients have seeds of the reporting range (200,000 and above), used neither for training nor for
choosing. ``--shared`` is a folder with ``real/rsna2024`` and ``real/spider_t2_space``; without it only
phantoms are measured.

Skill is (level prior − ours) / (level prior − best possible) in the official score and in each of its terms.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from rich.progress import track

from classifier.judge.evaluate import GradedTarget, grade_labelled
from classifier.judge.evaluate import evaluate as grading_figures
from classifier.learn.crop_cache import LabelledStudy
from data_prep.base.files import without_nan, write_json, write_whole
from data_prep.base.manifest import DEFAULT_BUNDLE
from data_prep.levels import SpineLevels
from data_prep.phantom import PHANTOM_VERSION, SCANNER_RANGES, make_study
from data_prep.read.find import find_studies
from data_prep.rsna.annotations import annotated_points
from data_prep.rsna.tables import read_tables
from data_prep.study import Study
from data_prep.vocabulary import LEVELS, SEVERITIES, TARGETS, Condition, ConditionGroup, Severity, Target
from detector.evaluate import numbering_report, point_errors, summarise
from detector.learn.point_slices import annotated_row, external_series
from detector.learn.slices import AnnotatedStudy, ExternalSlices
from detector.learn.sources import external_cases, external_slices, patients_of
from detector.learn.study_slices import hard_phantom
from detector.predict import LevelDetector
from pipeline import Pipeline
from pipeline.prediction import StudyPrediction

# No decision was taken on these: those that were looked at before lie below.
FIRST_SEED, FIRST_UNSEEN_SEED, FIRST_HARD_SEED = 301_000, 305_000, 311_000
RSNA_STUDIES = ("100206310", "4003253")
SPIDER_MM_PER_PX = 0.47
TERMS = ("score", "spinal", "foraminal", "subarticular", "any_severe_spinal")

Item = TypeVar("Item")
Measured = tuple[dict[str, Any], pd.DataFrame]


@dataclass(frozen=True, eq=False)
class PhantomResult:
    """One synthetic study: detected beside annotated points, and grades from both."""

    errors: pd.DataFrame
    levels: SpineLevels
    end_to_end: list[GradedTarget]
    at_annotated_points: list[GradedTarget]
    transitional: bool


# Name of the environment variable that tells worker processes which models are judged.
MODELS = "LUMBAR_JUDGED_MODELS"


@cache
def bundled_pipeline() -> Pipeline:
    """The pipeline of the models that are judged, loaded once per process, on one thread."""
    loaded = Pipeline.load(os.environ.get(MODELS), threads=1)
    torch.set_num_threads(1)
    return loaded


def measure_phantom(seed: int, scanners: str) -> PhantomResult:
    """Detect and grade one reporting phantom."""
    pipeline = bundled_pipeline()
    phantom = make_study(seed, scanners=SCANNER_RANGES[scanners])
    prediction = pipeline.predict_study(phantom.study)
    found = prediction.levels or SpineLevels(phantom.study.study_id)
    labels = {target: phantom.severities[target].index for target in TARGETS}
    annotated = LabelledStudy(phantom.study, phantom.points, phantom.oracle, labels)
    return PhantomResult(
        point_errors(phantom.study, found, phantom.points),
        found,
        graded_targets(prediction, labels, phantom.oracle),
        grade_labelled(pipeline.grader, lambda: annotated, [], []),  # type: ignore[arg-type]
        phantom.transitional,
    )


def measure_hard_phantom(seed: int) -> tuple[pd.DataFrame, SpineLevels]:
    """Number a cut view (even seeds) or transitional anatomy; the sagittal series number, others refine."""
    bundled = bundled_pipeline().detector
    assert isinstance(bundled, LevelDetector)
    phantom = hard_phantom(seed)
    found = LevelDetector(bundled.sagittal, config=bundled.config).predict(phantom.study)
    canal = tuple(p for p in phantom.points if p.condition.group is ConditionGroup.SPINAL)
    return point_errors(phantom.study, found, canal), found


def graded_targets(
    prediction: StudyPrediction, labels: Mapping[Target, int], truth: Mapping[Target, np.ndarray]
) -> list[GradedTarget]:
    """The labelled targets of a prediction beside their labels."""
    return [
        GradedTarget(
            study_id=prediction.study_id,
            target=target,
            label=label,
            truth=truth[target],
            probabilities=prediction.grades[target].probabilities,
            flags=prediction.grades[target].flags,
        )
        for target, label in labels.items()
    ]


def in_processes(work: Callable[[int], Item], seeds: range, jobs: int, what: str) -> Iterator[Item]:
    """``work`` of every seed, in their order."""
    if jobs == 1:
        yield from map(work, track(seeds, description=what))
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from track(pool.map(work, seeds), total=len(seeds), description=what)


def on_phantoms(count: int, first: int, scanners: str, jobs: int) -> Measured:
    """Grading of reporting phantoms, and detection on those without transitional anatomy."""
    seeds = range(first, first + count)
    work = partial(measure_phantom, scanners=scanners)
    results = list(in_processes(work, seeds, jobs, f"phantoms, {scanners} scanners"))
    usual = [result for result in results if not result.transitional]
    table = pd.concat([result.errors for result in usual])
    return {
        "n": count,
        "detection_studies": len(usual),
        "detection": _detection(table, [result.levels for result in usual]),
        "grading_end_to_end": _grading([row for result in results for row in result.end_to_end]),
        "grading_at_annotated_points": _grading(
            [row for result in results for row in result.at_annotated_points]
        ),
    }, table


def _grading(graded: list[GradedTarget]) -> dict[str, Any]:
    figures = grading_figures(graded)
    prior, ours, oracle = (figures[name] for name in ("prior_score", "score", "oracle_score"))
    skill = {term: round((prior[term] - ours[term]) / (prior[term] - oracle[term]), 4) for term in TERMS}
    return {"skill": skill, **figures}


def on_hard_phantoms(count: int, jobs: int) -> Measured:
    """Numbering of cut views and of transitional anatomy: half of ``count`` studies each."""
    seeds = range(FIRST_HARD_SEED, FIRST_HARD_SEED + count)
    results = list(in_processes(measure_hard_phantom, seeds, jobs, "hard phantoms"))
    table = pd.concat([errors for errors, _ in results])
    return {"n": count, "detection": _detection(table, [levels for _, levels in results])}, table


def on_rsna(root: Path) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """Detection and grading of the real studies at hand, and every grade beside its label."""
    pipeline = bundled_pipeline()
    tables = read_tables(root)
    assert tables.train is not None and tables.coordinates is not None
    coordinates, table = tables.coordinates, tables.train.set_index("study_id")
    errors, levels, graded = [], [], []
    one_hot = np.eye(len(SEVERITIES))
    for study_id in RSNA_STUDIES:
        study = find_studies(root / "train_images" / study_id)[0].load()
        prediction = pipeline.predict_study(study)
        found = prediction.levels or SpineLevels(study_id)
        levels.append(found)
        errors.append(point_errors(study, found, annotated_points(study, coordinates)[0]))
        labels = {t: Severity(str(table.loc[study_id, t.column])).index for t in TARGETS}
        graded += graded_targets(prediction, labels, {t: one_hot[index] for t, index in labels.items()})
    figures = grading_figures(graded)
    grades = pd.DataFrame(
        [
            {
                "study_id": row.study_id,
                "target": row.target.column,
                "label": SEVERITIES[row.label].value,
                **{s.column: round(float(p), 4) for s, p in zip(SEVERITIES, row.probabilities, strict=True)},
            }
            for row in graded
        ]
    )
    points = pd.concat(errors)
    report = {
        "n": len(RSNA_STUDIES),
        "detection": _detection(points, levels),
        "grading": {key: figures[key] for key in ("score", "prior_score", "n_targets")},
    }
    return report, points, grades


def on_spider(root: Path) -> Measured:
    """Canal points of the SPIDER report patients, and the mean predicted canal grades of all patients."""
    pipeline = bundled_pipeline()
    errors, levels, canal = [], [], []
    for part in ("report", "train"):
        for study, annotated in external_cases(root, SPIDER_MM_PER_PX, part):
            prediction = pipeline.predict_study(study)
            canal.append([
                prediction.grades[Target(Condition.SPINAL_CANAL_STENOSIS, level)].probabilities
                for level in LEVELS
            ])  # fmt: skip
            if part == "report":
                levels.append(prediction.levels or SpineLevels(study.study_id))
                errors.append(point_errors(study, levels[-1], annotated))
    table = pd.concat(errors)
    assert isinstance(pipeline.detector, LevelDetector)
    slices = [
        point_errors(study, pipeline.detector.predict(study), annotated)
        for study, annotated in external_slice_cases(root, SPIDER_MM_PER_PX, "report")
    ]
    return {
        "n": len(levels),
        "canal_within_6mm_at_right_level": _right(table),
        "each_slice_alone": _right(pd.concat(slices)),
        "detection": _detection(table, levels),
        "mean_canal_grades_of_all_patients": {
            level.value: [round(float(p), 3) for p in np.mean(canal, axis=0)[level.index]] for level in LEVELS
        },
    }, table


def external_slice_cases(folder: Path, mm_per_px: float, part: str) -> list[AnnotatedStudy]:
    """Every labelled slice of a part (``all``: of both parts) as a study of one slice."""
    source = external_slices(folder, mm_per_px, 4)
    parts = ("train", "report") if part == "all" else (part,)
    patients = [patient for name in parts for patient in patients_of(folder, mm_per_px, name)]
    return [case for patient in patients for case in _studies_of(source, patient)]


def _studies_of(source: ExternalSlices, patient: str) -> list[AnnotatedStudy]:
    """Every labelled slice of a patient as a study of its own, with its canal points."""
    points = source.points()
    points = points[(points["patient"].astype(str) == patient) & points["canal_x"].notna()]
    cases = []
    for file, rows in points.groupby("file", sort=True):
        name = Path(str(file)).stem
        index = int(rows["slice_index"].iloc[0])
        series = external_series(source, name, f"{name}-t2", {index: str(file)}, 0.0)
        by_level = {str(row["level"]): row for _, row in rows.iterrows()}
        annotated = [
            annotated_row(series, level, by_level[level.label]) for level in LEVELS if level.label in by_level
        ]
        cases.append((Study(name, (series,)), tuple(annotated)))
    return cases


def _right(errors: pd.DataFrame) -> str:
    right = (errors["in_plane_mm"] <= 6) & ~errors["wrong_level"].astype(bool)
    return f"{int(right.sum())} of {len(errors)}"


def _detection(errors: pd.DataFrame, levels: list[SpineLevels]) -> dict[str, Any]:
    groups = {group: asdict(figures) for group, figures in summarise(errors).items()}
    return {**groups, "numbering": asdict(numbering_report(errors, levels))}


def main() -> None:
    """Measure, write ``quality.json``, ``point_errors.csv`` and, of the real studies, ``rsna_grades.csv``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantoms", type=int, default=300)
    parser.add_argument("--unseen", type=int, default=100, help="phantoms of a scanner range not trained on")
    parser.add_argument("--hard", type=int, default=400, help="cut views and transitional anatomy")
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="processes; the figures are the same")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--models", default=DEFAULT_BUNDLE.value, help="research, open or a folder")
    arguments = parser.parse_args()
    os.environ[MODELS] = arguments.models  # worker processes read it
    parts: dict[str, Measured] = {}
    suffix = "" if arguments.models == DEFAULT_BUNDLE.value else f"_{Path(arguments.models).name}"
    if arguments.hard:
        parts["hard_phantoms"] = on_hard_phantoms(arguments.hard, arguments.jobs)
    if arguments.phantoms:
        parts["phantoms"] = on_phantoms(arguments.phantoms, FIRST_SEED, "usual", arguments.jobs)
    if arguments.unseen:
        parts["phantoms_unseen_scanner"] = on_phantoms(
            arguments.unseen, FIRST_UNSEEN_SEED, "unseen", arguments.jobs
        )
    if arguments.shared is not None:
        figures, table, grades = on_rsna(arguments.shared / "real" / "rsna2024")
        parts["rsna"] = figures, table
        write_whole(arguments.output / f"rsna_grades{suffix}.csv", grades.to_csv(index=False))
        parts["spider_report"] = on_spider(arguments.shared / "real" / "spider_t2_space")
    report = {
        "phantom_version": PHANTOM_VERSION,
        "models": dict(bundled_pipeline().provenance.models),
        **{name: figures for name, (figures, _) in parts.items()},
    }
    write_json(arguments.output / f"quality{suffix}.json", without_nan(report), indent=1, allow_nan=False)
    errors = pd.concat([table.assign(data=name) for name, (_, table) in parts.items()])
    write_whole(arguments.output / f"point_errors{suffix}.csv", errors.to_csv(index=False))
    print(json.dumps(without_nan(report), indent=1))


if __name__ == "__main__":
    main()
