"""Every quirk of real data applied to synthetic studies: what changes in the grades, and what is said of it.

    python -m benchmarks.robustness --jobs 2 -o benchmarks/results

A plain study and the same study with a quirk go through the whole pipeline, files to grades. Each row of the
table states what may change (nothing, where the same values are stored in another way) or which flag or
reason code must be given, and whether that holds in every study. Seeds from 270,000 are for reporting. Writes
``robustness.csv`` (a line per row and study), ``.json``, ``.md`` and ``.png``; ends with 1 if a row fails.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_prep.base.csv_files import write_table
from data_prep.base.files import atomic_write, write_json, write_whole
from data_prep.phantom import PHANTOM_VERSION, write_dataset
from data_prep.problems import DicomRejected
from data_prep.rsna.check import check_data
from data_prep.vocabulary import CONDITIONS
from pipeline import Pipeline
from pipeline.commands import console
from pipeline.prediction import StudyPrediction
from tests.hostile.quirks.encodings import ToolMissing
from tests.hostile.quirks.expected import Compared, compare
from tests.hostile.quirks.row import MANY
from tests.hostile.quirks.rows import ROWS, Row
from tests.hostile.quirks.stored import change_study

FIRST_SEED = 270_000
MARKS = ("<!-- table -->", "<!-- /table -->")
FIGURES = ("probability", "levels_mm", "points_mm")
COLUMNS = (
    "row",
    "title",
    "seed",
    "expected",
    "holds",
    "why",
    "probability",
    *(condition.value for condition in CONDITIONS),
    "grades_changed",
    "compared",
    "levels_mm",
    "points_mm",
    "levels_lost",
    "flags",
    "codes",
    "rejected",
)


@dataclass(frozen=True)
class Measured:
    """One row on one study; ``compared`` is None where a program that the quirk needs is missing."""

    row: Row
    seed: int
    compared: Compared | None
    missing: str = ""

    @property
    def line(self) -> dict[str, Any]:
        """For the CSV."""
        found = self.compared
        line: dict[str, Any] = {
            "row": self.row.name,
            "title": self.row.title,
            "seed": self.seed,
            "expected": self.row.expected.words,
        }
        if found is None:
            return {**line, "holds": "not measured", "why": self.missing}
        return {
            **line,
            "holds": found.holds,
            "why": "; ".join(found.why),
            "probability": _figure(found.probability),
            **{c.value: _figure(found.by_condition.get(c.value, math.nan)) for c in CONDITIONS},
            "grades_changed": found.grades_changed,
            "compared": found.compared,
            "levels_mm": _figure(found.levels_mm),
            "points_mm": _figure(found.points_mm),
            "levels_lost": " ".join(found.levels_lost),
            "flags": " ".join(found.flags),
            "codes": " ".join(f"{code}:{count}" for code, count in sorted(found.codes.items())),
            "rejected": found.rejected,
        }


def _figure(value: float) -> float | str:
    return "" if math.isnan(value) else float(f"{value:.3g}")


@cache
def bundled_pipeline() -> Pipeline:
    """The bundled pipeline, loaded once per process, on one thread."""
    torch.set_num_threads(1)
    loaded = Pipeline.load()
    torch.set_num_threads(1)
    return loaded


@cache
def plain_study(work: Path, seed: int, size: str) -> tuple[Path, StudyPrediction]:
    """The plain data set of a seed, made once, and its prediction."""
    data = work / f"plain-{seed}"
    if not (data / "phantom.json").is_file():
        write_dataset(data, studies=1, seed=seed, size=size)  # type: ignore[arg-type]
    (prediction,) = bundled_pipeline().predict(data)
    return data, prediction


def make_plain(work: Path, seed: int, size: str) -> None:
    """Render the plain study of a seed."""
    plain_study(work, seed, size)


@dataclass(frozen=True)
class Case:
    """A plain study: what it is called in the table, the data set that holds it, and its prediction."""

    name: str
    data: Path
    plain: StudyPrediction


def measure(row: Row, seed: int, work: Path, size: str) -> Measured:
    """Change one plain synthetic study, grade it, and judge what came of it."""
    return measure_case(row, Case(str(seed), *plain_study(work, seed, size)), work)


def measure_case(row: Row, case: Case, work: Path) -> Measured:
    """Change one plain study, grade it, and judge what came of it."""
    plain, seed = case.plain, int(case.name)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        out = Path(folder, "study")
        entropy = zlib.crc32(f"{row.name} {seed}".encode())
        try:
            change_study(case.data, plain.study_id, row.quirk(plain), out, seed=entropy)
        except ToolMissing as missing:
            return Measured(row, seed, None, str(missing))
        if row.afterwards is not None:
            row.afterwards(out)
        checked: frozenset[str] = frozenset()
        if row.expected.checked:
            checked = frozenset(problem.code for problem in check_data(out).problems)
        try:
            found = bundled_pipeline().predict(out)
        except DicomRejected as rejected:
            return Measured(row, seed, Compared(False, (f"nothing was graded: {rejected.rejection.reason}",)))
        except Exception as error:  # a crash is what the table is for
            return Measured(row, seed, Compared(False, (f"crashed: {type(error).__name__}",)))
    return Measured(row, seed, _judged(row, plain, found, checked))


def _judged(
    row: Row, plain: StudyPrediction, found: Sequence[StudyPrediction], checked: frozenset[str]
) -> Compared:
    """The study among those that were found; without its own identifier it is the first of them.

    Of a study in several parts (``row.studies`` is MANY) each part must be said to be one.
    """
    own = [item for item in found if item.study_id == plain.study_id] or list(found)[:1]
    if row.studies == MANY:
        silent = [
            item for item in found if not {r.reason.value for r in item.rejections} & row.expected.codes
        ]
        why = (f"{len(silent)} of {len(found)} parts do not say that they are",) if silent else ()
        codes = {code: 1 for code in row.expected.codes if not silent}
        return Compared(not silent, why, flags=own[0].flags, codes=codes)
    if len(found) != row.studies:
        why = (f"{len(found)} studies were found instead of {row.studies}",)
        return Compared(False, why, flags=own[0].flags)
    return compare(plain, own[0], row.expected, turn=row.turn, checked=checked)


def run(
    rows: Sequence[Row], seeds: Sequence[int], *, jobs: int, size: str, work: Path | None = None
) -> list[Measured]:
    """Every row on every seed, in the order of the table; a bar on stderr.

    Args:
        work: plain studies and what was measured are kept here: an interrupted run goes on where it was.
            Remove ``measured`` from it after a change of the program.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = work or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        items = [(row, seed) for row in rows for seed in seeds]
        found: dict[tuple[str, int], Measured] = {}
        with console.progress("quirks", len(items)) as done:
            for measured in _measured(items, jobs, place, size):
                found[measured.row.name, measured.seed] = measured
                keep(measured, place)
                if measured.compared is not None and not measured.compared.holds:
                    console.tell(
                        f"{measured.row.name}, seed {measured.seed}: {'; '.join(measured.compared.why)}"
                    )
                done(measured.row.name)
    return [found[row.name, seed] for row, seed in items]


