"""Every quality figure that README and the model cards state, measured in one run on reporting data.

    python -m benchmarks.quality --phantoms 100 --shared ../shared -o benchmarks/results

Synthetic patients have seeds from 200,000, used neither for training nor for choosing. ``--shared`` is a
folder with ``real/rsna2024`` and ``real/spider_t2_space``; without it only phantoms are measured.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.progress import track

from classifier.evaluate import GradedTarget
from classifier.evaluate import evaluate as grading_figures
from data_prep.annotations import annotated_points
from data_prep.console import without_nan
from data_prep.files import atomic_write
from data_prep.phantom import PHANTOM_VERSION, SCANNER_RANGES, make_study
from data_prep.studies import find_studies
from data_prep.study_types import SpineLevels
from data_prep.vocabulary import TARGETS, ConditionGroup
from detector.evaluate import numbering_report, point_errors, summarise
from detector.external_studies import external_study
from detector.predict import LevelDetector
from detector.slices import ExternalSlices
from pipeline import Pipeline

FIRST_SEED, FIRST_HARD_SEED, FIRST_UNSEEN_SEED = 200_000, 210_000, 220_000
RSNA_STUDIES = ("100206310", "4003253")


def on_phantoms(
    pipeline: Pipeline, count: int, first: int = FIRST_SEED, scanners: str = "usual"
) -> tuple[dict[str, Any], pd.DataFrame]:
    """End-to-end grading of reporting phantoms, and detection on those without transitional anatomy."""
    errors, levels, graded = [], [], []
    for seed in track(range(first, first + count), description=f"phantoms, {scanners} scanners"):
        phantom = make_study(seed, scanners=SCANNER_RANGES[scanners])
        prediction = pipeline.predict_study(phantom.study)
        found = prediction.levels or SpineLevels(phantom.study.study_id)
        if not phantom.transitional:
            levels.append(found)
            errors.append(point_errors(phantom.study, found, phantom.points))
        for target in TARGETS:
            grade = prediction.grades[target]
            graded.append(
                GradedTarget(
                    study_id=phantom.study.study_id,
                    target=target,
                    label=phantom.severities[target].index,
                    truth=phantom.oracle[target],
                    probabilities=grade.probabilities,
                    flags=grade.flags,
                )
            )
    table = pd.concat(errors)
    figures = grading_figures(graded)
    prior, ours, oracle = (figures[name]["score"] for name in ("prior_score", "score", "oracle_score"))
    return {
        "n": count,
        "detection": _detection(table, levels),
        "grading_end_to_end": figures,
        "skill": round((prior - ours) / (prior - oracle), 4),
    }, table


def on_hard_phantoms(pipeline: Pipeline, count: int) -> tuple[dict[str, Any], pd.DataFrame]:
    """Numbering of cut views and of transitional anatomy: half of ``count`` studies each.

    Only the sagittal series are looked at: they number, the others refine.
    """
    assert isinstance(pipeline.detector, LevelDetector)
    detector = LevelDetector(pipeline.detector.sagittal, config=pipeline.detector.config)
    errors, levels = [], []
    for seed in track(range(FIRST_HARD_SEED, FIRST_HARD_SEED + count), description="hard phantoms"):
        cut = seed % 2 == 0
        phantom = make_study(seed, view="cut" if cut else "whole", transitional="never" if cut else "always")
        levels.append(detector.predict(phantom.study))
        canal = tuple(p for p in phantom.points if p.condition.group is ConditionGroup.SPINAL)
        errors.append(point_errors(phantom.study, levels[-1], canal))
    table = pd.concat(errors)
    return {"n": count, "detection": _detection(table, levels)}, table


def on_rsna(pipeline: Pipeline, root: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Detection on the real studies whose images are at hand."""
    coordinates = pd.read_csv(root / "train_label_coordinates.csv")
    errors, levels = [], []
    for study_id in RSNA_STUDIES:
        study = find_studies(root / "train_images" / study_id)[0].load()
        levels.append(pipeline.detector.predict(study))
        errors.append(point_errors(study, levels[-1], annotated_points(study, coordinates)[0]))
    table = pd.concat(errors)
    return {"n": len(RSNA_STUDIES), "detection": _detection(table, levels)}, table


def on_spider(pipeline: Pipeline, root: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Canal points of the SPIDER report patients."""
    split = pd.read_csv(root / "split.csv")
    source = ExternalSlices(root, root / "level_points.csv", 0.47, average_slices=4)
    errors, levels = [], []
    patients = [str(patient) for patient in split.loc[split["part"] == "report", "patient"]]
    for patient in patients:
        study, annotated = external_study(source, patient, slice_gap_mm=0.9, every=4)
        levels.append(pipeline.detector.predict(study))
        errors.append(point_errors(study, levels[-1], annotated))
    table = pd.concat(errors)
    right = (table["in_plane_mm"] <= 6) & ~table["wrong_level"]
    return {
        "n": len(patients),
        "canal_within_6mm_at_right_level": f"{int(right.sum())} of {len(table)}",
        "detection": _detection(table, levels),
    }, table


def _detection(errors: pd.DataFrame, levels: list[SpineLevels]) -> dict[str, Any]:
    groups = {group: asdict(figures) for group, figures in summarise(errors).items()}
    return {**groups, "numbering": asdict(numbering_report(errors, levels))}


def main() -> None:
    """Measure and write ``quality.json`` and ``point_errors.csv``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantoms", type=int, default=100)
    parser.add_argument("--unseen", type=int, default=100, help="phantoms of a scanner range not trained on")
    parser.add_argument("--hard", type=int, default=200, help="cut views and transitional anatomy")
    parser.add_argument("--shared", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    pipeline = Pipeline.load()
    parts: dict[str, tuple[dict[str, Any], pd.DataFrame]] = {}
    if arguments.shared is not None:
        parts["rsna"] = on_rsna(pipeline, arguments.shared / "real" / "rsna2024")
        parts["spider_report"] = on_spider(pipeline, arguments.shared / "real" / "spider_t2_space")
    if arguments.phantoms:
        parts["phantoms"] = on_phantoms(pipeline, arguments.phantoms)
    if arguments.unseen:
        parts["phantoms_unseen_scanner"] = on_phantoms(
            pipeline, arguments.unseen, FIRST_UNSEEN_SEED, "unseen"
        )
    if arguments.hard:
        parts["hard_phantoms"] = on_hard_phantoms(pipeline, arguments.hard)
    report = {
        "phantom_version": PHANTOM_VERSION,
        "models": dict(pipeline.provenance.models),
        **{name: figures for name, (figures, _) in parts.items()},
    }
    with atomic_write(arguments.output / "quality.json") as stream:
        json.dump(without_nan(report), stream, indent=1, allow_nan=False)
    with atomic_write(arguments.output / "point_errors.csv") as stream:
        pd.concat([table.assign(data=name) for name, (_, table) in parts.items()]).to_csv(stream, index=False)
    print(json.dumps(without_nan(report), indent=1))


if __name__ == "__main__":
    main()
