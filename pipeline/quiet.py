"""What libraries say while they work on files of patients, and what failures quote, is heard by nobody."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from types import TracebackType
from typing import Any, Final

# They quote header values, names of patients among them, in warnings and log lines.
_LIBRARIES: Final = ("pydicom", "pynetdicom", "highdicom", "pylibjpeg", "nibabel", "nibabel.global", "PIL")

# Frames of a failure, the innermost.
_SHOWN = 6


def silence_libraries() -> None:
    """For the rest of the process and in every thread: warnings and log lines of libraries go nowhere.

    ``warnings.catch_warnings`` is no help: it holds for all threads until one of them leaves its own.
    Nor is a filter, which any library may change. What is shown in the end is decided here.
    """
    logging.captureWarnings(True)
    for name in ("py.warnings", *_LIBRARIES):
        logger = logging.getLogger(name)
        logger.handlers[:] = [logging.NullHandler()]
        logger.propagate = False
    root = logging.getLogger()
    if not root.handlers:  # else Python prints what no handler takes
        root.addHandler(logging.NullHandler())


def failure_in_words(kind: type[BaseException] | None, trace: TracebackType | None) -> str:
    """A failure that nobody foresaw by its type and the lines of code that led to it, without its message.

    Messages quote header values and paths. ``LUMBAR_TRACEBACK=1`` in the environment shows everything.
    """
    places = [f"{_place(frame.filename)}:{frame.lineno}" for frame in traceback.extract_tb(trace)[-_SHOWN:]]
    name = kind.__name__ if kind is not None else "failure"
    return f"internal failure ({name}) at {' > '.join(places) or 'unknown'}: please report this line"


def say_failures_without_values() -> None:
    """For the rest of the process and in every thread: a failure that ends it quotes nothing of a patient."""
    if os.environ.get("LUMBAR_TRACEBACK"):
        return

    def of_process(kind: type[BaseException], _: BaseException | None, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            print(failure_in_words(kind, trace), file=sys.stderr)

    def of_thread(hint: threading.ExceptHookArgs | Any) -> None:
        of_process(hint.exc_type, hint.exc_value, hint.exc_traceback)

    sys.excepthook = of_process
    threading.excepthook = of_thread
    sys.unraisablehook = of_thread


def _place(file: str) -> str:
    """The last two parts: what is above may be named after whoever installed it."""
    return "/".join(file.replace("\\", "/").split("/")[-2:])
