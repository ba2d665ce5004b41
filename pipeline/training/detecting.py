"""The first stage on folds: labelled slices, detectors, and the points that they find in studies unseen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from data_prep.base.backend import Backend
from data_prep.base.files import write_whole
from data_prep.base.manifest import Bundle, read_verified, write_manifest
from data_prep.levels import LevelPoint, SpineLevels, point_of, point_record
from data_prep.names import safe_id
from data_prep.problems import DicomRejected
from data_prep.study import Study
from data_prep.vocabulary import Condition, ConditionGroup, Flag, Level, SeriesKind
from detector import BUNDLED_WEIGHTS
from detector.config import NUMBERING_FILE
from detector.learn.point_crops import PointCrops, point_crops
from detector.learn.refiner import Errors, RefinerTraining, train_refiner
from detector.learn.slice_cache import load_slices, save_slices
from detector.learn.slices import LabelledSlice
from detector.learn.study_slices import (
    SAGITTAL_KINDS,
    canal_objects,
    foramina,
    phantom_slices,
    recess_pairs,
    slices_of_study,
)
from detector.learn.train import TrainConfig, can_go_on, train_detector
from detector.predict import LevelDetector
from detector.spec import AXIAL, FORAMEN, REFINERS, SAGITTAL, DetectorKind, RefinerSpec
from pipeline.training.data import TrainingData
from pipeline.training.plan import DetectorPlan, TrainPlan

# Not the research bundle: it has seen studies of the folds, and no grade of them would be unseen.
OPEN_WEIGHTS = BUNDLED_WEIGHTS[Bundle.OPEN]

Slices = dict[DetectorKind, list[LabelledSlice]]

# Recesses gained nothing from a second look.
SECOND_LOOKS = tuple(spec for spec in REFINERS if spec.group is not ConditionGroup.SUBARTICULAR)

# Studies among the training ones that only watch a detector's epochs: one in so many, and enough.
_CHOOSING_EVERY = 10


def labelled_slices(study: Study, points: tuple[LevelPoint, ...]) -> Slices:
    """What each detector can learn from one study."""
    return {
        DetectorKind.SAGITTAL: slices_of_study(study, canal_objects(points), SAGITTAL, SAGITTAL_KINDS),
        DetectorKind.AXIAL: slices_of_study(study, recess_pairs(points), AXIAL, (SeriesKind.AXIAL_T2,)),
        DetectorKind.FORAMEN: slices_of_study(study, foramina(points), FORAMEN, (SeriesKind.SAGITTAL_T1,)),
    }


def file_of(folder: Path, study_id: str, stem: str) -> Path:
    """Where labelled slices of a study for a detector, or crops for a second look, are kept.

    There are no crops of a study that was rejected.
    """
    return folder / f"{safe_id(study_id)}-{stem}.npz"


def cut_slices(data: TrainingData, study_ids: Iterable[str], folder: Path) -> list[str]:
    """Write slices and point crops of studies that have none yet; a rejected study has none to give.

    Returns:
        Of these studies, what is wrong with annotated points that are left out, see ``annotated_points``.
    """
    problems: list[str] = []
    for study_id in study_ids:
        # The last kind is written last: a study with it is done.
        if file_of(folder, study_id, list(DetectorKind)[-1].value).exists():
            continue
        slices: Slices = {}
        with suppress(DicomRejected):
            study = data.cache.load(study_id)
            annotated, found = data.annotated_or_why(study)
            problems += found
            for spec in SECOND_LOOKS:
                point_crops(study, annotated, spec).save(file_of(folder, study_id, spec.stem))
            slices = labelled_slices(study, annotated)
        for kind in DetectorKind:
            save_slices(slices.get(kind, []), file_of(folder, study_id, kind.value))
    return problems


def make_phantoms(plan: DetectorPlan, kind: DetectorKind, path: Path, _: Path) -> None:
    """Write the labelled slices of the synthetic studies that are mixed in; its own folder stays empty."""
    if not path.exists():
        save_slices(phantom_slices(kind, studies=plan.phantoms, seed=0, jobs=1), path)


def start_weights(plan: DetectorPlan, kind: DetectorKind) -> bytes | None:
    """The safetensors to begin with, or None. Raises WeightsRejected."""
    if plan.start == "scratch":
        return None
    return read_verified(OPEN_WEIGHTS, f"{kind.value}.safetensors")


def train_one(
    plan: TrainPlan,
    kind: DetectorKind,
    slices: Mapping[str, Path],
    folder: Path,
    *,
    phantoms: Path | None,
    device: str,
    workers: int = 0,
    say: Callable[[str], None],
) -> None:
    """Train one detector on the slices of some studies; goes on from its last checkpoint.

    Args:
        slices: study id → file of its labelled slices.
        phantoms: file of those of synthetic studies, or None.
        device: as ultralytics spells it.
        workers: processes that make views ahead.
    """
    settings = plan.detectors
    names = sorted(slices)
    watching = names[_CHOOSING_EVERY // 2 :: _CHOOSING_EVERY]
    training = [item for name in names if name not in watching for item in load_slices(slices[name])]
    validation = [item for name in watching for item in load_slices(slices[name])]
    if not training:
        say(f"{folder.name}: no annotated point, so no {kind.value} detector of these studies")
        return
    step = max(1, -(-len(validation) // plan.choosing_slices))
    sources = [(1.0, training)]
    if phantoms is not None:
        sources.append((settings.phantom_weight, load_slices(phantoms)))
    config = TrainConfig(
        kind=kind,
        epochs=settings.epochs,
        samples_per_epoch=settings.samples_per_epoch,
        batch_size_slices=settings.batch_size_slices,
        initial_rate=settings.initial_rate,
        threads=settings.threads,
        seed=plan.seed,
        workers=workers,
        device=device,
    )

    def on_epoch(done: int, metrics: dict[str, float]) -> None:
        share = metrics.get("metrics/within_6mm", 0.0)
        name = f"{folder.parent.parent.name} {kind.value}"
        say(f"{name} epoch {done} of {settings.epochs}: {share:.3f} within 6 mm")

    checkpoint = folder / "training" / "weights" / "last.pt"
    if checkpoint.is_file() and not can_go_on(checkpoint, settings.epochs):
        shutil.rmtree(folder / "training", ignore_errors=True)  # begun anew
    torch.set_num_threads(settings.threads)
    train_detector(
        config,
        sources,
        validation[::step],
        folder,
        resume=True,
        start_from=start_weights(settings, kind),
        on_epoch=on_epoch,
    )
    # Checkpoints of 80 MB that nothing resumes from any more.
    shutil.rmtree(folder / "training" / "weights", ignore_errors=True)


def train_second_look(
    plan: TrainPlan,
    spec: RefinerSpec,
    crops: Mapping[str, Path],
    folder: Path,
    *,
    say: Callable[[str], None],
) -> None:
    """Train the second look at the points of one condition group; goes on from its checkpoint.

    Args:
        crops: study id → file of its crops.
    """
    names = sorted(name for name, path in crops.items() if path.exists())
    watching = names[_CHOOSING_EVERY // 2 :: _CHOOSING_EVERY]
    found = PointCrops.join([PointCrops.load(crops[name]) for name in names]) if names else None
    if found is None or np.isin(found.study, watching).all():
        say(f"{folder.name}: no annotated point, so no second look at {spec.group.value} points")
        return
    watched = np.isin(found.study, watching)
    settings = plan.detectors

    def report(done: int, errors: Errors | None) -> None:
        seen = "" if errors is None else f": {errors.within_6mm:.3f} within 6 mm"
        say(f"{folder.parent.parent.name} {spec.stem} epoch {done} of {settings.point_epochs}{seen}")

    training = RefinerTraining(epochs=settings.point_epochs, seed=plan.seed, threads=settings.threads)
    train_refiner(spec, found.where(~watched), found.where(watched), folder, training, report=report)


def bundle(runs: Mapping[str, Path], folder: Path) -> None:
    """One weights folder of what was trained, with the numbering that ships with the project.

    Args:
        runs: stem of a weights file → folder of its training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stem, run in runs.items():
        if not (run / f"{stem}.safetensors").is_file():
            continue
        for suffix in (".safetensors", ".json"):
            write_whole(folder / f"{stem}{suffix}", (run / f"{stem}{suffix}").read_bytes())
    if (OPEN_WEIGHTS / NUMBERING_FILE).is_file():
        write_whole(folder / NUMBERING_FILE, read_verified(OPEN_WEIGHTS, NUMBERING_FILE))
    write_manifest(folder)


