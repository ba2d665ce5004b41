"""Ray against the local pool: the same studies, the same number of workers, one after the other, in turns.

    python -m benchmarks.scale_out --studies 50 --jobs 2 --rounds 2 -o benchmarks/results

Synthetic studies (small ones, seeds of the reporting range) are graded with the bundled models, with neither
pictures nor reports. A run is timed from its start, so that workers and models are loaded in it; ``steady``
is without that: from the first finished study to the last one. Written are ``scale_out.csv`` (every run) and
``scale_out.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from data_prep.phantom import write_dataset
from data_prep.studies import find_studies
from data_prep.study_entry import StudyEntry
from pipeline.batch import run_batch
from pipeline.engines import Engine
from pipeline.local_pool import LocalPool
from pipeline.predict import Pipeline
from pipeline.ray_engine import RayEngine, is_installed
from pipeline.steps import load_in_worker

FIRST_SEED = 200_000


def timed_run(
    pipeline: Pipeline, entries: tuple[StudyEntry, ...], engine: Engine, out: Path
) -> dict[str, Any]:
    """Seconds of one run, and the SHA-256 of everything that it wrote."""
    ends: list[float] = []
    began = time.monotonic()
    run_batch(pipeline, entries, out, engine=engine, progress=lambda _: ends.append(time.monotonic() - began))
    seconds = time.monotonic() - began
    digest = hashlib.sha256()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(out)}\n".encode() + path.read_bytes())
    steady = (ends[-1] - ends[0]) / max(1, len(ends) - 1)
    return {
        "seconds": round(seconds, 2),
        "seconds_to_first_study": round(ends[0], 2),
        "steady_seconds_per_study": round(steady, 3),
        "sha256": digest.hexdigest(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def measure(studies: int, jobs: int, rounds: int) -> dict[str, Any]:
    """All runs and what they come to."""
    pipeline = Pipeline.load()
    load = partial(load_in_worker, None, None)
    engines: dict[str, Engine] = {
        "local": LocalPool(load, jobs),
        "ray": RayEngine(load, pipeline.provenance, jobs),
    }
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "data", studies=studies, seed=FIRST_SEED, size="small")
        entries = find_studies(folder / "data")
        for number in range(rounds):
            # Who goes first changes: what else runs on the machine meets both.
            for engine in sorted(engines, reverse=bool(number % 2)):
                out = folder / f"{engine}-{number}"
                row = {"round": number, "engine": engine}
                rows.append(row | timed_run(pipeline, entries, engines[engine], out))
                typer.echo(json.dumps(rows[-1]), err=True)
    median = {
        engine: statistics.median(row["seconds"] for row in rows if row["engine"] == engine)
        for engine in engines
    }
    return {
        "studies": studies,
        "jobs": jobs,
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "software": pipeline.provenance.to_dict()["software"],
        "median_seconds": median,
        "ray_over_local": round(median["ray"] / median["local"], 3),
        "same_bytes": len({row["sha256"] for row in rows}) == 1,
        "runs": rows,
    }


def main(
    studies: Annotated[int, typer.Option(min=2, help="Synthetic studies.")] = 50,
    jobs: Annotated[int, typer.Option(min=1, help="Workers of both.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 2,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "benchmarks/results"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.")] = False,
) -> None:
    """Time a local Ray against the local pool."""
    if not is_installed():
        raise typer.BadParameter("needs ray: pip install '.[ray]'")
    found = measure(studies, jobs, rounds)
    output.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(found["runs"]).to_csv(output / "scale_out.csv", index=False)
    (output / "scale_out.json").write_text(json.dumps(found, indent=1) + "\n")
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        typer.echo(
            f"local {found['median_seconds']['local']:.1f} s, ray {found['median_seconds']['ray']:.1f} s"
        )
        typer.echo(f"ray / local {found['ray_over_local']:.2f}, same bytes: {found['same_bytes']}")


if __name__ == "__main__":
    typer.run(main)
