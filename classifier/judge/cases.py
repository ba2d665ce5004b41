"""Which targets a score is lost on: a row for each, the worst first."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classifier.grade import SEVERITY_WEIGHTS
from classifier.judge.rows import GradedRows
from classifier.metric import PROBABILITY_COLUMNS
from classifier.prior import competition_weighted
from data_prep.vocabulary import CONDITIONS, LEVELS, SEVERITIES, Target

_LEAST = 1e-15  # as log losses are clipped


def worst_cases(rows: GradedRows) -> pd.DataFrame:
    """A row per labelled target, by what it costs: its label's weight times minus log of the label's q.

    Returns:
        ``row_id``, ``study_id``, ``condition``, ``level``, ``label``, ``grade`` (the most probable), three
        calibrated probabilities, ``loss``.
    """
    numbers = range(len(rows))
    q = competition_weighted(rows.p)[numbers, rows.label]
    targets = [Target(CONDITIONS[c], LEVELS[v]) for c, v in zip(rows.condition, rows.level, strict=True)]
    table = pd.DataFrame(
        {
            "row_id": [t.row_id(study) for t, study in zip(targets, rows.study_ids, strict=True)],
            "study_id": rows.study_ids,
            "condition": [target.condition.value for target in targets],
            "level": [target.level.value for target in targets],
            "label": [SEVERITIES[index].value for index in rows.label],
            "grade": [SEVERITIES[index].value for index in rows.p.argmax(axis=1)],
            **{name: rows.p[:, index].round(6) for index, name in enumerate(PROBABILITY_COLUMNS)},
            "loss": (SEVERITY_WEIGHTS[rows.label] * -np.log(np.clip(q, _LEAST, 1))).round(4),
        }
    )
    return table.sort_values(["loss", "row_id"], ascending=[False, True], kind="stable")
