"""Where the development data lie; tests that need them skip without them."""

from __future__ import annotations

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"needs development data: {folder.relative_to(_SHARED.parent)}")
    return folder


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of development data beside the checkout."""
    return _existing(_SHARED)


@pytest.fixture(scope="session")
def real_rsna() -> Path:
    """The real RSNA 2024 tables, with the images of studies 4003253 and 100206310."""
    return _existing(_SHARED / "real" / "rsna2024")


@pytest.fixture(scope="session")
def spider_dir() -> Path:
    """Sagittal T2 slices of 28 SPIDER patients with masks and level points."""
    return _existing(_SHARED / "real" / "spider_t2_space")
