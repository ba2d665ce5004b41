"""Weights are loaded only when they are byte for byte what the manifest says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep.base.manifest import (
    MANIFEST_NAME,
    WeightsRejected,
    read_verified,
    verify_manifest,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "spinal.safetensors").write_bytes(bytes(range(256)))
    (tmp_path / "spinal.json").write_text("{}")
    (tmp_path / "checkpoint.pt").write_bytes(b"not listed")
    write_manifest(tmp_path)
    return tmp_path


def test_untouched_weights_are_accepted(folder: Path) -> None:
    assert sorted(verify_manifest(folder)) == ["spinal.json", "spinal.safetensors"]
    assert read_verified(folder, "spinal.safetensors") == bytes(range(256))


def test_writing_again_changes_nothing(folder: Path) -> None:
    before = (folder / MANIFEST_NAME).read_bytes()
    assert write_manifest(folder).read_bytes() == before


def test_a_flipped_byte_is_refused(folder: Path) -> None:
    content = bytearray((folder / "spinal.safetensors").read_bytes())
    content[100] ^= 1
    (folder / "spinal.safetensors").write_bytes(content)
    with pytest.raises(WeightsRejected, match=r"spinal\.safetensors.*not the released file.*make models"):
        verify_manifest(folder)


def test_missing_weights_say_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsRejected, match=r"manifest\.json is missing.*make models"):
        verify_manifest(tmp_path / "nothing-here")
    (folder / "spinal.safetensors").unlink()
    with pytest.raises(WeightsRejected, match=r"missing or cannot be read.*make models"):
        verify_manifest(folder)


def test_a_file_that_is_not_listed_is_refused(folder: Path) -> None:
    with pytest.raises(WeightsRejected, match="not listed"):
        read_verified(folder, "checkpoint.pt")


@pytest.mark.parametrize("text", ["", "[]", '{"files": 3}', "{"])
def test_a_broken_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST_NAME).write_text(text)
    with pytest.raises(WeightsRejected, match="cannot be read as a manifest"):
        verify_manifest(folder)


def test_a_manifest_cannot_point_outside_its_folder(folder: Path) -> None:
    (folder / MANIFEST_NAME).write_text(json.dumps({"files": {"../secret.json": "00"}}))
    with pytest.raises(WeightsRejected, match="not a plain file name"):
        verify_manifest(folder)
