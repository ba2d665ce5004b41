"""The program as a process of its own that need not import: it is forked from one that has done nothing else.

It says what it says, and ends as it ends, like one that was started, but the second that imports take is
spent once for many. For tests of what is said; where the start itself matters, a process is started.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONWARNINGS": "always", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
# What ``predict`` imports; the modules that replace parts of it are imported by each process.
_IMPORTED = (
    "pipeline.cli",
    "pipeline.commands.grading_steps",
    "pipeline.results.dicom.write",
    "pipeline.results.report.study_report",
    "tests.pipeline.stand_in",
)


def run_warm(
    module: str,
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """``python -m MODULE ARGUMENTS`` with every warning on; ``environment`` is added to this process's."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        wanted = {
            "module": module,
            "arguments": list(arguments),
            "cwd": str(cwd or Path.cwd()),
            "environment": {**os.environ, **ENVIRONMENT, **(environment or {})},
            "out": out.name,
            "err": err.name,
        }
        server.stdin.write(json.dumps(wanted).encode() + b"\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(wanted["arguments"], code, out.read(), err.read())


@cache
def _server() -> subprocess.Popen[bytes]:
    """Ends when this process does, which closes its input."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.pipeline.warm_program"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
        cwd=ROOT,
    )


def _serve() -> None:
    for name in _IMPORTED:
        import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("an import has started a thread, which a fork would leave behind")
    for line in sys.stdin:
        wanted = json.loads(line)
        child = os.fork()
        if child == 0:
            return _become(**wanted)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(
    module: str, arguments: list[str], cwd: str, environment: dict[str, str], out: str, err: str
) -> None:
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        os.dup2(os.open(path, flags), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve()
