"""Tables that a spreadsheet program saved are refused by name with what to do; one fold can be scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_prep.exchange import AnnotationsInvalid, read_points
from data_prep.problems import DicomRejected
from data_prep.read.find import find_studies
from data_prep.read.series_table import read_series_table
from data_prep.rsna.tables import TablesInvalid, read_tables
from data_prep.vocabulary import SEVERITIES, TARGETS, SeriesKind
from pipeline.results.submission import SubmissionError, build_submission, read_submission, write_submission
from tests.command_line import lumbar
from tests.dicom_files import write_study

STUDIES = ("101", "102", "103", "104")
POINTS = "study_id,series_id,instance_number,condition,level,x,y\n101,11,1,Spinal Canal Stenosis,L1/L2,5,5\n"
SERIES = "study_id,series_id,series_description\n101,11,Sagittal T1\n101,12,Sagittal T2/STIR\n"


def labels(studies: tuple[str, ...]) -> pd.DataFrame:
    """A label table in which every severity occurs."""
    rows = [
        {
            "study_id": study,
            **{t.column: SEVERITIES[(number + place) % 3].value for place, t in enumerate(TARGETS)},
        }
        for number, study in enumerate(studies)
    ]
    return pd.DataFrame(rows)


def submission(studies: tuple[str, ...]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return build_submission({s: {t: rng.dirichlet([1, 1, 1]) for t in TARGETS} for s in sorted(studies)})


def semicolons(text: str) -> bytes:
    return text.replace(",", ";").encode()


def tabs(text: str) -> bytes:
    return text.replace(",", "\t").encode()


def utf16(text: str) -> bytes:
    return text.encode("utf-16")


def bare_utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


def a_line_cut(text: str) -> bytes:
    lines = text.splitlines()
    lines[-1] = lines[-1].rpartition(",")[0]
    return "\n".join(lines).encode()


def a_cell_too_many(text: str) -> bytes:
    return (text.strip() + ",Severe\n").encode()


def a_column_twice(text: str) -> bytes:
    """The last column once more, with what the one before it says."""
    lines = [line.split(",") for line in text.splitlines()]
    return "\n".join(",".join([*line, line[-1 if n == 0 else -2]]) for n, line in enumerate(lines)).encode()


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        (a_line_cut, "it was cut or damaged"),
        (a_cell_too_many, "it was cut or damaged"),
        (a_column_twice, " twice"),
        (semicolons, "by semicolons: save it with commas"),
        (tabs, "by tabs: save it with commas"),
        (utf16, "is written in UTF-16: save it as CSV in UTF-8"),
        (bare_utf16, "is written in UTF-16: save it as CSV in UTF-8"),
    ],
)
def test_every_reader_names_the_file_and_what_is_wrong(
    tmp_path: Path, saved: Callable[[str], bytes], says: str
) -> None:
    study = write_study(tmp_path / "101")
    content = {
        "train.csv": labels(STUDIES).to_csv(index=False),
        "submission.csv": submission(STUDIES).to_csv(index=False),
        "train_label_coordinates.csv": POINTS,
        "train_series_descriptions.csv": SERIES,
    }
    for name, text in content.items():
        (tmp_path / name).write_bytes(saved(text))
    with pytest.raises(DicomRejected) as of_series:
        find_studies(study)
    with pytest.raises(AnnotationsInvalid) as of_points:
        read_points(tmp_path / "train_label_coordinates.csv")
    with pytest.raises(SubmissionError) as of_submission:
        read_submission(tmp_path / "submission.csv")
    with pytest.raises(TablesInvalid) as of_data:
        read_tables(tmp_path)
    scored = lumbar("score", tmp_path / "submission.csv", tmp_path)
    assert scored.exit_code == 1
    for name, told in (
        ("train_series_descriptions.csv", str(of_series.value)),
        ("train_label_coordinates.csv", str(of_points.value)),
        ("submission.csv", str(of_submission.value)),
        ("train_label_coordinates.csv", str(of_data.value)),
        ("train_series_descriptions.csv", str(of_data.value)),
        ("train.csv", str(of_data.value)),
        ("train.csv", scored.stderr),
    ):
        assert name in told and says in " ".join(told.split()), told


def test_a_table_with_commas_in_utf8_is_read_with_or_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "train_label_coordinates.csv"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text(POINTS, encoding=encoding)
        assert read_points(path)["x"].tolist() == [5.0]


@pytest.mark.parametrize("smaller", ["submission", "labels"])
def test_the_studies_of_one_fold_are_scored_when_asked(tmp_path: Path, smaller: str) -> None:
    """As if both tables held that fold alone; without the option it is refused, and nothing is left out."""
    fold = STUDIES[1:3]
    of_submission, of_labels = (fold, STUDIES) if smaller == "submission" else (STUDIES, fold)
    whole, truth = submission(STUDIES), labels(STUDIES)
    kept = whole[whole["row_id"].str[:3].isin(of_submission)]
    write_submission(kept, tmp_path / "submission.csv")
    truth[truth["study_id"].isin(of_labels)].to_csv(tmp_path / "train.csv", index=False)
    refused = lumbar("score", tmp_path / "submission.csv", tmp_path, "--json")
    assert refused.exit_code == 1 and ("missing" if smaller == "submission" else "unknown") in refused.stderr
    scored = lumbar("score", tmp_path / "submission.csv", tmp_path, "--json", "--common")
    assert scored.exit_code == 0, scored.stderr
    left_out = (2, 0) if smaller == "submission" else (0, 50)
    assert f"left out: {left_out[0]} labelled studies, {left_out[1]} rows" in scored.stderr
    write_submission(whole[whole["row_id"].str[:3].isin(fold)], tmp_path / "alone.csv")
    truth[truth["study_id"].isin(fold)].to_csv(tmp_path / "alone_labels.csv", index=False)
    alone = lumbar("score", tmp_path / "alone.csv", tmp_path / "alone_labels.csv", "--json")
    assert json.loads(scored.stdout) == json.loads(alone.stdout)


def test_tables_without_a_common_study_are_refused(tmp_path: Path) -> None:
    write_submission(submission(STUDIES[:2]), tmp_path / "submission.csv")
    labels(STUDIES[2:]).to_csv(tmp_path / "train.csv", index=False)
    done = lumbar("score", tmp_path / "submission.csv", tmp_path, "--common")
    assert done.exit_code == 1 and "no study in common" in done.stderr


def test_a_study_with_two_rows_of_labels_is_named(tmp_path: Path) -> None:
    write_submission(submission(STUDIES), tmp_path / "submission.csv")
    table = labels(STUDIES)
    pd.concat([table, table.tail(1)]).to_csv(tmp_path / "train.csv", index=False)
    scored = lumbar("score", tmp_path / "submission.csv", tmp_path)
    assert scored.exit_code == 1 and "study 104 more than once" in " ".join(scored.stderr.split())


def test_commas_behind_the_last_column_say_nothing(tmp_path: Path) -> None:
    text = labels(STUDIES).to_csv(index=False).replace("\n", ",\n")
    (tmp_path / "train.csv").write_text(text.replace("\n", "\n  \n") + "\n")
    tables = read_tables(tmp_path)
    assert tables.train is not None and list(tables.train["study_id"]) == list(STUDIES)


def test_a_series_that_is_listed_as_two_things_is_asked_itself(tmp_path: Path) -> None:
    table = SERIES + "101,11,Sagittal T2/STIR\n  \n\n101,12,Sagittal T2/STIR\n"
    (tmp_path / "series.csv").write_text(table)
    kinds = read_series_table(tmp_path / "series.csv")["101"]
    assert kinds == {"11": None, "12": SeriesKind.SAGITTAL_T2}


@pytest.mark.usefixtures("stand_in")
def test_a_series_table_that_does_not_name_the_studies_is_said(tmp_path: Path) -> None:
    write_study(tmp_path / "101")
    for named, said in (("101", False), ("999", True)):
        (tmp_path / "table.csv").write_text(SERIES.replace("101,", f"{named},"))
        arguments = ("--series-table", tmp_path / "table.csv", "--no-report", "--no-pictures")
        done = lumbar("predict", tmp_path / "101", "-o", tmp_path / f"out{named}", *arguments)
        assert ("1 of 1 studies are not in the series table" in " ".join(done.stderr.split())) == said


def test_what_is_scored_is_not_overwritten(tmp_path: Path) -> None:
    write_submission(submission(STUDIES), tmp_path / "submission.csv")
    labels(STUDIES).to_csv(tmp_path / "train.csv", index=False)
    before = (tmp_path / "train.csv").read_bytes()
    done = lumbar("score", tmp_path / "submission.csv", tmp_path, "--cases", tmp_path / "train.csv")
    assert done.exit_code == 2 and (tmp_path / "train.csv").read_bytes() == before


def test_targets_without_a_label_are_counted(tmp_path: Path) -> None:
    write_submission(submission(STUDIES), tmp_path / "submission.csv")
    table = labels(STUDIES)
    for empty, said in ((0, ""), (3, "3 targets have no label, and are not scored")):
        table.iloc[0, 1 : 1 + empty] = ""
        table.to_csv(tmp_path / "train.csv", index=False)
        done = lumbar("score", tmp_path / "submission.csv", tmp_path, "--resamples", 0)
        assert done.exit_code == 0 and ("have no label" in done.stdout) == bool(empty)
        assert said in done.stdout
