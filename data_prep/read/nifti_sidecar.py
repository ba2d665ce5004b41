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


def description_of(path: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """What name and sidecar say of the series, as ``SliceHeader`` takes it. BIDS counts in seconds."""
    stated = (told.get(key) for key in ("SeriesDescription", "ProtocolName", "SequenceName"))
    texts = [text for text in stated if isinstance(text, str)]

    def milliseconds(key: str) -> float | None:
        value = told.get(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) * 1e3 if is_number and math.isfinite(value) else None  # type: ignore[arg-type]

    def codes(key: str) -> tuple[str, ...]:
        value = told.get(key)
        parts = re.split(r"[_\\]", value) if isinstance(value, str) else value
        return tuple(str(part).upper() for part in parts) if isinstance(parts, list) else ()

    return {
        "description": " ".join([*texts, stem_of(path).replace("_", " ")]),
        "image_type": codes("ImageType"),
        "scanning_sequence": codes("ScanningSequence"),
        "repetition_time_ms": milliseconds("RepetitionTime"),
        "echo_time_ms": milliseconds("EchoTime"),
        "inversion_time_ms": milliseconds("InversionTime"),
    }
