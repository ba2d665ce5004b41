"""Protects: which models are used is what was asked for, and what they learned from is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import classifier.storage
import detector.predict
from data_prep.base.manifest import (
    DEFAULT_BUNDLE,
    Bundle,
    WeightsRejected,
    read_manifest,
    read_told,
    verify_manifest,
    write_manifest,
)
from pipeline.models import model_folders


@pytest.mark.parametrize("bundle", list(Bundle))
def test_every_bundle_is_whole_and_says_what_it_learned_from(bundle: Bundle) -> None:
    folders = model_folders(bundle)
    for folder in folders.values():
        assert folder.name == bundle.value and verify_manifest(folder)
        learned = read_told(folder)
        assert learned["learned_from"] and learned["licence"]
        # Of `open`, calibration constants alone may come from RSNA patients, and the brackets say so.
        networks, _, _ = learned["learned_from"].partition("(foramina and recesses calibrated")
        says_rsna = "RSNA" in networks
        assert says_rsna is (bundle is Bundle.RESEARCH), "the open bundle's networks never see RSNA images"
        assert ("non-commercial" in learned["licence"]) is says_rsna


def test_both_bundles_together_stay_small() -> None:
    folders = [folder for bundle in Bundle for folder in model_folders(bundle).values()]
    total = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    assert total < 60e6


def test_the_default_is_said_once() -> None:
    assert model_folders() == model_folders(DEFAULT_BUNDLE.value)


def test_a_training_run_is_models(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(detector.BUNDLED_WEIGHTS[Bundle.OPEN], run / "weights" / "detector")
    shutil.copytree(classifier.BUNDLED_WEIGHTS[Bundle.OPEN], run / "weights" / "graders")
    found = model_folders(run)
    assert found["detector"] == run / "weights" / "detector"
    assert model_folders(run / "weights") == found
    other = model_folders(run, classifier_weights=tmp_path)
    assert other == {"detector": found["detector"], "classifier": tmp_path}


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsRejected, match="models 'rsna': neither research nor open, nor a folder"):
        model_folders(tmp_path / "rsna")


def test_a_new_manifest_keeps_what_the_old_one_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    write_manifest(tmp_path, learned_from="spines of glass", licence="none")
    (tmp_path / "b.json").write_text("{}")
    write_manifest(tmp_path)
    assert set(read_manifest(tmp_path)) == {"a.json", "b.json"}
    assert read_told(tmp_path) == {"learned_from": "spines of glass", "licence": "none"}
