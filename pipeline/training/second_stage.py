"""The jobs of the second stage: crops at the points that were found, graders of every fold and final ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from classifier.config import GraderConfig, GraderName
from classifier.learn.crop_cache import Source
from classifier.learn.train import Machine
from data_prep.base.manifest import file_sha256
from pipeline.training import grading
from pipeline.training.calibrating import calibrate
from pipeline.training.data import TrainingData
from pipeline.training.plan import TrainPlan, TrainSettings
from pipeline.training.stages import FINAL, Job, Stages, digest_of, fold_name


def cut_all_crops(
    plan: TrainPlan,
    data: TrainingData,
    points: Path,
    points_digest: str,
    configs: Mapping[GraderName, GraderConfig],
    stages: Stages,
) -> tuple[Path, str]:
    """Folder of the crops at found points, and at annotated ones where those are far; and its digest."""
    cuts = {group.value: config.to_dict()["crop"] for group, config in configs.items()}
    made_of = digest_of([points_digest, cuts, plan.cleaning.far_points_mm])
    folder = stages.run / "crops" / made_of[:12]

    def cut(which: str, sources: Sequence[Source], _: Path) -> None:
        grading.cut_all(sources, folder / which, configs)

    for which in (grading.FOUND, grading.ANNOTATED):
        work = partial(cut, which)
        stages.do([Job(f"crops/{which}-begun", made_of, partial(work, []))])
        sources = grading.crop_sources(data, points, plan.cleaning, which)
        stages.do(stages.parts(f"crops/{which}-part", made_of, sources, work))
    return folder, made_of


@dataclass(frozen=True)
class GraderTrainings:
    """The grader trainings of a run: one pass, or two when labels in doubt are dropped or softened."""

    settings: TrainSettings
    configs: Mapping[GraderName, GraderConfig]
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
        for group in self.configs:
            oof = grading.read_out_of_fold([self.stages.run / first[fold] / group.value for fold in folds])
            p = calibrate({group: oof}).p[group]
            doubts[group] = grading.find_doubts(p, oof, plan.cleaning)
        self.stages.say(
            "labels in doubt: " + ", ".join(f"{group.value} {len(found)}" for group, found in doubts.items())
        )
        return self._pass("graders", [*folds, FINAL], doubts)

    def _pass(
        self, name: str, folds: Sequence[int | str], doubts: Mapping[GraderName, Mapping[str, Any]]
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
                        begun.sha256 if (begun := grading.start_grader(plan, group)) else None,
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
                jobs.append(Job(f"{fold_name(fold)}/{name}/{group.value}", made_of, work))
        self.stages.do(jobs)
        return {fold: f"{fold_name(fold)}/{name}" for fold in folds}
