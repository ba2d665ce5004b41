"""How many studies are done at a time where nobody says it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.batch import processes
from pipeline.batch.processes import jobs_for
from pipeline.cli import app
from pipeline.grade import Pipeline
from tests.pipeline.stand_in import write_studies


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Four processors and memory for all of them."""
    monkeypatch.setattr(processes, "available_threads", lambda: 4)
    monkeypatch.setattr(processes, "available_memory_mb", lambda: 16_000.0)
    return monkeypatch


@pytest.mark.parametrize(
    ("studies", "drawn", "jobs"),
    [(0, True, 1), (1, True, 1), (5, True, 1), (6, True, 2), (1000, True, 4), (8, False, 1), (16, False, 2)],
)
def test_a_few_studies_are_done_in_this_process_and_many_by_a_worker_per_processor(
    machine: pytest.MonkeyPatch, studies: int, drawn: bool, jobs: int
) -> None:
    assert jobs_for(studies, drawn=drawn) == jobs


@pytest.mark.parametrize(("memory_mb", "jobs"), [(100.0, 1), (2000.0, 2), (float("inf"), 4)])
def test_there_are_no_more_workers_than_memory_for_them(
    machine: pytest.MonkeyPatch, memory_mb: float, jobs: int
) -> None:
    machine.setattr(processes, "available_memory_mb", lambda: memory_mb)
    assert jobs_for(1000, drawn=True) == jobs


@pytest.mark.parametrize(
    ("options", "here"), [([], False), (["--jobs", "1"], True), (["--threads", "1"], True)]
)
def test_a_folder_of_many_studies_is_given_to_workers_unless_somebody_says_otherwise(
    tmp_path: Path,
    bundled_pipeline: Pipeline,
    machine: pytest.MonkeyPatch,
    options: list[str],
    here: bool,
) -> None:
    machine.setattr(processes, "_PAYS_FROM", {"drawn": 1, "plain": 1})
    loaded_here = []

    def load(cls: type[Pipeline], **_: object) -> Pipeline:
        loaded_here.append(cls)
        return bundled_pipeline

    machine.setattr(Pipeline, "load", classmethod(load))
    images = write_studies(tmp_path / "test_images", ["501", "502"])
    arguments = ["predict", str(images), "-o", str(tmp_path / "out"), "--no-report", "--no-pictures"]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code in (0, 3), result.output
    assert bool(loaded_here) is here
    assert len((tmp_path / "out/submission.csv").read_text().splitlines()) == 1 + 2 * 25
