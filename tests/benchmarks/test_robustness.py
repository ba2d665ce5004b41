"""The robustness table runs end to end on one small phantom; its quirks change what they say, and no more."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import robustness
from classifier.grade import Grade
from data_prep.phantom import write_dataset
from data_prep.read.find import find_studies
from data_prep.study import Study
from data_prep.vocabulary import TARGETS, SeriesKind
from pipeline.prediction import StudyPrediction
from tests.hostile.quirks import encodings, files, geometry, pixels
from tests.hostile.quirks.expected import Expected, compare
from tests.hostile.quirks.rows import ROWS
from tests.hostile.quirks.stored import Quirk, StoredStudy, change_study, read_study

SEED, STUDY_ID = 130_001, "900130001"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the benchmark keeps its plain study; not to be changed."""
    folder = tmp_path_factory.mktemp("robustness")
    write_dataset(folder / f"plain-{SEED}", studies=1, seed=SEED, size="small")
    return folder


@pytest.fixture(scope="module")
def stored(work: Path) -> StoredStudy:
    return read_study(work / f"plain-{SEED}", STUDY_ID)


def loaded(work: Path, quirk: Quirk, out: Path) -> Study:
    change_study(work / f"plain-{SEED}", STUDY_ID, quirk, out)
    (entry,) = find_studies(out)
    return entry.load()


