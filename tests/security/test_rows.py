"""Whatever is wrong with its studies, a batch has 25 good rows for each that was found or listed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.prior import level_prior
from data_prep.read.find import find_studies
from data_prep.vocabulary import TARGETS
from pipeline.batch.run import run_batch
from pipeline.prediction import probabilities_in
from pipeline.results.submission import read_submission, validate_submission
from tests.pipeline.stand_in import stand_in_pipeline, write_study, write_table


def whole(study: Path) -> None:
    pass


def listed_only(study: Path) -> None:
    shutil.rmtree(study)


def emptied(study: Path) -> None:
    shutil.rmtree(study)
    study.mkdir()


def garbage(study: Path) -> None:
    for path in study.rglob("*.dcm"):
        path.write_bytes(b"garbage" * 50)


def without_sagittals(study: Path) -> None:
    shutil.rmtree(study / "11")
    shutil.rmtree(study / "12")


def without_axials(study: Path) -> None:
    shutil.rmtree(study / "13")


def cut(study: Path) -> None:
    for path in study.rglob("*.dcm"):
        path.write_bytes(path.read_bytes()[:-100])


def one_slice(study: Path) -> None:
    for path in study.rglob("*.dcm"):
        if path.stem != "3":
            path.unlink()


STATES: dict[Callable[[Path], None], bool] = {
    whole: False,
    listed_only: True,
    emptied: True,
    garbage: True,
    cut: True,
    without_sagittals: False,
    without_axials: False,
    one_slice: False,
}


@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(st.lists(st.sampled_from(list(STATES)), min_size=1, max_size=5))
def test_always_25_rows(states: list[Callable[[Path], None]]) -> None:
    ids = [str(500 + number) for number in range(len(states))]
    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "test_images"
        for study_id, damage in zip(ids, states, strict=True):
            damage(write_study(images, study_id))
        write_table(images, ids)
        report = run_batch(stand_in_pipeline(), find_studies(images), Path(name) / "out")
        validate_submission(read_submission(report.submission), ids)
        records = json.loads(report.predictions.read_text())["studies"]
    assert [record["study_id"] for record in records] == ids
    for record, state in zip(records, states, strict=True):
        p = probabilities_in(record)
        assert len(p) == len(record["targets"]) == 25
        values = np.array(list(p.values()))
        assert np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()
        np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-6)
        assert record["rejected"] == STATES[state]
        if record["rejected"]:
            assert record["rejections"]
            for target in TARGETS:
                np.testing.assert_allclose(p[target], level_prior(target), atol=1e-6)
        for row in record["targets"]:
            # Never a silent guess.
            assert row["source"] in ("seen", "predicted") or row["flags"]
