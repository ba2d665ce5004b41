"""The two sets of models that come with the project, by what they learned from and who may use them."""

from __future__ import annotations

from enum import StrEnum


class Bundle(StrEnum):
    """Models that ship with the project.

    ``research`` learned from annotated slices of real patients of the RSNA data set (LumbarDISC), too: the
    best on real patients, for non-commercial research and education. ``open`` learned from synthetic spines
    and openly licensed images alone.
    """

    RESEARCH = "research"
    OPEN = "open"


DEFAULT_BUNDLE = Bundle.RESEARCH
