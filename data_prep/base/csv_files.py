"""Tables as CSV: ours written; those of somebody's program read as text, or what is wrong with them said."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.base.files import atomic_write
from data_prep.names import csv_cell, printable

if TYPE_CHECKING:
    import pandas as pd

EMPTY = ["", "NA", "NaN", "nan"]  # how programs write that a cell has no value, R among them
_LOOKED_AT_BYTES = 8192
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def trouble_with_table(path: Path) -> str:
    """Why a file is no table with commas in UTF-8, and what to do; "" if it looks like one.

    Spreadsheet programs of many countries separate by semicolons, and call UTF-16 "Unicode text". A line that
    lacks cells has lost some, and readers of tables would take them for empty ones.
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
        return _trouble_with_cells(path)
    for separator, words in _SEPARATORS.items():
        if separator in line:
            return f"separates its columns by {words}: save it with commas"
    return ""


def _trouble_with_cells(path: Path) -> str:
    """A column that is named twice; a line with fewer cells than columns, or more that say something."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.reader(file)
            names = next(filter(None, reader), [])
            named = Counter(filter(None, map(str.strip, names)))
            if twice := next((name for name, count in named.items() if count > 1), ""):
                return f"names the column {printable(twice)} twice"
            for cells in reader:
                if not "".join(cells).strip() and len(cells) < 2:  # a blank line
                    continue
                if len(cells) < len(names) or any(cells[len(names) :]):
                    return (
                        f"has {len(cells)} cells in line {reader.line_num} for {len(names)} columns: "
                        "it was cut or damaged"
                    )
    except (OSError, csv.Error):
        pass
    return ""


def read_text_table(path: Path) -> pd.DataFrame:
    """A CSV file in UTF-8 as text: no cell is missing, none has spaces around it.

    Raises:
        ValueError: what is wrong with the file, and what to do; the sentence wants its name in front.
    """
    import pandas as pd

    if trouble := trouble_with_table(path):
        raise ValueError(trouble)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read as a table ({type(error).__name__})") from None
    return table.fillna("").apply(lambda column: column.astype(str).str.strip())


def write_table(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
    *,
    delimiter: str = ",",
    nothing: str = "",
) -> None:
    """Write these columns of rows; ``nothing`` stands for what is not known. No text is a formula."""

    def cell(value: Any) -> Any:
        if value is None or value == "":
            return nothing
        return csv_cell(value) if isinstance(value, str) else value

    with atomic_write(path) as stream:
        writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([cell(row.get(column)) for column in columns])
