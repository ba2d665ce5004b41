"""The jobs of the first stage: slices, detectors of every fold and final ones, points of unseen studies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from classifier.learn.devices import detector_device
from data_prep.base.manifest import file_sha256
from data_prep.rsna.annotations import points_left_out
from detector.config import NUMBERING_FILE
from detector.spec import DetectorKind
from pipeline.training import detecting
from pipeline.training.data import TrainingData
from pipeline.training.plan import TrainPlan
from pipeline.training.stages import FINAL, Job, Stages, digest_of, fold_name


def train_detectors(
    plan: TrainPlan,
    data: TrainingData,
    folds: Mapping[str, int],
    digest: str,
    stages: Stages,
    device: torch.device,
    workers: int = 0,
) -> dict[int | str, tuple[Path, str]]:
    """Fold (or ``final``) → weights folder of its detectors, and the digest of what made them."""
    cut = digest_of([digest, "slices and point crops"])
    folder = stages.run / "slices" / f"cut-{cut[:12]}"
    world = stages.ranks.world
    jobs = []
    for rank in range(world):

        def work(_: Path, ids: Sequence[str] = data.study_ids[rank::world]) -> None:
            for item in points_left_out(detecting.cut_slices(data, ids, folder)):
                stages.say(f"note: {item.said}")

        jobs.append(Job(f"slices/part{rank}of{world}", cut, work))
    mixed_in = plan.detectors.phantoms > 0 and plan.detectors.phantom_weight > 0
    phantoms = {kind: folder / f"phantoms-{kind.value}.npz" if mixed_in else None for kind in DetectorKind}
    for kind, path in phantoms.items():
        if path is not None:
            make = partial(detecting.make_phantoms, plan.detectors, kind, path)
            made_of = digest_of([cut, kind.value, plan.detectors.phantoms])
            jobs.append(Job(f"slices/phantoms-{kind.value}", made_of, make))
    stages.do(jobs)
    starts = {
        kind: None if weights is None else hashlib.sha256(weights).hexdigest()
        for kind in DetectorKind
        for weights in [detecting.start_weights(plan.detectors, kind)]
    }
    jobs = []
    second_looks = detecting.SECOND_LOOKS if plan.detectors.point_epochs else ()
    stems = [*(kind.value for kind in DetectorKind), *(spec.stem for spec in second_looks)]
    digests: dict[tuple[int | str, str], str] = {}
    for fold in (*range(plan.folds), FINAL):
        others = [study_id for study_id in data.study_ids if folds[study_id] != fold]
        for kind in DetectorKind:
            mine = {study_id: detecting.file_of(folder, study_id, kind.value) for study_id in others}
            made_of = digest_of(
                [
                    cut,
                    fold,
                    kind.value,
                    plan.to_dict()["detectors"],
                    plan.seed,
                    plan.choosing_slices,
                    starts[kind],
                ]
            )
            digests[fold, kind.value] = made_of
            train = partial(
                detecting.train_one,
                plan,
                kind,
                mine,
                phantoms=phantoms[kind],
                device=detector_device(device),
                workers=workers,
                say=stages.say,
            )
            jobs.append(Job(f"{fold_name(fold)}/detector/{kind.value}", made_of, train))
        for spec in second_looks:
            crops = {study_id: detecting.file_of(folder, study_id, spec.stem) for study_id in others}
            made_of = digest_of([cut, fold, spec.stem, asdict(spec), plan.to_dict()["detectors"], plan.seed])
            digests[fold, spec.stem] = made_of
            look = partial(detecting.train_second_look, plan, spec, crops, say=stages.say)
            jobs.append(Job(f"{fold_name(fold)}/detector/{spec.stem}", made_of, look))
    stages.do(jobs)
    weights: dict[int | str, tuple[Path, str]] = {}
    bundles = []
    numbering = detecting.OPEN_WEIGHTS / NUMBERING_FILE
    for fold in (*range(plan.folds), FINAL):
        of_numbering = file_sha256(numbering) if numbering.is_file() else None
        made_of = digest_of([[digests[fold, stem] for stem in stems], of_numbering])
        runs = {stem: stages.run / fold_name(fold) / "detector" / stem for stem in stems}
        bundles.append(Job(f"{fold_name(fold)}/detector-weights", made_of, partial(detecting.bundle, runs)))
        weights[fold] = (stages.run / fold_name(fold) / "detector-weights", made_of)
    stages.do(bundles)
    return weights


def find_all_points(
    plan: TrainPlan,
    data: TrainingData,
    folds: Mapping[str, int],
    detectors: Mapping[int | str, tuple[Path, str]],
    stages: Stages,
    device: torch.device,
) -> tuple[Path, str]:
    """Folder of the points in every study, found by detectors that never saw it; and its digest."""
    made_of = digest_of([detectors[fold][1] for fold in range(plan.folds)])
    folder = stages.run / "points" / made_of[:12]
    jobs = []
    for fold in range(plan.folds):
        ids = [study_id for study_id in data.study_ids if folds[study_id] == fold]

        def work(_: Path, ids: list[str] = ids, fold: int = fold) -> None:
            detecting.find_points(data, ids, detectors[fold][0], folder, detector_device(device))

        jobs.append(Job(f"fold{fold}/points", made_of, work))
    stages.do(jobs)
    return folder, made_of
