"""The jobs of the first stage: slices, detectors of every fold and final ones, points of unseen studies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class DetectorTrainings:
    """The detector trainings of a run: those of every fold, and those of all studies."""

    plan: TrainPlan
    data: TrainingData
    folds: Mapping[str, int]
    digest: str
    stages: Stages
    device: torch.device
    workers: int

    def train(self) -> dict[int | str, tuple[Path, str]]:
        """Fold (or ``final``) → weights folder of its detectors, and the digest of what made them."""
        cut = digest_of([self.digest, "slices and point crops"])
        folder = self.stages.run / "slices" / f"cut-{cut[:12]}"
        phantoms = self._cut(folder, cut)
        jobs = {
            fold: self._detectors(fold, folder, cut, phantoms) | self._second_looks(fold, folder, cut)
            for fold in (*range(self.plan.folds), FINAL)
        }
        self.stages.do([job for of_fold in jobs.values() for job in of_fold.values()])
        bundles = {fold: self._bundle(fold, of_fold) for fold, of_fold in jobs.items()}
        self.stages.do(list(bundles.values()))
        return {fold: (self.stages.run / job.name, job.digest) for fold, job in bundles.items()}

    def _cut(self, folder: Path, cut: str) -> dict[DetectorKind, Path | None]:
        """Slices and point crops of all studies; files of the synthetic slices that are mixed in."""
        plan = self.plan.detectors

        def work(study_ids: Sequence[str], _: Path) -> None:
            for item in points_left_out(detecting.cut_slices(self.data, study_ids, folder)):
                self.stages.say(f"note: {item.said}")

        jobs = self.stages.parts("slices/part", cut, self.data.study_ids, work)
        if not (plan.phantoms > 0 and plan.phantom_weight > 0):
            self.stages.do(jobs)
            return dict.fromkeys(DetectorKind)
        phantoms: dict[DetectorKind, Path | None] = {}
        for kind in DetectorKind:
            phantoms[kind] = path = folder / f"phantoms-{kind.value}.npz"
            make = partial(detecting.make_phantoms, plan, kind, path)
            made_of = digest_of([cut, kind.value, plan.phantoms])
            jobs.append(Job(f"slices/phantoms-{kind.value}", made_of, make))
        self.stages.do(jobs)
        return phantoms

    def _files(self, fold: int | str, folder: Path, stem: str) -> dict[str, Path]:
        """What a network learns from: study id → file, without the studies of the fold."""
        others = (study_id for study_id in self.data.study_ids if self.folds[study_id] != fold)
        return {study_id: detecting.file_of(folder, study_id, stem) for study_id in others}

    def _detectors(
        self, fold: int | str, folder: Path, cut: str, phantoms: Mapping[DetectorKind, Path | None]
    ) -> dict[str, Job]:
        """Stem of a weights file → the training of that detector."""
        plan, jobs = self.plan, {}
        settings = plan.to_dict()["detectors"]
        for kind in DetectorKind:
            start = detecting.start_weights(plan.detectors, kind)
            begun = None if start is None else hashlib.sha256(start).hexdigest()
            made_of = digest_of([cut, fold, kind.value, settings, plan.seed, plan.choosing_slices, begun])
            train = partial(
                detecting.train_one,
                plan,
                kind,
                self._files(fold, folder, kind.value),
                phantoms=phantoms[kind],
                device=detector_device(self.device),
                workers=self.workers,
                say=self.stages.say,
            )
            jobs[kind.value] = Job(f"{fold_name(fold)}/detector/{kind.value}", made_of, train)
        return jobs

    def _second_looks(self, fold: int | str, folder: Path, cut: str) -> dict[str, Job]:
        """The same for the second looks."""
        plan, jobs = self.plan, {}
        settings = plan.to_dict()["detectors"]
        for spec in detecting.SECOND_LOOKS if plan.detectors.point_epochs else ():
            made_of = digest_of([cut, fold, spec.stem, asdict(spec), settings, plan.seed])
            crops = self._files(fold, folder, spec.stem)
            look = partial(detecting.train_second_look, plan, spec, crops, say=self.stages.say)
            jobs[spec.stem] = Job(f"{fold_name(fold)}/detector/{spec.stem}", made_of, look)
        return jobs

    def _bundle(self, fold: int | str, trainings: Mapping[str, Job]) -> Job:
        """One weights folder of the detectors of a fold."""
        numbering = detecting.OPEN_WEIGHTS / NUMBERING_FILE
        of_numbering = file_sha256(numbering) if numbering.is_file() else None
        made_of = digest_of([[job.digest for job in trainings.values()], of_numbering])
        runs = {stem: self.stages.run / job.name for stem, job in trainings.items()}
        return Job(f"{fold_name(fold)}/detector-weights", made_of, partial(detecting.bundle, runs))


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
