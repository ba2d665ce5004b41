"""Protects the spellings of the RSNA tables and the order of the targets."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from data_prep.vocabulary import (
    CONDITIONS,
    LEVELS,
    SEVERITIES,
    TARGET_BY_COLUMN,
    TARGETS,
    Condition,
    ConditionGroup,
    Level,
    SeriesKind,
    Severity,
    Side,
    Target,
    split_row_id,
)


def test_there_are_25_different_targets() -> None:
    assert len(TARGETS) == 25
    assert len({target.column for target in TARGETS}) == 25
    assert all(TARGET_BY_COLUMN[target.column] == target for target in TARGETS)


@pytest.mark.parametrize("level", LEVELS)
def test_levels_are_read_in_both_spellings(level: Level) -> None:
    assert Level.parse(level.label) is level
    assert Level.parse(level.value) is level


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_are_read_in_both_spellings_and_found_by_group_and_side(condition: Condition) -> None:
    assert Condition.parse(condition.label) is condition
    assert Condition.parse(condition.value) is condition
    assert Condition.of(condition.group, condition.side) is condition


@pytest.mark.parametrize("text", ["", "L6/S1", "T12/L1", "l1"])
def test_an_unknown_level_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a valid Level"):
        Level.parse(text)


def test_spellings_of_the_tables() -> None:
    target = Target(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Level.L5_S1)
    assert target.row_id(4003253) == "4003253_left_neural_foraminal_narrowing_l5_s1"
    assert target.condition.label == "Left Neural Foraminal Narrowing"
    assert target.level.label == "L5/S1"
    assert target.condition.series_kind is SeriesKind.SAGITTAL_T1
    assert [severity.column for severity in SEVERITIES] == ["normal_mild", "moderate", "severe"]
    assert [severity.weight for severity in SEVERITIES] == [1, 2, 4]
    assert Severity("Normal/Mild").index == 0


def test_sides_are_the_patients() -> None:
    assert Side.LEFT.sign == 1
    assert Side.LEFT.other is Side.RIGHT
    assert Condition.SPINAL_CANAL_STENOSIS.side is None
    assert Condition.of(ConditionGroup.SUBARTICULAR, Side.RIGHT) is Condition.RIGHT_SUBARTICULAR_STENOSIS


@pytest.mark.parametrize("target", TARGETS)
def test_row_ids_are_split_again(target: Target) -> None:
    assert split_row_id(target.row_id("123")) == ("123", target)


@pytest.mark.parametrize("row_id", ["", "123", "123_", "_spinal_canal_stenosis_l1_l2", "123_spinal_l1_l2"])
def test_a_wrong_row_id_is_refused(row_id: str) -> None:
    with pytest.raises(ValueError, match="row id"):
        split_row_id(row_id)


def test_the_real_tables_use_these_columns(real_rsna: Path) -> None:
    with (real_rsna / "train.csv").open() as file:
        columns = next(csv.reader(file))
    assert set(columns) == {"study_id", *TARGET_BY_COLUMN}
