"""``lumbar predict`` killed with SIGKILL at random moments and started again, with the bundled weights.

    python -m benchmarks.interruption --runs 50 -o benchmarks/results

A batch of small synthetic studies is graded once undisturbed. Then it is started into an empty folder, killed
at a random moment, started again into the same folder, perhaps killed again, until it ends by itself; and so
on with other folders until there were as many kills as asked for. What must hold: every batch ends with the
same bytes as the undisturbed one, reports and pictures included; what was done before a kill is never done
again; the last run says how much it took over. Moments are drawn over the time that is needed for what is
left, counted from when the models are loaded: a kill before that would prove little.

Writes ``interruption.csv``, a line per kill, and ``interruption.json``. Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.base.csv_files import write_table
from data_prep.base.files import write_json
from data_prep.phantom import write_dataset
from pipeline.commands.console import SOME_REJECTED

FIRST_SEED = 200_950
# So that what comes after the last study is hit, too: the submission, the record, the index.
_SHORTEST_WORK_S = 0.5
_FIELDS = ("batch", "moment_s", "finished_before", "finished_after", "left_behind")


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        batch: which folder.
        moment_s: after the models were loaded.
        finished_before, finished_after: studies that were done when the process began and when it was killed.
        left_behind: files of half-written results.
    """

    batch: int
    moment_s: float
    finished_before: int
    finished_after: int
    left_behind: int


@dataclass(frozen=True)
class Batch:
    """One folder, killed until its run ended by itself.

    Attributes:
        same_bytes: as the undisturbed run.
        redone: files of finished studies that a later run wrote again; must be none.
        taken_over_right: the last run said that it took over every study that was finished.
    """

    kills: tuple[Kill, ...]
    same_bytes: bool
    redone: tuple[str, ...]
    taken_over_right: bool


def command(data: Path, out: Path) -> list[str]:
    """The program as a user runs it, everything on."""
    options = ["--sr", "--sc", "--json", "--quiet"]
    return [sys.executable, "-m", "pipeline", "predict", str(data), "-o", str(out), *options]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def killed_batch(
    start: Sequence[str],
    out: Path,
    expected: dict[str, bytes],
    *,
    number: int,
    max_kills: int,
    work_s: float,
    rng: random.Random,
) -> Batch:
    """Start, kill and start again until the run ends by itself.

    Args:
        start: the command that writes into ``out``.
        out: empty, or not there yet.
        expected: what an undisturbed run wrote.
        number: of this batch, for the table.
        max_kills: after so many the run is left alone.
        work_s: what an undisturbed run needs once its models are loaded.
        rng: draws the moments.
    """
    kills: list[Kill] = []
    redone: list[str] = []
    done = _finished(out)
    studies = sum(name.startswith("studies/") for name in expected)
    while True:
        process = subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        moment = None
        # A first start is always killed; later ones are left alone now and then, or no batch would end.
        if len(kills) < max_kills and (not kills or rng.random() < 0.75):
            moment = rng.random() * max(_SHORTEST_WORK_S, work_s * (1 - len(done) / studies))
            _wait_for_work(process, out)
        try:
            said, _ = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            said, _ = process.communicate()
        now = _finished(out)
        redone += [name for name, written in done.items() if now.get(name) != written]
        if process.returncode != -signal.SIGKILL:
            break
        partial = sum(1 for _ in out.rglob(".*.partial"))
        kills.append(Kill(number, round(moment or 0.0, 3), len(done), len(now), partial))
        done = now
        # Nobody holds it any more; the next start is waited for by it.
        (out / ".lock").unlink(missing_ok=True)
    taken_over = json.loads(said)["resumed"] if said else -1
    return Batch(tuple(kills), contents(out) == expected, tuple(redone), taken_over == len(done))


def _wait_for_work(process: subprocess.Popen[str], out: Path) -> None:
    """Until the models are loaded: the folder is locked then."""
    while not (out / ".lock").exists() and process.poll() is None:
        time.sleep(0.01)


