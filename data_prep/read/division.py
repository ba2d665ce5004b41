"""Images that one folder or one identifier holds together, divided into the acquisitions they come from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from data_prep.geometry import Orientation
from data_prep.names import numbered
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.read.dicom_file import read_pixels
from data_prep.read.parts import grouped
from data_prep.read.series_names import traits_of
from data_prep.read.slice_header import SliceHeader
from data_prep.read.weighting import told_by_headers

# Times of one echo differ by rounding, or from slice to slice; two at one place are two echoes.
_SAME_ECHO, _SAME_ECHO_AT_A_PLACE = 1.12, 1.02
_MOSTLY_SHARED = 0.5
_STATIONS_APART_MM = 60.0
_FEWEST_OF_A_STATION = 3
_FEWEST_OF_A_STACK = 4

Headers = list[SliceHeader]


def divided(
    series_id: str, headers: Sequence[SliceHeader], taken: Iterable[str] = ()
) -> tuple[dict[str, Headers], list[Rejection]]:
    """The acquisitions of a series, and a rejection for images at one place that nothing tells apart.

    They are divided where SeriesInstanceUID differs (where it is missing: description, echo time or plane),
    and the parts do not show the same: sagittal slices and others, T1 and T2. Parts that show the same stay
    together, as a data set has them: the stacks of an axial series may have identifiers of their own. Then
    what lies at one place is divided by what sets it apart: the kind of image (Dixon, calculated), the echo,
    the station, and identifiers.

    Args:
        taken: identifiers of the other series.

    Returns:
        Headers by series id. The part that names ``series_id``, else the largest, keeps the id; the others
        get a number behind it.
    """
    parts = [part for shown in _by_what_is_shown(headers) for part in _by_place(shown)]
    named = f".{series_id}"
    parts.sort(key=lambda part: (not any(f".{h.series_uid}".endswith(named) for h in part), -len(part)))
    places = {id(header): place for place, header in enumerate(headers)}
    found: dict[str, Headers] = {}
    rejections: list[Rejection] = []
    part_ids: list[str] = []
    for part in parts:
        part_id = numbered(series_id, {*taken, *part_ids}) if part_ids else series_id
        part_ids.append(part_id)
        if _are_not_told_apart(part):
            message = f"different images lie at one place, and nothing tells its {len(part)} images apart"
            rejections.append(Rejection(Reason.ONE_PLACE, message, series_id=part_id))
        else:
            found[part_id] = sorted(part, key=lambda header: places[id(header)])
    return found, rejections


def _by_what_is_shown(headers: Sequence[SliceHeader]) -> list[Headers]:
    by_acquisition: dict[Hashable, Headers] = defaultdict(list)
    planes = Counter((h.series_uid, h.plane.orientation is Orientation.SAGITTAL) for h in headers)
    for header in headers:
        sagittal = header.plane.orientation is Orientation.SAGITTAL
        # Slices of a localiser lie across each other under one identifier, and are recognised by it.
        across = all(planes[header.series_uid, plane] >= _FEWEST_OF_A_STACK for plane in (True, False))
        own: Hashable = (header.series_uid, header.description, across and sagittal)
        if not header.series_uid and "LOCALIZER" not in header.image_type:
            own = ("", header.description, header.echo_time_ms, sagittal)
        by_acquisition[own].append(header)
    if len(by_acquisition) < 2:
        return [list(headers)] if headers else []
    by_shown: dict[Hashable, Headers] = defaultdict(list)
    for group in by_acquisition.values():
        shown = Counter(header.plane.orientation is Orientation.SAGITTAL for header in group)
        by_shown[shown.most_common(1)[0][0], told_by_headers(group).weighting].extend(group)
    return list(by_shown.values())


def _by_place(headers: Headers) -> list[Headers]:
    """Divide by each thing in turn that sets images of one place apart."""
    parts = [headers]
    for key in _KEYS:
        parts = [part for whole in parts for part in _divided_by(whole, key)]
    return [station for part in parts for station in _stations(part)]


def _divided_by(headers: Headers, key: Callable[[Headers], list[Hashable]]) -> list[Headers]:
    """Groups of equal keys; one group where the groups do not lie at the same places."""
    groups: dict[Hashable, Headers] = defaultdict(list)
    for value, header in zip(key(headers), headers, strict=True):
        groups[value].append(header)
    if len(groups) < 2:
        return [headers]
    holders: dict[Hashable, set[Hashable]] = defaultdict(set)
    for value, group in groups.items():
        for header in group:
            holders[header.place].add(value)
    if all(len(values) == 1 for values in holders.values()):
        return [headers]
    return list(groups.values())


def _image_kind(headers: Headers) -> list[Hashable]:
    return [traits_of([header]).marks for header in headers]


def _echo(headers: Headers) -> list[Hashable]:
    """The number of the echo, by its time."""
    places: dict[float, set[Hashable]] = defaultdict(set)
    for header in headers:
        places[header.echo_time_ms or 0.0].add(header.place)
    numbers: dict[float, int] = {}
    number, first, taken = -1, 0.0, set[Hashable]()
    for time in sorted(places):
        is_another = time > _SAME_ECHO_AT_A_PLACE * first and bool(taken & places[time])
        if number < 0 or is_another or time > _SAME_ECHO * max(first, 1e-3):
            number, first, taken = number + 1, time, set()
        numbers[time] = number
        taken |= places[time]
    return [numbers[header.echo_time_ms or 0.0] for header in headers]


def _unless_numbered(get: Callable[[SliceHeader], Hashable]) -> Callable[[Headers], list[Hashable]]:
    """A key that counts only where instance numbers occur twice, or most places do.

    One series has each number once, and may show a place again.
    """

    def key(headers: Headers) -> list[Hashable]:
        if _is_numbered(headers) and not _is_mostly_shared(headers):
            return [None] * len(headers)
        return [get(header) for header in headers]

    return key


_KEYS: tuple[Callable[[Headers], list[Hashable]], ...] = (
    _image_kind,
    _echo,
    lambda headers: [header.echo_number for header in headers],
    lambda headers: [header.temporal_position for header in headers],
    _unless_numbered(lambda header: header.series_uid),
    _unless_numbered(lambda header: header.path.parent),
    _unless_numbered(lambda header: header.frame_uid),
    _unless_numbered(lambda header: header.acquisition_number),
    _unless_numbered(lambda header: header.image_type[2:]),
)


def _is_numbered(headers: Headers) -> bool:
    """Whether every image has a number of its own; copies of one have the same."""
    numbers = list({header.sop_uid or id(header): header.instance_number for header in headers}.values())
    return None not in numbers and len(set(numbers)) == len(numbers)


def _stations(headers: Headers) -> list[Headers]:
    """Slices that lie one beside the other in their plane, as of the upper and the lower spine, apart."""
    first = headers[0].plane
    if not all(header.plane.is_parallel_to(first, 1.0) for header in headers):
        return [headers]
    centres = np.stack([header.plane.centre_mm for header in headers])
    across = (centres - centres[0]) @ np.stack([first.x_axis, first.y_axis]).T
    axis = int(np.argmax(np.ptp(across, axis=0)))
    order = np.argsort(across[:, axis], kind="stable")
    gaps = np.flatnonzero(np.diff(across[order, axis]) > _STATIONS_APART_MM)
    parts = [[headers[i] for i in sorted(part)] for part in np.split(order, gaps + 1)]
    if len(parts) < 2 or min(map(len, parts)) < _FEWEST_OF_A_STATION:
        return [headers]
    depths = [np.array([header.plane.centre_mm @ first.normal for header in part]) for part in parts]
    # Not at the same depths to the millimetre: the table moves along the patient, not along oblique slices.
    are_beside = min(float(depth.max()) for depth in depths) > max(float(depth.min()) for depth in depths)
    return parts if are_beside else [headers]


def _are_not_told_apart(headers: Headers) -> bool:
    """Whether most places have several images, which differ: one slice may have been taken again."""
    if not _is_mostly_shared(headers):
        return False
    return any(_differ(group) for group in _shared(headers)[:3])


def _is_mostly_shared(headers: Headers) -> bool:
    places = len({header.place for header in headers})
    return places >= _FEWEST_OF_A_STATION and len(_shared(headers)) >= _MOSTLY_SHARED * places


def _shared(headers: Headers) -> list[Headers]:
    """The images of each place that has several, copies of one file not counted."""
    by_place = grouped(headers, lambda header: header.place).values()
    return [group for group in by_place if len({h.sop_uid or id(h) for h in group}) > 1]


def _differ(group: Headers) -> bool:
    try:
        first, *others = [read_pixels(header) for header in group]
    except DicomRejected:
        return False
    return any(other.shape != first.shape or not np.array_equal(other, first) for other in others)
