"""Which images belong together, where a folder says that they do and their headers do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from data_prep.problems import Reason, Rejection
from data_prep.read.identity import Identity, disagree, identity_of, joined
from data_prep.read.slice_header import SliceHeader

Headers = Mapping[str, Sequence[SliceHeader]]

_MESSAGES = {
    Reason.OTHER_PATIENT: "belongs to another patient than most images of the study",
    Reason.OTHER_STUDY: "belongs to another examination than most images of the study",
}


def of_one_patient(study_id: str, series: Headers) -> tuple[dict[str, list[SliceHeader]], list[Rejection]]:
    """The images of a study without those of another patient.

    An image is another patient's when its PatientID, the patient's name or birth date differs from those of
    most images, or from those of the images that name ``study_id``; it is of another examination when both
    StudyInstanceUID and date differ. StudyInstanceUID alone proves nothing: anonymisers make new ones.

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
        mine = []
        for header in headers:
            reason = None if owner is None else _strangeness(header, *owner)
            if reason is None:
                mine.append(header)
            else:
                rejections.append(
                    Rejection.of(
                        header.path, reason, _MESSAGES[reason], study_id=study_id, series_id=series_id
                    )
                )
        if mine or not headers:
            kept[series_id] = mine
    return kept, rejections


def _owner(study_id: str, headers: Iterable[SliceHeader]) -> tuple[Identity, str] | None:
    """(patient and date, study) of most images; those that name the study come first."""
    counts = Counter((identity_of(header), header.study_uid) for header in headers)
    if len(counts) < 2:
        return None

    def weight(pair: tuple[Identity, str]) -> tuple[int, int, tuple[Identity, str]]:
        return (pair[0].patient_id, pair[1]).count(study_id), counts[pair], pair

    owner, study = max(counts, key=weight)
    for identity, _ in sorted(counts, key=weight, reverse=True):
        if not disagree(identity, owner):
            owner = joined(owner, identity)
    return owner, study


def _strangeness(header: SliceHeader, owner: Identity, study: str) -> Reason | None:
    identity = identity_of(header)
    if disagree(identity._replace(study_date=""), owner):
        return Reason.OTHER_PATIENT
    if disagree(identity, owner) and header.study_uid != study:
        return Reason.OTHER_STUDY
    return None
