"""``submission.csv``: built from grades, validated with every problem at once, read and written.

The only file that carries competition-weighted probabilities q ∝ (1, 2, 4)·p; everything else carries p.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from classifier.any_severe import pulled
from classifier.prior import competition_weighted
from data_prep.base.csv_files import trouble_with_table, write_table
from data_prep.names import input_label
from data_prep.problems import LumbarError
from data_prep.vocabulary import SEVERITIES, SUBMISSION_COLUMNS, TARGETS, ConditionGroup, Target

if TYPE_CHECKING:  # grading does without
    import pandas as pd

# The order of Kaggle's sample_submission.csv: by column name.
SUBMISSION_TARGETS: tuple[Target, ...] = tuple(sorted(TARGETS, key=lambda target: target.column))
SUM_TOLERANCE = 1e-3
_DECIMALS = 9
_NAMED_ROWS = 20


class SubmissionError(LumbarError, ValueError):
    """A submission that cannot be scored. ``problems`` has one sentence per kind of problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the submission is refused:\n" + "\n".join(f"- {text}" for text in self.problems))


def submission_rows(
    probabilities: Mapping[str, Mapping[Target, NDArray[np.float64]]],
    *,
    any_severe_pull: float = 0.0,
) -> tuple[list[str], NDArray[np.float64]]:
    """The rows of a submission from calibrated, unweighted probabilities.

    Args:
        probabilities: study id → target → (3,) p. Every study needs all 25 targets.
        any_severe_pull: of the canal grader's calibration, see ``classifier.any_severe``.

    Returns:
        Row ids and (n, 3) q ∝ (1, 2, 4)·p, study after study in the order given, 25 rows each in the order of
        Kaggle's sample.

    Raises:
        KeyError: a target is missing.
    """
    row_ids = [target.row_id(study) for study in probabilities for target in SUBMISSION_TARGETS]
    p = np.array([grades[target] for grades in probabilities.values() for target in SUBMISSION_TARGETS])
    p = p.reshape(-1, len(SEVERITIES))
    q = competition_weighted(p)
    if any_severe_pull > 0:
        study = np.repeat(np.arange(len(probabilities)), len(SUBMISSION_TARGETS))
        canal = np.tile(
            [t.condition.group is ConditionGroup.SPINAL for t in SUBMISSION_TARGETS], len(probabilities)
        )
        q[canal] = pulled(p[canal], study[canal], any_severe_pull)
    return row_ids, q


def build_submission(
    probabilities: Mapping[str, Mapping[Target, NDArray[np.float64]]],
    *,
    any_severe_pull: float = 0.0,
) -> pd.DataFrame:
    """``submission_rows`` as a table ``row_id, normal_mild, moderate, severe``."""
    import pandas as pd

    row_ids, q = submission_rows(probabilities, any_severe_pull=any_severe_pull)
    frame = pd.DataFrame(q, columns=[*SUBMISSION_COLUMNS[1:]])
    frame.insert(0, "row_id", np.array(row_ids, dtype=object))
    return frame


def validate_submission(frame: pd.DataFrame, study_ids: Iterable[str | int]) -> None:
    """Refuse a submission that is not exactly 25 good rows for each study.

    Args:
        study_ids: the studies that must be there, and no others.

    Raises:
        SubmissionError: with every problem found: wrong columns; missing, duplicate, unknown rows; values
            that are not finite, negative, above 1; rows that do not sum to 1 within 1e-3.
    """
    wrong = sorted(set(map(str, frame.columns)) ^ set(SUBMISSION_COLUMNS))
    problems = []
    if wrong or len(frame.columns) != len(SUBMISSION_COLUMNS):
        problems.append(
            f"columns must be {', '.join(SUBMISSION_COLUMNS)}, but are {', '.join(map(str, frame.columns))}"
        )
    if "row_id" in frame.columns:
        row_ids = frame["row_id"].astype(str).tolist()
        problems += _row_problems(row_ids, study_ids)
        if not wrong:
            problems += _value_problems(row_ids, _numbers(frame))
    if problems:
        raise SubmissionError(problems)


