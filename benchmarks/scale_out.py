"""Ray against the local pool: ``lumbar predict``, the same studies and number of workers, in turns.

    python -m benchmarks.scale_out --studies 50 --jobs 2 --rounds 2 --reports -o benchmarks/results

Synthetic studies (with the matrices of real ones, unless ``--size small``; seeds of the reporting range) are
graded with the bundled models, each time by a process of its own, which is timed from its start to its end.
``cluster`` is ``--engine ray --address`` of one that is running. ``bare`` is without pictures and reports;
with ``--reports``, ``usual`` is measured, too, as the command does without options. ``steady`` is from the
first finished study to the last one. Written are ``scale_out.csv`` (every run) and ``scale_out.json``;
``ratio`` is the median over that of the local pool.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from data_prep.phantom import write_dataset
from data_prep.synthetic import Size
from pipeline.batch.ray_engine import is_installed

FIRST_SEED = 200_000
ENGINES = ("local", "cluster")
SOMETHING_REJECTED = 3  # such as slices of a very steep L5/S1
OUTPUTS = {"bare": ("--no-pictures", "--no-report"), "usual": ()}

# On the loopback address, with a token, modules found as here, and workers with the priority of local ones.
_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
}

# Prints its address and lives until its stdin is closed.
_CLUSTER = """
import ray, sys
ray.init(num_cpus=int(sys.argv[1]), include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[2])
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def running_cluster(jobs: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a Ray cluster of one node, and the environment of those who may use it."""
    environment = os.environ | _ENVIRONMENT
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        cluster = subprocess.Popen(
            [sys.executable, "-c", _CLUSTER, str(jobs), folder],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert cluster.stdin is not None and cluster.stdout is not None
        try:
            address = cluster.stdout.readline().strip()
            if not address:
                raise SystemExit("the cluster did not start")
            yield address, environment
        finally:
            cluster.stdin.close()
            cluster.wait(60)


def timed_run(
    data: Path, out: Path, options: list[str], environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """Seconds of one run of the command, and the SHA-256 of everything that it wrote."""
    command = [sys.executable, "-m", "pipeline", "predict", str(data), "-o", str(out), "--quiet", *options]
    began = time.time()
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=environment)
    seconds = time.time() - began
    if done.returncode not in (0, SOMETHING_REJECTED):
        raise SystemExit(f"the command ended with {done.returncode}")
    # A study's record is written last, when the study is finished.
    ends = sorted(path.stat().st_mtime - began for path in (out / "studies").iterdir())
    digest = hashlib.sha256()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(out)}\n".encode() + path.read_bytes())
    return {
        "seconds": round(seconds, 2),
        "seconds_to_first_study": round(ends[0], 2),
        "steady_seconds_per_study": round((ends[-1] - ends[0]) / (len(ends) - 1), 3),
        "sha256": digest.hexdigest(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def timed_engine(engine: str, data: Path, out: Path, jobs: int, options: Sequence[str]) -> dict[str, Any]:
    """``timed_run`` on one of the engines; a cluster starts before it and ends after it."""
    options = ["--jobs", str(jobs), *options]
    if engine == "cluster":
        with running_cluster(jobs) as (address, environment):
            return timed_run(data, out, ["--engine", "ray", "--address", address, *options], environment)
    return timed_run(data, out, options)


def measure(
    studies: int, size: Size, jobs: int, rounds: int, reports: bool, data: Path | None = None
) -> dict[str, Any]:
    """All runs and what they come to; ``data`` has the studies that would otherwise be made."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if data is None:
            data = folder / "data"
            write_dataset(data, studies=studies, seed=FIRST_SEED, size=size, jobs=jobs)
        for output in OUTPUTS if reports else ("bare",):
            for number in range(rounds):
                # Who goes first changes: what else runs on the machine meets both.
                for engine in ENGINES[:: -1 if number % 2 else 1]:
                    out = folder / f"{output}-{engine}-{number}"
                    row: dict[str, Any] = {"output": output, "round": number, "engine": engine}
                    rows.append(row | timed_engine(engine, data, out, jobs, OUTPUTS[output]))
                    typer.echo(json.dumps(rows[-1]), err=True)
        written = json.loads((folder / "bare-local-0" / "predictions.json").read_text())
    return {
        "studies": len(written["studies"]),
        "size": size,
        "jobs": jobs,
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "software": written["provenance"]["software"],
        **compared(rows),
        "runs": rows,
    }


def compared(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Ray beside the local pool, for each kind of output that was measured."""
    figures: dict[str, Any] = {}
    for output in dict.fromkeys(row["output"] for row in rows):
        mine = [row for row in rows if row["output"] == output]
        median = {
            engine: statistics.median(row["seconds"] for row in mine if row["engine"] == engine)
            for engine in ENGINES
        }
        figures[output] = {
            "median_seconds": median,
            "ratio": {
                engine: round(median[engine] / median["local"], 3) for engine in ENGINES if engine != "local"
            },
            "same_bytes": len({row["sha256"] for row in mine}) == 1,
        }
    return figures


def main(
    studies: Annotated[int, typer.Option(min=2, help="Synthetic studies.")] = 50,
    size: Annotated[Size, typer.Option(help="Matrices: of real studies, or small.")] = "full",
    jobs: Annotated[int, typer.Option(min=1, help="Workers of both.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 2,
    reports: Annotated[bool, typer.Option("--reports", help="With pictures and reports, too.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Studies of `lumbar phantom`, made before."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "runs/benchmarks"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.")] = False,
) -> None:
    """Time Ray against the local pool."""
    if not is_installed():
        raise typer.BadParameter("needs ray: pip install '.[ray]'")
    found = measure(studies, size, jobs, rounds, reports, data)
    output.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(found["runs"]).to_csv(output / "scale_out.csv", index=False)
    (output / "scale_out.json").write_text(json.dumps(found, indent=1) + "\n")
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for name in (name for name in OUTPUTS if name in found):
        figures, seconds = found[name], found[name]["median_seconds"]
        for engine, ratio in figures["ratio"].items():
            typer.echo(
                f"{name}: local {seconds['local']:.1f} s, {engine} {seconds[engine]:.1f} s, "
                f"{engine} / local {ratio:.2f}, same bytes: {figures['same_bytes']}"
            )


if __name__ == "__main__":
    typer.run(main)
