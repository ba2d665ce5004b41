"""Folds by study, each with about the same share of every severity."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from classifier.metric import long_labels
from data_prep.vocabulary import SEVERITIES, ConditionGroup


def assign_folds(labels: pd.DataFrame, study_ids: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """Study → fold, 0 … folds − 1; no study is in two.

    Stratified by condition group and severity, row by row, so that the rare severe canals are spread evenly.

    Args:
        labels: in the shape of ``train.csv``.
        study_ids: the studies to divide; each needs a label.

    Raises:
        ValueError: fewer studies than folds.
    """
    if len(study_ids) < folds:
        raise ValueError(
            f"{folds} folds need at least {folds} studies with images and labels, not {len(study_ids)}"
        )
    long = long_labels(labels)
    long = long[long["study_id"].isin(set(study_ids))].reset_index(drop=True)
    group = long["group"].map({item.value: index for index, item in enumerate(ConditionGroup)})
    stratum = (group * len(SEVERITIES) + long["severity"]).to_numpy(np.int64)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    found: dict[str, int] = {}
    studies = long["study_id"].to_numpy().astype(str)
    with warnings.catch_warnings():
        # A severity rarer than there are folds cannot be in each of them.
        warnings.filterwarnings("ignore", message="The least populated class")
        parts = list(splitter.split(np.zeros(len(long)), stratum, groups=studies))
    for fold, (_, held_out) in enumerate(parts):
        found |= {str(study_id): fold for study_id in np.unique(studies[held_out])}
    if len(set(found.values())) < folds:
        # So few studies that the balance left a fold empty: deal them out.
        order = np.random.default_rng(seed).permutation(len(study_ids))
        found = {study_ids[index]: place % folds for place, index in enumerate(order.tolist())}
    return {study_id: found[study_id] for study_id in study_ids}


def share_of_severe(labels: pd.DataFrame, folds: Mapping[str, int]) -> dict[int, dict[str, int]]:
    """Per fold: studies, and severe labels per condition group."""
    long = long_labels(labels)
    long["fold"] = long["study_id"].map(dict(folds))
    severe = long[long["severity"] == len(SEVERITIES) - 1].groupby(["fold", "group"]).size()
    return {
        fold: {"studies": count}
        | {f"severe {group.value}": int(severe.get((fold, group.value), 0)) for group in ConditionGroup}
        for fold, count in sorted(Counter(folds.values()).items())
    }


def without_severe(labels: pd.DataFrame, folds: Mapping[str, int]) -> list[str]:
    """Which folds have no severe label of a condition group: ``severe spinal of fold 1``."""
    return [
        f"{name} of fold {fold}"
        for fold, counts in share_of_severe(labels, folds).items()
        for name, count in counts.items()
        if name != "studies" and not count
    ]