def _place(row: Row, seed: int, work: Path) -> Path:
    """Where the figures of a row are kept: another expectation or other weights have another name."""
    what = repr((row.expected.words, PHANTOM_VERSION, sorted(bundled_pipeline().provenance.models.items())))
    return work / "measured" / f"{row.name}-{seed}-{zlib.crc32(what.encode()):08x}.json"


def keep(measured: Measured, work: Path) -> None:
    """Keep what was measured for a run that is started again."""
    if measured.compared is not None:
        write_json(_place(measured.row, measured.seed, work), asdict(measured.compared))


def kept_from(row: Row, seed: int, work: Path) -> Measured | None:
    """What an earlier run kept of a row on a study."""
    path = _place(row, seed, work)
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    lists = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
    return Measured(row, seed, Compared(**{**content, **lists}))


def _measured(items: list[tuple[Row, int]], jobs: int, work: Path, size: str) -> Iterator[Measured]:
    before = {
        (row.name, seed): kept for row, seed in items if (kept := kept_from(row, seed, work)) is not None
    }
    yield from before.values()
    items = [(row, seed) for row, seed in items if (row.name, seed) not in before]
    if jobs == 1:
        for row, seed in items:
            yield measure(row, seed, work, size)
        return
    # Rows hold functions that cannot be sent to another process: their names are.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for making in [
            pool.submit(make_plain, work, seed, size) for seed in dict.fromkeys(s for _, s in items)
        ]:
            making.result()
        pending = [pool.submit(_measure_named, row.name, seed, work, size) for row, seed in items]
        by_name = {row.name: row for row, _ in items}
        for future in as_completed(pending):
            name, seed, compared, missing = future.result()
            yield Measured(by_name[name], seed, compared, missing)


def _measure_named(name: str, seed: int, work: Path, size: str) -> tuple[str, int, Compared | None, str]:
    measured = measure(next(row for row in ROWS if row.name == name), seed, work, size)
    return name, seed, measured.compared, measured.missing


