"""One series from its image headers: duplicates out, stacks apart, slices in spatial order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from data_prep.geometry import SAME_ORIENTATION_COSINE, FloatArray, Orientation, SlicePlane
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.dicom_file import read_pixels
from data_prep.read.positions import positions_doubt
from data_prep.read.series_names import Weighting, traits_of
from data_prep.read.slice_header import SliceHeader
from data_prep.read.weighting import Told, largest_csf_ridge, told_by_headers, weighting_from_sagittal_image
from data_prep.study import Series, Slice
from data_prep.vocabulary import SeriesKind

# Slices of one acquisition agree to rounding; neighbouring disc-angled stacks may differ by half a degree.
_SAME_ANGLE_DEG = 0.2
_SAME_STACK_DEG = 3.0
_SAME_PLACE_MM = 0.1
_MIN_SHARE_OF_MAIN_ORIENTATION = 0.75
# Scanners write 0.3 to 1.2 mm; the networks have learned from phantoms of up to 2.5 mm.
_COARSE_MM = 2.6
_OBLONG = 1.5
# One slice may have been sent twice, or have two echoes.
_FEWEST_THAT_SPREAD = 3

_AXIS = {Orientation.SAGITTAL: 0, Orientation.CORONAL: 1, Orientation.AXIAL: 2}
_KIND: dict[tuple[Orientation, Weighting | None], SeriesKind] = {
    (Orientation.SAGITTAL, Weighting.T1): SeriesKind.SAGITTAL_T1,
    (Orientation.SAGITTAL, Weighting.T2): SeriesKind.SAGITTAL_T2,
    (Orientation.AXIAL, Weighting.T2): SeriesKind.AXIAL_T2,
}
_ORIENTATION_OF_KIND = {kind: orientation for (orientation, _), kind in _KIND.items()}

Numbered = tuple[int, SliceHeader]


def build_series(
    study_id: str,
    series_id: str,
    headers: Sequence[SliceHeader],
    *,
    numbered_by_name: bool = False,
    listed_kind: SeriesKind | None = None,
    protocol_tells: bool = True,
) -> tuple[Series, tuple[Rejection, ...]]:
    """Make a typed series of image headers, given in path order.

    The listed kind counts if it agrees with the orientation; else headers, then the image decide. The
    instance number is the file name (``numbered_by_name``), else InstanceNumber.

    Returns:
        The series, and what of it was not used, which does not name study and series again.

    Raises:
        DicomRejected: nothing given, a localiser, all images at one place, or none of the three kinds.
    """
    unique, rejections = _without_duplicates(headers)
    kept = _numbered_by_name(unique) if numbered_by_name else _numbered_by_header(unique)
    if not kept:
        raise DicomRejected(Rejection(Reason.NO_SLICES, "no image can be read"))
    orientation = _main_orientation(unique, listed_kind)
    axis = _AXIS[orientation]
    across = [pair for pair in kept if abs(pair[1].plane.normal[axis]) < SAME_ORIENTATION_COSINE]
    message = f"lies across the {orientation.value} slices of its series"
    rejections += [Rejection.of(header.path, Reason.LOCALISER, message) for _, header in across]
    along = [pair for pair in kept if pair not in across]
    if _claim_one_place(along):
        message = f"its {len(along)} images claim to lie at one place"
        raise DicomRejected(Rejection(Reason.BAD_GEOMETRY, message), tuple(rejections))
    stacks = tuple(
        tuple(_slice(number, header, study_id, series_id) for number, header in stack)
        for stack in _stacks(along, axis)
    )
    shown = [header for _, header in along]
    told = told_by_headers(shown, protocol_tells=protocol_tells)
    kind, source = _typed(orientation, told, stacks, listed_kind)
    named = told.weighting if source == "table" else None
    if named in (Weighting.T1, Weighting.T2) and _KIND.get((orientation, named)) is not kind:
        message = f"{kind.value} by the series table, {named.value} by its headers: the table was followed"
        rejections.append(Rejection(Reason.KIND_DISAGREES, message))
    if message := positions_doubt(stacks, shown):
        rejections.append(Rejection(Reason.POSITIONS_DOUBTFUL, message))
    traits = replace(traits_of(shown), is_degraded=_is_degraded(shown))
    series = Series(study_id, series_id, kind, stacks, source, traits)
    return series, tuple(rejections)


def weightings_compared(series: Sequence[Series]) -> tuple[Series, ...]:
    """The series of a study, where all sagittal ones seem to be of one kind: one is the other kind after all.

    A spine is imaged with T1 and T2. Of the series whose image alone said what they are, that with the
    brightest fluid is T2 if there is no other, and that with the darkest T1: beside each other they are told
    apart better than each alone (32 of 32 phantoms of choosing seeds, where 4 of 64 series alone were wrong).
    """
    kinds = {item.kind for item in series} & {SeriesKind.SAGITTAL_T1, SeriesKind.SAGITTAL_T2}
    sagittal = [item for item in series if item.kind in kinds]
    guessed = [item for item in sagittal if item.kind_source == "image"]
    if len(sagittal) < 2 or not guessed or len(kinds) != 1:
        return tuple(series)
    ridges = [largest_csf_ridge(item.main_stack) or 0.0 for item in guessed]
    if max(ridges) <= 0:
        return tuple(series)
    if SeriesKind.SAGITTAL_T1 in kinds:
        other, kind = guessed[int(np.argmax(ridges))], SeriesKind.SAGITTAL_T2
    elif len(guessed) == len(sagittal):
        other, kind = guessed[int(np.argmin(ridges))], SeriesKind.SAGITTAL_T1
    else:  # a second T2, perhaps, of a patient without T1
        return tuple(series)
    return tuple(replace(item, kind=kind) if item is other else item for item in series)


def _slice(number: int, header: SliceHeader, study_id: str, series_id: str) -> Slice:
    frame = None if header.frame is None else header.frame + 1
    read = partial(_pixels, header, study_id, series_id)
    return Slice(header.plane, number, read, header.path, frame)


def _pixels(header: SliceHeader, study_id: str, series_id: str) -> NDArray[np.float32]:
    """The pixels of an image; a rejection names study and series, which readers do not know."""
    try:
        return read_pixels(header) if header.reader is None else header.reader()
    except DicomRejected as rejected:
        placed = replace(rejected.rejection, study_id=study_id, series_id=series_id)
        raise DicomRejected(placed) from None


def _is_degraded(headers: Sequence[SliceHeader]) -> bool:
    """Whether the images are not as they were acquired, or coarser than those that the networks know."""
    spacings = np.array([header.plane.spacing_mm for header in headers])
    differ = bool((np.ptp(spacings, axis=0) > 0.02 * spacings.min(axis=0)).any())
    oblong = bool((spacings.max(axis=1) > _OBLONG * spacings.min(axis=1)).any())
    coarse = float(spacings.max()) > _COARSE_MM
    return differ or oblong or coarse or any(header.is_lossy for header in headers)


def _without_duplicates(headers: Sequence[SliceHeader]) -> tuple[list[SliceHeader], list[Rejection]]:
    """Drop later files with the identifier AND the place of an earlier one.

    The identifier alone is not enough: anonymisers have given one to all images of a series.
    """
    kept: list[SliceHeader] = []
    rejections: list[Rejection] = []
    by_uid: dict[str, list[SliceHeader]] = {}
    for header in headers:
        earlier = by_uid.setdefault(header.sop_uid, [])
        same = next((other for other in earlier if _same_grid(header.plane, other.plane)), None)
        if header.sop_uid and same is not None:
            message = "the same image was read from an earlier file"
            if _show_something_else(header, same):
                message = "an earlier file has its identifier and place, and shows something else"
            rejections.append(Rejection.of(header.path, Reason.DUPLICATE, message))
            continue
        earlier.append(header)
        kept.append(header)
    return kept, rejections


def _show_something_else(header: SliceHeader, other: SliceHeader) -> bool:
    try:
        return not np.array_equal(read_pixels(header), read_pixels(other))
    except DicomRejected:
        return False


def _numbered_by_name(headers: Sequence[SliceHeader]) -> list[Numbered]:
    """File name as instance number; files with other names get the numbers after the largest."""
    by_number: dict[int, SliceHeader] = {}
    others = []
    for header in headers:
        stem = header.path.stem
        if re.fullmatch(r"[0-9]{1,9}", stem) and int(stem) not in by_number:
            by_number[int(stem)] = header
        else:
            others.append(header)
    following = max(by_number, default=0) + 1
    return [*by_number.items(), *enumerate(others, start=following)]


def _numbered_by_header(headers: Sequence[SliceHeader]) -> list[Numbered]:
    """InstanceNumber if every image has its own, else the place in path order, from 1."""
    own = {header.instance_number: header for header in headers if header.instance_number is not None}
    return list(own.items() if len(own) == len(headers) else enumerate(headers, start=1))


def _same_grid(a: SlicePlane, b: SlicePlane) -> bool:
    return bool(
        np.allclose(a.origin_mm, b.origin_mm, atol=1e-3)
        and np.allclose(a.x_axis, b.x_axis, atol=1e-4)
        and np.allclose(a.y_axis, b.y_axis, atol=1e-4)
    )


def _claim_one_place(pairs: Sequence[Numbered]) -> bool:
    """Whether all of several images have the position of one: which of them lies where cannot be told."""
    first = pairs[0][1].plane
    return len(pairs) >= _FEWEST_THAT_SPREAD and all(
        np.allclose(header.plane.origin_mm, first.origin_mm, atol=1e-3) for _, header in pairs
    )


def _main_orientation(headers: Sequence[SliceHeader], listed_kind: SeriesKind | None) -> Orientation:
    """The orientation of most slices; that of the listed kind if any slice has it."""
    counts = Counter(header.plane.orientation for header in headers)
    listed = _ORIENTATION_OF_KIND.get(listed_kind) if listed_kind else None
    if listed is not None and counts[listed]:
        return listed
    main = max(counts, key=lambda orientation: (counts[orientation], orientation.value))
    axis = _AXIS[main]
    share = np.mean([abs(h.plane.normal[axis]) >= SAME_ORIENTATION_COSINE for h in headers])
    named = any({"LOCALIZER", "LOCALISER"} & set(header.image_type) for header in headers)
    if named or share < _MIN_SHARE_OF_MAIN_ORIENTATION:
        raise DicomRejected(Rejection(Reason.LOCALISER, "a localiser, not a diagnostic series"))
    return main


def _typed(
    orientation: Orientation,
    told: Told,
    stacks: tuple[tuple[Slice, ...], ...],
    listed_kind: SeriesKind | None,
) -> tuple[SeriesKind, str]:
    if listed_kind is not None and _ORIENTATION_OF_KIND[listed_kind] is orientation:
        return listed_kind, "table"
    weighting, source = told.weighting, "header"
    if weighting is None and orientation is Orientation.SAGITTAL:
        weighting, source = weighting_from_sagittal_image(max(stacks, key=len)), "image"
    elif weighting is None and orientation is Orientation.AXIAL and not told.contradicts:
        # All axial series of the RSNA data are T2; one that says nothing is taken for one.
        weighting, source = Weighting.T2, "assumed"
    kind = _KIND.get((orientation, weighting))
    if kind is not None:
        return kind, source
    if told.contradicts:
        message = "its name says one weighting and its times another"
        raise DicomRejected(Rejection(Reason.UNKNOWN_KIND, message))
    seen = f"{orientation.value} {weighting.value if weighting else 'of unknown weighting'}"
    raise DicomRejected(Rejection(Reason.UNKNOWN_KIND, f"{seen} is not used"))


def _stacks(pairs: Sequence[Numbered], axis: int) -> list[list[Numbered]]:
    """Groups of parallel slices in spatial order, themselves in spatial order.

    Slices of one angle are joined with those of another if they are parallel within 3° and the two do not
    overlap along the normal; images of the same place (two echoes, two stations) go to stacks of their own.
    """
    groups: list[list[Numbered]] = []
    for pair in pairs:
        plane = pair[1].plane
        for group in groups:
            if group[0][1].plane.is_parallel_to(plane, _SAME_ANGLE_DEG):
                group.append(pair)
                break
        else:
            groups.append([pair])
    groups.sort(key=lambda group: float(np.mean([p[1].plane.centre_mm[axis] for p in group])))
    joined: list[list[Numbered]] = []
    for group in groups:
        if joined and _continues(joined[-1], group, axis):
            joined[-1] = joined[-1] + group
        else:
            joined.append(group)
    return [layer for group in joined for layer in _layers(group, axis)]


def _normal(plane: SlicePlane, axis: int) -> FloatArray:
    return plane.normal if plane.normal[axis] >= 0 else -plane.normal


def _continues(stack: list[Numbered], group: list[Numbered], axis: int) -> bool:
    first = stack[0][1].plane
    if not group[0][1].plane.is_parallel_to(first, _SAME_STACK_DEG):
        return False
    normal = _normal(first, axis)
    below = max(float(header.plane.centre_mm @ normal) for _, header in stack)
    above = min(float(header.plane.centre_mm @ normal) for _, header in group)
    return above > below + _SAME_PLACE_MM


def _layers(group: list[Numbered], axis: int) -> list[list[Numbered]]:
    """Sort along the normal; a slice at the place of the one before it starts or continues another layer."""
    normal = _normal(group[0][1].plane, axis)

    def place(pair: tuple[int, SliceHeader]) -> float:
        return float(pair[1].plane.centre_mm @ normal)

    layers: list[list[Numbered]] = []
    for pair in sorted(group, key=lambda pair: (round(place(pair), 1), pair[0])):
        for layer in layers:
            if place(pair) - place(layer[-1]) > _SAME_PLACE_MM:
                layer.append(pair)
                break
        else:
            layers.append([pair])
    return layers
