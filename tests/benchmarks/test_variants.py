"""The variants run end to end on one small phantom, and the document holds what was measured."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from benchmarks import variants
from data_prep.phantom import write_dataset
from tests.hostile.quirks.rows import ROWS
from tests.hostile.quirks.variant_rows import VARIANTS

SEED = 5
ROOT = Path(__file__).resolve().parents[2]


def test_the_table_is_written_and_its_rows_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The synthetic study of a seed, and once more as a study of a data set."""
    names = ["ct", "empty-files", "patient-per-series", "turned-round"]
    data = tmp_path / "work" / f"plain-{SEED}"
    write_dataset(data, studies=1, seed=SEED, size="small")
    (study,) = (data / "train_images").iterdir()
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- variants -->\nold\n<!-- /variants -->\nafter\n")
    arguments = ["--studies", "1", "--seed", str(SEED), "--data", str(data), "--study", study.name]
    arguments += [word for name in names for word in ("--only", name)]
    arguments += ["--work", str(tmp_path / "work"), "-o", str(tmp_path), "--document", str(document)]
    monkeypatch.setattr(sys, "argv", ["variants", *arguments])
    with pytest.raises(SystemExit) as ended:
        variants.main()
    with (tmp_path / "variants.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert ended.value.code == 0, [line["why"] for line in lines]
    assert {(line["row"], line["seed"]) for line in lines} == {
        (name, seed) for name in names for seed in (str(SEED), study.name)
    }
    assert {line["codes"].split(":")[0] for line in lines if line["row"] == "ct"} == {"other_modality"}
    table = (tmp_path / "variants.md").read_text()
    assert table in capsys.readouterr().out
    assert document.read_text() == f"before\n<!-- variants -->\n{table}<!-- /variants -->\nafter\n"


def test_every_variant_has_a_name_of_its_own() -> None:
    names = [row.name for row in VARIANTS]
    assert len({*names, *(row.name for row in ROWS)}) == len(names) + len(ROWS)
    assert len({row.title for row in VARIANTS}) == len(names)


def test_the_document_holds_the_table_that_was_measured() -> None:
    text = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    table = text.split(variants.MARKS[0])[1].split(variants.MARKS[1])[0]
    assert table.strip() == (ROOT / "benchmarks/results/variants.md").read_text(encoding="utf-8").strip()
    with (ROOT / "benchmarks/results/variants.csv").open(encoding="utf-8") as stream:
        measured = dict.fromkeys((line["row"], line["expected"]) for line in csv.DictReader(stream))
    assert list(measured) == [(row.name, row.expected.words) for row in VARIANTS]
