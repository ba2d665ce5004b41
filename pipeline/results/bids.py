"""Results as a BIDS derivative data set: points and grades as tables, with a sidecar that describes them.

BIDS specification 1.10, 'BIDS Derivatives' and 'Tabular files': tab-separated, ``n/a`` for what is not known.
Coordinates are millimetres in RAS+ as NIfTI has them (x to the patient's right is positive), whatever the
input was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.base.csv_files import write_table
from data_prep.base.files import write_json
from data_prep.names import input_label
from data_prep.problems import LumbarError
from data_prep.vocabulary import SEVERITIES, GradeSource

BIDS_VERSION = "1.10.0"
_DESCRIPTION, _NAME = "dataset_description.json", "lumbar"
_NOTHING = "n/a"
_SUBJECT = re.compile(r"sub-([A-Za-z0-9]+)(?:_ses-([A-Za-z0-9]+))?")
# Columns in their order, and what the sidecar says of each.
_POINT_COLUMNS: Mapping[str, Any] = {
    "structure": "disc (centre), canal (behind the disc), or the condition that is read at the point",
    "level": "the disc, named by the vertebrae above and below",
    "x": {"Description": "to the patient's right is positive (RAS+)", "Units": "mm"},
    "y": {"Description": "to the front is positive (RAS+)", "Units": "mm"},
    "z": {"Description": "to the head is positive (RAS+)", "Units": "mm"},
    "uncertainty_mm": {"Description": "expected error in space, one standard deviation", "Units": "mm"},
    "confidence": "that this is the structure named, 0 to 1",
    "source": "seen: detected in the image; predicted: placed by geometry",
    "series": "the series whose slice shows it",
    "slice": "its instance number; in a NIfTI volume counted from 1 along the slice axis",
}
_GRADE_COLUMNS: Mapping[str, Any] = {
    "condition": "what is graded; left and right are the patient's",
    "level": "the disc, named by the vertebrae above and below",
    **{severity.column: "calibrated probability, 0 to 1" for severity in SEVERITIES},
    "severity": "the most probable one; n/a for a target that was not graded",
    "source": "seen or predicted: how the point was found; expected: not graded, from the other grades of "
    "the level; prior: not graded, its frequency at the level",
    "flags": "why a target was not graded",
}


class NotOurDataSet(LumbarError):
    """A folder for derivatives holds a data set of somebody else, whose description would be overwritten."""

    advice = "choose another output folder, or move the data set away"


class TwoOfOneName(LumbarError):
    """Two studies, such as ``01`` and ``sub-01``, would be one subject; their records are whole."""

    advice = "grade them into two folders"


def check_derivatives(folder: Path) -> None:
    """Look that a folder holds no data set but one of ours. Raises NotOurDataSet."""
    path = folder / _DESCRIPTION
    try:
        made_by = json.loads(path.read_text(encoding="utf-8"))["GeneratedBy"][0]["Name"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        made_by = ""
    if made_by != _NAME:
        raise NotOurDataSet(
            f"{input_label(folder.name)!r} holds a {_DESCRIPTION} that this program did not write"
        )


def write_derivatives(predictions: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Write the studies of a ``predictions.json`` as a derivative data set.

    Args:
        predictions: its content.
        folder: of the data set; files of other studies in it stay.

    Returns:
        The tables, two for every study.

    Raises:
        NotOurDataSet: see ``check_derivatives``.
        TwoOfOneName: two studies would have one name.
    """
    check_derivatives(folder)
    names: dict[str, str] = {}
    for record in predictions["studies"]:
        if other := names.get(name := _name(record["study_id"]).casefold()):
            raise TwoOfOneName(f"{other} and {record['study_id']} would both be {name}")
        names[name] = record["study_id"]
    software = predictions["provenance"]["software"]
    description = {
        "Name": "Levels and stenosis grades of the lumbar spine",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": _NAME, "Version": software["lumbar"]}],
    }
    write_json(folder / _DESCRIPTION, description, indent=2)
    written = []
    for record in predictions["studies"]:
        name = _name(record["study_id"])
        about = {"StudyID": record["study_id"], "Flags": record["flags"], "Rejected": record["rejected"]}
        about["NumberingConfidence"] = record["numbering_confidence"]
        for kind, columns, rows in (
            ("points", _POINT_COLUMNS, _points(record)),
            ("grades", _GRADE_COLUMNS, _grades(record)),
        ):
            path = _place(folder, name) / f"{name}_desc-lumbar_{kind}.tsv"
            write_table(path, list(columns), rows, delimiter="\t", nothing=_NOTHING)
            texts = {key: {"Description": v} if isinstance(v, str) else v for key, v in columns.items()}
            write_json(path.with_suffix(".json"), {**about, **texts}, indent=2)
            written.append(path)
    return tuple(written)


def derivatives_of(study_id: str, folder: Path) -> list[Path]:
    """What ``write_derivatives`` has written of a study, by whatever run."""
    name = _name(study_id)
    return sorted(_place(folder, name).glob(f"{name}_desc-lumbar_*"))


def _place(folder: Path, name: str) -> Path:
    return folder.joinpath(*name.split("_"), "anat")


def _name(study_id: str) -> str:
    """``sub-01`` or ``sub-01_ses-02``: the study's own, else its identifier's letters and digits.

    An identifier with anything else gets a hash, so that 1.2.34 and 1.23.4 never become one.
    """
    if _SUBJECT.fullmatch(study_id):
        return study_id
    kept = re.sub(r"[^A-Za-z0-9]", "", study_id)
    digest = "" if kept == study_id else hashlib.sha256(study_id.encode()).hexdigest()[:8]
    return f"sub-{kept}{digest}"


def _points(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for level, found in record["levels"].items():
        for structure in ("disc", "canal") if found is not None else ():
            yield {
                "structure": structure,
                "level": level,
                **_ras(found[f"{structure}_mm"]),
                **{key: found[key] for key in ("confidence", "uncertainty_mm", "source")},
            }
    for target in record["targets"]:
        point = target["point"]
        if point is not None:
            yield {
                "structure": target["condition"],
                "level": target["level"],
                **_ras(point["xyz_mm"]),
                **{key: point[key] for key in ("confidence", "uncertainty_mm", "source")},
                "series": point["series_id"],
                "slice": point["instance_number"],
            }


def _ras(lps_mm: Sequence[float]) -> dict[str, float]:
    x, y, z = lps_mm
    return {"x": round(-x, 3), "y": round(-y, 3), "z": z}


def _grades(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for target in record["targets"]:
        yield {
            **{key: target[key] for key in ("condition", "level", "source")},
            "severity": target["severity"] if GradeSource(target["source"]).is_graded else None,
            **target["probabilities"],
            "flags": ",".join(target["flags"]),
        }
