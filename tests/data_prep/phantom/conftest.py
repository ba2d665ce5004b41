"""Here the phantom itself is tested: every slice is rendered when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import data_prep.phantom.study
from data_prep.phantom.render import render_tissue


@pytest.fixture(scope="module", autouse=True)
def really_rendered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_prep.phantom.study, "render_tissue", render_tissue)
        yield
