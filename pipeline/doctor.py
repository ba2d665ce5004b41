"""Looks at an installation: what is there, which weights are the released ones, what works, and how fast."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_prep.base.backend import Backend, available_threads
from data_prep.base.graph import SUFFIX, is_of
from data_prep.base.manifest import verify_manifest
from data_prep.base.version import version_of
from data_prep.problems import LumbarError
from data_prep.vocabulary import TARGETS
from pipeline import __version__
from pipeline.extras import EXTRAS
from pipeline.models import bundled_folders

_PACKAGES = ("onnxruntime", "safetensors", "numpy", "pydicom", "highdicom", "matplotlib", "torch")
# `lumbar phantom --studies 1 --seed 200001`, without its tables but that of series.
_SAMPLE = Path(__file__).with_name("self_test.zip")
# Of the synthetic patient's 25 targets, those that a sound installation finds by sight.
_LEAST_SEEN = 20


def examine(*, self_test: bool) -> dict[str, Any]:
    """Everything that ``lumbar doctor`` says, for JSON."""
    found: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {available_threads()} processors",
        "packages": {name: version_of(name) for name in _PACKAGES} | {"opencv": _opencv()},
        "extras": {
            extra.name: {
                "missing": list(extra.missing),
                "does": extra.does,
                "install": extra.how_to_install if extra.missing else None,
            }
            for extra in EXTRAS
        },
        "models": _models(),
        "backends": _backends(),
        "devices": _devices(),
        "self_test": None,
    }
    sound = all(model["state"] == "verified" for model in found["models"].values())
    works = any(state == "works" for state in found["backends"].values())
    if self_test and sound and works:
        found["self_test"] = _self_test()
    tested = found["self_test"] is None or found["self_test"]["state"] == "passed"
    found["can_grade"] = sound and works and tested
    return found


def _opencv() -> str | None:
    """Either of the two packages that bring it; None also where its system libraries are missing."""
    try:
        import cv2
    except ImportError:
        return None
    return str(cv2.__version__)


def _models() -> dict[str, Any]:
    found = {}
    for stage, folder in bundled_folders().items():
        try:
            digests = verify_manifest(folder)
            weights = sorted(name for name in digests if name.endswith(".safetensors"))
            graphs = [name for name in weights if _has_graph(folder, name)]
            found[stage] = {"state": "verified", "weights": weights, "run_without_torch": graphs == weights}
        except LumbarError as rejected:
            found[stage] = {"state": f"refused: {rejected}", "weights": [], "run_without_torch": False}
    return found


def _has_graph(folder: Path, name: str) -> bool:
    graph = (folder / name).with_suffix(SUFFIX)
    return graph.is_file() and is_of(graph.read_bytes(), (folder / name).read_bytes())


def _backends() -> dict[str, str]:
    found = {}
    for name, module in ((Backend.ONNX, "onnxruntime"), (Backend.TORCH, "torch")):
        if find_spec(module) is None:
            found[name.value] = "not installed"
            continue
        try:
            __import__(module)
            found[name.value] = "works"
        except (ImportError, OSError) as error:
            found[name.value] = f"cannot be loaded ({type(error).__name__})"
    if find_spec("ultralytics") is None and found[Backend.TORCH.value] == "works":
        found[Backend.TORCH.value] = "lacks ultralytics: pip install 'lumbar[train]'"
    return found


def _devices() -> list[str]:
    found = ["cpu"]
    if find_spec("torch") is not None:
        import torch

        found += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        found += ["mps"] if torch.backends.mps.is_available() else []
    return found


def _self_test() -> Mapping[str, Any]:
    """Grade a small synthetic patient twice; the second time is that of a warm program."""
    from pipeline.grade import Pipeline

    try:
        began = time.perf_counter()
        pipeline = Pipeline.load()
        loaded = time.perf_counter()
        (first,) = pipeline.predict(_SAMPLE)
        again = time.perf_counter()
        (second,) = pipeline.predict(_SAMPLE)
        done = time.perf_counter()
    except Exception as error:  # whatever is wrong with an installation, it is told
        return {"state": f"failed ({type(error).__name__})"}
    seen = sum(grade.source == "seen" for grade in first.grades.values())
    same = all((first.grades[t].probabilities == second.grades[t].probabilities).all() for t in TARGETS)
    return {
        "state": "passed" if seen >= _LEAST_SEEN and same else "failed: levels were not found",
        "load_s": round(loaded - began, 3),
        "first_study_s": round(again - loaded, 3),
        "study_s": round(done - again, 3),
        "targets_seen": seen,
    }
