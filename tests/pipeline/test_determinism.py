"""The same study gives the same bytes, alone or in a batch, in whatever order the disk lists its files."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from data_prep.read.find import find_studies
from pipeline.batch.run import run_batch
from pipeline.grade import Pipeline
from pipeline.results.report.study_report import write_report
from tests.pipeline.stand_in import stand_in_pipeline, write_study

pytestmark = pytest.mark.usefixtures("really_computed")


@contextmanager
def shuffled_disk(seed: int) -> Iterator[None]:
    """Every listing of a folder comes in another order."""
    scandir, listdir, rng = os.scandir, os.listdir, random.Random(seed)

    class Shuffled:
        def __init__(self, path: Any = ".") -> None:
            with scandir(path) as entries:
                found = list(entries)
            rng.shuffle(found)
            self.entries = iter(found)

        def __iter__(self) -> Iterator[Any]:
            return self.entries

        def __next__(self) -> Any:
            return next(self.entries)

        def __enter__(self) -> Shuffled:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def close(self) -> None:
            pass

    def shuffled_list(path: Any = ".") -> list[Any]:
        found = listdir(path)
        rng.shuffle(found)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", Shuffled)
        patch.setattr(os, "listdir", shuffled_list)
        yield


def test_alone_and_in_any_file_order_a_study_gets_the_bytes_that_it_gets_in_a_batch(
    phantom_data: Path, bundled_pipeline: Pipeline, tmp_path: Path
) -> None:
    images = phantom_data / "train_images"
    batch = run_batch(bundled_pipeline, find_studies(images), tmp_path / "batch")
    first, second = json.loads(batch.predictions.read_text())["studies"]
    with shuffled_disk(7):
        found = find_studies(images / second["study_id"])
        alone = run_batch(bundled_pipeline, found, tmp_path / "alone")
    assert json.loads(alone.predictions.read_text())["studies"] == [second]
    name = f"studies/{second['study_id']}.json"
    assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "batch" / name).read_bytes()
    head, *rows = batch.submission.read_bytes().splitlines(keepends=True)
    assert alone.submission.read_bytes() == head + b"".join(rows[25:])
    assert first["targets"] != second["targets"]


def test_the_order_of_the_disk_changes_no_byte(tmp_path: Path) -> None:
    for study_id in ("501", "502", "503"):
        write_study(tmp_path / "test_images", study_id)
    # Without the layout of RSNA, files are grouped by their headers.
    tree = tmp_path / "tree"
    for number, path in enumerate(sorted((tmp_path / "test_images").rglob("*.dcm"))):
        (tree / str(number % 4)).mkdir(parents=True, exist_ok=True)
        path.rename(tree / str(number % 4) / f"IM{number}")
    written = []
    for seed in (1, 2):
        with shuffled_disk(seed):
            out = tmp_path / f"out{seed}"
            run_batch(stand_in_pipeline(), find_studies(tree), out, report=write_report)
        written.append(
            {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
        )
    assert written[0] == written[1]
    assert "submission.csv" in written[0]
