"""Variants of clinical folders, tried as `benchmarks.robustness` tries quirks.

    python -m benchmarks.variants --work WORK -o benchmarks/results --document docs/robustness.md

A synthetic study, and with ``--data`` studies of the RSNA layout, plain and changed, files to grades. Seeds
from 276,000 are for reporting. Writes ``variants.csv`` and ``variants.md``; ends with 1 if a row fails.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from functools import cache
from pathlib import Path

from benchmarks.robustness import (
    COLUMNS,
    Case,
    Measured,
    bundled_pipeline,
    keep,
    kept_from,
    markdown,
    measure_case,
    plain_study,
    put_between,
    summary,
)
from data_prep.base.csv_files import write_table
from data_prep.base.files import write_whole
from pipeline.commands import console
from tests.hostile.quirks.variant_rows import VARIANTS

FIRST_SEED = 276_000
MARKS = ("<!-- variants -->", "<!-- /variants -->")


def case_of(name: str, work: Path, data: Path | None) -> Case:
    """The plain study: a synthetic one by its seed, or that of a data set by its identifier."""
    if data is None:
        return Case(name, *plain_study(work, int(name), "small"))
    (plain,) = bundled_pipeline().predict(data / "train_images" / name)
    return Case(name, data, plain)


def main() -> None:
    """Parse, measure, write; exit code 1 if a row does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2, help="synthetic ones")
    parser.add_argument("--seed", type=int, default=FIRST_SEED)
    parser.add_argument("--data", type=Path, help="a data set in the RSNA layout, too")
    parser.add_argument("--study", action="append", default=[], help="of --data; repeatable")
    parser.add_argument("--only", action="append", default=[], help="this row alone; repeatable")
    parser.add_argument("--kept", action="store_true", help="measure nothing: write what was measured before")
    parser.add_argument("--work", type=Path, required=True, help="plain studies and figures are kept here")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--document", type=Path, help="put the table between its marks, too")
    arguments = parser.parse_args()
    if arguments.document and not arguments.document.is_file():
        parser.error(f"{arguments.document} is not there: the table goes between its marks")
    rows = [row for row in VARIANTS if not arguments.only or row.name in arguments.only]
    arguments.work.mkdir(parents=True, exist_ok=True)
    seeds = range(arguments.seed, arguments.seed + arguments.studies)
    names: dict[str, Path | None] = {str(seed): None for seed in seeds}
    names |= dict.fromkeys(arguments.study if arguments.data else [], arguments.data)
    case = cache(lambda name: case_of(name, arguments.work, names[name]))
    measured: list[Measured] = []
    with console.progress("variants", len(rows) * len(names)) as done:
        for row, name in itertools.product(rows, names):
            item = kept_from(row, int(name), arguments.work)
            if item is None and not arguments.kept:
                item = measure_case(row, case(name), arguments.work)
                keep(item, arguments.work)
            if item is not None:
                measured.append(item)
                if item.compared is not None and not item.compared.holds:
                    console.tell(f"{row.name}, {name}: {'; '.join(item.compared.why)}")
            done(row.name)
    table = markdown(lines := summary(measured))
    write_table(arguments.output / "variants.csv", COLUMNS, (item.line for item in measured))
    write_whole(arguments.output / "variants.md", table)
    if arguments.document:
        put_between(arguments.document, MARKS, table)
    print(table)
    sys.exit(1 if any(line["holds"] < line["studies"] for line in lines) else 0)


if __name__ == "__main__":
    main()
