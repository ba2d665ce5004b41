"""Protects: all problems of the tables are reported at once; the quirks of the real ones stop nobody."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from data_prep.rsna.table_quirks import TablesInvalid, studies_left_out
from data_prep.rsna.tables import RsnaTables, read_tables
from data_prep.vocabulary import LEVELS, TARGETS

SERIES = "study_id,series_id,series_description\n"
POINTS = "study_id,series_id,instance_number,condition,level,x,y\n"
LABELS = ",".join(["study_id", *(target.column for target in TARGETS)]) + "\n"
CANAL_Y = (100, 140, 180, 215, 245)


def write_tables(
    folder: Path,
    *,
    labels: str | None = LABELS + "100" + ",Moderate" * 25 + "\n",
    series: str | None = SERIES + "100,11,Sagittal T1\n100,12,Sagittal T2/STIR\n100,13,Axial T2\n",
    points: str | None = None,
) -> Path:
    canal = "".join(
        f"100,12,3,Spinal Canal Stenosis,{level.label},150.5,{y}\n"
        for level, y in zip(LEVELS, CANAL_Y, strict=True)
    )
    for name, text in (
        ("train.csv", labels),
        ("train_series_descriptions.csv", series),
        ("train_label_coordinates.csv", POINTS + canal if points is None else points),
    ):
        if text is not None:
            (folder / name).write_text(text)
    return folder


def codes(tables: RsnaTables) -> dict[str, int]:
    return {item.code: item.count for item in tables.problems}


def fatal(folder: Path) -> list[tuple[str, str]]:
    with pytest.raises(TablesInvalid) as caught:
        read_tables(folder)
    return [(item.code, item.message) for item in caught.value.problems if item.fatal]


def test_clean_tables_come_with_their_types(tmp_path: Path) -> None:
    tables = read_tables(write_tables(tmp_path))
    assert tables.train is not None and tables.coordinates is not None and tables.series is not None
    assert tables.train.loc[0, "study_id"] == "100"
    assert tables.train.loc[0, "spinal_canal_stenosis_l1_l2"] == "Moderate"
    assert tables.coordinates["instance_number"].dtype == "int64"
    assert tables.coordinates.loc[0, ["condition", "level", "x"]].tolist() == [
        "spinal_canal_stenosis",
        "l1_l2",
        150.5,
    ]
    assert codes(tables) == {"label_without_point": 20}


def test_all_fatal_problems_are_reported_at_once(tmp_path: Path) -> None:
    labels = LABELS.replace(",right_subarticular_stenosis_l5_s1", "") + "100" + ",Bad" + ",Severe" * 23 + "\n"
    points = POINTS + (
        "100,12,3,Spinal Stenosis,L1/L2,150,100\n"
        "100,12,one,Spinal Canal Stenosis,L6/S1,150,100\n"
        "100,12,3,Spinal Canal Stenosis,L1/L2,nan,1e999\n"
    )
    found = fatal(write_tables(tmp_path, labels=labels, points=points, series="study_id,series_id\n"))
    assert [code for code, _ in found].count("missing_column") == 2
    text = "\n".join(message for _, message in found)
    for part in (
        "train.csv lacks right_subarticular_stenosis_l5_s1",
        "train.csv: spinal_canal_stenosis_l1_l2 must be one of Normal/Mild, Moderate, Severe",
        "train_label_coordinates.csv: condition must be one of",
        "train_label_coordinates.csv: level must be one of L1/L2",
        "train_label_coordinates.csv: instance_number must be a whole number",
        "train_label_coordinates.csv: x must be a finite number",
        "train_label_coordinates.csv: y must be a finite number",
        "train_series_descriptions.csv lacks series_description",
    ):
        assert part in text


def test_an_example_names_line_and_value(tmp_path: Path) -> None:
    write_tables(tmp_path, series=SERIES + "100,11,Sagittal T1\nx100,12,Axial T2\n")
    with pytest.raises(TablesInvalid, match="line 3: 'x100'") as caught:
        read_tables(tmp_path)
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00broken", b'study_id,series_id\n"1,2\n'])
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    write_tables(tmp_path)
    (tmp_path / "train_series_descriptions.csv").write_bytes(content)
    assert fatal(tmp_path)[0][0] in ("unreadable_table", "missing_column")


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    ((code, message),) = fatal(tmp_path)
    assert code == "no_tables" and "give the one with train.csv and train_images" in message


def test_a_test_set_has_a_series_table_only(tmp_path: Path) -> None:
    write_tables(tmp_path, labels=None, series=None, points=None)
    (tmp_path / "train_label_coordinates.csv").unlink()
    (tmp_path / "test_series_descriptions.csv").write_text(SERIES + "1,2,Axial T2\n")
    tables = read_tables(tmp_path)
    assert tables.train is None and tables.coordinates is None
    assert tables.series is not None and len(tables.series) == 1
    assert codes(tables) == {"missing_table": 1, "missing_series_kind": 1}


def test_quirks_are_listed_and_not_fatal(tmp_path: Path) -> None:
    canal = "Spinal Canal Stenosis"
    points = POINTS + (
        f"100,12,3,{canal},L1/L2,5.0,5.0\n"
        f"100,12,3,{canal},L2/L3,150,200\n"
        f"100,12,3,{canal},L3/L4,150,150\n"
        f"100,11,3,{canal},L4/L5,150,250\n"
        f"100,99,3,{canal},L5/S1,150,280\n"
        "100,11,3,Left Neural Foraminal Narrowing,L1/L2,150,280\n"
        "100,11,3,Left Neural Foraminal Narrowing,L1/L2,151,281\n"
        f"300,12,3,{canal},L1/L2,150,100\n"
    )
    labels = LABELS + "".join(study + ",Moderate" * 24 + ",\n" for study in ("100", "100", "200"))
    series = (
        SERIES
        + "100,11,Sagittal T1\n100,12,Sagittal T2/STIR\n100,14,Sagittal T1\n100,15,PD\n300,12,Axial T2\n"
    )
    tables = read_tables(write_tables(tmp_path, labels=labels, points=points, series=series))
    found = {item.code: item for item in tables.problems if item.code != "missing_series_kind"}
    assert {code: item.count for code, item in found.items()} == {
        "duplicate_row": 1,
        "empty_label": 2,
        "unknown_series_kind": 1,
        "several_series_of_kind": 1,
        "placeholder_point": 1,
        "point_on_unlisted_series": 1,
        "point_on_other_series_kind": 2,
        "level_order": 1,
        "study_without_points": 1,
        "study_without_labels": 1,
        "label_without_point": 18,
    }
    assert not any(item.fatal for item in tables.problems)
    assert tables.train is not None and len(tables.train) == 2
    assert tables.coordinates is not None and len(tables.coordinates) == 7


@pytest.mark.parametrize(("exchanged", "told"), [(3, True), (1, False)])
def test_exchanged_axes_are_told_where_most_series_have_them(
    tmp_path: Path, exchanged: int, told: bool
) -> None:
    rows = ""
    for study in range(4):
        for level, y in zip(LEVELS, CANAL_Y, strict=True):
            x_y = f"{y},150.5" if study < exchanged else f"150.5,{y}"
            rows += f"{study},12,3,Spinal Canal Stenosis,{level.label},{x_y}\n"
    tables = read_tables(write_tables(tmp_path, points=POINTS + rows, labels=None, series=None))
    assert codes(tables).get("axes_exchanged", 0) == (exchanged if told else 0)
    assert len(tables.alarming) == told


@pytest.mark.parametrize("empty", ["NA", "NaN", ""])
def test_what_programs_write_for_no_label_is_none(tmp_path: Path, empty: str) -> None:
    tables = read_tables(write_tables(tmp_path, labels=LABELS + f"100,{empty}" + ",Moderate" * 24 + "\n"))
    assert tables.train is not None and codes(tables)["empty_label"] == 1
    assert tables.train.loc[0].isna().sum() == 1


def test_identifiers_that_differ_by_leading_zeros_are_told() -> None:
    found = studies_left_out({"images": ["0012", "13"], "labels": ["12", "13"]})
    assert ["leading zeros" in item.message for item in found] == [True, True]
    (other,) = studies_left_out({"images": ["12", "13"], "labels": ["12"]})
    assert other.said == "[left_out] 1 x study without labels (13)"


def test_a_displaced_canal_point_is_found(tmp_path: Path) -> None:
    points = POINTS + "".join(
        f"100,12,3,Spinal Canal Stenosis,{level.label},{190 if level.index == 2 else 150},{y}\n"
        for level, y in zip(LEVELS, CANAL_Y, strict=True)
    )
    tables = read_tables(write_tables(tmp_path, points=points))
    assert codes(tables)["displaced_point"] == 1


def test_the_real_tables_load_with_the_known_quirks(real_rsna: Path) -> None:
    """Counts of the real tables, of which two studies are left out."""
    tables = read_tables(real_rsna)
    assert tables.train is not None and tables.coordinates is not None and tables.series is not None
    assert (len(tables.train), len(tables.coordinates), len(tables.series)) == (1973, 48642, 6288)
    assert not any(item.fatal for item in tables.problems)
    found = {(item.code, item.message.split()[-2]): item for item in tables.problems}
    counts = {code: item.count for (code, _), item in found.items()}
    assert counts["empty_label"] == 572
    assert counts["placeholder_point"] == 13
    assert counts["point_on_other_series_kind"] == 5
    assert counts["study_without_points"] == 1
    assert counts["point_without_label"] == 35
    assert counts["label_without_point"] == 126
    several = {i.message: i.count for i in tables.problems if i.code == "several_series_of_kind"}
    assert several == {"study with several Axial T2 series": 335, "study with several Sagittal T1 series": 7}
    missing = {i.message: i.count for i in tables.problems if i.code == "missing_series_kind"}
    assert missing == {"study without Sagittal T1 series": 2, "study without Sagittal T2/STIR series": 1}
    (order,) = (item for item in tables.problems if item.code == "level_order")
    assert any(place.startswith("1973833645/") for place in order.examples)
    (lonely,) = (item for item in tables.problems if item.code == "study_without_points")
    assert lonely.examples == ("3008676218",)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("labels", "100" + ",Moderate" * 24 + ",Severe\n"),
        ("series", "100,11,Axial T2\n"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(tmp_path: Path, name: str, row: str) -> None:
    text = {"labels": LABELS + "100" + ",Moderate" * 25 + "\n", "series": SERIES + "100,11,Sagittal T1\n"}[
        name
    ]
    write_tables(tmp_path, **{name: text + row})
    with pytest.raises(TablesInvalid, match="contradictory_row"):
        read_tables(tmp_path)
