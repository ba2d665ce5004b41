"""How fast a study is graded, beside the loop that public notebooks use, in one interleaved run.

    python -m benchmarks.speed --studies 6 --threads 2 --json

Both grade the same synthetic studies of real size, coded in RLE as the real data are, with the same weights
and the same number of threads, models loaded before. ``ratio`` is the naive loop's time per study over ours,
from files to submission, without what further members of its graders take (ours always grade with all);
``ratio_with_all_members`` counts them, too; ``folder_ratio`` is of a folder done by workers. Timings depend
on what else the machine does: ratios are of neighbouring runs, processor time is counted beside time on the
clock, and the load is written down.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom.uid import RLELossless

import classifier.predict
import data_prep.read.series
from benchmarks.stopwatch import Stopwatch
from data_prep.base.csv_files import write_table
from data_prep.base.files import write_json
from data_prep.levels import SpineLevels
from data_prep.phantom import write_dataset
from data_prep.read.entry import StudyEntry
from data_prep.read.find import find_studies
from data_prep.read.series_table import find_series_table
from data_prep.study import Study
from data_prep.vocabulary import SeriesKind, Target
from pipeline.batch.run import run_batch
from pipeline.grade import Pipeline

FIRST_SEED = 200_500
STAGES = ("read and decode", "detection", "crops", "grading", "writing")
FURTHER_MEMBERS = "further members"  # of the naive loop's graders
OURS, NAIVE = "lumbar", "naive loop"
GROWTH_POINTS = (1, 10, 20, 50, 100, 200)
PARTS = ("timing", "growth", "workers", "outputs")


@dataclass(frozen=True)
class Timed:
    """A stage of the pipeline whose time is counted."""

    stage: Any
    clock: Stopwatch

    def predict(self, study: Study) -> SpineLevels:
        """As the detector."""
        with self.clock("detection"):
            found: SpineLevels = self.stage.predict(study)
            return found

    def grade(self, study: Study, levels: SpineLevels) -> dict[Target, Any]:
        """As the graders."""
        with self.clock("grading"):
            grades: dict[Target, Any] = self.stage.grade(study, levels)
            return grades

    @property
    def any_severe_pull(self) -> float:
        """As the graders."""
        return float(self.stage.any_severe_pull)


def make_studies(folder: Path, count: int) -> list[Path]:
    """Synthetic studies of real size, every image in RLE; made once."""
    images = folder / "train_images"
    if not (folder / "phantom.json").is_file():
        write_dataset(folder, studies=count, seed=FIRST_SEED, size="full", headers="rsna")
        for path in images.rglob("*.dcm"):
            dataset = pydicom.dcmread(path)
            if dataset.file_meta.TransferSyntaxUID != RLELossless:
                dataset.compress(RLELossless, generate_instance_uid=False)
                dataset.save_as(path, enforce_file_format=True)
    return sorted(path for path in images.iterdir() if path.is_dir())[:count]


def kinds_of(study: Path) -> dict[str, SeriesKind]:
    """What each series of a study shows, as its table says."""
    table = find_series_table(None, study.parent, 1)[study.name]
    return {series: kind for series, kind in table.items() if kind is not None}


@contextmanager
def counted(clock: Stopwatch) -> Iterator[None]:
    """Count the time of reading and cropping, which happen within other stages."""
    plain = StudyEntry.load, data_prep.read.series.read_pixels, classifier.predict.target_crop
    StudyEntry.load = clock.timed("read and decode", plain[0])  # type: ignore[method-assign]
    data_prep.read.series.read_pixels = clock.timed("read and decode", plain[1])
    classifier.predict.target_crop = clock.timed("crops", plain[2])
    try:
        yield
    finally:
        StudyEntry.load = plain[0]  # type: ignore[method-assign]
        data_prep.read.series.read_pixels, classifier.predict.target_crop = plain[1:]


def run_ours(pipeline: Pipeline, study: Path, out: Path, clock: Stopwatch) -> None:
    """From files to submission and record, without pictures and reports."""
    timed = replace(pipeline, detector=Timed(pipeline.detector, clock), grader=Timed(pipeline.grader, clock))
    with counted(clock):
        with clock("read and decode"):
            entries = find_studies(study)
        with clock("writing"):
            run_batch(timed, entries, out)


def interleaved(studies: list[Path], repetitions: int, threads: int, scratch: Path) -> list[dict[str, Any]]:
    """Milliseconds by program, study, repetition and stage; who comes first changes every time."""
    from benchmarks.naive_loop import NaiveLoop

    naive = NaiveLoop(scratch, threads)
    pipeline = Pipeline.load(threads=threads)
    rows = []
    for repetition in range(-1, repetitions):  # the first is not counted
        for number, study in enumerate(studies):
            order = (OURS, NAIVE) if (repetition + number) % 2 else (NAIVE, OURS)
            for program in order:
                clock = Stopwatch()
                if program == OURS:
                    run_ours(pipeline, study, scratch / f"ours-{repetition}-{number}", clock)
                else:
                    naive.run(study, kinds_of(study), scratch / "naive.csv", clock)
                rows += [
                    {
                        "program": program,
                        "study": study.name,
                        "repetition": repetition,
                        "stage": stage,
                        "ms": ms,
                        "cpu_ms": clock.cpu_ms[stage],
                    }
                    for stage, ms in clock.ms.items()
                ]
    return [row for row in rows if row["repetition"] >= 0]


def ratios(
    rows: list[dict[str, Any]], stages: Sequence[str] = STAGES, column: str = "ms"
) -> dict[str, float]:
    """Naive over ours per repetition, over all studies: median, least and most."""

    def total(program: str, repetition: int) -> float:
        return sum(
            row[column]
            for row in rows
            if row["program"] == program and row["repetition"] == repetition and row["stage"] in stages
        )

    return spread([total(NAIVE, i) / total(OURS, i) for i in sorted({row["repetition"] for row in rows})])


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": round(median(values), 2), "least": round(min(values), 2), "most": round(max(values), 2)}


def per_stage(rows: list[dict[str, Any]], program: str, column: str = "ms") -> dict[str, float]:
    """Median over repetitions of the mean milliseconds per study, by stage."""
    studies = len({row["study"] for row in rows})
    figures = {}
    for stage in (*STAGES, FURTHER_MEMBERS):
        sums: dict[int, float] = {}
        for row in rows:
            if row["program"] == program and row["stage"] == stage:
                sums[row["repetition"]] = sums.get(row["repetition"], 0.0) + row[column]
        figures[stage] = round(median(sums.values()) / studies, 1) if sums else 0.0
    return {**figures, "all": round(sum(figures[stage] for stage in STAGES), 1)}


def grades_difference(studies: list[Path], threads: int) -> float:
    """Largest difference of a probability between the fast backend and the torch reference."""
    fast, reference = (Pipeline.load(backend=name, threads=threads) for name in ("auto", "torch"))
    most = 0.0
    for study in studies:
        a, b = fast.predict(study)[0], reference.predict(study)[0]
        most = max(
            most,
            *(float(np.abs(g.probabilities - b.grades[t].probabilities).max()) for t, g in a.grades.items()),
        )
    return most


def resident_mb(field: str = "VmRSS") -> float:
    """Memory of this process in MB: ``VmRSS`` now, ``VmHWM`` at most so far. Linux alone; else 0."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0.0
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def grow(studies: list[Path], count: int, threads: int, scratch: Path) -> list[dict[str, float]]:
    """Time and memory of each of ``count`` studies in one process; a few are graded again and again."""
    pipeline = Pipeline.load(threads=threads)
    rows = []
    for number, study in enumerate(islice(cycle(studies), count), start=1):
        began = time.perf_counter()
        run_ours(pipeline, study, scratch / f"grow-{number}", Stopwatch())
        spent = (time.perf_counter() - began) * 1e3
        rows.append(
            {"study": number, "ms": spent, "resident_mb": resident_mb(), "peak_mb": resident_mb("VmHWM")}
        )
    return rows


