"""The whole training, top to bottom; every step leaves files, and a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from classifier.config import GraderConfig
from classifier.devices import detector_device, resolve_device
from classifier.train import Machine
from data_prep.files import atomic_write, safe_id
from data_prep.manifest import file_sha256
from data_prep.revision import git_revision
from data_prep.vocabulary import ConditionGroup
from detector.predict import BUNDLED_WEIGHTS, NUMBERING_FILE
from detector.spec import DetectorKind
from pipeline.training import detecting, grading
from pipeline.training.calibrating import calibrate
from pipeline.training.data import TrainingData, read_training_data
from pipeline.training.finish import finish
from pipeline.training.folds import assign_folds
from pipeline.training.plan import TrainPlan
from pipeline.training.ranks import RankFailed, Ranks, end_with_parent
from pipeline.training.settings import TrainSettings
from pipeline.training.stages import Job, Stages, digest_of

FINAL = "final"
# Changed when files of an earlier program could be mistaken for those of this one.
_FORMAT = "lumbar-train/1"
_PLAN_FILE = "plan.json"
_FOLDS_FILE = "folds.json"


def train_all(
    settings: TrainSettings, say: Callable[[str], None], ranks: Ranks | None = None
) -> dict[str, Any] | None:
    """Train both stages on folds, judge them out of fold, and write the final weights.

    Args:
        ranks: which of torchrun's processes this is; alone, or the first of ``settings.processes``, if left out.

    Returns:
        The figures of ``report.json``; None in processes other than the first.

    Raises:
        ValueError, TablesInvalid, DicomRejected, WeightsRejected: the data, the plan, the device or the
            weights to begin with cannot be used.
        RankFailed: another process of this training failed.
        RunInUse: another training is at work in the run folder.
    """
    ranks = ranks or Ranks()
    if ranks.world > 1 or settings.processes <= 1:
        return _train(settings, ranks, say)
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_other_rank, args=(settings, rank, os.getpid()), name=f"rank {rank}")
        for rank in range(1, settings.processes)
    ]
    for process in others:
        process.start()
    try:
        ranks = Ranks(0, settings.processes, 0, partial(_check, others))
        figures = _train(settings, ranks, say)
        for process in others:
            process.join()
        _check(others)
        return figures
    finally:
        for process in others:
            process.terminate()


def _other_rank(settings: TrainSettings, rank: int, parent: int) -> None:
    from data_prep import console

    end_with_parent(parent)
    _train(
        settings, Ranks(rank, settings.processes, rank), lambda text: console.err.print(f"[{rank}] {text}")
    )


def _check(processes: Sequence[BaseProcess]) -> None:
    failed = [process.name for process in processes if process.exitcode not in (None, 0)]
    if failed:
        raise RankFailed(f"{', '.join(failed)} failed; its message is above. Run again to go on.")


def _train(settings: TrainSettings, ranks: Ranks, say: Callable[[str], None]) -> dict[str, Any] | None:
    plan, run = settings.plan, settings.run.resolve()
    device = _device_of_rank(settings.device, ranks)
    configs = grading.graders_plan(plan)
    data = read_training_data(settings.data, settings.cache or run / "cache", plan.cleaning.points)
    stages = Stages(run, ranks, say)
    try:
        process = f"process {ranks.rank + 1} of {ranks.world}"
        say(f"{len(data.entries)} studies, {plan.folds} folds, device {device}, {process}")
        _decode(data, stages)
        folds = assign_folds(data.labels, data.study_ids, plan.folds, plan.seed)
        digest = digest_of([data.digest(data.study_ids), folds, _FORMAT])
        if ranks.rank == 0:
            _write_json(run / _PLAN_FILE, _described(settings, configs))
            _write_json(run / _FOLDS_FILE, folds)
        detectors = _detectors(plan, data, folds, digest, stages, device)
        points, points_digest = _points(plan, data, folds, detectors, stages, device)
        crops, crops_digest = _crops(plan, data, points, points_digest, configs, stages)
        graders = _Graders(settings, configs, folds, crops, crops_digest, device, stages)
        passes = graders.train()
        if ranks.rank:
            return None
        oof = {
            group: grading.read_out_of_fold([run / passes[fold] / group.value for fold in range(plan.folds)])
            for group in ConditionGroup
        }
        finals = {group: run / passes[FINAL] / group.value for group in ConditionGroup}
        return finish(settings, data, folds, oof, calibrate(oof), detectors[FINAL], finals, points, stages)
    finally:
        stages.close()


def _device_of_rank(text: str, ranks: Ranks) -> torch.device:
    device = resolve_device(text)
    if device.type == "cuda" and ranks.world > 1:
        return torch.device("cuda", ranks.local_rank % torch.cuda.device_count())
    return device


def _described(settings: TrainSettings, configs: Mapping[ConditionGroup, GraderConfig]) -> dict[str, Any]:
    return {
        "plan": settings.plan.to_dict(),
        "graders": {group.value: config.to_dict() for group, config in configs.items()},
        "git_revision": git_revision(),
    }


def _decode(data: TrainingData, stages: Stages) -> None:
    """Every DICOM file is read once."""
    ranks = stages.ranks
    mine = [entry for entry in ranks.mine(data.entries) if not data.cache.holds(entry)]
    if mine:
        stages.say(f"decoding {len(mine)} studies")
    for entry in mine:
        data.cache.add(entry)
    waiting = list(data.entries)

    def all_held() -> bool:
        while waiting and data.cache.holds(waiting[-1]):
            waiting.pop()
        return not waiting

    ranks.wait(all_held)


def _detectors(
    plan: TrainPlan,
    data: TrainingData,
    folds: Mapping[str, int],
    digest: str,
    stages: Stages,
    device: torch.device,
) -> dict[int | str, tuple[Path, str]]:
    """Fold (or ``final``) → weights folder of its detectors, and the digest of what made them."""
    cut = digest_of([digest, "slices"])
    folder = stages.run / "slices" / cut[:12]
    world = stages.ranks.world
    jobs = []
    for rank in range(world):

        def work(_: Path, ids: Sequence[str] = data.study_ids[rank::world]) -> None:
            detecting.cut_slices(data, ids, folder)

        jobs.append(Job(f"slices/part{rank}of{world}", cut, work))
    stages.do(jobs)
    files = {study_id: folder / f"{safe_id(study_id)}.npz" for study_id in data.study_ids}
    starts = {
        kind: None if weights is None else hashlib.sha256(weights).hexdigest()
        for kind in DetectorKind
        for weights in [detecting.start_weights(plan.detectors, kind)]
    }
    jobs, digests = [], {}
    for fold in (*range(plan.folds), FINAL):
        mine = {study_id: path for study_id, path in files.items() if folds[study_id] != fold}
        for kind in DetectorKind:
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
            digests[fold, kind] = made_of
            train = partial(
                detecting.train_one, plan, kind, mine, device=detector_device(device), say=stages.say
            )
            jobs.append(Job(f"{_name(fold)}/detector/{kind.value}", made_of, train))
    stages.do(jobs)
    weights: dict[int | str, tuple[Path, str]] = {}
    bundles = []
    numbering = BUNDLED_WEIGHTS / NUMBERING_FILE
    for fold in (*range(plan.folds), FINAL):
        made_of = digest_of(
            [
                [digests[fold, kind] for kind in DetectorKind],
                file_sha256(numbering) if numbering.is_file() else None,
            ]
        )
        runs = {kind: stages.run / _name(fold) / "detector" / kind.value for kind in DetectorKind}
        bundles.append(Job(f"{_name(fold)}/detector-weights", made_of, partial(detecting.bundle, runs)))
        weights[fold] = (stages.run / _name(fold) / "detector-weights", made_of)
    stages.do(bundles)
    return weights


def _points(
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


def _crops(
    plan: TrainPlan,
    data: TrainingData,
    points: Path,
    points_digest: str,
    configs: Mapping[ConditionGroup, GraderConfig],
    stages: Stages,
) -> tuple[Path, str]:
    """Folder of the crops at found points, and at annotated ones where those are far; and its digest."""
    cuts = {group.value: config.to_dict()["crop"] for group, config in configs.items()}
    made_of = digest_of([points_digest, cuts, plan.cleaning.far_points_mm])
    folder = stages.run / "crops" / made_of[:12]
    world = stages.ranks.world
    for which in (grading.FOUND, grading.ANNOTATED):
        sources = grading.crop_sources(data, data.study_ids, points, plan.cleaning, which)

        def begin(_: Path, which: str = which) -> None:
            grading.cut_all([], folder / which, configs)

        stages.do([Job(f"crops/{which}-begun", made_of, begin)])

        def work(_: Path, rank: int, which: str = which, sources: Any = sources) -> None:
            grading.cut_all(sources[rank::world], folder / which, configs)

        stages.do(
            [
                Job(f"crops/{which}-part{rank}of{world}", made_of, partial(work, rank=rank))
                for rank in range(world)
            ]
        )
    return folder, made_of


@dataclass(frozen=True)
class _Graders:
    """The grader trainings of a run: one pass, or two when labels in doubt are dropped or softened."""

    settings: TrainSettings
    configs: Mapping[ConditionGroup, GraderConfig]
    folds: Mapping[str, int]
    crops: Path
    crops_digest: str
    device: torch.device
    stages: Stages

    def train(self) -> dict[int | str, str]:
        """Fold (or ``final``) → folder below the run that holds its graders, one folder each."""
        plan = self.settings.plan
        folds = list(range(plan.folds))
        if plan.cleaning.noise == "off":
            return self._pass("graders", [*folds, FINAL], {})
        first = self._pass("graders-first", folds, {})
        doubts = {}
        for group in ConditionGroup:
            oof = grading.read_out_of_fold([self.stages.run / first[fold] / group.value for fold in folds])
            p = calibrate({group: oof}).p[group]
            doubts[group] = grading.find_doubts(p, oof, plan.cleaning)
        self.stages.say(
            "labels in doubt: " + ", ".join(f"{group.value} {len(found)}" for group, found in doubts.items())
        )
        return self._pass("graders", [*folds, FINAL], doubts)

    def _pass(
        self, name: str, folds: Sequence[int | str], doubts: Mapping[ConditionGroup, Mapping[str, Any]]
    ) -> dict[int | str, str]:
        settings, plan = self.settings, self.settings.plan
        pretrained = None if settings.pretrained is None else file_sha256(settings.pretrained)
        machine = Machine(self.device, settings.workers)
        jobs = []
        for fold in folds:
            held_out = frozenset(study_id for study_id, mine in self.folds.items() if mine == fold)
            for group, config in self.configs.items():
                mine = doubts.get(group, {})
                made_of = digest_of(
                    [
                        self.crops_digest,
                        fold,
                        sorted(held_out),
                        config.to_dict(),
                        plan.graders.start,
                        _bundled_grader(plan, group),
                        pretrained,
                        plan.to_dict()["cleaning"] if doubts else None,
                        {row_id: p.tolist() for row_id, p in mine.items()},
                    ]
                )
                work = partial(
                    grading.train_one,
                    plan,
                    config,
                    self.crops,
                    held_out,
                    mine,
                    fold=fold if isinstance(fold, int) else -1,
                    machine=machine,
                    pretrained=settings.pretrained,
                    say=self.stages.say,
                )
                jobs.append(Job(f"{_name(fold)}/{name}/{group.value}", made_of, work))
        self.stages.do(jobs)
        return {fold: f"{_name(fold)}/{name}" for fold in folds}


def _bundled_grader(plan: TrainPlan, group: ConditionGroup) -> str | None:
    if plan.graders.start != "bundled":
        return None
    return grading.load_grader(grading.BUNDLED_WEIGHTS, group).sha256


def _name(fold: int | str) -> str:
    return f"fold{fold}" if isinstance(fold, int) else fold


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as stream:
        json.dump(content, stream, indent=1, default=str)
        stream.write("\n")
