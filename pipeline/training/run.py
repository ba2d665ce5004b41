"""The whole training, top to bottom; every step leaves files, and a killed run goes on where it was."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from classifier.config import GraderConfig, GraderName
from classifier.learn.devices import resolve_device
from data_prep.base.files import write_json
from data_prep.base.version import git_revision
from data_prep.base.workers import end_with_parent
from pipeline.training import grading
from pipeline.training.calibrating import calibrate
from pipeline.training.data import TrainingData, assign_folds, read_training_data, without_severe
from pipeline.training.finish import finish
from pipeline.training.first_stage import DetectorTrainings, find_all_points
from pipeline.training.plan import TrainSettings
from pipeline.training.ranks import RankFailed, Ranks
from pipeline.training.second_stage import GraderTrainings, cut_all_crops
from pipeline.training.stages import FINAL, Stages, digest_of

# Changed when files of an earlier program could be mistaken for those of this one.
_FORMAT = "lumbar-train/1"
_PLAN_FILE = "plan.json"
_FOLDS_FILE = "folds.json"
_NAMED = 5


def train_all(settings: TrainSettings, say: Callable[[str], None], ranks: Ranks) -> dict[str, Any] | None:
    """Train both stages on folds, judge them out of fold, and write the final weights.

    Returns:
        The figures of ``report.json``; None in processes other than the first.

    Raises:
        ValueError, TablesInvalid, DicomRejected, WeightsRejected: the data, the plan, the device or the
            weights to begin with cannot be used.
        RankFailed: another process of this training failed.
        RunInUse: another training is at work in the run folder.
    """
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
    end_with_parent(parent)
    _train(
        settings,
        Ranks(rank, settings.processes, rank),
        lambda text: print(f"[{rank}] {text}", file=sys.stderr, flush=True),
    )


def _check(processes: Sequence[BaseProcess]) -> None:
    failed = [process.name for process in processes if process.exitcode not in (None, 0)]
    if failed:
        raise RankFailed(f"{', '.join(failed)} failed; its message is above. Run again to go on.")


def _train(settings: TrainSettings, ranks: Ranks, say: Callable[[str], None]) -> dict[str, Any] | None:
    plan, run = settings.plan, settings.run.resolve()
    device = _device_of_rank(settings.device, ranks)
    configs = grading.graders_plan(plan)
    of_pretrained = grading.check_starts(plan, configs, settings.pretrained)
    data = read_training_data(settings.data, settings.cache or run / "cache", plan.cleaning.points)
    with Stages(run, ranks, say) as stages:
        process = f"process {ranks.rank + 1} of {ranks.world}"
        say(f"{len(data.entries)} studies, {plan.folds} folds, device {device}, {process}")
        if ranks.rank == 0:
            if settings.pretrained is not None and (others := set(configs) - set(of_pretrained)):
                say(f"note: bundled weights, not --pretrained, begin {', '.join(sorted(others))}")
            _tell_of_data(data, say)
        _decode(data, stages)
        folds = assign_folds(data.labels, data.study_ids, plan.folds, plan.seed)
        if ranks.rank == 0 and (lacking := without_severe(data.labels, folds)):
            say(f"note: no label is {', '.join(lacking)}")
        digest = digest_of([data.digest(data.study_ids), folds, _FORMAT])
        if ranks.rank == 0:
            _tell_of_revision(run / _PLAN_FILE, say)
            write_json(run / _PLAN_FILE, _described(settings, configs), indent=1, default=str)
            write_json(run / _FOLDS_FILE, folds, indent=1)
        detectors = DetectorTrainings(plan, data, folds, digest, stages, device, settings.workers).train()
        points, points_digest = find_all_points(plan, data, folds, detectors, stages, device)
        crops, crops_digest = cut_all_crops(plan, data, points, points_digest, configs, stages)
        configs = grading.trainable(configs, crops, folds)
        passes = GraderTrainings(settings, configs, folds, crops, crops_digest, device, stages).train()
        if ranks.rank:
            return None
        oof = {
            group: grading.read_out_of_fold([run / passes[fold] / group.value for fold in range(plan.folds)])
            for group in configs
        }
        finals = {group: run / passes[FINAL] / group.value for group in configs}
        return finish(settings, data, folds, oof, calibrate(oof), detectors[FINAL], finals, points, stages)


def _tell_of_data(data: TrainingData, say: Callable[[str], None]) -> None:
    """What of a data set is left out, or doubtful."""
    for text in data.left_out:
        say(f"note: {text}")
    if taken := ", ".join(f"{rule} {rows}" for rule, rows in data.points_taken.items() if rows):
        say(f"note: rows of annotated points that the cleaning takes: {taken}")


def _tell_of_revision(plan: Path, say: Callable[[str], None]) -> None:
    """Steps that are done are not done again by another version of the program: who goes on should know."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        earlier, now = json.loads(plan.read_text(encoding="utf-8"))["git_revision"], git_revision()
        if earlier != now:
            say(f"note: an earlier version ({earlier}) began this run; what it finished is kept")


def _device_of_rank(text: str, ranks: Ranks) -> torch.device:
    device = resolve_device(text)
    if device.type == "cuda" and ranks.world > 1:
        return torch.device("cuda", ranks.local_rank % torch.cuda.device_count())
    return device


def _described(settings: TrainSettings, configs: Mapping[GraderName, GraderConfig]) -> dict[str, Any]:
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
    ranks.wait(data.entries, data.cache.holds)
    rejected = [study_id for study_id in data.study_ids if data.cache.is_rejected(study_id)]
    if rejected and ranks.rank == 0:
        named = ", ".join(rejected[:_NAMED]) + (" …" if len(rejected) > _NAMED else "")
        stages.say(f"note: {len(rejected)} studies cannot be used, and count with the level prior ({named})")
