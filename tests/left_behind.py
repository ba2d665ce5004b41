"""What a test may change of its process, by which tests of other files, run after it, would fail or pass."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

_OWN_VARIABLES: Final = ("PYTEST_CURRENT_TEST",)


def state_of_process() -> dict[str, Any]:
    """By name, what files of tests share; of modules that are not loaded, nothing.

    Not what the program sets once for its process: hooks for failures, threads, Ray's signals.
    """
    of_modules: dict[str, Callable[[Any], Any]] = {
        "pipeline.commands.console": lambda console: console.verbosity(),
        "torch": lambda torch: (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()),
    }
    variables = {key: value for key, value in os.environ.items() if key not in _OWN_VARIABLES}
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in ("lumbar", "lumbar.serve"))]
    return {
        "working directory": Path.cwd(),
        "umask": _umask(),
        "numpy's errors": np.geterr(),
        "logging disabled": logging.root.manager.disable,
        **{f"logger {one.name!r}": (one.level, one.disabled, one.propagate) for one in loggers},
        **{f"variable {key}": value for key, value in variables.items()},
        **{name: ask(sys.modules[name]) for name, ask in of_modules.items() if name in sys.modules},
    }


def left_behind(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is otherwise than before, in words, apart from modules loaded since, and what those set."""
    gone = object()
    return [
        f"{name}: {before[name]!r} → {after.get(name, gone)!r}"
        for name in before
        if after.get(name, gone) != before[name]
    ] + [f"{name}: new" for name in after if name not in before and name.startswith("variable LUMBAR")]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
