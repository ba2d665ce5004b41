"""A child process that reads DICOM input under a memory limit, watched by a parent with a clock.

What a decoder does to its process (a crash, a hang, all of the memory) is then a line in a table. The parent
starts another child after each. Linux: the peak is measured by resetting ``VmHWM`` before each task.

    with BoundedReader() as reader:
        outcome = reader.run("file", path)
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MEGABYTE = 1024 * 1024
# Beyond a decoded image of the largest size that is read (64 MB as float32) and the decoder's own copies.
DEFAULT_MEMORY_MB = 512
DEFAULT_TIME_S = 10.0


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        kind: ``read``; ``rejected``, with reason codes; or what must never be: ``error`` (another exception),
            ``memory`` (the limit was hit), ``hang``, ``crash``.
        reasons: code → how many files, series or studies.
        detail: type of the exception, or the signal.
        slices: that were read, pixels and all.
        unexplained: files of the input that are neither a slice nor named in a rejection.
        seconds, peak_mb: of this input alone, in the child.
    """

    kind: str
    reasons: dict[str, int] = field(default_factory=dict)
    detail: str = ""
    slices: int = 0
    unexplained: int = 0
    seconds: float = 0.0
    peak_mb: float = 0.0

    @property
    def is_allowed(self) -> bool:
        """Whether a reader that keeps its promises may do this: to read, or to say by code why not."""
        return self.kind in ("read", "rejected") and not self.unexplained


class BoundedReader:
    """Runs tasks one after the other in a child; a context manager.

    Args:
        memory_mb: address space that the child may use beyond what it has after its imports.
        time_s: after which a task is a hang; wall clock, so it has to suit a busy machine.
    """

    def __init__(self, *, memory_mb: int = DEFAULT_MEMORY_MB, time_s: float = DEFAULT_TIME_S) -> None:
        self._memory_mb, self._time_s = memory_mb, time_s
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> BoundedReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._stop(self._child)

    def run(self, task: str, path: Path) -> Outcome:
        """Read a path as ``file`` (header and pixels), ``study`` or ``archive`` (find, load, decode)."""
        child = self._child or self._start()
        assert child.stdin is not None and child.stdout is not None
        begun = time.monotonic()
        try:
            child.stdin.write(json.dumps([task, str(path)]) + "\n")
            child.stdin.flush()
            readable = select.select([child.stdout], [], [], self._time_s)[0]
            answer = child.stdout.readline() if readable else ""
        except BrokenPipeError:
            readable, answer = [child.stdout], ""
        if answer:
            return Outcome(**json.loads(answer))
        self._stop(child)
        seconds = time.monotonic() - begun
        if not readable:
            return Outcome("hang", seconds=seconds)
        return Outcome("crash", detail=_ended(child.returncode), seconds=seconds)

    def _start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.bounded", str(self._memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self._child.stdout is not None
        assert self._child.stdout.readline() == "ready\n", "the child does not start"
        return self._child

    def _stop(self, child: subprocess.Popen[str]) -> None:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # what was not sent is lost with the child
                    stream.close()
        self._child = None


def _ended(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _status(key: str) -> float:
    """A figure of /proc/self/status in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def _do(task: str, path: Path) -> dict[str, Any]:
    from data_prep.problems import DicomRejected, Rejection
    from data_prep.read.dicom_file import read_pixels, read_slices
    from data_prep.read.find import find_studies
    from data_prep.read.opening import opened_input

    rejections: list[Rejection] = []
    slices = files = 0
    try:
        if task == "file":
            files = 1
            read_pixels(read_slices(path)[0])
            slices = 1
        else:
            with opened_input(path) as (folder, refused):
                rejections += refused
                files = sum(len(names) for _, _, names in os.walk(folder)) if task == "study" else 0
                for entry in find_studies(folder):
                    try:
                        study = entry.load()
                    except DicomRejected as rejected:
                        rejections += [*rejected.rejections, rejected.rejection]
                        continue
                    rejections += study.rejections
                    for item in (item for series in study.series for item in series.slices):
                        try:
                            item.pixels()
                            slices += 1
                        except DicomRejected as rejected:
                            rejections.append(rejected.rejection)
    except DicomRejected as rejected:
        rejections += [*rejected.rejections, rejected.rejection]
    if any("MemoryError" in item.message for item in rejections):
        return asdict(Outcome("memory"))
    named = sum(bool(item.file) for item in rejections)
    return asdict(
        Outcome(
            "rejected" if rejections else "read",
            dict(Counter(item.reason.value for item in rejections)),
            slices=slices,
            unexplained=max(0, files - slices - named),
        )
    )


def main() -> None:
    """The child: a task per line on stdin, an outcome per line on stdout."""
    import data_prep.read.dicom_file
    import data_prep.read.find
    import data_prep.read.opening  # noqa: F401

    limit = int(_status("VmSize") * MEGABYTE) + int(sys.argv[1]) * MEGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", flush=True)
    for line in sys.stdin:
        task, path = json.loads(line)
        Path("/proc/self/clear_refs").write_text("5")
        before, begun = _status("VmRSS"), time.perf_counter()
        try:
            outcome = _do(task, Path(path))
        except MemoryError:
            outcome = asdict(Outcome("memory"))
        except BaseException as error:  # what the promise forbids is what is looked for
            outcome = asdict(Outcome("error", detail=type(error).__name__))
        outcome["seconds"] = round(time.perf_counter() - begun, 4)
        outcome["peak_mb"] = round(max(0.0, _status("VmHWM") - before), 1)
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