def summary(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """One line per row: the worst of its studies."""
    lines = []
    for name in dict.fromkeys(item.row.name for item in measured):
        own = [item for item in measured if item.row.name == name]
        found = [item.compared for item in own if item.compared is not None]
        codes = sorted({code for item in found for code in item.codes})
        flags = sorted({flag for item in found for flag in item.flags})
        lines.append(
            {
                "row": name,
                "title": own[0].row.title,
                "expected": own[0].row.expected.words,
                "studies": len(found),
                "holds": sum(item.holds for item in found),
                "probability": _largest([item.probability for item in found]),
                **{
                    c.value: _largest([item.by_condition.get(c.value, math.nan) for item in found])
                    for c in CONDITIONS
                },
                "levels_mm": _largest([item.levels_mm for item in found]),
                "points_mm": _largest([item.points_mm for item in found]),
                "grades_changed": sum(item.grades_changed for item in found),
                "compared": sum(item.compared for item in found),
                "flags": flags,
                "codes": codes,
                "why": sorted({why for item in found for why in item.why}),
                "not_measured": sorted({item.missing for item in own if item.missing}),
            }
        )
    return lines


def _largest(values: list[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return float(f"{max(finite):.3g}") if finite else None


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """The table for documents."""
    head = (
        "| quirk | expected | largest Δp | levels mm | points mm | flags, codes | holds |\n"
        + "|---" * 7
        + "|\n"
    )
    rows = []
    for line in lines:
        figures = ["–" if line[key] is None else f"{line[key]:g}" for key in FIGURES]
        said = ", ".join(f"`{word}`" for word in (*line["flags"], *line["codes"])) or "–"
        holds = f"{line['holds']} of {line['studies']}" if line["studies"] else "not measured"
        rows.append(f"| {line['title']} | {line['expected']} | {' | '.join(figures)} | {said} | {holds} |")
    return head + "\n".join(rows) + "\n"


def draw(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Largest differences as a picture: one bar per row, green where the expectation holds."""
    figure = Figure(figsize=(11, 0.8 + 0.19 * len(lines)), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    names = [line["title"] for line in lines]
    colours = ["#009E73" if line["holds"] == line["studies"] else "#D55E00" for line in lines]
    for axes, key, label in (
        (left, "probability", "largest difference of a probability"),
        (right, "levels_mm", "largest movement of a level (mm)"),
    ):
        values = np.array([line[key] if line[key] is not None else np.nan for line in lines])
        axes.barh(range(len(lines)), np.nan_to_num(values), color=colours, alpha=0.8)
        for place in np.flatnonzero(np.isnan(values)):
            axes.text(0, place, " not graded", va="center", fontsize=6, color=colours[place])
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(labelsize=6.5)
        axes.grid(axis="x", linewidth=0.3)
    left.set_yticks(range(len(lines)), names)
    left.invert_yaxis()
    left.set_ylim(len(lines) - 0.4, -0.6)
    figure.suptitle(
        "Quirks of real data: green where the stated expectation holds in every study", fontsize=10
    )
    with atomic_write(path, binary=True) as picture:
        figure.savefig(picture, format="png", metadata={"Software": None})


def write_results(measured: Sequence[Measured], seeds: Sequence[int], size: str, out: Path) -> dict[str, Any]:
    """CSV, JSON, Markdown and picture; returns what the JSON holds."""
    lines = summary(measured)
    report = {
        "phantom_version": PHANTOM_VERSION,
        "size": size,
        "seeds": list(seeds),
        "models": dict(bundled_pipeline().provenance.models),
        "rows": lines,
        "rows_that_hold": sum(line["holds"] == line["studies"] for line in lines),
    }
    write_table(out / "robustness.csv", COLUMNS, (item.line for item in measured))
    write_json(out / "robustness.json", report, indent=1, allow_nan=False)
    write_whole(out / "robustness.md", markdown(lines))
    draw(lines, out / "robustness.png")
    return report


def put_between(document: Path, marks: tuple[str, str], table: str) -> None:
    """Replace what stands between two marks in a document."""
    before, rest = document.read_text(encoding="utf-8").split(marks[0])
    after = rest.split(marks[1])[1]
    write_whole(document, f"{before}{marks[0]}\n{table}{marks[1]}{after}")


def main() -> None:
    """Parse, measure, write; exit code 1 if a row does not hold."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=3)
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first study")
    parser.add_argument("--size", choices=("small", "full"), default="small", help="of the synthetic studies")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="this row alone; repeatable: " + ", ".join(names),
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes; the figures are the same")
    parser.add_argument("--json", action="store_true", help="the figures on stdout")
    parser.add_argument("--work", type=Path, help="keep plain studies and figures here: a run goes on")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument(
        "--document", type=Path, help="put the table between its marks, too: docs/robustness.md"
    )
    arguments = parser.parse_args()
    if arguments.document and not arguments.document.is_file():
        parser.error(f"{arguments.document} is not there: the table goes between its marks")
    unknown = sorted(set(arguments.only) - set(names))
    if unknown or arguments.studies < 1 or arguments.jobs < 1:
        parser.error(f"unknown rows {', '.join(unknown)}" if unknown else "--studies and --jobs start at 1")
    rows = [row for row in ROWS if not arguments.only or row.name in arguments.only]
    seeds = range(arguments.seed, arguments.seed + arguments.studies)
    measured = run(rows, seeds, jobs=arguments.jobs, size=arguments.size, work=arguments.work)
    report = write_results(measured, seeds, arguments.size, arguments.output)
    if arguments.document:
        put_between(arguments.document, MARKS, markdown(report["rows"]))
    if arguments.json:
        console.print_json(report)
    else:
        print(markdown(report["rows"]))
    failed = [line for line in report["rows"] if line["holds"] < line["studies"]]
    for line in failed:
        print(f"{line['row']}: {'; '.join(line['why'])}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
