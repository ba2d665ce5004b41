"""Names that may be written and said: identifiers, cells, and files that may be named after a patient."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container
from itertools import count
from pathlib import Path

_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_EXPORTERS_WORD = re.compile(
    r"[a-z]|anat|anon|anonymi[sz]ed|anonymous|archive|ax|axial|bad|broken|case|cd|closed|copy|coordinates|cor|coronal|csv|data|dcm"
    r"|descriptions|dicom|dir|dixon|empty|enh|enhanced|exam|export|exports|fat|file|files|frame|fs|fse|gz|im|ima|image|images"
    r"|img|in|inner|input|instance|job|junk|label|labels|link|localizer|loose|lspine|lumbar|missing|mixed|mr|mri|name|nii|note"
    r"|notes|of|open|opp|out|output|part|patient|patients|pd|phantom|png|readme|report|results|sag|sagittal|scan|scout|se|ser|series"
    r"|serie|ses|session|slice|slices|spine|st|stack|stir|studies|study|sub|subject|submission|table|tar|test|text|tirm|tra"
    r"|train|trans|truncated|tse|txt|unknown|visit|volume|water|zip"
)
_TELLING_SUFFIXES = (".dcm", ".ima", ".zip", ".csv", ".gz", ".nii", ".png", ".tar", ".tgz")
# BIDS, "Filenames": labels are codes by that standard.
_BIDS_NAME = re.compile(r"sub-[A-Za-z0-9]+(_[a-z]+-[A-Za-z0-9+]+)*_[A-Za-z0-9]+\.(nii|nii\.gz|json)")
# Cells that start so are formulas to spreadsheet programs (OWASP, "CSV Injection").
_FORMULA_STARTS = ("=", "+", "-", "@")


def safe_id(text: str) -> str:
    """An identifier from a header or a folder name, safe as a file name, in a CSV cell and on a terminal.

    Letters, digits, ``.``, ``_`` and ``-`` stay; an identifier that had anything else, or does not start
    with a letter or digit, gets eight characters of its SHA-256, so that two never become one.

    >>> safe_id("4003253"), safe_id("../etc")
    ('4003253', 'etc-f7f9121f')
    """
    if _PLAIN_ID.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = _NOT_PLAIN.sub("-", text).strip("._-")[:64]
    return f"{kept}-{digest}" if kept else f"id-{digest}"


def numbered(name: str, taken: Container[str]) -> str:
    """The name with the first number behind it that is not taken: two never become one."""
    return next(other for number in count(2) if (other := f"{name}-{number}") not in taken)


def printable(text: str) -> str:
    """The text without control characters: what comes from a header or a disk must not drive a terminal."""
    if text.isprintable():  # nearly always
        return text
    return "".join(char if char.isprintable() else "?" for char in text)


def input_label(name: str) -> str:
    """The name of an input file as records and messages say it.

    Exporters number their files ("IM0001.dcm") or use identifiers, and these stay, as do BIDS names; another
    name with any word that exporters do not use may be a patient's. Of it eight characters of its SHA-256 are
    left, by which whoever has the file can find it.

    >>> input_label("IM0001.dcm"), input_label("Doe_John.dcm")
    ('IM0001.dcm', 'name-bc8b1709.dcm')
    """
    words = re.findall(r"[^\W\d_]+", name.lower())
    if _BIDS_NAME.fullmatch(name) or (name.isprintable() and all(map(_EXPORTERS_WORD.fullmatch, words))):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    suffix = Path(name).suffix
    return f"name-{digest}{suffix if suffix.lower() in _TELLING_SUFFIXES else ''}"


def folder_id(name: str) -> str:
    """The name of a folder as an identifier; of one that may be a patient's only a hash (``input_label``)."""
    return safe_id(input_label(name)) if name else ""


def csv_cell(text: str) -> str:
    """Text without control characters that no spreadsheet program takes for a formula."""
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
