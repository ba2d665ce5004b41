"""Several slices that show one target alike: each is read, and their probabilities are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from data_prep.levels import SpineLevels
from data_prep.vocabulary import Target

Probabilities = dict[Target, NDArray[np.float64]]


def other_readings(levels: SpineLevels) -> list[SpineLevels]:
    """The second slice of each target that is read on several, the third ones, and so on."""
    count = max((len(point.also) for point in levels.points), default=0)
    return [
        replace(levels, points=tuple(point.also[k] for point in levels.points if len(point.also) > k))
        for k in range(count)
    ]


def averaged(levels: SpineLevels, found: Probabilities, others: Sequence[Probabilities]) -> Probabilities:
    """The mean over all slices on which a target could be read, by their shares."""
    mean = dict(found)
    for target in found:
        point = levels.point(target.condition, target.level)
        if point is None or not point.also:
            continue
        read = [(point.share, found[target])]
        read += [
            (other.share, own[target])
            for other, own in zip(point.also, others, strict=False)
            if target in own
        ]
        mean[target] = np.average([p for _, p in read], axis=0, weights=[share for share, _ in read])
    return mean
