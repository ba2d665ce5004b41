"""Made once for all tests of the pipeline: a synthetic study on disk, the bundled models, a browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data_prep.phantom import write_dataset
from pipeline.grade import Pipeline
from tests.pipeline.stand_in import stand_in_pipeline, write_studies

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Root may not use the sandbox; the rest keeps the browser itself off the network.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


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


@pytest.fixture(scope="session")
def launch_chromium() -> Iterator[Callable[[list[str]], Browser]]:
    """Starts the system's Chromium, without a window, with flags; tests that need it skip without it.

    One driver for all: a second one cannot start while the first one runs.
    """
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: requirements-dev.txt")
    with sync_api.sync_playwright() as driver:
        yield lambda flags: driver.chromium.launch(executable_path=path, args=flags)


@pytest.fixture(scope="session")
def chromium(launch_chromium: Callable[[list[str]], Browser]) -> Iterator[Browser]:
    """A browser that stays off the network."""
    browser = launch_chromium(CHROMIUM_FLAGS)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def tab(chromium: Browser) -> Iterator[Page]:
    """A tab of that browser, for all tests: each further one takes longer to start than most tests."""
    page = chromium.new_page()
    yield page
    page.close()


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """The tab, empty and as it was opened."""
    tab.set_viewport_size({"width": 1280, "height": 720})
    yield tab
    tab.unroute_all()
    tab.emulate_media(media="null")
    tab.goto("about:blank")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """One small study with its series table."""
    return write_studies(tmp_path / "test_images", ["501"])


@pytest.fixture
def small_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors train on a quarter of the pixels; for tests of what becomes of a training."""
    import detector.learn.train as training

    small = {kind: replace(spec, train_canvas_px=(128, 160)) for kind, spec in training.SPECS.items()}
    monkeypatch.setattr(training, "SPECS", small)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled weights need a second to load; for tests of what happens around them."""
    monkeypatch.setattr(Pipeline, "load", classmethod(lambda cls, **_: stand_in_pipeline()))
