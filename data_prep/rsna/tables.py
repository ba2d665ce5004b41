"""The RSNA tables, read and validated: all problems at once, and quirks told apart from what is fatal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from data_prep.base.csv_files import EMPTY, read_text_table
from data_prep.read.series_table import SERIES_TABLES
from data_prep.rsna.table_quirks import (
    AXES_EXCHANGED,
    Problem,
    TablesInvalid,
    coordinate_quirks,
    label_quirks,
    point_and_label_quirks,
    problem,
    series_quirks,
)
from data_prep.vocabulary import CONDITIONS, LEVELS, SEVERITIES, TARGETS, Condition, Level

LABELS_FILE = "train.csv"
COORDINATES_FILE = "train_label_coordinates.csv"

_ID = pa.Check.str_matches(r"^[0-9]{1,18}$", error="a whole number")
_NUMBER = pa.Check.str_matches(
    r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,2})?$", error="a finite number"
)


def _one_of(words: list[str]) -> pa.Check:
    return pa.Check.isin(words, error="one of " + ", ".join(word or "empty" for word in words))


_SCHEMAS = {
    "labels": pa.DataFrameSchema(
        {
            "study_id": pa.Column(str, _ID),
            **{
                target.column: pa.Column(str, _one_of([*(severity.value for severity in SEVERITIES), ""]))
                for target in TARGETS
            },
        }
    ),
    "coordinates": pa.DataFrameSchema(
        {
            "study_id": pa.Column(str, _ID),
            "series_id": pa.Column(str, _ID),
            "instance_number": pa.Column(str, _ID),
            "condition": pa.Column(str, _one_of([condition.label for condition in CONDITIONS])),
            "level": pa.Column(str, _one_of([level.label for level in LEVELS])),
            "x": pa.Column(str, _NUMBER),
            "y": pa.Column(str, _NUMBER),
        }
    ),
    "series": pa.DataFrameSchema(
        {
            "study_id": pa.Column(str, _ID),
            "series_id": pa.Column(str, _ID),
            "series_description": pa.Column(str),
        }
    ),
}


@dataclass(frozen=True, eq=False)
class RsnaTables:
    """The tables of a data set, None where the file is missing; duplicate rows are dropped.

    Attributes:
        train: ``study_id`` and the 25 target columns: ``Normal/Mild``, ``Moderate``, ``Severe`` or missing.
        coordinates: ``study_id, series_id, instance_number, condition, level, x, y``; condition and level
            spelled as ``Condition`` and ``Level`` values, x and y zero-based pixels (column, row).
        series: ``study_id, series_id, series_description``.
        problems: the quirks that were found.

    Study and series ids are str, as in ``Study`` and ``Series``; instance numbers int64; x and y float64.
    """

    train: pd.DataFrame | None
    coordinates: pd.DataFrame | None
    series: pd.DataFrame | None
    problems: tuple[Problem, ...] = ()

    @property
    def alarming(self) -> list[str]:
        """What makes all of a table doubtful although it can be used, in words."""
        return [item.said for item in self.problems if item.code == AXES_EXCHANGED]


def read_tables(data: Path) -> RsnaTables:
    """Read the tables in a folder of the RSNA layout.

    Raises:
        TablesInvalid: with ALL problems, if any is fatal: no table, unreadable, a missing column, a wrong
            type, an unknown condition, level or severity, two rows of a study or series that differ.
    """
    problems: list[Problem] = []
    train = _read(data / LABELS_FILE, "labels", problems)
    coordinates = _read(data / COORDINATES_FILE, "coordinates", problems)
    series_file = next((name for name in SERIES_TABLES if (data / name).is_file()), SERIES_TABLES[0])
    series = _read(data / series_file, "series", problems)
    if train is None and coordinates is None and series is None and not problems:
        problems.append(
            problem(
                "no_tables",
                "the folder holds none of the RSNA tables: give the one with train.csv and train_images",
                [data.name],
                fatal=True,
            )
        )
    _check(problems)
    for name, table in ((LABELS_FILE, train), (COORDINATES_FILE, coordinates), (series_file, series)):
        if table is None:
            problems.append(problem("missing_table", f"{name} is missing", [name]))
    if train is not None:
        train, found = label_quirks(train)
        problems += found
    if series is not None:
        series, found = series_quirks(series)
        problems += found
    _check(problems)
    if coordinates is not None:
        coordinates, found = coordinate_quirks(_typed_coordinates(coordinates), series)
        problems += found
    if train is not None and coordinates is not None:
        problems += point_and_label_quirks(train, coordinates)
    return RsnaTables(train, coordinates, series, tuple(problems))


def _check(problems: list[Problem]) -> None:
    if any(item.fatal for item in problems):
        raise TablesInvalid(tuple(problems))


def _read(path: Path, name: str, problems: list[Problem]) -> pd.DataFrame | None:
    """The table as text, or None; what its schema says against it goes to ``problems``."""
    if not path.is_file():
        return None
    try:
        table = read_text_table(path)
    except ValueError as error:
        problems.append(problem("unreadable_table", f"{path.name} {error}", [path.name], fatal=True))
        return None
    schema = _SCHEMAS[name]
    if name == "labels":
        table = table.replace(EMPTY, "")
    try:
        schema.validate(table, lazy=True)
    except SchemaErrors as errors:
        problems += _schema_problems(path.name, errors.failure_cases)
        return None
    table = table[list(schema.columns)]
    return table.replace("", pd.NA) if name == "labels" else table


def _schema_problems(file: str, cases: pd.DataFrame) -> list[Problem]:
    found = []
    for check, group in cases.groupby("check", sort=False):
        if check == "column_in_dataframe":
            names = [str(value) for value in group["failure_case"]]
            found.append(problem("missing_column", f"{file} lacks {', '.join(names)}", names, fatal=True))
            continue
        for column, part in group.groupby("column", sort=False):
            examples = [
                f"line {int(index) + 2}: {str(value)!r}"
                for index, value in zip(part["index"], part["failure_case"], strict=True)
                if pd.notna(index)
            ]
            message = f"{file}: {column} must be {check}"
            found.append(problem("bad_value", message, examples, fatal=True))
    return found


def _typed_coordinates(table: pd.DataFrame) -> pd.DataFrame:
    conditions = {condition.label: condition.value for condition in Condition}
    levels = {level.label: level.value for level in Level}
    return table.assign(
        instance_number=table["instance_number"].astype("int64"),
        condition=table["condition"].map(conditions),
        level=table["level"].map(levels),
        x=table["x"].astype("float64"),
        y=table["y"].astype("float64"),
    )