def _finished(out: Path) -> dict[str, int]:
    """Finished studies and when their record was written, in nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "studies").glob("*.json")}


def batches(
    start: Callable[[Path], Sequence[str]],
    folder: Path,
    expected: dict[str, bytes],
    *,
    runs: int,
    work_s: float,
    rng: random.Random,
) -> Iterator[Batch]:
    """Batch after batch, each in a folder of its own below ``folder``, until there were enough kills.

    Args:
        start: the command that writes into a folder.
        folder: for the folders of the batches, which go when they are judged.
        expected: what an undisturbed run wrote.
        runs: how many kills.
        work_s: what an undisturbed run needs once its models are loaded.
        rng: draws the moments.
    """
    kills = number = 0
    while kills < runs:
        out = folder / str(number)
        batch = killed_batch(
            start(out), out, expected, number=number, max_kills=runs - kills, work_s=work_s, rng=rng
        )
        shutil.rmtree(out)
        kills += len(batch.kills)
        number += 1
        if not batch.kills:  # it ended before its moment came: the machine is less busy than it was
            work_s *= 0.7
        yield batch


def timed_run(start: Sequence[str], out: Path) -> float:
    """Run to the end; seconds that it took once its models were loaded."""
    process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    _wait_for_work(process, out)
    begun = time.monotonic()
    if process.wait() not in (0, SOME_REJECTED):
        raise RuntimeError(f"the undisturbed run ended with exit code {process.returncode}")
    return time.monotonic() - begun


def report_of(done: Sequence[Batch], arguments: argparse.Namespace) -> dict[str, Any]:
    """Totals for JSON."""
    kills = [kill for batch in done for kill in batch.kills]
    return {
        "studies": arguments.studies,
        "seed": arguments.seed,
        "kills": len(kills),
        "batches": len(done),
        "batches_with_the_same_bytes": sum(batch.same_bytes for batch in done),
        "kills_with_a_study_finished_before": sum(kill.finished_after > 0 for kill in kills),
        "kills_that_left_half_a_file": sum(kill.left_behind > 0 for kill in kills),
        "studies_done_twice": sum(len(batch.redone) for batch in done),
        "last_runs_that_took_over_all_that_was_done": sum(batch.taken_over_right for batch in done),
    }


def _write(done: Sequence[Batch], report: dict[str, Any], output: Path) -> None:
    write_json(output / "interruption.json", report, indent=1)
    write_table(
        output / "interruption.csv", _FIELDS, (asdict(kill) for batch in done for kill in batch.kills)
    )


def main() -> None:
    """Exit code 1 if a batch ended with other bytes or did a finished study again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50, help="kills")
    parser.add_argument("--studies", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true", help="the report on stdout")
    parser.add_argument("-o", "--output", type=Path, help="folder for interruption.csv and interruption.json")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = Path(tempfile.mkdtemp(prefix="lumbar-interruption-"))
    done: list[Batch] = []
    try:
        write_dataset(
            folder / "data", studies=arguments.studies, seed=FIRST_SEED, size="small", headers="pacs"
        )
        images = folder / "data" / "train_images"
        start, undisturbed = partial(command, images), folder / "undisturbed"
        work_s = timed_run(start(undisturbed), undisturbed)
        expected, rng = contents(undisturbed), random.Random(arguments.seed)
        for batch in batches(start, folder, expected, runs=arguments.runs, work_s=work_s, rng=rng):
            done.append(batch)
            print(f"batch {len(done)}: {len(batch.kills)} kills", file=sys.stderr)
            if arguments.output is not None:
                _write(done, report_of(done, arguments), arguments.output)
    finally:
        shutil.rmtree(folder)
    report = report_of(done, arguments)
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        for key, value in report.items():
            print(f"{key.replace('_', ' '):44}{value}")
    kept = all(batch.same_bytes and batch.taken_over_right and not batch.redone for batch in done)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
