"""Graders of the 25 targets of a study, the official metric and the level prior."""

from pathlib import Path

from data_prep.base.manifest import Bundle

# Folders of the weights that ship with the project.
BUNDLED_WEIGHTS = {bundle: Path(__file__).parent / "weights" / bundle.value for bundle in Bundle}
