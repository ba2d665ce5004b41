"""The table that says what each series of an RSNA data set shows."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from data_prep.base.csv_files import trouble_with_table
from data_prep.names import input_label, safe_id
from data_prep.problems import DicomRejected, Reason, Rejection
from data_prep.vocabulary import SeriesKind

IMAGE_FOLDERS = ("train_images", "test_images")
SERIES_TABLES = ("train_series_descriptions.csv", "test_series_descriptions.csv")
_COLUMNS = ("study_id", "series_id", "series_description")

SeriesTable = Mapping[str, Mapping[str, SeriesKind | None]]


def read_series_table(path: Path) -> SeriesTable:
    """Read a series table: study id → series id → kind, None where the description is not a known kind.

    Raises:
        DicomRejected: it cannot be read, lacks a column, or has a study_id that is no identifier.
    """
    name = input_label(path.name)
    if trouble := trouble_with_table(path):
        raise DicomRejected(Rejection(Reason.UNREADABLE, f"series table {name!r} {trouble}"))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            places = {column: place for place, column in enumerate(next(reader, []))}
            missing = [column for column in _COLUMNS if column not in places]
            if missing:
                message = f"series table {name!r} lacks {', '.join(missing)}"
                raise DicomRejected(Rejection(Reason.UNREADABLE, message))
            table: dict[str, dict[str, SeriesKind | None]] = {}
            known = {kind.value.lower(): kind for kind in SeriesKind}
            first, second, third = (places[column] for column in _COLUMNS)
            for row in reader:
                if len(row) < len(places):  # blank: other short lines are refused above
                    continue
                study_id, series_id, text = row[first].strip(), row[second].strip(), row[third].strip()
                if study_id not in table and safe_id(study_id) != study_id:
                    raise ValueError("study_id is no identifier")
                kind = known.get(text.lower())
                # Of a series that is listed as two things nobody knows which: it is asked itself.
                series = table.setdefault(study_id, {})
                series[series_id] = kind if series.get(series_id, kind) is kind else None
            return table
    except (OSError, ValueError, csv.Error) as error:
        message = f"series table {name!r} cannot be read ({type(error).__name__})"
        raise DicomRejected(Rejection(Reason.UNREADABLE, message)) from None


def find_series_table(given: Path | None, folder: Path, levels_up: int) -> SeriesTable:
    """The given table, else the first with an RSNA name in the folder or at most ``levels_up`` above it.

    Empty if there is none. Above ``test_images`` only the test table counts, above ``train_images`` only
    the train table.
    """
    if given is not None:
        return read_series_table(given)
    images = next((part for part in (folder, *folder.parents) if part.name in IMAGE_FOLDERS), None)
    names: tuple[str, ...] = SERIES_TABLES
    if images is not None:
        names = (SERIES_TABLES[IMAGE_FOLDERS.index(images.name)],)
    for place in (folder, *folder.parents)[: levels_up + 1]:
        for name in names:
            if (place / name).is_file():
                return read_series_table(place / name)
    return {}
