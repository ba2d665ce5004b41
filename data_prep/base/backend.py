"""Which library runs the networks; importable without any of them."""

from __future__ import annotations

import os
from enum import StrEnum
from importlib.util import find_spec

from data_prep.problems import LumbarError


class Backend(StrEnum):
    """What runs the networks. ``auto``: OpenVINO on a processor, torch on a GPU or without OpenVINO."""

    AUTO = "auto"
    OPENVINO = "openvino"
    TORCH = "torch"


class BackendUnusable(LumbarError, ValueError):
    """The backend that was asked for cannot run here. The message says what can be done."""


def resolve_backend(backend: Backend | str, *, device: str = "cpu") -> Backend:
    """``openvino`` or ``torch``, the latter being the reference and all that runs on a GPU.

    Raises:
        BackendUnusable: OpenVINO was asked for on another device than the processor, or is not installed.
    """
    backend = Backend(backend)
    if backend is Backend.TORCH:
        return backend
    if device != "cpu":
        if backend is Backend.OPENVINO:
            raise BackendUnusable(f"OpenVINO runs on the processor, not on {device!r}: use --backend torch")
        return Backend.TORCH
    if find_spec("openvino") is None:
        if backend is Backend.OPENVINO:
            raise BackendUnusable("openvino is not installed: use --backend torch")
        return Backend.TORCH
    return Backend.OPENVINO


def available_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
