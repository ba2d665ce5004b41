"""Which library runs the networks; importable without any of them."""

from __future__ import annotations

import os
from enum import StrEnum
from importlib.util import find_spec

from data_prep.problems import LumbarError


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
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