def validate_rows(row_ids: Sequence[str], q: NDArray[np.float64], study_ids: Iterable[str | int]) -> None:
    """As ``validate_submission``, of what ``submission_rows`` gave."""
    if problems := [*_row_problems(row_ids, study_ids), *_value_problems(row_ids, q)]:
        raise SubmissionError(problems)


def _numbers(frame: pd.DataFrame) -> NDArray[np.float64]:
    import pandas as pd

    return frame[[*SUBMISSION_COLUMNS[1:]]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)


def _row_problems(row_ids: Sequence[str], study_ids: Iterable[str | int]) -> list[str]:
    expected = [target.row_id(study) for study in study_ids for target in SUBMISSION_TARGETS]
    present, wanted = Counter(row_ids), set(expected)
    return [
        *_named("missing", [row for row in expected if row not in present]),
        *_named("duplicate", [row for row, count in present.items() if count > 1]),
        *_named("unknown", [row for row in present if row not in wanted]),
    ]


def _value_problems(row_ids: Sequence[str], values: NDArray[np.float64]) -> list[str]:
    finite = np.asarray(np.isfinite(values).all(axis=1))
    known = np.where(finite[:, np.newaxis], values, np.nan)
    bad = {
        "not finite": ~finite,
        "negative": (known < 0).any(axis=1),
        "above 1": (known > 1).any(axis=1),
        f"not summing to 1 (tolerance {SUM_TOLERANCE:g})": np.abs(known.sum(axis=1) - 1) > SUM_TOLERANCE,
    }
    return [
        text
        for kind, rows in bad.items()
        for text in _named(kind, [row_ids[i] for i in np.flatnonzero(rows).tolist()])
    ]


def _named(kind: str, rows: Sequence[str]) -> list[str]:
    if not rows:
        return []
    more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
    return [f"{len(rows)} {kind}: {', '.join(map(str, rows[:_NAMED_ROWS]))}{more}"]


def rows_of_both(submission: pd.DataFrame, labels: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the studies that a submission and a label table both have, as of one fold.

    Raises:
        SubmissionError: they have no study in common.
    """
    study_of = {target.row_id(study): study for study in labels["study_id"] for target in TARGETS}
    own = submission["row_id"].map(study_of)
    if not own.notna().any():
        raise SubmissionError(["submission and labels have no study in common"])
    return submission[own.notna()], labels[labels["study_id"].isin(set(own.dropna()))]


def lacks_studies(submission: pd.DataFrame, labels: pd.DataFrame) -> bool:
    """Whether some labelled studies have no row in a submission, and others have."""
    if "row_id" not in submission.columns:
        return False
    found = {str(row).partition("_")[0] for row in submission["row_id"]}
    there = labels["study_id"].astype(str).isin(found)
    return bool(there.any() and not there.all())


def read_submission(path: Path) -> pd.DataFrame:
    """Read a submission; row ids as text, values as they are, for ``validate_submission`` to judge.

    Raises:
        SubmissionError: not a CSV file.
    """
    if trouble := trouble_with_table(path):
        raise SubmissionError([f"{input_label(path.name)} {trouble}"])
    import pandas as pd

    try:
        # Header names of a second equal column stay visible to validation as "name.1".
        return pd.read_csv(path, dtype={"row_id": str}, keep_default_na=False)
    except (ValueError, csv.Error, UnicodeError) as error:
        raise SubmissionError(
            [f"{input_label(path.name)} cannot be read as CSV ({type(error).__name__})"]
        ) from error


def write_submission(frame: pd.DataFrame, path: Path) -> None:
    """Write atomically, nine decimals, rows in the order of the frame."""
    write_rows(frame["row_id"].tolist(), frame[[*SUBMISSION_COLUMNS[1:]]].to_numpy(np.float64), path)


def write_rows(row_ids: Sequence[str], q: NDArray[np.float64], path: Path) -> None:
    """As ``write_submission``, of what ``submission_rows`` gave."""
    cells = (
        (row_id, *(f"{p:.{_DECIMALS}f}" for p in values)) for row_id, values in zip(row_ids, q, strict=True)
    )
    write_table(path, SUBMISSION_COLUMNS, (dict(zip(SUBMISSION_COLUMNS, row, strict=True)) for row in cells))
