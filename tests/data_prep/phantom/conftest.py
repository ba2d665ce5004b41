"""Here the phantom itself is tested: slices are rendered, and files written, when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import data_prep.phantom.files
import data_prep.phantom.study
from data_prep.phantom.render import render_tissue


@pytest.fixture(scope="module", autouse=True)
def really_rendered(phantoms_written_once: Callable[..., Any]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_prep.phantom.study, "render_tissue", render_tissue)
        patch.setattr(data_prep.phantom.files, "_write_study", phantoms_written_once)
        yield
