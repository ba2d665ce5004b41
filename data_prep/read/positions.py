"""Whether slices lie where a scanner would have put them, or where a program has.

An image cannot tell how far its neighbours lie away: only where planes of other series cross them is a wrong
step seen, and only along those. So headers are compared with each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_prep.geometry import FloatArray, Orientation
from data_prep.read.slice_header import SliceHeader
from data_prep.study import Slice, places_mm

# One slice may have been sent twice, or have two echoes.
_FEWEST_THAT_SPREAD = 3
# Of the thickness: a step below the first, or one alike while the spacing that is stated leaves a usual gap.
_LEAST_OF_THICKNESS, _SAME_STEP, _SHARE_OF_A_GAP = 0.45, 0.01, (1.05, 1.6)
# Of the spacing that is stated: half and twice as much is that of two passes, or of every second slice.
_ANOTHER_STEP, _REGULAR, _MOST = ((0.6, 0.9), (1.1, 1.8)), 0.03, 0.7
# Of a regular step.
_CROWDED, _A_HOLE = 0.95, 1.5
# In the plane for every mm across: five degrees. Rounded orientations lean by .3.
_LEANING, _LEAN_ALIKE, _FEWEST_LEANING = 0.0875, 0.02, 2
_SAME_WAY = float(np.cos(np.deg2rad(0.2)))


def positions_doubt(stacks: Sequence[Sequence[Slice]], headers: Sequence[SliceHeader]) -> str:
    """Why the positions of slices are not those of a scanner; "" if they may be.

    Programs that write images anew put them a thickness apart, without the gap, or a millimetre; or write
    that they are not tilted where their positions say so.
    """
    stack = max(stacks, key=len)
    if len(stack) < _FEWEST_THAT_SPREAD:
        return ""
    steps_mm = np.abs(np.diff(places_mm(stack)))
    if _lean(stack):
        return "its slices do not lie behind each other as they face: positions were followed"
    if stack[0].plane.orientation is Orientation.SAGITTAL and _is_out_of_place(stacks):
        return "a slice lies between others, and is missing elsewhere: positions were followed"
    thickness_mm, spacing_mm = (
        float(np.median([value for header in headers if (value := getattr(header, name))] or [0.0]))
        for name in ("thickness_mm", "spacing_mm")
    )
    stated_mm = max(spacing_mm, thickness_mm)
    if not stated_mm or not _is_another_step(steps_mm, thickness_mm, spacing_mm):
        return ""
    step_mm = float(np.median(steps_mm))
    return f"its slices lie {step_mm:.1f} mm apart, {stated_mm:.1f} by its headers: positions were followed"


def _is_another_step(steps_mm: FloatArray, thickness_mm: float, spacing_mm: float) -> bool:
    """Whether slices lie another step apart than their headers say."""
    step_mm = float(np.median(steps_mm))
    low, high = _SHARE_OF_A_GAP
    # Interpolated slices of 3-D acquisitions overlap by half.
    overlap = step_mm < _LEAST_OF_THICKNESS * thickness_mm and abs(step_mm - spacing_mm) > 0.05 * step_mm
    without_gap = (
        abs(step_mm - thickness_mm) <= _SAME_STEP * thickness_mm
        and low * thickness_mm <= spacing_mm <= high * thickness_mm
    )
    # Some scanners state the gap alone, and programs that cut volumes anew keep the spacing of these.
    stated = spacing_mm >= thickness_mm > 0 and _share_of_one(steps_mm) >= _MOST
    other = stated and any(least <= step_mm / spacing_mm <= most for least, most in _ANOTHER_STEP)
    return overlap or without_gap or other


def _lean(stack: Sequence[Slice]) -> bool:
    """Whether slices that face one way follow each other another way, as no scanner acquires them.

    So lie those whose tilt was replaced by the axes of the patient. Neighbours lean alike then; images that
    were cut by a border each lean by chance.
    """
    origins = np.array([item.plane.origin_mm for item in stack])
    normals = np.array([item.plane.normal for item in stack])
    apart, normal = np.diff(origins, axis=0), normals[:-1]
    across_mm = (apart * normal).sum(axis=1)
    follow = ((normal * normals[1:]).sum(axis=1) >= _SAME_WAY) & (np.abs(across_mm) > 0.1)
    if int(follow.sum()) < _FEWEST_THAT_SPREAD:
        return False
    steps = apart[follow] / across_mm[follow, None] - normal[follow]
    alike = np.linalg.norm(np.diff(steps, axis=0), axis=1) <= _LEAN_ALIKE
    lean = alike & (np.linalg.norm(steps[1:], axis=1) >= _LEANING)
    return int(lean.sum()) >= _FEWEST_LEANING


def _is_out_of_place(stacks: Sequence[Sequence[Slice]]) -> bool:
    """Whether a slice or two lie between others of regular ones, or on them, and leave a hole elsewhere."""
    first = max(stacks, key=len)[0].plane
    slices = [
        item for stack in stacks for item in stack if abs(item.plane.normal @ first.normal) >= _SAME_WAY
    ]
    steps_mm = np.diff(np.sort(places_mm(slices)))
    step_mm = float(np.median(steps_mm))
    crowded = steps_mm[steps_mm < _CROWDED * step_mm]
    # On another slice, or between two; slices of some structures alone lie one or more steps apart.
    between_mm = step_mm * (len(crowded) - 1)
    between = len(crowded) in (1, 2) and abs(float(crowded.sum()) - between_mm) <= _REGULAR * step_mm
    has_hole = bool((steps_mm > _A_HOLE * step_mm).any())
    return between and has_hole and _share_of_one(steps_mm) >= _MOST


def _share_of_one(steps_mm: FloatArray) -> float:
    """Of steps those that are as long as most of them."""
    step_mm = float(np.median(steps_mm))
    return float((np.abs(steps_mm - step_mm) <= _REGULAR * step_mm).mean())
