"""Which models are used: a bundle by name, or a folder of one's own; and what their graders learned from.

Every result says that and the licence, and all of them read it here. A weights folder says so in its
``manifest.json``, beside ``files``: ``learned_from`` and ``licence``, each one line without a full stop. One
that says nothing is the bundle that learned from synthetic anatomy alone, or somebody's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import classifier
import detector
from data_prep.base.manifest import DEFAULT_BUNDLE, MANIFEST_NAME, Bundle, WeightsRejected

_BUNDLED = {"detector": detector.BUNDLED_WEIGHTS, "classifier": classifier.BUNDLED_WEIGHTS}
SYNTHETIC_ONLY: Final = (
    "The graders learned from synthetic anatomy alone: how well they grade real patients has not been shown."
)
OWN_WEIGHTS: Final = "The graders have weights of your own: their model card says what they learned from."


def bundled_folders() -> dict[str, Path]:
    """``detector/open`` … → folder of the weights that ship with the project, in whole or in part."""
    return {
        f"{stage}/{bundle.value}": folder
        for stage, bundles in _BUNDLED.items()
        for bundle, folder in bundles.items()
        if folder.is_dir() or bundle is DEFAULT_BUNDLE
    }


def model_folders(
    models: str | Path | None = None,
    *,
    detector_weights: Path | None = None,
    classifier_weights: Path | None = None,
) -> dict[str, Path]:
    """The folders of the weights to use: those of the stages ``detector`` and ``classifier``.

    Args:
        models: ``research``, ``open``, or a folder that holds ``detector/`` and ``graders/`` as
            ``lumbar train`` writes them (its run folder will do); None is the default bundle.
        detector_weights, classifier_weights: a folder for one stage, whatever ``models`` says of it.

    Raises:
        WeightsRejected: neither a bundle nor such a folder.
    """
    name = str(DEFAULT_BUNDLE if models is None else models)
    if name in set(Bundle):
        bundle = Bundle(name)
        found = {stage: bundles[bundle] for stage, bundles in _BUNDLED.items()}
    else:
        found = _in_folder(Path(name))
    given = {"detector": detector_weights, "classifier": classifier_weights}
    return {stage: given[stage] or folder for stage, folder in found.items()}


def _in_folder(folder: Path) -> dict[str, Path]:
    for place in (folder / "weights", folder):
        both = {"detector": place / "detector", "classifier": place / "graders"}
        if all((part / MANIFEST_NAME).is_file() for part in both.values()):
            return both
    raise WeightsRejected(
        f"models '{folder.name}': neither research nor open, nor a folder with detector/ and graders/ as "
        "`lumbar train` writes them"
    )


def learned_words(models: Mapping[str, str], learned: Mapping[str, str]) -> str:
    """One or two sentences for people.

    Args:
        models: ``classifier/spinal.safetensors`` → SHA-256 …, of the weights that were used.
        learned: what their manifest says, as ``read_told`` has it.
    """
    if source := learned.get("learned_from"):
        licence = learned.get("licence")
        under = f" Licence of the weights: {licence}." if licence else ""
        return f"The graders learned from {source}.{under}"
    return SYNTHETIC_ONLY if are_bundled(models) else OWN_WEIGHTS


def caption(models: Mapping[str, str], learned: Mapping[str, str]) -> str:
    """The same for a line below a picture."""
    if source := learned.get("learned_from"):
        return f"Graders learned from {source} - not a medical device"
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
