"""What the name of a NIfTI volume and the JSON file beside it say of the series."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SUFFIXES = (".nii", ".nii.gz")
_MAX_SIDECAR_BYTES = 1024 * 1024
# As BIDS and dcm2niix name echoes, and images that do not show the magnitude of the signal.
_ECHO = re.compile(r"(?:^|_)echo-(\d{1,2})(?=_|$)|_e(\d{1,2})(?=_|[a-z]?$)")
_NO_MAGNITUDE = re.compile(
    r"(^|_)part-(phase|real|imag)(?=_|$)|_(ph|phase|real|imaginary)[a-z]?$", re.IGNORECASE
)


def is_nifti(path: Path) -> bool:
    """Whether a file is a NIfTI volume by its name."""
    return path.name.lower().endswith(SUFFIXES)


def stem_of(path: Path) -> str:
    """The name without ``.nii`` or ``.nii.gz``."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def read_sidecar(path: Path) -> Mapping[str, Any] | None:
    """The JSON file beside a volume; empty if there is none, None if it cannot be read."""
    place = sidecar_of(path)
    try:
        if not place.is_file():
            return {}
        if place.stat().st_size > _MAX_SIDECAR_BYTES:
            return None
        told = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def sidecar_of(path: Path) -> Path:
    """Where the JSON file of a volume lies, if it has one (BIDS, 'Common principles')."""
    return path.with_name(f"{stem_of(path)}.json")


def description_of(path: Path, told: Mapping[str, Any], folder_name: str = "") -> dict[str, Any]:
    """What name and sidecar say of the series, as ``SliceHeader`` takes it. BIDS counts in seconds.

    Args:
        folder_name: of a folder that is a series', and says what it shows, too.
    """
    stated = (told.get(key) for key in ("SeriesDescription", "ProtocolName", "SequenceName"))
    texts = [text for text in (*stated, folder_name) if text and isinstance(text, str)]
    stem = stem_of(path)
    echo = _ECHO.search(stem)

    def milliseconds(key: str) -> float | None:
        value = told.get(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) * 1e3 if is_number and math.isfinite(value) else None  # type: ignore[arg-type]

    def codes(key: str) -> tuple[str, ...]:
        value = told.get(key)
        parts = re.split(r"[_\\]", value) if isinstance(value, str) else value
        return tuple(str(part).upper() for part in parts) if isinstance(parts, list) else ()

    image_type = codes("ImageType")
    if _NO_MAGNITUDE.search(stem):
        image_type = (*(*image_type, "ORIGINAL", "PRIMARY")[:2], "P")
    agents = (told.get(key) for key in ("ContrastBolusIngredient", "ContrastBolusAgent"))
    region = told.get("BodyPartExamined") or told.get("BodyPart")
    return {
        "description": " ".join([*texts, stem.replace("_", " ")]),
        "has_contrast": any(isinstance(agent, str) and agent.strip() for agent in agents),
        "body_part": region.upper() if isinstance(region, str) else "",
        "echo_number": int(echo[1] or echo[2]) if echo else None,
        "image_type": image_type,
        "scanning_sequence": codes("ScanningSequence"),
        "repetition_time_ms": milliseconds("RepetitionTime"),
        "echo_time_ms": milliseconds("EchoTime"),
        "inversion_time_ms": milliseconds("InversionTime"),
    }