def find_points(
    data: TrainingData, study_ids: Sequence[str], weights: Path, folder: Path, device: str
) -> None:
    """Write the points that a detector finds in studies, those that have none yet."""
    waiting = [name for name in study_ids if not (folder / f"{safe_id(name)}.json").exists()]
    if not waiting:
        return
    detector = _detector(weights, device)
    for study_id in waiting:
        try:
            levels = detector.predict(data.cache.load(study_id))
        except DicomRejected:
            levels = SpineLevels(study_id, flags=(Flag.STUDY_REJECTED,))
        save_points(folder / f"{safe_id(study_id)}.json", levels)


def _detector(weights: Path, device: str) -> LevelDetector:
    """The detectors of a folder on a device, spelled as ultralytics does."""
    place = f"cuda:{device}" if device.isdigit() else device
    # Detectors of folds are used once: converting them would not pay.
    return LevelDetector.load(weights, device=place, backend=Backend.TORCH)


def save_points(path: Path, levels: SpineLevels) -> None:
    """Write the points of a study and how sure the numbering is."""
    points = [
        {"condition": point.condition.value, "level": point.level.value, **point_record(point)}
        for point in levels.points
    ]
    content = {
        "study_id": levels.study_id,
        "points": points,
        "numbering_confidence": levels.numbering_confidence,
        "flags": list(levels.flags),
    }
    write_whole(path, json.dumps(content))


def read_points(path: Path) -> SpineLevels:
    """Points of ``save_points``; the levels themselves are not kept."""
    content = json.loads(path.read_text(encoding="utf-8"))
    points = tuple(
        point_of(row, Condition(row["condition"]), Level(row["level"])) for row in content["points"]
    )
    return SpineLevels(
        content["study_id"],
        points=points,
        numbering_confidence=content["numbering_confidence"],
        flags=tuple(content["flags"]),
    )
