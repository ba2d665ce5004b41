"""A folder of images in, results out, as routers want them; see docs/deploy.md for both contracts."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.base.files import write_json
from data_prep.names import printable
from data_prep.problems import LumbarError
from data_prep.vocabulary import GradeSource
from pipeline.batch.run import BatchReport
from pipeline.commands import console
from pipeline.commands.grading_steps import grade_all, make_writable
from pipeline.quiet import silence_libraries
from pipeline.results.dicom import ResultObject
from pipeline.results.words import FLAG_WORDS

TASK_FILE, RESULT_FILE = "task.json", "result.json"
_MAX_TASK_BYTES = 4 * 1024 * 1024


class SettingsRejected(LumbarError):
    """Settings of a task that are unknown, or no settings. The message says which are known."""


def run_mercure(inside: Path, outside: Path) -> int:
    """Grade what a router put into a folder; DICOM results and ``result.json`` go into another.

    ``process.settings`` of ``task.json`` says which objects are made (``sr`` and ``sc`` if it says nothing,
    ``gsps``, ``kos``) and whether the images are passed on (``forward``).
    """
    return _ended(partial(_graded_for_mercure, inside, outside))


def run_monai(inside: Path, outside: Path) -> int:
    """Grade what an application runner put into a folder: all that ``predict`` writes goes out, and SR."""
    return _ended(partial(grade_all, inside, outside, objects=(ResultObject.SR,)))


def _ended(grade: Callable[[], BatchReport]) -> int:
    """The exit code; failures are said, and whoever ends the program leaves nothing of a patient behind."""
    silence_libraries()
    try:
        with console.ended_by_signals():
            report = grade()
    except LumbarError as error:
        console.err.print(printable(str(error)))
        if error.advice:
            console.err.print(f"what to do: {error.advice}")
        return console.NOTHING_DONE
    except OSError as error:
        return console.say_what_files_lack(error)
    return 0 if report.n_graded else console.NOTHING_DONE


def _graded_for_mercure(inside: Path, outside: Path) -> BatchReport:
    settings = mercure_settings(inside / TASK_FILE)
    objects = tuple(item for item in ResultObject if settings.get(item.value))
    make_writable(outside)
    with tempfile.TemporaryDirectory(prefix="lumbar-module-") as scratch:
        report = grade_all(inside, Path(scratch), reports=False, pictures=False, objects=objects)
        for kind in objects:
            for path in sorted((Path(scratch) / kind.folder).rglob("*.dcm")):
                name = "-".join(path.relative_to(scratch).parts)
                _copy(path, outside / f"lumbar-{name}")
        write_json(outside / RESULT_FILE, _result(report), indent=1)
    if settings["forward"]:
        for path in sorted(inside.rglob("*.dcm")):
            _copy(path, outside / path.relative_to(inside))
    return report


def mercure_settings(task: Path) -> Mapping[str, bool]:
    """The settings of a task; defaults where it says nothing, or there is none.

    Raises:
        SettingsRejected: no JSON, or a setting that is unknown or neither true nor false.
    """
    settings = {"sr": True, "sc": True, "gsps": False, "kos": False, "forward": False}
    if not task.is_file():
        return settings
    try:
        if task.stat().st_size > _MAX_TASK_BYTES:
            raise ValueError("too long")
        content = json.loads(task.read_text(encoding="utf-8"))
        process = content.get("process") or {}
        # A task with several modules has a list; the router starts each with its own settings first.
        first = process[0] if isinstance(process, list) and process else process
        given = dict((first or {}).get("settings") or {}) if isinstance(first, dict) else {}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise SettingsRejected(f"{TASK_FILE} cannot be read ({type(error).__name__})") from None
    wrong = [name for name, value in given.items() if name not in settings or not isinstance(value, bool)]
    if wrong:
        known = ", ".join(settings)
        raise SettingsRejected(f"{len(wrong)} settings in {TASK_FILE} are not true or false for: {known}")
    return settings | given


def _result(report: BatchReport) -> dict[str, Any]:
    """What a router keeps of a task: no identifiers but those of the study."""
    record = json.loads(report.predictions.read_text(encoding="utf-8"))
    studies = [
        {
            "study_id": study["study_id"],
            "rejected": study["rejected"],
            "flags": study["flags"],
            "numbering_confidence": study["numbering_confidence"],
            "grades": {f"{row['condition']}_{row['level']}": _graded(row) for row in study["targets"]},
            "rejections": [{"reason": row["reason"]} for row in study["rejections"]],
        }
        for study in record["studies"]
    ]
    words = [FLAG_WORDS.get(flag, flag) for study in record["studies"] for flag in study["flags"]]
    done = f"{report.n_graded} of {report.n_studies} studies graded."
    return {
        "studies": studies,
        "software": record["provenance"]["software"],
        "__mercure_notification": {"requested": bool(words), "text": " ".join([done, *dict.fromkeys(words)])},
    }


def _graded(row: Mapping[str, Any]) -> str | None:
    """The severity of a target; None where it was not graded, whatever is most frequent at its level."""
    return str(row["severity"]) if GradeSource(row["source"]).is_graded else None


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
