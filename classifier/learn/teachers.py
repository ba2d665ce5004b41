"""Teachers: graders that each leave out a part of the patients, and what they say of those.

Readers disagree, so a network that learns their grades for long learns their mistakes. What several networks
say of patients whom they did not learn from has less of that noise. A grader then learns a mixture of both
(Hinton et al., "Distilling the knowledge in a neural network", 2015; Xie et al., "Self-training with noisy
student", CVPR 2020).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from classifier.calibration import fit_calibration
from classifier.config import GraderConfig, GraderName
from classifier.learn.crop_cache import CropCache
from classifier.learn.train import EpochReport, Machine, grade_cache, made_of, train_grader
from classifier.storage import read_grader
from data_prep.base.files import atomic_write
from data_prep.problems import LumbarError

FOLDS = 5
# A left-out crop is graded under these draws of the localiser's error.
_VIEWS = (None, 0, 1, 2)


class TeachersUnusable(LumbarError, ValueError):
    """Not what `lumbar classifier teach` writes, or of other crops. The message names the file."""


@dataclass(frozen=True, eq=False)
class Teachers:
    """What teachers of one kind say of the crops that they did not learn from.

    Attributes:
        grader: what they grade.
        row_ids: (n,) ``{study_id}_{condition}_{level}``.
        logits: (n, 3) their evidence.
    """

    grader: GraderName
    row_ids: NDArray[np.str_]
    logits: NDArray[np.float64]

    def save(self, path: Path) -> None:
        """Write a file that ``load`` reads."""
        with atomic_write(path, binary=True) as stream:
            np.savez(stream, grader=self.grader.value, row_ids=self.row_ids, logits=self.logits)

    @classmethod
    def load(cls, path: Path) -> Teachers:
        """Read a file that ``save`` wrote. Raises TeachersUnusable."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                grader = GraderName(str(stored["grader"]))
                row_ids = stored["row_ids"].astype(np.str_)
                logits = stored["logits"].astype(np.float64)
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise TeachersUnusable(
                f"'{path.name}' is not what `lumbar classifier teach` writes ({type(error).__name__})"
            ) from None
        if row_ids.ndim != 1 or logits.shape != (len(row_ids), 3) or not np.isfinite(logits).all():
            raise TeachersUnusable(f"'{path.name}' holds no three finite numbers for each crop")
        return cls(grader, row_ids, logits)


def fold_of(study_id: str, folds: int = FOLDS) -> int:
    """The fold that leaves a study out: by its identifier alone, the same for every teacher."""
    return zlib.crc32(f"f{study_id}".encode()) % folds


def ask_teachers(
    config: GraderConfig,
    crops: CropCache,
    beside: CropCache | None,
    folder: Path,
    *,
    folds: int = FOLDS,
    report: Callable[[int, EpochReport], None] = lambda *_: None,
    machine: Machine | None = None,
    pretrained: Path | None = None,
) -> Teachers:
    """Train one teacher a fold, and let each grade the crops of the patients whom it did not see.

    Goes on where it was interrupted: a fold's checkpoint and answers are kept in ``folder/fold{n}``.

    Args:
        crops: crops to learn from and to be graded.
        beside: crops to learn from alone, such as synthetic ones.
        report: called with the fold after each of its epochs.

    Raises:
        TeachersUnusable: all patients fall into one fold, or the folder holds answers of other teachers.
    """
    fold = np.array([fold_of(str(study), folds) for study in crops.study_ids])
    if len(np.unique(fold)) < 2:
        raise TeachersUnusable("too few patients: leaving out those of one fold leaves nobody to learn from")
    parts: list[Teachers] = []
    for left_out in sorted(set(fold.tolist())):
        place = folder / f"fold{left_out}"
        answers = place / f"{config.name.value}.npz"
        asked = crops.where(fold == left_out)
        one = replace(config, training=replace(config.training, seed=config.training.seed + left_out))
        learned = CropCache.join([crops.where(fold != left_out), *([] if beside is None else [beside])])
        if not answers.exists():
            network = train_grader(
                one,
                learned,
                asked,
                place,
                report=partial(report, left_out),
                machine=machine,
                pretrained=pretrained,
            )
            views = [grade_cache(network, asked, config, jitter_seed=seed) for seed in _VIEWS]
            Teachers(config.name, asked.row_ids, np.mean(views, axis=0)).save(answers)
        parts.append(Teachers.load(answers))
        stored, origin = read_grader(place, config.name), made_of(learned, pretrained)
        is_other = stored.config != one or stored.metrics.get("made_of", origin) != origin
        if is_other or not np.array_equal(parts[-1].row_ids, asked.row_ids):
            raise TeachersUnusable(
                f"'{place.name}' holds a teacher of another configuration or of other crops: "
                "choose a new folder"
            )
    return Teachers(
        config.name,
        np.concatenate([part.row_ids for part in parts]),
        np.concatenate([part.logits for part in parts]),
    )


def taught(crops: CropCache, teachers: Sequence[Teachers], share: float) -> CropCache:
    """The crops, with ``share`` of each grade from the teachers and the rest from the reader.

    The teachers' evidence is averaged and calibrated against the readers' grades. Crops that not every
    teacher graded keep the reader's grade.

    Raises:
        TeachersUnusable: teachers of another grader, or of none of the crops.
    """
    known = _mean_evidence(teachers)
    chosen = np.array([str(row_id) in known for row_id in crops.row_ids], dtype=np.bool_)
    if not chosen.any():
        raise TeachersUnusable("the teachers graded none of these crops")
    evidence = np.stack([known[str(row_id)] for row_id in crops.row_ids[chosen]])
    log_prior = crops.log_prior[chosen].astype(np.float64)
    truth = crops.truth[chosen].astype(np.float64)
    theirs = fit_calibration(evidence, log_prior, truth).probabilities(evidence, log_prior)
    mixed = crops.truth.copy()
    mixed[chosen] = (1 - share) * truth + share * theirs
    return replace(crops, truth=mixed)


def _mean_evidence(teachers: Sequence[Teachers]) -> Mapping[str, NDArray[np.float64]]:
    if len({item.grader for item in teachers}) != 1:
        raise TeachersUnusable("the teachers are not all of one grader")
    found: dict[str, list[NDArray[np.float64]]] = {}
    for item in teachers:
        own: dict[str, list[NDArray[np.float64]]] = {}  # several slices of a target, in several data sets
        for row_id, logits in zip(item.row_ids, item.logits, strict=True):
            own.setdefault(str(row_id), []).append(logits)
        for row_id, several in own.items():
            found.setdefault(row_id, []).append(np.mean(several, axis=0))
    return {row_id: np.mean(each, axis=0) for row_id, each in found.items() if len(each) == len(teachers)}
