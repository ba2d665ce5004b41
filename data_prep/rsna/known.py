"""Which studies of the RSNA 2024 data the bundled ``research`` models know.

What these models say of a study that they learned from is better than what they will say of the next
patient. Whoever measures them on the RSNA data has to leave such studies out.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from data_prep.partition import Part, part_of

_FILE = Path(__file__).with_name("known_studies.npy")


@cache
def known_studies() -> frozenset[str]:
    """Identifiers of the studies of which some image was in the train or the validation part."""
    return frozenset(map(str, np.load(_FILE, allow_pickle=False).tolist()))


def said_of_calibrated(study_ids: Iterable[str]) -> str | None:
    """As ``said_of_known``, of the graders of ``open``, which took four numbers each from such studies."""
    given = set(study_ids)
    known = sum(part_of(study_id) is Part.VALIDATION for study_id in given & known_studies())
    if not known:
        return None
    return (
        f"{known} of these {len(given)} studies calibrated the foramen and recess graders of open, which "
        "took nothing else from them: their figures may be flattered a little"
    )


def said_of_known(study_ids: Iterable[str]) -> str | None:
    """A sentence for people about the studies among some that the ``research`` models know; None if none are.

    A study's part is ``data_prep.partition``'s.
    """
    given = set(study_ids)
    known = given & known_studies()
    if not known:
        return None
    learned = sum(part_of(study_id) is Part.TRAIN for study_id in known)
    return (
        f"of these {len(given)} studies the research models learned from {learned} and were chosen and "
        f"calibrated on {len(known) - learned}: figures of theirs are flattered here"
    )
