"""Which part of the data a study belongs to, decided by its identifier alone.

Parts of one study lie in several data sets (sagittal slices here, axial ones there), and data sets grow: a
rule that looks at nothing but the identifier gives every part of a study the same answer for ever, in every
data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import StrEnum

_TENTHS = 10
# Two studies of which the project holds every image, and which its figures end to end are measured on.
_COMPLETE_STUDIES = frozenset({"100206310", "4003253"})


class Part(StrEnum):
    """What a study may be used for.

    ``train`` is learned from; ``validation`` chooses and calibrates; ``test`` does neither, ever.
    """

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def part_of(study_id: str) -> Part:
    """The part of a study or patient: by the SHA-256 of its identifier a tenth each is validation and
    test."""
    if study_id in _COMPLETE_STUDIES:
        return Part.TEST
    tenth = int.from_bytes(hashlib.sha256(study_id.encode()).digest()[:8], "big") % _TENTHS
    return {0: Part.TEST, 1: Part.VALIDATION}.get(tenth, Part.TRAIN)


def studies_of(study_ids: Iterable[str], part: Part) -> frozenset[str]:
    """Those of some studies that belong to a part."""
    return frozenset(study_id for study_id in study_ids if part_of(study_id) is part)
