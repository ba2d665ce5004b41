"""Graders are calibrated on crops of studies that they have not learned from; members become one grader."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from classifier.any_severe import fit_pull
from classifier.calibration import (
    Calibration,
    JointCalibration,
    best_prior_share,
    expected_calibration_error,
    fit_calibration,
    fit_joint_calibration,
)
from classifier.config import GROUP_GRADERS, GraderName
from classifier.judge.rows import GradedRows
from classifier.learn.crop_cache import NOT_CUT_FOR, CropCache, cuts_for, is_parted
from classifier.learn.train import grade_cache
from classifier.learn.workflow import joined_crops
from classifier.prior import competition_log_loss
from classifier.storage import StoredGrader, load_grader, save_grader
from data_prep.partition import Part
from data_prep.synthetic import FIRST_CHOOSING_SEED
from data_prep.vocabulary import CONDITIONS, SEVERITIES, Severity, split_row_id

# Every validation crop is graded at its point, and under draws of the localiser's error with these seeds.
_CALIBRATION_DRAWS = (None, 0, 1)


def calibrate_groups(
    runs: Sequence[Path],
    graders: Iterable[GraderName],
    validation: Sequence[Path],
    output: Path,
    *,
    shifted: Path | None = None,
    weigh: Mapping[Path, float] | None = None,
) -> tuple[dict[str, dict[str, Any]], GradedRows]:
    """Fit temperature and bias of trained graders on validation crops and save the graders to ``output``.

    Every crop is graded at its point and, because the pipeline's points have the localiser's error, jittered
    as in training. Where a grader of the canal on axial slices is among them, it is fitted how its evidence
    is joined with the sagittal one's, on the levels that both see.

    Args:
        runs: folders that ``train_groups`` wrote; graders of one name become members of one grader.
        validation: crop caches; of those divided into parts, the validation part.
        shifted: crop cache of another range of scanners, neither trained on nor reported (of one divided into
            parts, the validation part); the share of the level prior is fitted on it, 0 where the grader
            alone is better there, too.
        weigh: how much the graders of a run count among the members; 1 where nothing is said.

    Returns:
        Per grader: the calibration, the log loss under the competition's weights before and after, the level
        prior's and the oracle's, and the expected calibration errors after.

    Raises:
        ValueError: no validation crops for a grader, or phantoms that were learned from among them; or the
            output holds a grader of the axial canal that was joined with another sagittal one.
    """
    graders = list(graders)
    axial = f"{GraderName.SPINAL_AXIAL.value}.safetensors"
    if GraderName.SPINAL in graders and GraderName.SPINAL_AXIAL not in graders and (output / axial).is_file():
        raise ValueError(
            f"'{output.name}' holds a spinal_axial grader that was joined with another spinal one: calibrate "
            "both, or choose a new folder"
        )
    if shifted is not None:
        _check_seeds(shifted)
    figures: dict[str, dict[str, Any]] = {}
    rows = []
    fitted: list[tuple[list[StoredGrader], Calibration, dict[str, Any], JointCalibration | None]] = []
    seen: dict[GraderName, tuple[CropCache, NDArray[np.float64]]] = {}
    for name in graders:
        members = _members(runs, name, weigh or {})
        caches = _caches_of(members, validation)
        crops = caches[0]
        draws = [_mean_logits(members, caches, seed) for seed in _CALIBRATION_DRAWS]
        seen[name] = (crops, draws[0])
        calibration, p, found = _fitted(members, crops, draws, shifted)
        joint = None
        if name is GraderName.SPINAL_AXIAL and GraderName.SPINAL in seen:
            joint, joined = _joint(seen[GraderName.SPINAL], seen[name])
            found |= joined
        figures[name.value] = found
        fitted.append((members, calibration, {**members[0].metrics, "validation": found}, joint))
        if name in GROUP_GRADERS:
            rows.append(_as_rows(crops, p))
    for members, calibration, metrics, joint in fitted:  # all or none: a grader may lack its crops
        save_grader(output, members[0].config, members[0].network, calibration, metrics, joint)
        for number, member in enumerate(members[1:], start=2):
            save_grader(output, member.config, member.network, calibration, member.metrics, member=number)
    return figures, GradedRows.join(rows)


def _fitted(
    members: Sequence[StoredGrader],
    crops: CropCache,
    draws: Sequence[NDArray[np.float64]],
    shifted: Path | None,
) -> tuple[Calibration, NDArray[np.float64], dict[str, Any]]:
    """The calibration of one grader, p (n, 3) of the crops at their points, and figures of the fit.

    Args:
        draws: (n, 3) logits of the crops, first those at their points.
    """
    logits = np.concatenate(draws)
    log_prior = np.tile(crops.log_prior.astype(np.float64), (len(draws), 1))
    truth = np.tile(crops.truth.astype(np.float64), (len(draws), 1))
    calibration = fit_calibration(logits, log_prior, truth)
    if shifted is not None:
        elsewhere = [joined_crops([shifted], member.config, Part.VALIDATION) for member in members]
        calibration = _with_prior_share(calibration, members, _aligned(elsewhere))
    p = calibration.probabilities(logits, log_prior)[: len(crops)]
    if members[0].config.name is GraderName.SPINAL:
        study = np.unique(crops.study_ids, return_inverse=True)[1].reshape(-1)
        calibration = replace(calibration, any_severe_pull=fit_pull(p, crops.label, study))
    graded = np.bincount(crops.label, minlength=len(SEVERITIES)).tolist()
    sizes = {"crops": len(crops), "grades": graded}
    return calibration, p, _figures(calibration, logits, log_prior, truth) | sizes


def _figures(
    calibration: Calibration,
    logits: NDArray[np.float64],
    log_prior: NDArray[np.float64],
    truth: NDArray[np.float64],
) -> dict[str, Any]:
    p = calibration.probabilities(logits, log_prior)
    severe, mild = Severity.SEVERE.index, Severity.NORMAL_MILD.index
    return {
        **calibration.to_dict(),
        "log_loss": competition_log_loss(p, truth),
        "log_loss_uncalibrated": competition_log_loss(Calibration().probabilities(logits, log_prior), truth),
        "prior_log_loss": competition_log_loss(np.exp(log_prior), truth),
        "oracle_log_loss": competition_log_loss(truth, truth),
        "ece_severe": expected_calibration_error(p[:, severe], truth[:, severe]),
        "ece_moderate_or_worse": expected_calibration_error(1 - p[:, mild], 1 - truth[:, mild]),
    }


def _joint(
    sagittal: tuple[CropCache, NDArray[np.float64]], axial: tuple[CropCache, NDArray[np.float64]]
) -> tuple[JointCalibration | None, dict[str, Any]]:
    """How the evidence of both graders is joined, fitted on the targets that both see; None without any."""
    _, one, two = np.intersect1d(sagittal[0].row_ids, axial[0].row_ids, return_indices=True)
    if not len(one):
        return None, {}
    log_prior = axial[0].log_prior[two].astype(np.float64)
    truth = axial[0].truth[two].astype(np.float64)
    joint = fit_joint_calibration(sagittal[1][one], axial[1][two], log_prior, truth)
    p = joint.probabilities(sagittal[1][one], axial[1][two], log_prior)
    return joint, {"joint_targets": len(one), "joint_log_loss": competition_log_loss(p, truth)}


def _members(runs: Sequence[Path], name: GraderName, weigh: Mapping[Path, float]) -> list[StoredGrader]:
    """The graders of a name, run after run. Raises ValueError: none."""
    stems = f"{name.value}.safetensors"
    found = [
        (member, weigh.get(run, 1.0))
        for run in runs
        if (run / stems).is_file()
        for member in load_grader(run, name).members
    ]
    if not found:
        raise ValueError(f"no {name.value} grader in {', '.join(run.name for run in runs)}")
    mean = sum(weight for _, weight in found) / len(found)
    return [_scaled(member, weight / mean) for member, weight in found]


def _scaled(member: StoredGrader, factor: float) -> StoredGrader:
    """A member whose evidence is multiplied, in its last layer: members are averaged plainly."""
    if math.isclose(factor, 1):
        return member
    with torch.no_grad():
        for parameter in cast(nn.Linear, member.network.head[-1]).parameters():
            parameter.mul_(factor)
    scaled = replace(member, metrics={**member.metrics, "evidence_times": round(factor, 4)})
    # The network is built once, from bytes that are not scaled.
    scaled.__dict__["network"] = member.network
    return scaled


def _caches_of(members: Sequence[StoredGrader], folders: Sequence[Path]) -> list[CropCache]:
    """The validation crops of every member, the same targets in the same order for all.

    Raises:
        ValueError: a folder was cut for no member, or a member has no crops.
    """
    served = {folder: _serves_one(folder, members) for folder in folders}
    if unfit := [folder.name for folder, serves in served.items() if not serves]:
        name = members[0].config.name.value
        raise ValueError(NOT_CUT_FOR.format(folder=unfit[0], grader=name))
    for folder in folders:
        _check_seeds(folder)
    found = []
    for member in members:
        mine = [folder for folder in folders if _serves_one(folder, [member])]
        found.append(joined_crops(mine, member.config, Part.VALIDATION))
    return _aligned(found)


def _check_seeds(folder: Path) -> None:
    """Raises ValueError: synthetic studies of a cache are of seeds that graders learn from."""
    if is_parted(folder):
        return
    seeds = [int(stem) for path in folder.glob("*.npz") if (stem := path.stem.rstrip("e")).isdigit()]
    if seeds and min(seeds) < FIRST_CHOOSING_SEED:
        raise ValueError(
            f"crop cache '{folder.name}' holds phantoms that graders learn from: calibrate on seeds from "
            f"{FIRST_CHOOSING_SEED} on"
        )


def _serves_one(folder: Path, members: Sequence[StoredGrader]) -> bool:
    """Whether a cache can be used for a member, or holds nothing of the grader."""
    for member in members:
        try:
            cuts_for(folder, member.config.name, member.config.crop)
        except ValueError:
            continue
        return True
    return False


def _aligned(caches: Sequence[CropCache]) -> list[CropCache]:
    """The crops of the targets that all caches have, each once, in the order of the first.

    Raises:
        ValueError: they have none in common.
    """
    places = [{str(row_id): i for i, row_id in enumerate(cache.row_ids)} for cache in caches]
    common = [row_id for row_id in places[0] if all(row_id in place for place in places)]
    if not common:
        raise ValueError("the members of a grader have no validation target in common")
    return [
        cache.where(np.array([place[row_id] for row_id in common]))
        for cache, place in zip(caches, places, strict=True)
    ]


def _mean_logits(
    members: Sequence[StoredGrader], caches: Sequence[CropCache], jitter_seed: int | None
) -> NDArray[np.float64]:
    """(n, 3) mean over members, each with its own crops."""
    each = [
        grade_cache(member.network, crops, member.config, jitter_seed=jitter_seed)
        for member, crops in zip(members, caches, strict=True)
    ]
    return np.asarray(np.mean(each, axis=0))


def _with_prior_share(
    calibration: Calibration, members: Sequence[StoredGrader], caches: Sequence[CropCache]
) -> Calibration:
    """The calibration with the share of the prior that is best on other scanners."""
    log_prior = caches[0].log_prior.astype(np.float64)
    p = calibration.probabilities(_mean_logits(members, caches, 0), log_prior)
    return replace(calibration, prior_share=best_prior_share(p, np.exp(log_prior), caches[0].truth))


def _as_rows(cache: CropCache, p: NDArray[np.float64]) -> GradedRows:
    targets = [split_row_id(str(row_id))[1] for row_id in cache.row_ids]
    condition = np.array([CONDITIONS.index(target.condition) for target in targets], dtype=np.int64)
    return GradedRows(cache.study_ids, condition, cache.level, cache.label, p)
