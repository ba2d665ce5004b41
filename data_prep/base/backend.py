"""Which library runs the networks; importable without any of them."""

from __future__ import annotations

import math
import os
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from data_prep.problems import LumbarError

# Of the control group of a container, the second and the first version of the interface.
_QUOTAS = (
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


class Backend(StrEnum):
    """What runs the networks. ``auto``: ONNX Runtime on a processor, torch on a GPU or without it."""

    AUTO = "auto"
    ONNX = "onnx"
    TORCH = "torch"


class BackendUnusable(LumbarError, ValueError):
    """The backend that was asked for cannot run here. The message says what can be done."""


def resolve_backend(backend: Backend | str, *, device: str = "cpu") -> Backend:
    """``onnx`` or ``torch``, the latter being the reference and all that runs on a GPU.

    Raises:
        BackendUnusable: ONNX Runtime was asked for on another device than the processor, or is not
            installed.
    """
    backend = Backend(backend)
    if backend is Backend.TORCH:
        return backend
    if device != "cpu":
        if backend is Backend.ONNX:
            raise BackendUnusable(
                f"ONNX Runtime is used on the processor, not on {device!r}: use --backend torch"
            )
        return Backend.TORCH
    if find_spec("onnxruntime") is None:
        if backend is Backend.ONNX:
            raise BackendUnusable("onnxruntime is not installed: use --backend torch")
        return Backend.TORCH
    return Backend.ONNX


def available_threads() -> int:
    """Processors that this process may use; in a container with a quota, as many as it allows for."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = min(_quota(*files) for files in _QUOTAS)
    return max(1, min(count, math.ceil(allowed))) if math.isfinite(allowed) else count


def _quota(*files: str) -> float:
    """Processors' worth of time that a control group may use; infinite without a limit.

    Args:
        files: that hold, one after the other, the microseconds of each period and the period.
    """
    try:
        quota, period = " ".join(Path(file).read_text(encoding="ascii") for file in files).split()
        # "max" or -1: as much as there is.
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
