"""Made once for all tests of the pipeline: a synthetic study on disk, and the bundled models."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_prep.phantom import write_dataset
from pipeline.predict import Pipeline


@pytest.fixture(scope="session")
def phantom_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synthetic studies in the RSNA layout; not to be changed."""
    folder = tmp_path_factory.mktemp("phantom")
    write_dataset(folder, studies=2, seed=5, size="small")
    return folder


@pytest.fixture(scope="session")
def bundled_pipeline() -> Pipeline:
    """Loading takes seconds."""
    return Pipeline.load()


@pytest.fixture
def data(phantom_data: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic studies that a test may damage."""
    return Path(shutil.copytree(phantom_data, tmp_path / "data"))
