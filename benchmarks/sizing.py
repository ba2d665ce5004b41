"""What a study costs one worker, and from that what many studies need: the table of docs/scale-out.md.

    python -m benchmarks.sizing INPUT --studies 2

INPUT are studies as ``lumbar predict`` takes them. Processor time is measured, on one thread, so that other
programs on the machine change little.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from data_prep.base.workers import on_one_thread
from data_prep.read.find import find_studies
from pipeline.batch.study_work import PICTURE_PLACE, REPORT_PLACE, StudyOutput, StudyWork
from pipeline.grade import Pipeline
from pipeline.results.pictures.montage import draw_montage
from pipeline.results.report.study_report import write_report

MILLION = 1_000_000
CORES_PER_NODE = 16
# Of the machine's processors, what workers can really use when reading and writing are counted in.
BUSY_SHARE = 0.8


def cost(pipeline: Pipeline, entries: list[Any], outputs: tuple[StudyOutput, ...]) -> dict[str, float]:
    """Processor seconds and bytes per study."""
    seconds, size = 0.0, 0
    for entry in entries:
        began = time.process_time()
        done = StudyWork(outputs).do_in_memory(pipeline, entry)
        seconds += time.process_time() - began
        size += sum(map(len, done.files.values())) + len(json.dumps(done.record, indent=1))
    return {"seconds": seconds / len(entries), "bytes": size / len(entries)}


def row(name: str, seconds: float, size: float) -> str:
    """A line of the table."""
    per_node = CORES_PER_NODE * BUSY_SHARE * 3600 / seconds
    days = MILLION / per_node / 24
    return (
        f"| {name} | {seconds:.1f} s | {3600 / seconds:,.0f} | {per_node:,.0f} | "
        f"{MILLION * seconds / 3600:,.0f} | {days:.1f} | {MILLION * size / 1e9:,.0f} GB |"
    )


def main(
    path: Annotated[Path, typer.Argument(metavar="INPUT", exists=True)],
    studies: Annotated[int, typer.Option(min=1, help="How many of them that have images.")] = 2,
) -> None:
    """Print the table."""
    on_one_thread()
    began = time.process_time()
    pipeline = Pipeline.load(threads=1)
    loading = time.process_time() - began
    entries = [entry for entry in find_studies(path) if not entry.is_only_listed][:studies]
    StudyWork().do_in_memory(pipeline, entries[0])  # what is made once is not counted
    everything = (
        StudyOutput(PICTURE_PLACE, draw_montage, "picture_failed"),
        StudyOutput(REPORT_PLACE, write_report, "report_failed"),
    )
    measured = (("`--no-pictures --no-report`", ()), ("with pictures and reports", everything))
    head = "| per study | processor time | studies per core and hour | per node and hour | core hours for 10⁶"
    typer.echo(f"{head} | days on one node | written for 10⁶ |\n|---|---|---|---|---|---|---|")
    for name, outputs in measured:
        found = cost(pipeline, entries, outputs)
        typer.echo(row(name, found["seconds"], found["bytes"]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    typer.echo(f"\nA worker loads its models in {loading:.1f} s and needs {peak:.1f} GB of memory.")


if __name__ == "__main__":
    typer.run(main)
