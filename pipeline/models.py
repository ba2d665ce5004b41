"""Which models are used: a bundle by name, or a folder of one's own."""

from __future__ import annotations

from pathlib import Path

import classifier
import detector
from data_prep.base.bundles import DEFAULT_BUNDLE, Bundle
from data_prep.base.manifest import MANIFEST_NAME, WeightsRejected

_BUNDLED = {"detector": detector.BUNDLED_WEIGHTS, "classifier": classifier.BUNDLED_WEIGHTS}


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
