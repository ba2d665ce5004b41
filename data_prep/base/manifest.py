"""Folders of weights, the bundled ones by name: a SHA-256 manifest says what exactly was released."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from data_prep.base.files import write_json
from data_prep.problems import LumbarError

MANIFEST_NAME = "manifest.json"
# What a weights folder may contain; anything else beside them (cards, logs, checkpoints) is never loaded.
_LISTED_SUFFIXES = (".safetensors", ".graph", ".json", ".yaml", ".onnx", ".xml", ".bin")
_REMEDY = "restore it from a release, or run `make models`"


class WeightsRejected(LumbarError):
    """Weights are missing or are not the released ones. The message says what to do."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, lower-case hexadecimal. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(
    folder: str | Path, *, learned_from: str | None = None, licence: str | None = None
) -> Path:
    """Write ``manifest.json`` with the SHA-256 of every weights and configuration file of a folder.

    Listed are the files directly in ``folder`` that end in .safetensors, .graph, .json, .yaml, .onnx, .xml or
    .bin. An interruption leaves the old manifest.

    Args:
        learned_from, licence: what the models learned from and how the weights may be used, one line each
            without a full stop; None keeps what the folder's manifest said, if it said anything.

    Returns:
        Path of the manifest.
    """
    folder = Path(folder)
    listed = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and path.suffix in _LISTED_SUFFIXES and path.name != MANIFEST_NAME
    )
    told = {"learned_from": learned_from, "licence": licence}
    told = {key: value for key, value in told.items() if value is not None}
    content = read_told(folder) | told | {"files": {name: file_sha256(folder / name) for name in listed}}
    write_json(folder / MANIFEST_NAME, content, indent=2)
    return folder / MANIFEST_NAME


def read_told(folder: Path) -> dict[str, str]:
    """What the manifest of a folder says beside its files; nothing where it cannot be read."""
    try:
        earlier = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        return {key: str(earlier[key]) for key in ("learned_from", "licence") if key in earlier}
    except (OSError, ValueError, TypeError):
        return {}


def read_manifest(folder: str | Path) -> dict[str, str]:
    """File name → SHA-256 of a weights folder.

    Raises:
        WeightsRejected: no manifest, not readable as one, or a name that leaves the folder.
    """
    path = Path(folder) / MANIFEST_NAME
    try:
        files = json.loads(path.read_text())["files"]
        entries = {str(name): str(digest) for name, digest in files.items()}
    except FileNotFoundError:
        raise WeightsRejected(
            f"no weights in '{path.parent.name}/' ({MANIFEST_NAME} is missing): "
            "`lumbar detector bundle` makes them of a detector's run, `lumbar classifier calibrate` of "
            "graders'; bundled ones come with a complete copy of the project, or of `make models`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsRejected(
            f"'{path.parent.name}/{MANIFEST_NAME}' cannot be read as a manifest "
            f"({type(error).__name__}): {_REMEDY}"
        ) from None
    for name in entries:
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise WeightsRejected(f"{MANIFEST_NAME} names {name!r}, which is not a plain file name")
    return entries


def read_verified(folder: str | Path, name: str) -> bytes:
    """The bytes of one listed file, read once and checked, so that what was checked is what is used.

    Raises:
        WeightsRejected: not listed, missing, or its SHA-256 differs from the manifest's.
    """
    folder = Path(folder)
    expected = read_manifest(folder).get(name)
    if expected is None:
        raise WeightsRejected(
            f"'{name}' is not listed in '{folder.name}/{MANIFEST_NAME}': train the network that it "
            f"lacks, or {_REMEDY}"
        )
    return _verified(folder, name, expected)


def _verified(folder: Path, name: str, expected: str) -> bytes:
    try:
        content = (folder / name).read_bytes()
    except OSError:
        raise WeightsRejected(f"'{folder.name}/{name}' is missing or cannot be read: {_REMEDY}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise WeightsRejected(
            f"'{folder.name}/{name}' is not the released file "
            f"(SHA-256 {found[:12]}…, expected {expected[:12]}…): {_REMEDY}"
        )
    return content


def read_listed(folder: str | Path, name: str) -> bytes | None:
    """As ``read_verified``; None for a file that the manifest does not list."""
    expected = read_manifest(folder).get(name)
    return None if expected is None else _verified(Path(folder), name, expected)


def verify_manifest(folder: str | Path) -> dict[str, str]:
    """Check every listed file of a weights folder.

    Returns:
        File name → SHA-256.

    Raises:
        WeightsRejected: no manifest, or a listed file is missing or differs.
    """
    entries = read_manifest(folder)
    for name, expected in entries.items():
        _verified(Path(folder), name, expected)
    return entries


class Bundle(StrEnum):
    """Models that ship with the project.

    ``research`` learned from annotated slices of real patients of the RSNA data set (LumbarDISC), too: the
    best on real patients, for non-commercial research and education. ``open`` learned from synthetic spines
    and openly licensed images alone.
    """

    RESEARCH = "research"
    OPEN = "open"


DEFAULT_BUNDLE = Bundle.RESEARCH


def weights_folder(given: Path | None, bundled: Mapping[Bundle, Path]) -> Path:
    """The folder of ``research|open|FOLDER``; that of the default bundle where nothing is given.

    A bundle's name alone is a bundle: of a path that ends in it, and is not there, nothing is guessed.
    """
    bundle = named_bundle(given)
    return given if given is not None and bundle is None else bundled[bundle or DEFAULT_BUNDLE]


def named_bundle(given: Path | None) -> Bundle | None:
    """The bundle that ``research|open|FOLDER`` names, the default one for nothing; None for a folder."""
    if given is None:
        return DEFAULT_BUNDLE
    return Bundle(str(given)) if str(given) in set(Bundle) and not given.is_dir() else None
