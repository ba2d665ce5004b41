"""200 damaged files in every coding that is read: a slice or a reason code, and its study goes on."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import ALL_SLICES, Base, study_around
from data_prep.read.dicom_file import read_pixels
from data_prep.read.dicom_limits import TRANSFER_SYNTAXES
from data_prep.read.find import find_studies
from pipeline.batch.run import run_batch
from pipeline.results.submission import read_submission, validate_submission
from tests.dicom_files import read_slice
from tests.hostile.bounded import BoundedReader
from tests.hostile.mutations import (
    Damage,
    Mutation,
    applied,
    base_dataset,
    drawn,
    every_coding,
    length_fields,
)
from tests.pipeline.stand_in import stand_in_pipeline, write_studies

PLACES = st.one_of(
    st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True).map(lambda share: share**3)
)
MUTATIONS = st.lists(
    st.builds(
        Mutation,
        st.sampled_from(Damage),
        PLACES,
        st.one_of(st.sampled_from([1, 2, 4, 8]), st.integers(1, 5000)),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Base]:
    folder = tmp_path_factory.mktemp("bases")
    return [
        Base(syntax, content, study_around(folder / syntax, content))
        for syntax, content in every_coding(base_dataset()).items()
    ]


@pytest.fixture(scope="module")
def reader() -> Iterator[BoundedReader]:
    with BoundedReader(time_s=30) as bounded:
        yield bounded


def test_every_base_is_whole_and_shows_the_same(bases: list[Base]) -> None:
    """Otherwise damaging it would prove nothing."""
    assert [base.name for base in bases] == list(TRANSFER_SYNTAXES)
    expected = base_dataset().pixel_array.astype(np.float64)
    for base in bases:
        path = base.damaged
        path.write_bytes(base.content)
        shown = read_pixels(read_slice(path))
        assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.99, base.name
        assert len(length_fields(base.content)) > 100


# The same 200 in every run: `python -m benchmarks.fuzz` looks for new ones.
@settings(
    max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(number=st.integers(0, len(TRANSFER_SYNTAXES) - 1), mutations=MUTATIONS)
def test_a_damaged_file_is_read_or_rejected_and_costs_its_study_nothing_else(
    bases: list[Base], reader: BoundedReader, number: int, mutations: list[Mutation]
) -> None:
    base = bases[number]
    base.damaged.write_bytes(applied(base.content, mutations))
    alone = reader.run("file", base.damaged)
    assert alone.is_allowed, alone
    study = reader.run("study", base.images)
    assert study.is_allowed, study
    assert study.slices >= ALL_SLICES - 1, study


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_file_never_costs_a_study_its_grades(tmp_path: Path, seed: int) -> None:
    images = write_studies(tmp_path / "test_images", ["501", "502"])
    rng = random.Random(seed)
    path = images / "501" / rng.choice(["11", "12", "13"]) / f"{rng.randrange(1, 6)}.dcm"
    path.write_bytes(applied(path.read_bytes(), drawn(rng)))
    report = run_batch(stand_in_pipeline(), find_studies(images), tmp_path / "out")
    validate_submission(read_submission(report.submission), ["501", "502"])
    damaged, whole = json.loads(report.predictions.read_text())["studies"]
    assert not damaged["rejected"] and not whole["rejected"] and whole["rejections"] == []
    # A file that cannot be read, in the middle of its series, is also a slice that the series lacks.
    named = [item["file"] for item in damaged["rejections"] if item["reason"] != "slices_missing"]
    assert named in ([], [path.name])


def test_mutations_do_what_they_say() -> None:
    content = bytes(range(200))
    assert applied(content, [Mutation(Damage.FLIP, 0.5, value=9)])[100] == 100 ^ 2
    assert len(applied(content, [Mutation(Damage.DELETE, 0.5, 10)])) == 190
    assert len(applied(content, [Mutation(Damage.INSERT, 0.5, 10)])) == 210
    assert applied(content, [Mutation(Damage.DUPLICATE, 0.0, 3)])[:6] == bytes([0, 1, 2, 0, 1, 2])
    assert applied(content, [Mutation(Damage.TRUNCATE, 0.25)]) == content[:50]
    assert applied(content, [Mutation(Damage.ZERO, 0.5, 500)])[100:] == bytes(100)
    assert drawn(random.Random(7)) == drawn(random.Random(7))
    dataset = base_dataset()
    stream = io.BytesIO()
    dataset.save_as(stream)
    whole = stream.getvalue()
    changed = applied(whole, [Mutation(Damage.LENGTH, 0.9, 2, 0)])
    assert sum(a != b for a, b in zip(whole, changed, strict=True)) in range(1, 5)
    assert pydicom.dcmread(io.BytesIO(whole)).Rows == 64
