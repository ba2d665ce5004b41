"""What the measured room of a foramen says of its grade, beside the grader's evidence.

    p ∝ level prior · exp(weight · logits + bias + slope · height)

``rooms.json`` of a weights folder holds the numbers (``classifier.learn.rooms`` fits them). A foramen in
which no room is seen has a height of 0: fat is lost where it is narrow. Where a folder has no such file, its
grader decides alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from classifier.calibration import softmax
from classifier.measure.rooms import foramen_rooms
from data_prep.base.manifest import WeightsRejected, read_listed
from data_prep.levels import SpineLevels
from data_prep.study import Study
from data_prep.vocabulary import Target

FILE_NAME: Final = "rooms.json"


@dataclass(frozen=True)
class RoomEvidence:
    """How evidence and height are joined.

    Attributes:
        weight: of the grader's logits.
        bias: a number per severity; they sum to 0.
        slope: a number per severity and millimetre of height; they sum to 0, and fall.

    Raises:
        ValueError: a number is not finite, the weight is negative, or a higher room would be a worse sign.
    """

    weight: float
    bias: tuple[float, float, float]
    slope: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not np.all(np.isfinite([self.weight, *self.bias, *self.slope])) or self.weight < 0:
            raise ValueError(f"numbers must be finite, and the weight not negative, but got {self}")
        if not self.slope[0] >= self.slope[1] >= self.slope[2]:
            raise ValueError(f"a higher room must not be a worse sign, but got {self}")

    def probabilities(
        self, logits: ArrayLike, height_mm: ArrayLike, log_prior: ArrayLike
    ) -> NDArray[np.float64]:
        """Unweighted probabilities (n, 3) from logits (n, 3), heights (n,) and log prior (n, 3)."""
        z = self.weight * np.asarray(logits, np.float64) + np.array(self.bias)
        z = z + np.asarray(height_mm, np.float64)[:, None] * np.array(self.slope)
        return softmax(z + np.asarray(log_prior, np.float64))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RoomEvidence:
        (n, m, s), (a, b, c) = (map(float, values[name]) for name in ("bias", "slope"))
        return cls(float(values["weight"]), (n, m, s), (a, b, c))


def heights_of(study: Study, levels: SpineLevels) -> dict[Target, float]:
    """Height (mm) of the room of every foramen that has a point on T1; 0 where none is seen."""
    return {
        Target(point.condition, point.level): 0.0 if room is None else room.height_mm
        for point, room in foramen_rooms(study, levels, seen_alone=False)
    }


def read_room_evidence(folder: Path) -> RoomEvidence | None:
    """That of a weights folder; None where its manifest lists none.

    Raises:
        WeightsRejected: the file is not as in the manifest, or says nothing that can be used.
    """
    content = read_listed(folder, FILE_NAME)
    if content is None:
        return None
    try:
        return RoomEvidence.from_dict(json.loads(content)["joint"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsRejected(
            f"'{folder.name}/{FILE_NAME}' cannot be used ({type(error).__name__}): "
            "`lumbar classifier rooms` fits it anew"
        ) from None
