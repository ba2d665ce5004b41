"""What must agree before images are taken for one patient's and one examination's.

An identifier that is missing says nothing; one that every anonymiser writes says nothing either.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from data_prep.problems import Reason, Rejection
from data_prep.read.dicom_header import name_digests
from data_prep.read.slice_header import SliceHeader

_PLACEHOLDERS = (
    "ANON",
    "ANONYM",
    "ANONYMOUS",
    "ANONYMIZED",
    "ANONYMISED",
    "ANONYMIZE",
    "DEIDENTIFIED",
    "NAME",
    "NONAME",
    "NO NAME",
    "NONE",
    "NULL",
    "PATIENT",
    "REMOVED",
    "TEST",
    "UNKNOWN",
)
_NOTHING = re.compile(r"[0\-_.*?#X ]*|N/?A|DE[-_ ]?IDENTIFIED", re.IGNORECASE)
_NAME_PLACEHOLDERS = {
    name_digests(word.encode())[0]
    for name in _PLACEHOLDERS
    for word in (name, f"{name}^{name}", f"{name}^PATIENT", f"PATIENT^{name}")
}
_NO_DATES = ("", "00000000", "00010101", "19000101", "19700101", "11111111")
Headers = Mapping[str, Sequence[SliceHeader]]
_MESSAGES = {
    Reason.OTHER_PATIENT: "belongs to another patient than most images of the study",
    Reason.OTHER_STUDY: "belongs to another examination than most images of the study",
}


class Identity(NamedTuple):
    """Whose image it is and of which day; "" for what is not said. Never written anywhere."""

    patient_id: str = ""
    name_digest: str = ""
    birth_date: str = ""
    study_date: str = ""
    script_digest: str = ""


def identity_of(header: SliceHeader) -> Identity:
    """What a header says of patient and examination, placeholders of anonymisers left out."""
    name = header.patient_name_digest
    birth, study = (
        "" if date in _NO_DATES else date
        for date in (header.birth_date.replace(".", ""), header.study_date.replace(".", ""))
    )
    is_placeholder = name in _NAME_PLACEHOLDERS
    script = "" if is_placeholder else header.patient_script_digest
    return Identity(real_patient_id(header), "" if is_placeholder else name, birth, study, script)


def real_patient_id(header: SliceHeader) -> str:
    """PatientID; "" for one that anonymisers give to everybody."""
    text = " ".join(header.patient_id.upper().split())
    return "" if text in _PLACEHOLDERS or _NOTHING.fullmatch(text) else text


def disagree(a: Identity, b: Identity) -> bool:
    """Whether anything that both say differs."""
    return any(mine and other and mine != other for mine, other in zip(a, b, strict=True))


def joined(a: Identity, b: Identity) -> Identity:
    """What the two say together."""
    return Identity(*(mine or other for mine, other in zip(a, b, strict=True)))


def clusters(identities: Sequence[Identity]) -> dict[Identity, int]:
    """Identity → number of its cluster; those of one cluster agree in everything that they say.

    One that says little joins the only cluster that it agrees with; where there are several, nobody knows
    which is meant, and it stays alone.
    """
    counts = Counter(identities)
    order = sorted(counts, key=lambda item: (-sum(map(bool, item)), -counts[item], item))
    found: list[Identity] = []
    number: dict[Identity, int] = {}
    for item in order:
        fitting = [place for place, cluster in enumerate(found) if not disagree(item, cluster)]
        if len(fitting) == 1:
            number[item] = fitting[0]
            found[fitting[0]] = joined(found[fitting[0]], item)
        else:
            number[item] = len(found)
            found.append(item)
    return number


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
