"""Where the voxels of a NIfTI volume lie: its header's claims, its affine, and which axis is the slices'.

NIfTI counts in RAS+ millimetres (NIfTI-1, section 'orientation'); everything here is DICOM's LPS+.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.crops import display_axes
from data_prep.geometry import FloatArray, SlicePlane
from data_prep.problems import Reason
from data_prep.read.dicom_limits import Refused

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_MAX_DISTANCE_MM = 10_000.0
_MIN_SPACING_MM, _MAX_SPACING_MM = 0.01, 100.0
# The slice axis of a clinical series is several times as thick as a pixel is wide.
_CLEARLY_THICKER = 1.2
# Codes of NIfTI-1: coordinates of the scanner, or aligned to another image of the patient.
_OF_SCANNER = (1, 2)
# Quaternions of qform are rounded.
_SAME_MM = 1.0
_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}
_AXIAL_WORDS = re.compile(r"(^|[^a-z])(ax|axial|tra|trans|transversal)([^a-z]|$)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Claims:
    """What the header of a volume says, checked against the limits.

    Attributes:
        header: of nibabel.
        shape: (3,) voxels along the axes of the array.
        offset: first byte of the voxels in the file as it unpacks.
    """

    header: Any
    shape: tuple[int, int, int]
    offset: int


@dataclass(frozen=True, eq=False)
class Layout:
    """How the slices of a volume lie in its array.

    Attributes:
        slice_axis, row_axis, column_axis: of the array; an image's rows follow each other along
            ``row_axis``.
        turned: whether rows and columns are counted from the far end, so that every slice is upright:
            sagittal head up and front left, axial front up and the patient's right on the left.
    """

    slice_axis: int
    row_axis: int
    column_axis: int
    turned: tuple[bool, bool]


def affine_of(header: Any) -> FloatArray:
    """(4, 4) voxel → patient LPS millimetres. Raises Refused."""
    mm_per_unit = _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    affine = _stated_affine(header, mm_per_unit)
    affine[:3] = _RAS_TO_LPS @ affine[:3] * mm_per_unit
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or np.abs(affine[:3, 3]).max() > _MAX_DISTANCE_MM:
        raise Refused(
            Reason.BAD_GEOMETRY, f"the volume lies farther than {_MAX_DISTANCE_MM:g} mm from the isocentre"
        )
    if sides.min() < _MIN_SPACING_MM or sides.max() > _MAX_SPACING_MM:
        message = f"voxels must have sides of {_MIN_SPACING_MM:g} to {_MAX_SPACING_MM:g} mm"
        raise Refused(Reason.BAD_GEOMETRY, message)
    if abs(float(np.linalg.det(affine[:3, :3] / sides))) < 0.5:
        raise Refused(Reason.BAD_GEOMETRY, "the axes of the volume are not independent")
    return affine


def _stated_affine(header: Any, mm_per_unit: float) -> FloatArray:
    """(4, 4) as the header has it: sform, else qform; qform where sform is that of an atlas.

    Programs change one and leave the other; readers disagree on which to believe, and if the two are not the
    same, nobody knows where left is.
    """
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if sform <= 0 and qform <= 0:
        raise Refused(Reason.MISSING_GEOMETRY, "neither sform nor qform says where the voxels lie")
    if sform <= 0 or (sform not in _OF_SCANNER and qform in _OF_SCANNER):
        return np.array(header.get_qform(), dtype=np.float64)
    affine = np.array(header.get_sform(), dtype=np.float64)
    if qform > 0 and (sform in _OF_SCANNER) == (qform in _OF_SCANNER):
        ends = np.array([0, 1]) * (np.array(header.get_data_shape()[:3])[:, None] - 1)
        corners = np.stack([*map(np.ravel, np.meshgrid(*ends)), np.ones(8)])
        apart = np.linalg.norm(((affine - header.get_qform()) @ corners)[:3], axis=0).max() * mm_per_unit
        if not apart <= _SAME_MM:
            raise Refused(
                Reason.BAD_GEOMETRY,
                f"sform and qform place its voxels differently, up to {apart:.3g} mm apart",
            )
    return affine


def layout_of(affine: FloatArray, claims: Claims, name: str) -> Layout:
    """Which axis counts the slices (by thickness, header or file name), and what makes them upright."""
    axis = _slice_axis(affine, claims, name)
    column_axis, row_axis = (other for other in range(3) if other != axis)
    plain = Layout(axis, row_axis, column_axis, (False, False))
    plane = plane_of(affine, claims.shape, plain, 0)
    rightwards, downwards = display_axes(plane)
    if abs(float(rightwards @ plane.x_axis)) < 0.5:
        row_axis, column_axis = column_axis, row_axis
    columns = affine[:3, column_axis] @ rightwards < 0
    rows = affine[:3, row_axis] @ downwards < 0
    return Layout(axis, row_axis, column_axis, (bool(rows), bool(columns)))


def _slice_axis(affine: FloatArray, claims: Claims, name: str) -> int:
    """The thickest axis; of voxels as thick as wide, what the header or the name says, else left to right."""
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    thinner, thickest = np.sort(sides)[1:]
    if thickest > _CLEARLY_THICKER * thinner:
        return int(np.argmax(sides))
    stated = claims.header.get_dim_info()[2]
    if stated is not None and min(claims.shape) == claims.shape[stated]:
        return int(stated)
    wanted = 2 if _AXIAL_WORDS.search(name) else 0  # up, else left, in LPS
    return int(np.argmax(np.abs(affine[wanted, :3]) / sides))


def plane_of(affine: FloatArray, shape: tuple[int, int, int], layout: Layout, index: int) -> SlicePlane:
    """Where one slice lies in the patient. Raises Refused."""
    first = np.zeros(3)
    first[layout.slice_axis] = index
    steps = []
    for axis, turned in zip((layout.row_axis, layout.column_axis), layout.turned, strict=True):
        first[axis] = shape[axis] - 1 if turned else 0
        steps.append(affine[:3, axis] * (-1.0 if turned else 1.0))
    down, right = (float(np.linalg.norm(step)) for step in steps)
    try:
        return SlicePlane(
            origin_mm=affine[:3, :3] @ first + affine[:3, 3],
            x_axis=steps[1] / right,
            y_axis=steps[0] / down,
            spacing_mm=(right, down),
            shape=(shape[layout.row_axis], shape[layout.column_axis]),
        )
    except ValueError as error:
        raise Refused(Reason.BAD_GEOMETRY, str(error)) from None
