"""The program as a process of its own that need not import: it is forked from one that has done nothing else.

It says what it says, and ends as it ends, like one that was started, but the seconds that imports take are
spent once for many. For tests of what is said and done; where the start itself matters, a process is started.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.kept import KEPT_VARIABLE, Kept, compute_once

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONWARNINGS": "always", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
# What ``predict`` imports; the modules that replace parts of it are imported by each process.
_IMPORTED = (
    "pipeline.cli",
    "pipeline.commands.grading_steps",
    "pipeline.results.dicom.write",
    "pipeline.results.report.study_report",
    "pydantic",
    "numpy.ma",
    "numpy.polynomial",
    "typer._adapters",
    "tests.pipeline.stand_in",
)
_DRAWING = (
    "pipeline.results.pictures.montage",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.patheffects",
)
_GRADING = ("detector.predict", "classifier.predict", "classifier.storage", *_DRAWING)
# What others import beyond that: module or word of the command line → modules.
_IMPORTED_FOR = {
    "pipeline": _GRADING,
    "pipeline.container": ("pipeline.container.modules", *_GRADING),
    "serve": ("pipeline.service.run", "pipeline.service.dicomweb", *_DRAWING),
    "app": ("pipeline.app.server", *_DRAWING),
    "--sc": _DRAWING,
}


class WarmProcess:
    """A process that runs, with what ``subprocess.Popen`` offers of the same names."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        if self.returncode is None:
            self.returncode = _asked({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The exit code, once it has ended. Raises TimeoutExpired."""
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start_warm(
    module: str,
    arguments: Sequence[str],
    *,
    out: Path,
    err: Path,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> WarmProcess:
    """``python -m MODULE ARGUMENTS`` that says what it says at the end of two files, or of one.

    Every warning is on; ``environment`` is added to this process's.
    """
    for path in (out, err):
        path.touch()
    wanted = {
        "module": module,
        "arguments": list(arguments),
        "cwd": str(cwd or Path.cwd()),
        "environment": {**os.environ, **ENVIRONMENT, **(environment or {})},
        "out": str(out),
        "err": str(err),
    }
    return WarmProcess(_asked({"start": wanted}))


def run_warm(
    module: str,
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """``python -m MODULE ARGUMENTS``, when it has ended; see ``start_warm``."""
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        process = start_warm(
            module, arguments, out=Path(out.name), err=Path(err.name), cwd=cwd, environment=environment
        )
        code = _asked({"wait": process.pid})
        return subprocess.CompletedProcess(list(arguments), code, out.read(), err.read())


def _asked(request: Mapping[str, Any]) -> Any:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(request).encode() + b"\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


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


def _import(names: Sequence[str]) -> None:
    # Earlier versions of a library have not all of its modules.
    names = [name for name in names if name in sys.modules or find_spec(name) is not None]
    if all(name in sys.modules for name in names):
        return
    for name in names:
        import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("an import has started a thread, which a fork would leave behind")
    # What is there stays: no process need look through it for garbage.
    gc.collect()
    gc.freeze()


def _make() -> None:
    """What each process would make anew: the commands, and the code of the templates."""
    import typer.main

    from pipeline.cli import app
    from pipeline.results.report import pages

    typer.main.get_command = cache(typer.main.get_command)
    typer.main.get_command(app)
    environment = pages._environment()
    for name in environment.list_templates(extensions=["html"]):
        environment.get_template(name)


def _serve() -> None:
    _make()
    _import(_IMPORTED)
    for line in sys.stdin:
        request = json.loads(line)
        answer = None
        if (wanted := request.get("start")) is not None:
            for word in (wanted["module"], *wanted["arguments"]):
                _import(_IMPORTED_FOR.get(word, ()))
            answer = os.fork()
            if answer == 0:
                return _become(**wanted)
        elif "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            ended, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        print(json.dumps(answer), flush=True)


def _become(
    module: str, arguments: list[str], cwd: str, environment: dict[str, str], out: str, err: str
) -> None:
    appended = os.O_WRONLY | os.O_APPEND
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, out, appended), (2, err, appended)):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if (kept := environment.get(KEPT_VARIABLE)) is not None:
        compute_once(Kept(Path(kept)), lazily=True)
    os.fsync = lambda _: None  # see tests/conftest.py
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve()
