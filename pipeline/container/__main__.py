"""Entry point of the container image: what the environment says, else the command line.

- ``MERCURE_IN_DIR`` and ``MERCURE_OUT_DIR``: a mercure processing module.
- ``MONAI_INPUTPATH`` and ``MONAI_OUTPUTPATH``: an application as MONAI Deploy starts it.
- neither: ``lumbar`` with the arguments given.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from data_prep.base.workers import spare_threads
from pipeline.quiet import say_failures_without_values


def main() -> int:
    """The exit code: 0 also when something was rejected on the way, which the result says."""
    spare_threads()
    say_failures_without_values()
    given = {name: os.environ.get(name) for name in ("MERCURE_IN_DIR", "MONAI_INPUTPATH")}
    if given["MERCURE_IN_DIR"]:
        from pipeline.container.modules import run_mercure

        return run_mercure(Path(given["MERCURE_IN_DIR"]), _folder("MERCURE_OUT_DIR"))
    if given["MONAI_INPUTPATH"]:
        from pipeline.container.modules import run_monai

        return run_monai(Path(given["MONAI_INPUTPATH"]), _folder("MONAI_OUTPUTPATH"))
    from pipeline.cli import main as command_line

    command_line()
    return 0


def _folder(name: str) -> Path:
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set: it names the folder to write into")
    return Path(value)


if __name__ == "__main__":
    sys.exit(main())
