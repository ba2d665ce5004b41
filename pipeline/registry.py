"""What the program can do, in a form that other programs read: ``lumbar info --json``."""

from __future__ import annotations

from typing import Any, Final

from data_prep.base.manifest import read_manifest
from data_prep.problems import Reason
from data_prep.vocabulary import CONDITIONS, LEVELS, SEVERITIES
from pipeline import __version__
from pipeline.extras import EXTRAS
from pipeline.models import bundled_folders
from pipeline.results.words import FLAG_WORDS, NOT_A_DEVICE

REGISTRY_FORMAT: Final = "lumbar-registry/1"
_FORMATS: Final = (
    ("dicom", "DICOM files in any tree or zip", None),
    ("rsna", "the RSNA 2024 layout, with its tables", None),
    ("nifti", "NIfTI volumes, .nii and .nii.gz", "nifti"),
    ("bids", "BIDS data sets with T1w and T2w of the spine", "nifti"),
)
_OUTPUTS: Final = (
    "submission.csv",
    "predictions.json",
    "targets.csv",
    "refused.csv",
    "index.html",
    "reports/",
    "pictures/",
    "studies/",
    "sr/",
    "sr-comprehensive/",
    "sc/",
    "gsps/",
    "kos/",
    "bids/",
)
_EXIT_CODES: Final = {
    0: "all done",
    1: "nothing done",
    2: "usage",
    3: "done, but a file, series or study was rejected, or slices are missing",
}


def registry(command_line: Any) -> dict[str, Any]:
    """Commands with their options, models, formats, reasons, flags and extras.

    Args:
        command_line: of click, the group of all commands.
    """
    return {
        "format": REGISTRY_FORMAT,
        "version": __version__,
        "licence": "AGPL-3.0-only",
        "warning": NOT_A_DEVICE,
        "commands": _commands(command_line, ()),
        "targets": {
            "conditions": [condition.value for condition in CONDITIONS],
            "levels": [level.value for level in LEVELS],
            "severities": [severity.value for severity in SEVERITIES],
        },
        "models": {
            name: read_manifest(folder) for name, folder in bundled_folders().items() if folder.is_dir()
        },
        "formats": [{"name": name, "what": what, "extra": extra} for name, what, extra in _FORMATS],
        "outputs": list(_OUTPUTS),
        "reasons": [{"name": reason.value, "what": reason.advice} for reason in Reason],
        "flags": [{"name": name, "what": words} for name, words in FLAG_WORDS.items()],
        "extras": [
            {"name": extra.name, "what": extra.does, "installed": not extra.missing} for extra in EXTRAS
        ],
        "exit_codes": {str(code): words for code, words in _EXIT_CODES.items()},
    }


def _commands(group: Any, above: tuple[str, ...]) -> list[dict[str, Any]]:
    found = []
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            found += _commands(command, (*above, name))
            continue
        found.append(
            {
                "name": " ".join((*above, name)),
                "what": (command.help or "").partition("\n")[0],
                "parameters": [
                    {
                        "name": parameter.name,
                        "options": list(parameter.opts) if parameter.param_type_name == "option" else [],
                        "required": bool(parameter.required),
                        "what": getattr(parameter, "help", None) or "",
                    }
                    for parameter in command.params
                    if parameter.name != "help"
                ],
            }
        )
    return found
