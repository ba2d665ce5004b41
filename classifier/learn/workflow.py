"""The steps behind the commands: train graders and their teachers on the crops of several caches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from classifier.config import GraderConfig, GraderName
from classifier.learn.crop_cache import (
    CropCache,
    NoCrops,
    cuts_for,
    is_parted,
    load_cache,
    studies_with_crops,
)
from classifier.learn.teachers import Teachers, TeachersUnusable, ask_teachers, taught
from classifier.learn.train import EpochReport, Machine, train_grader
from classifier.storage import load_grader
from data_prep.partition import Part, studies_of


def train_groups(
    configs: Iterable[GraderConfig],
    caches: Sequence[Path],
    validation: Sequence[Path],
    folder: Path,
    *,
    report: Callable[[GraderName, EpochReport], None],
    on_step: Callable[[GraderName, float], None] = lambda *_: None,
    machine: Machine | None = None,
    pretrained: Path | None = None,
    teachers: Sequence[Path] = (),
    start_from: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Train graders one after another on the crops of several caches; see ``train_grader``.

    Of a cache that is divided into parts only ``train`` is learned from, and ``validation`` is watched.

    Args:
        validation: caches that are watched as a whole, or with that part of theirs.
        teachers: files that ``teach_groups`` wrote; each grader takes those of its own.
        start_from: folder of graders with the same networks to go on from.
        say: told what is not used although it was given.

    Raises:
        ValueError: no cache has crops for a grader, or a study is learned from and watched.
        TeachersUnusable: a configuration asks for teachers and none are of its grader, or the other way; or
            some have not graded a single crop.
        WeightsRejected: ``start_from`` lacks a grader.
    """
    asked = [(path, Teachers.load(path)) for path in teachers]
    configs = list(configs)
    _check_crops(configs, caches)
    for config in configs:
        own_pretrained = _pretrained_for(config, pretrained, say)
        beside = [*(cache for cache in caches if is_parted(cache)), *validation]
        watched = crops_of(beside, config, Part.VALIDATION)
        learned = joined_crops(caches, config, Part.TRAIN)
        both = {study for crops in watched for study in crops.study_ids.tolist()} & set(
            learned.study_ids.tolist()
        )
        if both:
            raise ValueError(
                f"{len(both)} studies are learned from and watched, such as {min(both)}: "
                "give --validation others"
            )
        own = [item for _, item in asked if item.grader is config.name]
        if bool(own) != bool(config.training.teaching):
            raise TeachersUnusable(
                f"{config.name.value}: training.teaching is {config.training.teaching} and there are "
                f"{len(own)} files of its teachers: give what `classifier teach` wrote with --teachers, "
                "or, with a training.teaching of 0, none"
            )
        for path, item in asked:
            if item.grader is config.name:
                _tell_of_share(path, item, learned, say)
        begun = None if start_from is None else load_grader(start_from, config.name)
        notes = {"teachers": len(own)} if own else {}
        if begun is not None and begun.metrics.get("held_out_studies") == 0:
            notes["held_out_studies"] = 0  # of lumbar train: it has learned from the test part, too
        if begun is not None and begun.others:
            say(f"{config.name.value}: begun with the first of its {len(begun.members)} members alone")
        train_grader(
            config,
            taught(learned, own, config.training.teaching) if own else learned,
            CropCache.join(watched) if watched else None,
            folder,
            report=partial(report, config.name),
            on_step=partial(on_step, config.name),
            machine=machine,
            pretrained=own_pretrained,
            start_from=None if begun is None else begun.network.state_dict(),
            notes=notes,
        )


def teach_groups(
    configs: Iterable[GraderConfig],
    caches: Sequence[Path],
    folder: Path,
    *,
    folds: int,
    report: Callable[[GraderName, int, EpochReport], None],
    machine: Machine | None = None,
    pretrained: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Train teachers of some graders and write what they say, ``{grader}.npz``; see ``ask_teachers``.

    They learn from the part ``train`` of divided caches; caches that are not divided are learned from alone.

    Returns:
        The files, one per configuration.

    Raises:
        ValueError: no divided cache has crops for a grader.
    """
    written = []
    configs = list(configs)
    divided = [cache for cache in caches if is_parted(cache)]
    _check_crops(configs, divided)
    for config in configs:
        beside = crops_of([cache for cache in caches if cache not in divided], config, Part.TRAIN)
        found = ask_teachers(
            config,
            joined_crops(divided, config, Part.TRAIN),
            CropCache.join(beside) if beside else None,
            folder,
            folds=folds,
            report=partial(report, config.name),
            machine=machine,
            pretrained=_pretrained_for(config, pretrained, say),
        )
        written.append(folder / f"{config.name.value}.npz")
        found.save(written[-1])
    return written


def _pretrained_for(config: GraderConfig, pretrained: Path | None, say: Callable[[str], None]) -> Path | None:
    if pretrained is None or config.network.backbone != "compact_resnet":
        return pretrained
    say(f"the {config.name.value} grader begins at random: --pretrained is for timm backbones")
    return None


def _tell_of_share(path: Path, item: Teachers, crops: CropCache, say: Callable[[str], None]) -> None:
    """Teachers of other crops would go unnoticed: what they did not grade keeps the reader's grade.

    Raises:
        TeachersUnusable: they graded none.
    """
    place, graded = f"'{path.parent.name}/{path.name}'", int(np.isin(crops.row_ids, item.row_ids).sum())
    if not graded:
        raise TeachersUnusable(f"{place} graded none of these crops: teach on the same studies")
    if graded < len(crops):
        say(f"{place} graded {graded} of {len(crops)} crops; the others keep the reader's grade")


def _check_crops(configs: Sequence[GraderConfig], caches: Sequence[Path]) -> None:
    """Raise NoCrops, before the first grader is trained, for any that has nothing to learn from."""
    for config in configs:
        for folder in caches:
            studies = studies_with_crops(folder, config.name, config.crop)
            if studies_of(studies, Part.TRAIN) if is_parted(folder) else studies:
                break
        else:
            raise _no_crops(config, Part.TRAIN)


def crops_of(caches: Sequence[Path], config: GraderConfig, part: Part) -> list[CropCache]:
    """Crops of a part of the studies, cache by cache; a cache that is not divided is taken whole.

    Caches without crops for the grader, or without a study of the part, are left out.
    """
    found = []
    for folder in caches:
        if not cuts_for(folder, config.name, config.crop):
            continue
        try:
            crops = load_cache(folder, config.name, config.crop)
        except NoCrops:
            continue
        if is_parted(folder):
            wanted = studies_of(set(crops.study_ids.tolist()), part)
            crops = crops.where(np.isin(crops.study_ids, list(wanted)))
        if len(crops):
            found.append(crops)
    return found


def joined_crops(caches: Sequence[Path], config: GraderConfig, part: Part) -> CropCache:
    """As ``crops_of``, in one. Raises NoCrops when there is none."""
    found = crops_of(caches, config, part)
    if not found:
        raise _no_crops(config, part)
    return CropCache.join(found)


def _no_crops(config: GraderConfig, part: Part) -> NoCrops:
    return NoCrops(
        f"no crop of the {part.value} part for the grader {config.name.value}: a study's identifier "
        "alone decides its part (train 8, validation 1, test 1 of 10), so give more studies, or others, "
        "or name the graders that you want with --grader"
    )
