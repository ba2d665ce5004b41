"""How many studies are done at a time where nobody says it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_prep.read.entry import StudyEntry
from pipeline.batch import processes
from pipeline.batch.engines import Died, EngineFailed, Event, Ready, WorkerEngine
from pipeline.batch.processes import jobs_for
from pipeline.batch.study_work import FinishedStudy, StudyWork
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


class ScriptedCrew(WorkerEngine):
    """An engine whose workers are no processes: of each that is hired it was said what becomes of it."""

    def __init__(self, size: int, *fates: str) -> None:
        super().__init__(lambda _: None)
        self.size, self._fates, self._hired = size, fates, 0
        self._starting: list[int] = []
        self._busy: list[int] = []

    @contextmanager
    def crew(self, work: StudyWork, first: StudyEntry) -> Iterator[ScriptedCrew]:
        yield self

    def hire(self) -> int:
        self._starting.append(self._hired)
        self._hired += 1
        return self._hired - 1

    def give(self, worker: int, entry: StudyEntry) -> None:
        self._busy.append(worker)

    def wait(self) -> list[tuple[int, Event]]:
        assert self._starting or self._busy, "it would wait for ever"
        if self._starting:
            worker = self._starting.pop(0)
            return [(worker, Died("killed") if self._fates[worker] == "does not start" else Ready())]
        worker = self._busy.pop(0)
        return [(worker, Died("killed") if self._fates[worker] == "dies" else FinishedStudy({}))]


def finished(engine: ScriptedCrew, studies: int) -> list[tuple[str, bool]]:
    entries = [StudyEntry(str(number), None) for number in range(studies)]
    done = engine.finish(StudyWork(), entries, lambda *_: None)
    return [(entry.study_id, isinstance(what, FinishedStudy)) for entry, what in done]


def test_the_last_worker_is_replaced_though_others_could_not_start() -> None:
    """As where memory suffices for one worker: the others are killed at their start, then that one."""
    never = "does not start"
    crew = ScriptedCrew(2, "dies", never, never, never, "works", "works")
    assert finished(crew, 2) == [("0", True), ("1", True)]
    with pytest.raises(EngineFailed, match="no worker can start: killed"):
        finished(ScriptedCrew(2, "dies", *[never] * 9), 2)


def test_a_study_whose_workers_die_is_given_up_and_no_other() -> None:
    assert finished(ScriptedCrew(1, "dies", "dies", "dies", "works"), 2) == [("0", False), ("1", True)]
