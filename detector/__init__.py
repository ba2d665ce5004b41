"""Stage 1: finds every intervertebral level in every series. Imports data_prep only."""

from pathlib import Path

from data_prep.base.manifest import Bundle

# Folders of the weights that ship with the project.
BUNDLED_WEIGHTS = {bundle: Path(__file__).parent / "weights" / bundle.value for bundle in Bundle}