def test_the_table_is_written_and_its_rows_hold(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["instances-shuffled", "jpeg-ls", "no-PixelSpacing", "blank-axial", "points-inverted"]
    only = [word for name in names for word in ("--only", name)]
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- table -->\nold\n<!-- /table -->\nafter\n")
    places = ["--work", str(work), "-o", str(tmp_path), "--json", "--document", str(document)]
    monkeypatch.setattr(sys, "argv", ["robustness", "--studies", "1", "--seed", str(SEED), *only, *places])
    with pytest.raises(SystemExit) as ended:
        robustness.main()
    printed = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0, [line["why"] for line in printed["rows"]]
    assert printed == json.loads((tmp_path / "robustness.json").read_text())
    with (tmp_path / "robustness.csv").open() as stream:
        lines = {line["row"]: line for line in csv.DictReader(stream)}
    assert sorted(lines) == sorted(names)
    assert {line["holds"] for line in lines.values()} == {"True"}
    assert float(lines["jpeg-ls"]["probability"]) == 0 and lines["jpeg-ls"]["compared"] == "25"
    assert lines["no-PixelSpacing"]["rejected"] == "True"
    assert lines["blank-axial"]["flags"] == "no_signal" and lines["blank-axial"]["compared"] == "15"
    table = (tmp_path / "robustness.md").read_text()
    assert "| JPEG-LS lossless |" in table
    assert document.read_text() == f"before\n<!-- table -->\n{table}<!-- /table -->\nafter\n"
    assert (tmp_path / "robustness.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_row_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["robustness", "--only", "no-such-row"])
    with pytest.raises(SystemExit) as ended:
        robustness.main()
    assert ended.value.code == 2


def test_every_row_has_a_name_and_states_what_is_expected() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names) and len({row.title for row in ROWS}) == len(names)
    assert all(row.expected.words for row in ROWS)


@pytest.mark.parametrize(
    "quirk",
    [
        geometry.stored_mirrored,
        geometry.stored_on_side,
        geometry.feet_first,
        geometry.padded,
        geometry.matrix(rows=0.5),
        geometry.cut(rows=(0.2, 0.9), columns=(0.1, 0.8)),
        geometry.turned_in_plane(12),
    ],
    ids=["mirrored", "on side", "feet first", "padded", "non-square", "cut", "turned"],
)
def test_a_change_of_the_grid_keeps_each_pixel_at_its_place_in_the_patient(
    work: Path, tmp_path: Path, quirk: Quirk
) -> None:
    """The middle of what is left, read at the same millimetres, is as bright as before."""
    plain, changed = (
        loaded(work, lambda study, rng: study, tmp_path / "a"),
        loaded(work, quirk, tmp_path / "b"),
    )
    for before, after in zip(plain.series, changed.series, strict=True):
        item = after.slices[len(after.slices) // 2]
        other, distance_mm = before.nearest(item.plane.centre_mm)
        assert distance_mm < 1e-3
        rows, columns = item.plane.shape
        grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)[rows // 4 : -rows // 4]
        grid = grid[:, columns // 4 : -columns // 4]
        at = np.rint(other.plane.to_px(item.plane.to_mm(grid))).astype(int)
        inside = other.plane.contains_px(at)
        old = other.pixels()[at[inside][:, 1], at[inside][:, 0]]
        new = item.pixels()[grid[inside][:, 1], grid[inside][:, 0]]
        assert np.corrcoef(old, new)[0, 1] > 0.9


def test_the_document_holds_the_table_that_was_measured() -> None:
    root = Path(__file__).resolve().parents[2]
    text = (root / "docs" / "robustness.md").read_text(encoding="utf-8")
    table = text.split(robustness.MARKS[0])[1].split(robustness.MARKS[1])[0]
    assert table.strip() == (root / "benchmarks/results/robustness.md").read_text(encoding="utf-8").strip()
    measured = json.loads((root / "benchmarks/results/robustness.json").read_text(encoding="utf-8"))["rows"]
    assert [(line["row"], line["expected"]) for line in measured] == [
        (r.name, r.expected.words) for r in ROWS
    ]
    whole = sum(line["holds"] == line["studies"] for line in measured)
    held, tried = (sum(line[name] for line in measured) for name in ("holds", "studies"))
    words = " ".join(text.split())
    assert f"{whole} of {len(measured)} rows hold in all" in words and f"({held:,} of {tried:,})" in words


def test_quirks_leave_the_study_that_they_are_given_as_it_is(stored: StoredStudy) -> None:
    before = [image.dataset.to_json() for image in stored.images[:5]]
    rng = np.random.default_rng(0)
    for quirk in (files.instances_shuffled, encodings.monochrome1, geometry.rotated_patient, pixels.noise(3)):
        assert quirk(stored, rng) is not stored
    assert [image.dataset.to_json() for image in stored.images[:5]] == before


def test_thin_slices_fill_the_stacks_evenly(work: Path, tmp_path: Path) -> None:
    study = loaded(work, geometry.thin_slices(SeriesKind.AXIAL_T2, 192), tmp_path)
    (axial,) = study.of_kind(SeriesKind.AXIAL_T2)
    assert len(axial.slices) == 192
    stack = axial.main_stack
    gaps = np.diff([float(item.plane.centre_mm @ stack[0].plane.normal) for item in stack])
    # Neighbouring disc stacks that are nearly parallel are read as one, with a step between them.
    assert gaps.min() > 0 and np.mean(gaps < 0.5) > 0.95


def prediction(shift: float = 0.0, *, flags: tuple[str, ...] = (), source: str = "seen") -> StudyPrediction:
    p = np.array([0.8 - shift, 0.15 + shift, 0.05])
    grades = {target: Grade(p, "seen") for target in TARGETS}
    if source == "prior":
        grades[TARGETS[0]] = Grade(p, "prior", ("no_slice",))
    return StudyPrediction("1", grades, flags=flags)


@pytest.mark.parametrize(
    ("changed", "expected", "why"),
    [
        (prediction(), Expected(), None),
        (prediction(0.05), Expected(probability=0.06), None),
        (prediction(0.05), Expected(), "grades differ by 0.05"),
        (
            prediction(0.05, flags=("numbering_uncertain",)),
            Expected(instead=frozenset({"numbering_uncertain"})),
            None,
        ),
        (prediction(flags=("few_slices",)), Expected(), "flag few_slices is not expected"),
        (prediction(), Expected(flags=frozenset({"few_slices"})), "flag few_slices is missing"),
        (prediction(), Expected(codes=frozenset({"truncated"})), "code truncated is missing"),
        (prediction(), Expected(rejected=True), "the study was not rejected"),
        (
            prediction(),
            Expected(checked=frozenset({"level_order"})),
            "lumbar check does not name level_order",
        ),
        (prediction(source="prior"), Expected(may_be_ungraded=True), "other figures than the level prior"),
        (prediction(source="prior"), Expected(), "spinal_canal_stenosis is not graded at L1/L2"),
    ],
)
def test_a_changed_study_is_judged_by_what_was_stated(
    changed: StudyPrediction, expected: Expected, why: str | None
) -> None:
    found = compare(prediction(), changed, expected)
    assert found.holds == (why is None)
    assert why is None or any(why in text for text in found.why)


def test_a_row_whose_program_is_missing_is_not_counted_as_held(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.hostile.quirks.encodings.shutil.which", lambda _: None)
    row = next(row for row in ROWS if row.name == "jpeg-lossless")
    measured = robustness.measure(replace(row), SEED, work, "small")
    assert measured.compared is None and "dcmtk" in measured.missing
    (line,) = robustness.summary([measured])
    assert line["studies"] == 0 and line["holds"] == 0
    assert "not measured" in robustness.markdown([line])
