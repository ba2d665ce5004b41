"""What must agree before images are taken for one patient's and one examination's.

An identifier that is missing says nothing; one that every anonymiser writes says nothing either.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

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
