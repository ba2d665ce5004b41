"""submission.csv: built, refused with every problem at once, written so that it can be read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from classifier.prior import competition_weighted, level_prior
from data_prep.vocabulary import SUBMISSION_COLUMNS, TARGETS
from pipeline.results.submission import (
    SubmissionError,
    build_submission,
    read_submission,
    validate_submission,
    write_submission,
)


def prior_submission(*study_ids: str) -> pd.DataFrame:
    return build_submission({study: {t: level_prior(t) for t in TARGETS} for study in study_ids})


def problems_of(frame: pd.DataFrame, *study_ids: str) -> list[str]:
    with pytest.raises(SubmissionError) as caught:
        validate_submission(frame, study_ids)
    return list(caught.value.problems)


def test_a_built_submission_carries_weighted_probabilities_and_is_valid() -> None:
    frame = prior_submission("7", "5")
    validate_submission(frame, ["5", "7"])
    assert list(frame.columns) == list(SUBMISSION_COLUMNS)
    assert len(frame) == 50
    target = TARGETS[3]
    row = frame.set_index("row_id").loc[target.row_id("5")]
    np.testing.assert_allclose(row.to_numpy(float), competition_weighted(level_prior(target)))
    assert frame["row_id"].iloc[0] == "7_left_neural_foraminal_narrowing_l1_l2"


def test_no_study_gives_an_empty_submission() -> None:
    frame = build_submission({})
    assert list(frame.columns) == list(SUBMISSION_COLUMNS)
    assert len(frame) == 0
    validate_submission(frame, [])


def test_every_problem_is_listed_at_once() -> None:
    frame = prior_submission("1", "2")
    frame.loc[3, "severe"] = np.nan
    frame.loc[4, ["normal_mild", "moderate", "severe"]] = [1.5, -0.6, 0.1]
    frame.loc[5, "severe"] += 0.2
    frame.loc[6, "row_id"] = "1_no_such_target"
    frame = pd.concat([frame.drop(index=[0, 1]), frame.iloc[[10]]])
    kinds = [text.split(":")[0] for text in problems_of(frame, "1", "2")]
    assert kinds == [
        "3 missing",
        "1 duplicate",
        "1 unknown",
        "1 not finite",
        "1 negative",
        "1 above 1",
        "1 not summing to 1 (tolerance 0.001)",
    ]


def test_problems_name_their_rows() -> None:
    frame = prior_submission("1")
    row_id = frame.loc[2, "row_id"]
    assert problems_of(frame.drop(index=2), "1") == [f"1 missing: {row_id}"]
    assert problems_of(prior_submission("1", "9"), "1")[0].endswith(" and 5 more")


def test_wrong_columns_are_named() -> None:
    problems = problems_of(prior_submission("1").rename(columns={"severe": "sever"}), "1")
    assert problems == [
        "columns must be row_id, normal_mild, moderate, severe, but are row_id, normal_mild, moderate, sever"
    ]


@pytest.mark.parametrize("cell", ["", "nan", "inf", "none"])
def test_cells_that_are_no_number_are_not_finite(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "submission.csv"
    write_submission(prior_submission("1"), path)
    lines = path.read_text().splitlines()
    first, *_ = lines[1].split(",")
    path.write_text("\n".join([lines[0], f"{first},0.5,0.5,{cell}", *lines[2:]]))
    assert problems_of(read_submission(path), "1") == [f"1 not finite: {first}"]


def test_writing_and_reading_keeps_rows_and_values(tmp_path: Path) -> None:
    frame = prior_submission("0012", "3")
    write_submission(frame, tmp_path / "a.csv")
    again = read_submission(tmp_path / "a.csv")
    validate_submission(again, ["0012", "3"])
    assert again["row_id"].tolist() == frame["row_id"].tolist()
    np.testing.assert_allclose(again.iloc[:, 1:], frame.iloc[:, 1:].astype(float), atol=1e-9)
    write_submission(again, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_no_cell_starts_a_formula(tmp_path: Path) -> None:
    write_submission(prior_submission("=HYPERLINK(1)"), tmp_path / "submission.csv")
    cells = (tmp_path / "submission.csv").read_text().splitlines()[1:]
    assert len(cells) == 25
    assert all(line.startswith("'=HYPERLINK(1)_") for line in cells)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x81", b'row_id,"normal\n'])
def test_a_file_that_is_no_csv_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "submission.csv"
    path.write_bytes(content)
    with pytest.raises(SubmissionError, match="refused"):
        validate_submission(read_submission(path), ["1"])
