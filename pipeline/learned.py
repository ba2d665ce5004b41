"""What the graders learned from, and under which licence: every result says it, and all of them read it here.

A weights folder says so in its ``manifest.json``, beside ``files``: ``learned_from`` and ``licence``, each
one line without a full stop. One that says nothing is the bundle that learned from synthetic anatomy alone,
or somebody's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from data_prep.base.bundles import Bundle
from data_prep.base.manifest import MANIFEST_NAME, read_told

SYNTHETIC_ONLY: Final = (
    "The graders learned from synthetic anatomy alone: how well they grade real patients has not been shown."
)
OWN_WEIGHTS: Final = "The graders have weights of your own: their model card says what they learned from."


@dataclass(frozen=True)
class Learned:
    """What a weights folder says of itself; empty where it does not."""

    source: str = ""
    licence: str = ""


def read_learned(folder: Path) -> Learned:
    """What the manifest of a weights folder says; nothing where it cannot be read."""
    told = read_told(folder)
    return Learned(told.get("learned_from", ""), told.get("licence", ""))


def learned_words(models: Mapping[str, str], learned: Learned) -> str:
    """One or two sentences for people.

    Args:
        models: ``classifier/spinal.safetensors`` → SHA-256 …, of the weights that were used.
        learned: what their manifest says.
    """
    if learned.source:
        under = f" Licence of the weights: {learned.licence}." if learned.licence else ""
        return f"The graders learned from {learned.source}.{under}"
    return SYNTHETIC_ONLY if are_bundled(models) else OWN_WEIGHTS


def caption(models: Mapping[str, str], learned: Learned) -> str:
    """The same for a line below a picture."""
    if learned.source:
        return f"Graders learned from {learned.source} - not a medical device"
    what = "trained on synthetic anatomy" if are_bundled(models) else "with weights of your own"
    return f"Graders {what} - not a medical device"


def are_bundled(models: Mapping[str, str]) -> bool:
    """Whether every grader is one that ships with the project, by the hashes of the weights."""
    graders = {name: digest for name, digest in models.items() if name.startswith("classifier/")}
    bundled = [listed for bundle in Bundle if (listed := _listed("classifier", bundle))]
    return any(all(listed.get(name) == digest for name, digest in graders.items()) for listed in bundled)


def have_seen_rsna(models: Mapping[str, str]) -> bool:
    """Whether a network of either stage is one of the ``research`` bundle, by the hashes of the weights."""
    return any(_research().get(name) == digest for name, digest in models.items())


@cache
def _research() -> Mapping[str, str]:
    """Weights of ``research`` that ``open`` does not share; none in a copy of the project without them."""
    found = {bundle: _listed("detector", bundle) | _listed("classifier", bundle) for bundle in Bundle}
    shared = set(found[Bundle.OPEN].values())
    return {name: digest for name, digest in found[Bundle.RESEARCH].items() if digest not in shared}


@cache
def _listed(stage: str, bundle: Bundle) -> dict[str, str]:
    """The files of a stage of a bundle; none in a copy of the project without it."""
    manifest = files(stage).joinpath("weights", bundle.value, MANIFEST_NAME)
    if not manifest.is_file():
        return {}
    listed = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    return {f"{stage}/{name}": digest for name, digest in listed.items()}
