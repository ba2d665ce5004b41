"""Which weights are meant: a bundle's name, a folder, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.base.manifest import DEFAULT_BUNDLE, Bundle, weights_folder

BUNDLED = {bundle: Path("bundled") / bundle.value for bundle in Bundle}


def test_a_name_is_a_bundle_and_a_folder_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert weights_folder(None, BUNDLED) == BUNDLED[DEFAULT_BUNDLE]
    assert weights_folder(Path("open"), BUNDLED) == BUNDLED[Bundle.OPEN]
    assert weights_folder(Path("mine"), BUNDLED) == Path("mine")
    (tmp_path / "open").mkdir()
    assert weights_folder(Path("open"), BUNDLED) == Path("open")


def test_a_path_that_is_not_there_is_not_taken_for_the_bundle_that_it_is_called_like() -> None:
    assert weights_folder(Path("runs/open"), BUNDLED) == Path("runs/open")
