"""Which images belong together, where a folder says that they do and their headers do not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from data_prep.geometry import Orientation
from data_prep.names import printable
from data_prep.problems import Reason, Rejection
from data_prep.read.dicom_file import SliceHeader
from data_prep.read.weighting import weighting_from_headers

Headers = Mapping[str, Sequence[SliceHeader]]


def of_one_patient(study_id: str, series: Headers) -> tuple[dict[str, list[SliceHeader]], list[Rejection]]:
    """The images of a study without those of another patient.

    An image is another patient's when both its PatientID and its StudyInstanceUID differ from those of most
    images, or from those of the images that name ``study_id``; no StudyInstanceUID counts as another one. One
    of the two alone proves nothing: anonymisers make new identifiers, and a patient can be examined twice.

    Args:
        series: headers by series id.

    Returns:
        The headers that are left, series without any left out, and a rejection for each of the others.
    """
    everything = [header for headers in series.values() for header in headers]
    owner = _owner(study_id, everything)
    kept: dict[str, list[SliceHeader]] = {}
    rejections: list[Rejection] = []
    for series_id, headers in series.items():
        mine = [header for header in headers if owner is None or not _is_strange(header, owner)]
        if mine or not headers:
            kept[series_id] = mine
        rejections += [
            Rejection(
                Reason.OTHER_PATIENT,
                "belongs to another patient than most images of the study",
                study_id,
                series_id,
                printable(header.path.name),
            )
            for header in headers
            if owner is not None and _is_strange(header, owner)
        ]
    return kept, rejections


def _owner(study_id: str, headers: Iterable[SliceHeader]) -> tuple[str, str] | None:
    """(patient, study) of most images; those that name the study come first."""
    counts = Counter((header.patient_id, header.study_uid) for header in headers if header.patient_id)
    if len(counts) < 2:
        return None
    return max(counts, key=lambda pair: (study_id in pair, counts[pair], pair))


def _is_strange(header: SliceHeader, owner: tuple[str, str]) -> bool:
    patient, study = header.patient_id, header.study_uid
    return bool(patient) and patient != owner[0] and (not study or study != owner[1])


def acquisitions(series_id: str, headers: Sequence[SliceHeader]) -> dict[str, list[SliceHeader]]:
    """Images that one folder or one identifier holds together, divided into the acquisitions they come from.

    They are divided where SeriesInstanceUID differs (where it is missing: description, echo time or plane),
    and the parts do not show the same: sagittal slices and others, T1 and T2. Parts that show the same stay
    together, as a data set has them: the stacks of an axial series may have identifiers of their own.

    Returns:
        Headers by series id. The part that names ``series_id``, else the largest, keeps the id; the others
        get a number behind it.
    """
    by_shown: dict[tuple[object, ...], list[SliceHeader]] = defaultdict(list)
    by_acquisition: dict[tuple[object, ...], list[SliceHeader]] = defaultdict(list)
    for header in headers:
        sagittal = header.plane.orientation is Orientation.SAGITTAL
        # Slices of a localiser lie across each other under one identifier, and are recognised by it.
        own: tuple[object, ...] = (header.series_uid,)
        if not header.series_uid and "LOCALIZER" not in header.image_type:
            own = ("", header.description, header.echo_time_ms, sagittal)
        by_acquisition[own].append(header)
    if len(by_acquisition) < 2:
        return {series_id: list(headers)}
    for group in by_acquisition.values():
        planes = Counter(header.plane.orientation is Orientation.SAGITTAL for header in group)
        by_shown[planes.most_common(1)[0][0], weighting_from_headers(group)].extend(group)
    named = f".{series_id}"
    parts = sorted(
        by_shown.values(),
        key=lambda part: (not any(f".{h.series_uid}".endswith(named) for h in part), -len(part)),
    )
    places = {id(header): place for place, header in enumerate(headers)}
    return {
        series_id if number == 1 else f"{series_id}-{number}": sorted(part, key=lambda h: places[id(h)])
        for number, part in enumerate(parts, start=1)
    }
