"""What the program can do with which extra of its package, and what to install for what is not there."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final


@dataclass(frozen=True)
class Extra:
    """An optional part: ``pip install 'lumbar[name]'``.

    Attributes:
        modules: what it brings, as they are imported.
        does: what needs it.
        commands: of `lumbar`, those that need all of it.
    """

    name: str
    modules: tuple[str, ...]
    does: str
    commands: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Its modules that are not installed."""
        return tuple(module for module in self.modules if find_spec(module) is None)

    @property
    def how_to_install(self) -> str:
        """For a shell."""
        return f"pip install 'lumbar[{self.name}]'"


EXTRAS: Final[tuple[Extra, ...]] = (
    Extra("pictures", ("matplotlib", "PIL"), "pictures of studies, show", ("show",)),
    Extra(
        "dicom", ("highdicom", "dicomweb_client", "requests"), "--sr, --sc, --gsps, --kos; --from, an archive"
    ),
    Extra(
        "demo",
        ("scipy", "pandas"),
        "demo, phantom, phantom-check: synthetic patients",
        ("demo", "phantom", "phantom-check"),
    ),
    Extra(
        "train",
        ("torch", "torchvision", "ultralytics", "timm", "sklearn", "pandera", "yaml", "scipy", "pandas"),
        "train, score, check, annotations, the single stages, --backend torch, --device cuda and mps",
        ("train", "score", "check", "detector", "classifier", "annotations"),
    ),
    Extra("nifti", ("nibabel",), "NIfTI and BIDS as input"),
    Extra(
        "serve",
        ("pynetdicom", "highdicom", "dicomweb_client", "requests"),
        "serve, the DICOM node",
        ("serve",),
    ),
    Extra("app", ("fastapi", "uvicorn"), "app, the page on this machine"),
    Extra("ray", ("ray",), "predict --engine ray, on a cluster"),
    Extra("export", ("onnx",), "export, ONNX files; graphs of new weights", ("export",)),
)


def what_is_missing(module: str | None, command: str = "") -> str | None:
    """What to say of a module that cannot be imported; None for one that no extra brings.

    Args:
        command: of `lumbar`, which wanted it: several extras bring it.
    """
    top = (module or "").partition(".")[0]
    for extra in sorted(EXTRAS, key=lambda extra: command not in extra.commands):
        if top in extra.modules:
            return f"this needs {top}, which is not installed: {extra.how_to_install}"
    return None
