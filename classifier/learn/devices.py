"""Where a network computes, and in which precision."""

from __future__ import annotations

import re

import torch

from data_prep.problems import LumbarError


class DeviceUnusable(LumbarError, ValueError):
    """A device that is unknown or not there. The message says what can be used."""


def resolve_device(text: str) -> torch.device:
    """The device of a command line: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` (or ``1``), ``mps``.

    ``auto`` takes the first CUDA device, and the processor where there is none.

    Raises:
        DeviceUnusable: no such device here.
    """
    name = text.strip().lower()
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceUnusable("device 'mps' is not available here: use --device cpu")
        return torch.device("mps")
    found = re.fullmatch(r"(?:cuda)?:?(\d*)", name)
    if not name or found is None:
        raise DeviceUnusable(f"unknown device {text!r}: use auto, cpu, cuda, cuda:N or mps")
    number, there = int(found[1] or 0), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= there:
        raise DeviceUnusable(f"device {text!r} is not available: {there} CUDA devices here; use --device cpu")
    return torch.device("cuda", number)


def detector_device(device: torch.device) -> str:
    """The same device as ultralytics spells it: ``cpu``, ``mps`` or the number of a GPU."""
    return str(device.index or 0) if device.type == "cuda" else device.type


def mixed_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of mixed precision: bfloat16, float16 on GPUs that lack it, None where there is none.

    A processor without instructions for bfloat16 emulates it: a training step then takes nine times as long.
    """
    if device.type == "cpu":
        can = torch.cpu.get_capabilities()
        fast = any(can.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
        return torch.bfloat16 if fast else None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return None


def mixed_precision(device: torch.device, *, enabled: bool) -> torch.autocast:
    """The autocast block of a forward pass on this device."""
    dtype = mixed_dtype(device)
    on = enabled and dtype is not None
    return torch.autocast(device.type, dtype=dtype or torch.float32, enabled=on)
