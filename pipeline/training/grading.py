"""The second stage on folds: crops at the detectors' own points, graders, their grades of unseen studies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifier import BUNDLED_WEIGHTS
from classifier.config import GraderConfig, GraderName
from classifier.learn.crop_cache import CropCache, LabelledStudy, NoCrops, Source, build_cache, load_cache
from classifier.learn.train import EpochReport, Machine, first_network, grade_cache, train_grader
from classifier.storage import StoredGrader, graders_of, load_grader
from data_prep.base.manifest import Bundle
from data_prep.base.rows import Rows
from data_prep.levels import LevelPoint
from data_prep.names import safe_id
from pipeline.training.data import TrainingData
from pipeline.training.detecting import read_points
from pipeline.training.plan import CleaningPlan, TrainPlan

# Not the research bundle: it has seen studies of the folds, and no grade of them would be unseen.
OPEN_WEIGHTS = BUNDLED_WEIGHTS[Bundle.OPEN]

FOUND, ANNOTATED = "found", "annotated"
_OOF_FILE = "oof.npz"


@dataclass(frozen=True, eq=False)
class OutOfFold(Rows):
    """What graders said of crops of studies that they had not seen.

    Attributes:
        row_ids: (n,) ``{study_id}_{condition}_{level}``.
        logits: float64 (n, 3) evidence, not calibrated.
        log_prior: float64 (n, 3).
        label: int64 (n,).
        fold: int64 (n,).
    """

    row_ids: NDArray[np.str_]
    logits: NDArray[np.float64]
    log_prior: NDArray[np.float64]
    label: NDArray[np.int64]
    fold: NDArray[np.int64]


def graders_plan(plan: TrainPlan) -> dict[GraderName, GraderConfig]:
    """The resolved configuration of every grader. Raises ValueError, WeightsRejected."""
    begun = {name: start_grader(plan, name) for name in GraderName}
    return {
        name: plan.graders.config(name, None if stored is None else stored.config)
        for name, stored in begun.items()
    }


def start_grader(plan: TrainPlan, name: GraderName) -> StoredGrader | None:
    """The bundled grader to begin with; None: at random. Raises WeightsRejected."""
    if plan.graders.start != "bundled" or name not in graders_of(OPEN_WEIGHTS):
        return None
    return load_grader(OPEN_WEIGHTS, name)


def check_starts(
    plan: TrainPlan, configs: Mapping[GraderName, GraderConfig], pretrained: Path | None
) -> list[GraderName]:
    """Look whether all graders can begin as the plan says, hours before they do.

    Returns:
        Those that the pretrained weights are for.

    Raises:
        ValueError, WeightsRejected: weights to begin with are missing or of another network.
    """
    taken = []
    for name, config in configs.items():
        start = start_grader(plan, name)
        if start is not None:
            first_network(config, start.network.state_dict())
        elif pretrained is not None:
            first_network(config, pretrained=pretrained)
            taken.append(name)
    return taken


def trainable(
    configs: Mapping[GraderName, GraderConfig], crops: Path, folds: Mapping[str, int]
) -> dict[GraderName, GraderConfig]:
    """The graders without that of the axial canal where fewer than two folds have crops for it."""
    name = GraderName.SPINAL_AXIAL
    try:
        studies = load_cache(crops / FOUND, name, configs[name].crop).study_ids.tolist()
    except NoCrops:
        studies = []
    enough = len({folds[study_id] for study_id in studies}) > 1
    return {other: config for other, config in configs.items() if enough or other is not name}


def crop_sources(data: TrainingData, points: Path, cleaning: CleaningPlan, which: str) -> list[Source]:
    """Studies with their labels and points, loaded when their crops are cut.

    Args:
        points: folder of points that detectors found which never saw the study.
        which: ``found``: those points; ``annotated``: annotated points where the found one is missing or
            farther than the cleaning plan allows.
    """
    return [
        Source(study_id, partial(_labelled, data, study_id, points, cleaning.far_points_mm, which))
        for study_id in data.study_ids
    ]


def _labelled(
    data: TrainingData, study_id: str, points: Path, far_points_mm: float, which: str
) -> LabelledStudy:
    study = data.cache.load(study_id)
    found = read_points(points / f"{safe_id(study_id)}.json").points
    chosen = found if which == FOUND else _far(data.annotated(study), found, far_points_mm)
    return LabelledStudy.of_labels(study, tuple(chosen), data.grades(study_id))


def _far(
    annotated: Sequence[LevelPoint], found: Sequence[LevelPoint], far_points_mm: float
) -> list[LevelPoint]:
    """Annotated points without a found one within reach; none when the rule is off."""
    if far_points_mm <= 0:
        return []
    places = {(point.condition, point.level): point.xyz_mm for point in found}
    far = []
    for point in annotated:
        place = places.get((point.condition, point.level))
        if place is None or float(np.linalg.norm(place - point.xyz_mm)) > far_points_mm:
            far.append(point)
    return far


def cut_all(sources: Sequence[Source], folder: Path, configs: Mapping[GraderName, GraderConfig]) -> None:
    """Cut the crops of studies that have none yet; what cannot be cut has none."""
    crops = {group: config.crop for group, config in configs.items()}
    for _ in build_cache(sources, folder, crops, natural_grades=True):
        pass


def training_crops(crops: Path, config: GraderConfig) -> CropCache:
    """The crops to learn from: at found points, but at annotated ones where the found point is far off."""
    found = load_cache(crops / FOUND, config.name, config.crop)
    try:
        annotated = load_cache(crops / ANNOTATED, config.name, config.crop)
    except NoCrops:  # the rule is off, or no point was far
        return found
    return CropCache.join([found.where(~np.isin(found.row_ids, annotated.row_ids)), annotated])


def cleaned(cache: CropCache, doubts: Mapping[str, NDArray[np.float64]], plan: CleaningPlan) -> CropCache:
    """The crops without, or with softer, labels that the out-of-fold prediction strongly disagrees with.

    Args:
        doubts: row id → out-of-fold p (3,) of such labels.
    """
    if not doubts or plan.noise == "off":
        return cache
    in_doubt = np.isin(cache.row_ids, list(doubts))
    if plan.noise == "drop":
        return cache.where(~in_doubt)
    truth = cache.truth.copy()
    for index in np.flatnonzero(in_doubt):
        p = doubts[str(cache.row_ids[index])]
        truth[index] = (1 - plan.soften_share) * truth[index] + plan.soften_share * p
    return replace(cache, truth=truth.astype(np.float32))


def find_doubts(p: NDArray[np.float64], oof: OutOfFold, plan: CleaningPlan) -> dict[str, NDArray[np.float64]]:
    """Row id → p (3,) where the label's out-of-fold probability is below the plan's bound."""
    mine = p[np.arange(len(oof)), oof.label]
    return {str(oof.row_ids[index]): p[index] for index in np.flatnonzero(mine < plan.noise_below)}


def train_one(
    plan: TrainPlan,
    config: GraderConfig,
    crops: Path,
    held_out: frozenset[str],
    doubts: Mapping[str, NDArray[np.float64]],
    folder: Path,
    *,
    fold: int,
    machine: Machine,
    pretrained: Path | None,
    say: Callable[[str], None],
) -> None:
    """Train one grader on all studies but those held out, and let it grade these."""
    cache = training_crops(crops, config)
    train = cleaned(cache.where(~np.isin(cache.study_ids, list(held_out))), doubts, plan.cleaning)

    def report(row: EpochReport) -> None:
        name = f"{folder.parent.parent.name} {config.name.value}"
        say(f"{name} epoch {row.epoch + 1} of {config.training.epochs}: loss {row.train_loss:.4f}")

    start = start_grader(plan, config.name)
    notes: dict[str, Any] = {
        "train_studies": len(set(train.study_ids.tolist())),
        "held_out_studies": len(held_out),
        "labels_in_doubt": len(set(doubts) & set(train.row_ids.tolist())),
        "started_from": "scratch" if start is None else plan.graders.start,
    }
    network = train_grader(
        config,
        train,
        None,
        folder,
        report=report,
        machine=machine,
        start_from=None if start is None else start.network.state_dict(),
        pretrained=pretrained if start is None else None,
        notes=notes,
    )
    if not held_out:
        return
    found = load_cache(crops / FOUND, config.name, config.crop)
    unseen = found.where(np.isin(found.study_ids, list(held_out)))
    logits = grade_cache(network, unseen, config) if len(unseen) else np.zeros((0, 3))
    log_prior, folds = unseen.log_prior.astype(np.float64), np.full(len(unseen), fold, np.int64)
    OutOfFold(unseen.row_ids, logits, log_prior, unseen.label, folds).save(folder / _OOF_FILE)


def read_out_of_fold(folders: Sequence[Path]) -> OutOfFold:
    """The out-of-fold logits of one grader, fold after fold."""
    return OutOfFold.join([OutOfFold.load(folder / _OOF_FILE) for folder in folders])
