"""The steps behind the commands: build caches, train the graders, calibrate them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifier.calibration import (
    Calibration,
    best_prior_share,
    expected_calibration_error,
    fit_calibration,
)
from classifier.config import GraderConfig, default_config
from classifier.judge.quality import GradedRows
from classifier.learn.crop_cache import CropCache, Source, build_cache, load_cache
from classifier.learn.losses import competition_log_loss
from classifier.learn.train import EpochReport, Machine, grade_cache, train_grader
from classifier.storage import StoredGrader, load_grader, save_grader
from data_prep.problems import Rejection
from data_prep.vocabulary import CONDITIONS, ConditionGroup, Severity, split_row_id

# Every choosing crop is graded under this many draws of the localiser's error.
_CALIBRATION_DRAWS = 3


def cut_crops(
    sources: Sequence[Source],
    folder: Path,
    *,
    configs: Sequence[GraderConfig] = (),
    natural_grades: bool,
    jobs: int,
    progress: Callable[[str], None] = lambda name: None,
) -> list[Rejection]:
    """Build a crop cache for all three graders; goes on where it stopped.

    Args:
        configs: of graders whose crops are not the default ones.
        progress: called with the name of each study when its crops are cut.

    Returns:
        Files, series and studies that could not be used.
    """
    crops = {group: default_config(group).crop for group in ConditionGroup}
    crops |= {config.group: config.crop for config in configs}
    rejections: list[Rejection] = []
    for name, found in build_cache(sources, folder, crops, natural_grades=natural_grades, jobs=jobs):
        rejections += found
        progress(name)
    return rejections


def train_groups(
    configs: Iterable[GraderConfig],
    caches: Sequence[Path],
    choosing: Path | None,
    folder: Path,
    *,
    report: Callable[[ConditionGroup, EpochReport], None],
    machine: Machine | None = None,
    pretrained: Path | None = None,
) -> None:
    """Train graders one after another on the crops of several caches; see ``train_grader``."""
    for config in configs:
        group = config.group
        train = CropCache.join([load_cache(cache, group, config.crop) for cache in caches])
        watched = None if choosing is None else load_cache(choosing, group, config.crop)
        train_grader(
            config,
            train,
            watched,
            folder,
            report=partial(report, group),
            machine=machine,
            pretrained=pretrained,
        )


def calibrate_groups(
    run: Path,
    groups: Iterable[ConditionGroup],
    choosing: Path,
    output: Path,
    *,
    shifted: Path | None = None,
) -> tuple[dict[str, dict[str, Any]], GradedRows]:
    """Fit temperature and bias of trained graders on choosing crops and save the graders to ``output``.

    The crops are jittered as in training, because the pipeline's points have the localiser's error too.

    Args:
        shifted: crop cache of another range of scanners, neither trained on nor reported; the share of the
            level prior is fitted on it, 0 where the grader alone is better there, too.

    Returns:
        Per group: the calibration, the log loss under the competition's weights before and after, the level
        prior's and the oracle's, and the expected calibration errors after.
    """
    figures: dict[str, dict[str, Any]] = {}
    rows = []
    for group in groups:
        stored = load_grader(run, group)
        cache = load_cache(choosing, group, stored.config.crop)
        draws = [
            grade_cache(stored.network, cache, stored.config, jitter_seed=seed)
            for seed in range(_CALIBRATION_DRAWS)
        ]
        logits = np.concatenate(draws)
        log_prior = np.tile(cache.log_prior.astype(np.float64), (_CALIBRATION_DRAWS, 1))
        truth = np.tile(cache.truth.astype(np.float64), (_CALIBRATION_DRAWS, 1))
        calibration = fit_calibration(logits, log_prior, truth)
        if shifted is not None:
            calibration = _with_prior_share(
                calibration, stored, load_cache(shifted, group, stored.config.crop)
            )
        p = calibration.probabilities(logits, log_prior)
        severe, mild = Severity.SEVERE.index, Severity.NORMAL_MILD.index
        figures[group.value] = {
            **calibration.to_dict(),
            "log_loss": competition_log_loss(p, truth),
            "log_loss_uncalibrated": competition_log_loss(
                Calibration().probabilities(logits, log_prior), truth
            ),
            "prior_log_loss": competition_log_loss(np.exp(log_prior), truth),
            "oracle_log_loss": competition_log_loss(truth, truth),
            "ece_severe": expected_calibration_error(p[:, severe], truth[:, severe]),
            "ece_moderate_or_worse": expected_calibration_error(1 - p[:, mild], 1 - truth[:, mild]),
            "crops": len(cache),
        }
        metrics = {**stored.metrics, "choosing": figures[group.value]}
        save_grader(output, stored.config, stored.network, calibration, metrics)
        rows.append(_as_rows(cache, p[: len(cache)]))
    return figures, GradedRows.join(rows)


def _with_prior_share(calibration: Calibration, stored: StoredGrader, cache: CropCache) -> Calibration:
    """The calibration with the share of the prior that is best on other scanners."""
    logits = grade_cache(stored.network, cache, stored.config, jitter_seed=0)
    log_prior = cache.log_prior.astype(np.float64)
    p = calibration.probabilities(logits, log_prior)
    return replace(calibration, prior_share=best_prior_share(p, np.exp(log_prior), cache.truth))


def _as_rows(cache: CropCache, p: NDArray[np.float64]) -> GradedRows:
    targets = [split_row_id(str(row_id))[1] for row_id in cache.row_ids]
    condition = np.array([CONDITIONS.index(target.condition) for target in targets], dtype=np.int64)
    return GradedRows(cache.study_ids, condition, cache.level, cache.label, p)
