"""What is wrong with a table that somebody's program saved: said, so that it can be saved again."""

from __future__ import annotations

from pathlib import Path

_LOOKED_AT_BYTES = 8192
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def trouble_with_table(path: Path) -> str:
    """Why a file is no table with commas in UTF-8, and what to do; "" if it looks like one.

    Spreadsheet programs of many countries separate by semicolons, and call UTF-16 "Unicode text".
    """
    try:
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT_BYTES)
    except OSError:
        return ""
    if start.startswith(_UTF16) or b"\0" in start[:200]:
        return "is written in UTF-16: save it as CSV in UTF-8"
    line = start.decode("utf-8", "replace").lstrip("\ufeff").split("\n", 1)[0]
    if "," in line:
        return ""
    for separator, words in _SEPARATORS.items():
        if separator in line:
            return f"separates its columns by {words}: save it with commas"
    return ""
