"""Processes that work beside others."""

from __future__ import annotations

import os
import threading
import time

_POLL_S = 0.5


def end_with_parent(parent: int) -> None:
    """Let this process end when the one that started it is gone, however it went."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def spare_threads() -> None:
    """Let numpy multiply on one thread, unless the environment says otherwise; before numpy is imported.

    What grading multiplies is small: further threads of OpenBLAS only wait, and burn what the networks could
    use. Measured on two busy processors, the filters of a border took 6 ms instead of 42 of processor time.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def on_one_thread() -> None:
    """For a process beside others that do the same; before torch is imported."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import cv2

    cv2.setNumThreads(1)