def naive_peak_mb(studies: list[Path], threads: int, scratch: Path) -> float:
    """Peak memory of the naive loop."""
    from benchmarks.naive_loop import NaiveLoop

    naive = NaiveLoop(scratch, threads)
    for study in studies:
        naive.run(study, kinds_of(study), scratch / "naive-memory.csv", Stopwatch())
    return resident_mb("VmHWM")


def growth_figures(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Whether time per study and memory stay as they are."""

    def typical(first: int, last: int) -> float:
        return round(median(row["ms"] for row in rows if first <= row["study"] <= last), 1)

    at = {int(row["study"]): row for row in rows}
    last = len(rows)
    early = min(20, last)
    total = {n: round(sum(row["ms"] for row in rows[:n]) / 1e3, 2) for n in GROWTH_POINTS if n <= last}
    return {
        "studies": last,
        "seconds_for_studies": total,
        "ms_per_study_early": typical(2, early),
        "ms_per_study_late": typical(max(1, last - 19), last),
        "resident_mb": {n: round(at[n]["resident_mb"]) for n in GROWTH_POINTS if n in at},
        "resident_growth": round(at[last]["resident_mb"] / max(at[early]["resident_mb"], 1.0), 3),
        "peak_mb": round(at[last]["peak_mb"]),
    }


_worker: dict[str, Any] = {}


def measure_outputs(
    studies: list[Path], repetitions: int, threads: int, scratch: Path
) -> dict[str, dict[str, float]]:
    """What pictures and reports cost beside the grades that they show: milliseconds per study, in turn."""
    from pipeline.results.pictures.montage import draw_montage
    from pipeline.results.report.study_report import write_report

    pipeline = Pipeline.load(threads=threads)
    clocks = []
    for repetition in range(-1, repetitions):  # the first is not counted
        for study in studies:
            clock = Stopwatch()
            with clock("grades"):
                prediction, decoded = pipeline.predict_entry(find_studies(study)[0])
            with clock("picture"):
                draw_montage(decoded, prediction, scratch / "montage.png")
            with clock("report"):
                write_report(decoded, prediction, scratch / "report.html")
            clocks += [clock] if repetition >= 0 else []
    return {
        name: {
            stage: round(median(getattr(clock, name)[stage] for clock in clocks), 1) for stage in clocks[0].ms
        }
        for name in ("ms", "cpu_ms")
    }


def start_worker(scratch: Path) -> None:
    """Load the pipeline of a worker process, on one thread."""
    _worker["pipeline"], _worker["scratch"] = Pipeline.load(threads=1), scratch


def work(task: tuple[int, Path]) -> None:
    """Grade a study in a worker process."""
    number, study = task
    out = _worker["scratch"] / f"worker-{os.getpid()}-{number}"
    run_ours(_worker["pipeline"], study, out, Stopwatch())


def start_naive(scratch: Path, threads: int) -> None:
    """Load the naive loop in a worker process."""
    from benchmarks.naive_loop import NaiveLoop

    _worker["naive"], _worker["scratch"] = NaiveLoop(scratch, threads), scratch


def work_naively(study: Path) -> Mapping[str, float]:
    """Milliseconds by stage of the naive loop with a study."""
    clock = Stopwatch()
    _worker["naive"].run(study, kinds_of(study), _worker["scratch"] / "naive-folder.csv", clock)
    return dict(clock.ms)


def worker_ratios(
    studies: list[Path], repetitions: int, threads: int, scratch: Path
) -> dict[str, dict[str, float]]:
    """A folder of studies by workers, in neighbouring runs of processes that have loaded their models.

    Returns:
        ``two_workers``: one worker process's time over that of two. ``folder_ratio`` and
        ``folder_ratio_with_all_members``: the naive loop's time, on ``threads`` threads, over that of two
        workers of one thread each, which is what ``lumbar predict`` does by itself with many studies on two
        processors.
    """
    context = get_context("spawn")
    found: dict[str, list[float]] = defaultdict(list)
    with (
        ProcessPoolExecutor(1, context, start_worker, (scratch,)) as one,
        ProcessPoolExecutor(2, context, start_worker, (scratch,)) as two,
        ProcessPoolExecutor(1, context, start_naive, (scratch, threads)) as naive,
    ):
        number = 0
        for repetition in range(-1, repetitions):
            spent = {}
            for name, pool in (("one", one), ("two", two)):
                tasks = [(number + i, study) for i, study in enumerate(studies * 2)]
                number += len(tasks)
                began = time.perf_counter()
                list(pool.map(work, tasks))
                spent[name] = (time.perf_counter() - began) * 1e3 / len(tasks)
            stages = list(naive.map(work_naively, studies))
            everything = sum(ms for by_stage in stages for ms in by_stage.values()) / len(studies)
            further = sum(by_stage.get(FURTHER_MEMBERS, 0.0) for by_stage in stages) / len(studies)
            if repetition >= 0:
                found["two_workers"].append(spent["one"] / spent["two"])
                found["folder_ratio"].append((everything - further) / spent["two"])
                found["folder_ratio_with_all_members"].append(everything / spent["two"])
    return {name: spread(values) for name, values in found.items()}


def in_process(function: Any, *arguments: Any) -> Any:
    """The result of a function in a fresh process, whose memory is its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def write_results(arguments: argparse.Namespace, report: Mapping[str, Any]) -> dict[str, Any]:
    """``{name}.json`` and ``{name}.png``; of a report that is there, parts not measured now stay."""
    path = arguments.output / f"{arguments.name}.json"
    before = json.loads(path.read_text()) if path.is_file() and len(arguments.parts) < len(PARTS) else {}
    whole = {**before, **report}
    write_json(path, whole, indent=1)
    if {"growth", "ratio"} <= whole.keys():
        draw(path.with_suffix(".png"), whole)
    return whole


def draw(path: Path, report: Mapping[str, Any]) -> None:
    """Stages of both programs, and time and memory over many studies."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    stages, growth = figure.subplots(1, 2)
    for row, program in enumerate((NAIVE, OURS)):
        left = 0.0
        for number, stage in enumerate(STAGES):
            ms = report["ms_per_study"][program][stage]
            stages.barh(row, ms, left=left, color=f"C{number}", label=stage if row == 0 else None)
            left += ms
        stages.text(left, row, f" {left:.0f} ms", va="center")
    stages.set_yticks([0, 1], [NAIVE, OURS])
    stages.set_xlabel("milliseconds per study")
    stages.margins(x=0.3)
    stages.legend(fontsize=7)
    stages.set_title(f"{report['ratio']:.1f} times as fast, threads: {report['threads']}", fontsize=10)
    points = report["growth"]["seconds_for_studies"]
    growth.plot([int(n) for n in points], list(points.values()), "o-", color="C0")
    growth.set_xlabel("studies")
    growth.set_ylabel("seconds", color="C0")
    memory = growth.twinx()
    resident = report["growth"]["resident_mb"]
    memory.plot([int(n) for n in resident], list(resident.values()), "s--", color="C1")
    memory.set_ylabel("resident MB", color="C1")
    memory.set_ylim(bottom=0)
    figure.savefig(path, dpi=130)


def measure_timing(
    studies: list[Path], arguments: argparse.Namespace, scratch: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Both programs side by side, and how far the fast backend is from the reference."""
    rows = interleaved(studies, arguments.repetitions, arguments.threads, scratch)
    ratio = ratios(rows)
    return {
        "ratio": ratio["median"],
        "ratio_spread": ratio,
        "ratio_with_all_members": ratios(rows, (*STAGES, FURTHER_MEMBERS)),
        "detection_ratio": ratios(rows, ["detection"]),
        "processor_time_ratio": ratios(rows, column="cpu_ms"),
        "processor_time_detection_ratio": ratios(rows, ["detection"], "cpu_ms"),
        "threads": arguments.threads,
        "studies": len(studies),
        "repetitions": arguments.repetitions,
        "slices_per_study": round(float(np.mean([len(list(study.rglob("*.dcm"))) for study in studies])), 1),
        "ms_per_study": {program: per_stage(rows, program) for program in (NAIVE, OURS)},
        "processor_ms_per_study": {program: per_stage(rows, program, "cpu_ms") for program in (NAIVE, OURS)},
        "largest_difference_of_a_grade": in_process(grades_difference, studies, arguments.threads),
        "naive_peak_mb": round(in_process(naive_peak_mb, studies[:2], arguments.threads, scratch)),
        "models": dict(Pipeline.load(threads=arguments.threads).provenance.models),
    }, rows


def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """The parts that were asked for; ``speed.csv`` has the timings row by row."""
    studies = make_studies(arguments.data or scratch / "data", arguments.studies)
    report: dict[str, Any] = {}
    for part in arguments.parts:
        load = {"load_before": round(os.getloadavg()[0], 1)}
        if part == "timing":
            figures, rows = measure_timing(studies, arguments, scratch)
            report |= figures
            rounded = ({**row, **{k: round(row[k], 2) for k in ("ms", "cpu_ms")}} for row in rows)
            write_table(arguments.output / f"{arguments.name}.csv", list(rows[0]), rounded)
        elif part == "growth":
            grown = in_process(grow, studies, arguments.growth, arguments.threads, scratch)
            report["growth"] = growth_figures(grown)
        elif part == "outputs":
            report["outputs"] = measure_outputs(studies, arguments.repetitions, arguments.threads, scratch)
        else:
            report |= worker_ratios(studies, arguments.repetitions, arguments.threads, scratch)
        load["load_after"] = round(os.getloadavg()[0], 1)
        report[f"load_{part}"] = load
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    report["machine"] = {"processor": processor_name(), "cores": cores}
    return report


def processor_name() -> str:
    """Of this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def main() -> None:
    """Measure, print, write ``speed.json``, ``speed.csv`` and ``speed.png``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=6, help="different synthetic studies")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of both programs")
    parser.add_argument("--growth", type=int, default=200, help="studies in one process, for time and memory")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="measure some of it again")
    parser.add_argument(
        "--data", type=Path, help="where the studies are kept; a temporary folder if left out"
    )
    parser.add_argument("--json", action="store_true", help="figures as JSON on stdout")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--name", default="speed", help="of the files written")
    arguments = parser.parse_args()
    cv2.setNumThreads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="lumbar-speed-") as scratch:
        report = measure(arguments, Path(scratch))
    report = write_results(arguments, report)
    if arguments.json:
        print(json.dumps(report, indent=1))
        return
    for program, figures in report.get("ms_per_study", {}).items():
        print(f"{program:12}", "  ".join(f"{stage} {ms:.0f} ms" for stage, ms in figures.items()))
    printed = "ratio_spread ratio_with_all_members detection_ratio two_workers folder_ratio"
    for key in (*printed.split(), "folder_ratio_with_all_members", "growth", "outputs"):
        print(key, report.get(key))


if __name__ == "__main__":
    main()
