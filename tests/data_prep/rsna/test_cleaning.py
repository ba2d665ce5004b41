"""Each cleaning rule takes what it says and nothing else, and can be switched off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from data_prep.rsna.annotations import PointRules, clean_points
from data_prep.rsna.tables import read_tables
from data_prep.vocabulary import LEVELS

NONE = PointRules(False, False, False, False, False)
ALL_RULES = ("placeholders", "wrong_series", "level_order", "displaced", "sides_disagree")


def canal(
    study: str, series: str, xy: list[tuple[float, float]], condition: str = "spinal_canal_stenosis"
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "study_id": study,
            "series_id": series,
            "instance_number": 7,
            "condition": condition,
            "level": [level.value for level in LEVELS],
            "x": [x for x, _ in xy],
            "y": [y for _, y in xy],
        }
    )


def foramina(
    study: str, series: str, left: list[tuple[float, float]], right: list[tuple[float, float]]
) -> list[pd.DataFrame]:
    sides = (("left", left), ("right", right))
    return [canal(study, series, xy, f"{side}_neural_foraminal_narrowing") for side, xy in sides]


def recesses(study: str, series: str, apart: int, step: int = 6) -> pd.DataFrame:
    """The right ones lie so many slices below the left ones."""
    points = foramina(study, series, [(150.0, 160.0)] * 5, [(130.0, 160.0)] * 5)
    for below, side in zip((0, apart), points, strict=True):
        side["condition"] = side["condition"].str.replace(
            "neural_foraminal_narrowing", "subarticular_stenosis"
        )
        side["instance_number"] = [3 + step * number + below for number in range(5)]
    return pd.concat(points)


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    curve = [(200.0, 100.0), (205.0, 150.0), (208.0, 200.0), (206.0, 250.0), (198.0, 290.0)]
    points = pd.concat(
        [
            canal("1", "10", curve),
            canal("2", "20", [(5.0, 5.0), *curve[1:]]),
            canal("3", "30", curve[::-1]),
            canal("4", "40", [*curve[:2], (300.0, 200.0), *curve[3:]]),
            canal("5", "50", curve),
            *foramina("1", "11", curve, curve),
            *foramina("6", "60", curve, [(200.0, 60.0), *curve[:4]]),
            recesses("1", "12", 0),
            recesses("6", "61", 6),
        ],
        ignore_index=True,
    )
    series = pd.DataFrame(
        {
            "study_id": ["1", "2", "3", "4", "5", "1", "6", "1", "6"],
            "series_id": ["10", "20", "30", "40", "50", "11", "60", "12", "61"],
            "series_description": ["Sagittal T2/STIR"] * 4 + ["Sagittal T1"] * 3 + ["Axial T2"] * 2,
        }
    )
    return points, series


@pytest.mark.parametrize(
    ("rule", "study", "rows"),
    [
        ("placeholders", "2", 1),
        ("wrong_series", "5", 5),
        ("level_order", "3", 5),
        ("displaced", "4", 5),
        ("sides_disagree", "6", 20),
    ],
)
def test_a_rule_takes_its_own_rows_alone(rule: str, study: str, rows: int) -> None:
    points, series = tables()
    kept, taken = clean_points(points, series, replace(NONE, **{rule: True}))
    assert taken == {rule: rows} and len(kept) == len(points) - rows
    lost = points.merge(kept, how="left", indicator=True).query("_merge == 'left_only'")
    assert set(lost["study_id"]) == {study}


def test_without_rules_nothing_is_taken_and_with_all_only_the_good_series_is_whole() -> None:
    points, series = tables()
    assert clean_points(points, series, NONE)[1] == {}
    kept, taken = clean_points(points, series, PointRules())
    assert set(taken) == set(ALL_RULES) and set(kept["study_id"]) == {"1", "2"}
    assert "wrong_series" not in clean_points(points, None, PointRules())[1]


def test_on_few_slices_neighbouring_ones_are_no_levels() -> None:
    points, series = recesses("1", "10", 1, step=1), tables()[1]
    assert clean_points(points, series, replace(NONE, sides_disagree=True))[1] == {"sides_disagree": 0}


def test_the_known_faults_of_the_real_table_are_found(real_rsna: Path) -> None:
    found = read_tables(real_rsna)
    assert found.coordinates is not None
    kept, taken = clean_points(found.coordinates, found.series, PointRules())
    assert taken["placeholders"] == 13 and taken["wrong_series"] == 5
    assert 5 <= taken["level_order"] <= 15 and taken["displaced"] <= 60 and taken["sides_disagree"] == 579
    canal_rows = found.coordinates["condition"] == "spinal_canal_stenosis"
    gone = found.coordinates[canal_rows & (found.coordinates["study_id"] == "1973833645")]
    assert len(gone) == 5 and not len(kept.merge(gone))
