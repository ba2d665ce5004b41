"""Studies in other processes: the same bytes as in this one, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from data_prep.studies import find_studies
from data_prep.study_types import SpineLevels, Study
from pipeline.batch import BatchReport, run_batch
from pipeline.engines import Engine, EngineFailed
from pipeline.local_pool import LocalPool
from pipeline.predict import Pipeline
from pipeline.report import write_report
from tests.pipeline.stand_in import CANARY, StraightSpine, stand_in_pipeline, write_study, write_table

STUDIES = [str(number) for number in range(501, 507)]


class DeadlySpine(StraightSpine):
    """Takes its process along, always or once, when it sees a study."""

    def __init__(self, study_id: str, once: Path | None = None) -> None:
        super().__init__()
        self.study_id, self.once = study_id, once

    def predict(self, study: Study) -> SpineLevels:
        if study.study_id == self.study_id and (self.once is None or not self.once.exists()):
            if self.once is not None:
                self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(study)


def deadly_pipeline(study_id: str, once: Path | None = None) -> Pipeline:
    plain = stand_in_pipeline()
    return Pipeline(DeadlySpine(study_id, once), plain.grader, plain.provenance)


def no_pipeline() -> Pipeline:
    os._exit(7)


def broken_report(*_: object) -> None:
    raise RuntimeError(CANARY)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six studies, one of them without an image; not to be changed."""
    folder = tmp_path_factory.mktemp("engines") / "test_images"
    for study_id in STUDIES:
        write_study(folder, study_id)
    for path in (folder / "504").rglob("*.dcm"):
        path.write_bytes(b"")
    write_table(folder, STUDIES)
    return folder


@pytest.fixture(scope="module")
def local_run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run in this process writes."""
    return written(images, tmp_path_factory.mktemp("local"), None)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def run(images: Path, out: Path, engine: Engine | None, **options: object) -> BatchReport:
    return run_batch(
        stand_in_pipeline(), find_studies(images), out, engine=engine, report=write_report, **options
    )


def written(images: Path, out: Path, engine: Engine | None) -> dict[str, bytes]:
    run(images, out, engine)
    return contents(out)


def records(out: Path) -> dict[str, dict]:
    return {row["study_id"]: row for row in json.loads((out / "predictions.json").read_text())["studies"]}


def test_a_pool_writes_the_bytes_of_a_single_process_and_goes_on(
    images: Path, local_run: dict[str, bytes], tmp_path: Path
) -> None:
    told: list[float] = []

    def killed(study_id: str) -> None:
        if len(told) == 3:
            raise KeyboardInterrupt

    pool = LocalPool(stand_in_pipeline, 2)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path, pool, progress=killed, on_stage=lambda share, _: told.append(share))
    done = len(list((tmp_path / "studies").glob("*.json")))
    assert told == [1.0, 2.0, 3.0] and 3 <= done < len(STUDIES)
    report = run(images, tmp_path, pool)
    assert report.n_resumed == done
    assert contents(tmp_path) == local_run
    # Nothing is left to do: no process is started, which would fail.
    assert run(images, tmp_path, LocalPool(no_pipeline, 2)).n_resumed == len(STUDIES)


def test_a_study_whose_worker_died_is_done_by_another(
    images: Path, local_run: dict[str, bytes], tmp_path: Path
) -> None:
    load = partial(deadly_pipeline, "502", tmp_path / "died")
    assert written(images, tmp_path / "out", LocalPool(load, 2)) == local_run
    assert (tmp_path / "died").exists()


def test_a_study_that_always_kills_is_rejected_and_costs_nothing_else(
    images: Path, local_run: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = run(images, out, LocalPool(partial(deadly_pipeline, "502"), 2))
    assert [(r.reason.value, r.study_id) for r in report.rejections if r.study_id == "502"] == [
        ("worker_died", "502")
    ]
    record = records(out)["502"]
    assert record["rejected"] and {target["source"] for target in record["targets"]} == {"prior"}
    assert (out / "reports" / "502" / "report.html").is_file()
    others = [name for name in local_run if name.startswith(("studies/", "reports/")) and "502" not in name]
    assert len(others) == 2 * (len(STUDIES) - 1)
    assert {name: contents(out)[name] for name in others} == {name: local_run[name] for name in others}
    # Another run, on a machine that it does not kill, tries it again.
    assert run(images, out, None).n_resumed == len(STUDIES) - 1
    assert contents(out) == local_run


def test_workers_that_cannot_start_end_the_run_with_a_reason(images: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="no worker can start: its process ended with code 7"):
        run(images, tmp_path, LocalPool(no_pipeline, 1))


def test_a_failing_report_costs_a_flag_in_a_pool_too(images: Path, tmp_path: Path) -> None:
    entries = find_studies(images / "501")
    pool = LocalPool(stand_in_pipeline, 1)
    run_batch(stand_in_pipeline(), entries, tmp_path, engine=pool, report=broken_report)
    assert records(tmp_path)["501"]["flags"] == ["level_absent", "report_failed"]
