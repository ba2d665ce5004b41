"""The two sets of models that come with the project, by what they learned from and who may use them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path


class Bundle(StrEnum):
    """Models that ship with the project.

    ``research`` learned from annotated slices of real patients of the RSNA data set (LumbarDISC), too: the
    best on real patients, for non-commercial research and education. ``open`` learned from synthetic spines
    and openly licensed images alone.
    """

    RESEARCH = "research"
    OPEN = "open"


DEFAULT_BUNDLE = Bundle.RESEARCH


def weights_folder(given: Path | None, bundled: Mapping[Bundle, Path]) -> Path:
    """The folder of ``research|open|FOLDER``; that of the default bundle where nothing is given.

    A bundle's name alone is a bundle: of a path that ends in it, and is not there, nothing is guessed.
    """
    bundle = named_bundle(given)
    return given if given is not None and bundle is None else bundled[bundle or DEFAULT_BUNDLE]


def named_bundle(given: Path | None) -> Bundle | None:
    """The bundle that ``research|open|FOLDER`` names, the default one for nothing; None for a folder."""
    if given is None:
        return DEFAULT_BUNDLE
    return Bundle(str(given)) if str(given) in set(Bundle) and not given.is_dir() else None
