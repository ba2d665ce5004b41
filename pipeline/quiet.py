"""What libraries say while they work on files of patients is heard by nobody."""

from __future__ import annotations

import logging
from typing import Final

# They quote header values, names of patients among them, in warnings and log lines.
_LIBRARIES: Final = ("pydicom", "pynetdicom", "highdicom", "pylibjpeg", "nibabel", "nibabel.global", "PIL")


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
