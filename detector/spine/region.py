"""Whether sagittal series show the lumbar spine, and which of several places in the patient does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_prep.geometry import FloatArray
from data_prep.study import Series
from detector.spine.chain import ChainDisc
from detector.spine.orientation import level_evidence

# Neighbouring lumbar discs are 30 to 40 mm apart, thoracic ones 20 to 28, those of the neck 15 to 20.
_LEAST_GAP_MM = 24.0
_FEWEST_DISCS = 3
# From the middle of a disc to that of the canal behind it: 23 to 32 mm in 28 patients of SPIDER (medians),
# 21.7 and more from T11/T12 to L1/L2, 18.8 and more on 104 single slices of patients; 16 to 17 in a
# neck whose every second disc goes unseen.
_LEAST_DEPTH_MM = 17.5
_UNSURE_EVIDENCE = 0.4
# Of the smaller of two views, from head to foot.
_SAME_VIEW = 0.5


def views_apart(series: Sequence[Series]) -> list[tuple[Series, ...]]:
    """Sagittal series by the part of the patient that they show, in the order of their first ones."""
    views: list[list[Series]] = []
    for item in series:
        for view in views:
            if _shared(_heights_mm(view[0]), _heights_mm(item)) >= _SAME_VIEW:
                view.append(item)
                break
        else:
            views.append([item])
    return [tuple(view) for view in views]


def _heights_mm(series: Series) -> FloatArray:
    """(2,) lowest and highest z of the middle slice."""
    plane = series.slices[len(series.slices) // 2].plane
    rows, columns = plane.shape
    z = plane.to_mm([[0, 0], [columns - 1, 0], [0, rows - 1], [columns - 1, rows - 1]])[:, 2]
    return np.array([z.min(), z.max()])


def _shared(a: FloatArray, b: FloatArray) -> float:
    shared = min(a[1], b[1]) - max(a[0], b[0])
    return float(shared / max(min(a[1] - a[0], b[1] - b[0]), 1e-6))


def lumbar_evidence(chain: Sequence[ChainDisc]) -> float:
    """How much a chain of discs looks lumbar: its evidence, none if it is too small."""
    if not chain or not _has_lumbar_size(chain):
        return 0.0
    return level_evidence(tuple(chain))[0]


def shows_lumbar_spine(series: Sequence[Series], chain: Sequence[ChainDisc]) -> bool:
    """Whether it is the lumbar spine that is seen: discs large and far enough apart, and what headers say.

    Headers that speak of another part of the body are a hint, believed where the image leaves a doubt.
    """
    if not _has_lumbar_size(chain):
        return False
    doubtful = lumbar_evidence(chain) < _UNSURE_EVIDENCE * len(chain)
    return not (doubtful and is_named_otherwise(series))


def is_named_otherwise(series: Sequence[Series]) -> bool:
    """Whether the headers of all series speak of another part of the body."""
    return all(item.traits.is_other_region for item in series)


def _has_lumbar_size(chain: Sequence[ChainDisc]) -> bool:
    if len(chain) < _FEWEST_DISCS:
        return True
    centres, canal = (
        np.stack(points) for points in zip(*((d.disc_mm, d.canal_mm) for d in chain), strict=True)
    )
    gap_mm = np.median(np.linalg.norm(np.diff(centres, axis=0), axis=1))
    depth_mm = np.median(np.linalg.norm(canal - centres, axis=1))
    return bool(gap_mm >= _LEAST_GAP_MM and depth_mm >= _LEAST_DEPTH_MM)
