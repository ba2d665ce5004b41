"""Which models are used: a bundle by name, or a folder of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import classifier
import detector
from data_prep.base.bundles import DEFAULT_BUNDLE, Bundle
from data_prep.base.manifest import MANIFEST_NAME, WeightsRejected


def bundled_folders() -> dict[str, Path]:
    """``detector/open`` … → folder of the weights that ship with the project, in whole or in part."""
    stages = {"detector": detector.BUNDLED_WEIGHTS, "classifier": classifier.BUNDLED_WEIGHTS}
    return {
        f"{stage}/{bundle.value}": folder
        for stage, bundles in stages.items()
        for bundle, folder in bundles.items()
        if folder.is_dir() or bundle is DEFAULT_BUNDLE
    }


@dataclass(frozen=True)
class ModelFolders:
    """The folders of both stages."""

    detector: Path
    classifier: Path

    def by_stage(self) -> dict[str, Path]:
        """Stage → folder."""
        return {"detector": self.detector, "classifier": self.classifier}


def model_folders(
    models: str | Path | None = None,
    *,
    detector_weights: Path | None = None,
    classifier_weights: Path | None = None,
) -> ModelFolders:
    """The folders of the weights to use.

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
        found = ModelFolders(detector.BUNDLED_WEIGHTS[bundle], classifier.BUNDLED_WEIGHTS[bundle])
    else:
        found = _in_folder(Path(name))
    return ModelFolders(detector_weights or found.detector, classifier_weights or found.classifier)


def _in_folder(folder: Path) -> ModelFolders:
    for place in (folder / "weights", folder):
        both = ModelFolders(place / "detector", place / "graders")
        if all((part / MANIFEST_NAME).is_file() for part in both.by_stage().values()):
            return both
    raise WeightsRejected(
        f"models '{folder.name}': neither research nor open, nor a folder with detector/ and graders/ as "
        "`lumbar train` writes them"
    )
