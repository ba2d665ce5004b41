"""Studies in other processes: the same bytes as in this one, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

import detector.predict
from data_prep.base.files import temporary_folder
from data_prep.base.manifest import DEFAULT_BUNDLE
from data_prep.problems import Reason
from data_prep.read.find import find_studies
from pipeline.batch.engines import Engine, EngineFailed
from pipeline.batch.processes import LocalPool
from pipeline.batch.run import BatchReport, run_batch
from pipeline.batch.study_work import clean_up_after_workers
from pipeline.cli import app
from pipeline.grade import Pipeline
from pipeline.model_facts import ModelFacts
from pipeline.results.report.study_report import write_report
from tests.pipeline.batch.deadly import deadly_pipeline, no_pipeline
from tests.pipeline.stand_in import contents, stand_in_pipeline, write_studies

ROOT = Path(__file__).resolve().parents[3]
STUDIES = [str(number) for number in range(501, 507)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six studies, one of them without an image; not to be changed."""
    folder = write_studies(tmp_path_factory.mktemp("engines") / "test_images", STUDIES)
    for path in (folder / "504").rglob("*.dcm"):
        path.write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def local_run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run in this process writes."""
    return written(images, tmp_path_factory.mktemp("local"), None)


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

    def killed(share: float, _: str) -> None:
        if len(told) == 3:
            raise KeyboardInterrupt
        told.append(share)

    pool = LocalPool(stand_in_pipeline, 2)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path, pool, on_stage=killed)
    done = len(list((tmp_path / "studies").glob("*.json")))
    assert told == [1.0, 2.0, 3.0] and 3 <= done < len(STUDIES)
    # With another number of processes.
    report = run(images, tmp_path, LocalPool(stand_in_pipeline, 1))
    assert report.n_resumed == done
    assert contents(tmp_path) == local_run
    # Nothing is left to do: no process is started, which would fail.
    assert run(images, tmp_path, LocalPool(no_pipeline, 2)).n_resumed == len(STUDIES)


def test_workers_that_die_cost_a_restart_and_a_deadly_study_itself_alone(
    images: Path, local_run: dict[str, bytes], tmp_path: Path
) -> None:
    out, entries = tmp_path / "out", find_studies(images)
    pool = LocalPool(partial(deadly_pipeline, "502", "505", tmp_path / "died"), 2)
    report = run_batch(stand_in_pipeline(), entries, out, engine=pool)
    assert (tmp_path / "died").exists()
    assert [r.study_id for r in report.rejections if r.reason is Reason.WORKER_DIED] == ["502"]
    record = records(out)["502"]
    assert record["rejected"] and {target["source"] for target in record["targets"]} == {"prior"}
    others = [name for name in local_run if name.startswith("studies/") and "502" not in name]
    assert len(others) == len(STUDIES) - 1
    assert {name: contents(out)[name] for name in others} == {name: local_run[name] for name in others}
    # Another run, on a machine that it does not kill, tries it again.
    assert run(images, out, None).n_resumed == 0  # the reports are missing
    assert contents(out) == local_run


KILLED = """
    import multiprocessing
    import sys
    from pathlib import Path

    from pipeline.batch.processes import LocalPool
    from tests.pipeline.stand_in import stand_in_pipeline
    from tests.pipeline.batch.test_engines import run

    def done(share, study_id):
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        sys.stdin.read()

    run(Path(sys.argv[1]), Path(sys.argv[2]), LocalPool(stand_in_pipeline, 2), on_stage=done)
"""


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_driver_takes_its_workers_along_and_its_run_goes_on(
    images: Path, local_run: dict[str, bytes], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(images), str(tmp_path)]
    driver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert driver.stdout is not None
    workers = [int(pid) for pid in driver.stdout.readline().split()]
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 60
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workers) == 2 and not any(map(is_alive, workers))
    assert 1 <= run(images, tmp_path, None).n_resumed < len(STUDIES)
    assert contents(tmp_path) == local_run


def test_workers_that_cannot_start_end_the_run_with_a_reason(images: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="no worker can start: its process ended with code 7"):
        run(images, tmp_path, LocalPool(no_pipeline, 2))


def test_scratch_of_a_killed_worker_is_removed_and_that_of_a_living_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures and reports show the images of a patient."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary_folder("lumbar-worker-") as living:
        (living / "picture.png").write_bytes(b"of somebody")
        left = tmp_path / "lumbar-worker-left"
        shutil.copytree(living.parent, left)  # the copy's lock is nobody's
        for folder in (living.parent, left):
            os.utime(folder, (0, 0))
        clean_up_after_workers()
        assert (living / "picture.png").exists() and not left.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_pool_of_the_command_line_writes_the_bytes_of_one_process(
    phantom_data: Path, tmp_path: Path, bundled_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundled models on synthetic studies, with everything that a study gets by default."""

    def load(cls: type[Pipeline], **_: object) -> Pipeline:
        return bundled_pipeline

    monkeypatch.setattr(Pipeline, "load", classmethod(load))
    for jobs in ("1", "2"):  # the workers of two are told its name, and load the models themselves
        arguments = ["predict", str(phantom_data), "-o", str(tmp_path / jobs), "--jobs", jobs, "--json"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["studies"] == 2
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_what_is_known_of_unloaded_models_is_what_the_loaded_ones_say(
    images: Path, bundled_pipeline: Pipeline, tmp_path: Path
) -> None:
    """Else a study would not be taken over by a run of another kind, nor the files be the same."""
    facts = ModelFacts.read()
    assert facts == bundled_pipeline.facts and facts.provenance.models
    with pytest.raises(TypeError, match="the pipeline itself"):
        run_batch(facts, find_studies(images), tmp_path / "out")


def test_the_process_that_gives_out_the_studies_loads_no_network_library(tmp_path: Path) -> None:
    """Its workers do, each its own: a second or two less before the first study."""
    write_studies(tmp_path / "test_images", ["501"])
    code = f"""
        import sys
        from pathlib import Path
        from pipeline.commands.grading_steps import grade_all

        if __name__ == "__main__":
            report = grade_all(Path({str(tmp_path / "test_images")!r}), Path({str(tmp_path / "out")!r}),
                               jobs=2)
            heavy = "torch onnxruntime timm ultralytics matplotlib"
            print(len(report.reports), [name for name in heavy.split() if name in sys.modules])
    """
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines()[-1] == "1 []", done.stderr


def test_weights_that_are_not_the_released_ones_are_said_once_whoever_loads_them(
    images: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(detector.BUNDLED_WEIGHTS[DEFAULT_BUNDLE], weights)
    content = bytearray((weights / "axial.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (weights / "axial.safetensors").write_bytes(content)
    arguments = ["predict", str(images), "-o", str(tmp_path / "out"), "--detector-weights", str(weights)]
    for jobs in ("1", "2"):
        refused = CliRunner().invoke(app, [*arguments, "--jobs", jobs])
        assert refused.exit_code == 1
        assert refused.stderr.count("'weights/axial.safetensors' is not the released file") == 1
    assert not list((tmp_path / "out").glob("*.csv"))
