"""Studies in actors of a real Ray cluster: the same bytes, whatever dies meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import pipeline.batch.ray_engine
from data_prep.levels import SpineLevels
from data_prep.problems import Reason
from data_prep.read.find import find_studies
from data_prep.study import Study
from pipeline.batch.engines import EngineFailed
from pipeline.batch.ray_engine import (
    Expected,
    OtherFiles,
    RayEngine,
    StudyActor,
    connected,
    is_installed,
)
from pipeline.batch.run import run_batch
from pipeline.batch.study_work import StudyWork, files_seen
from pipeline.grade import Pipeline
from pipeline.prediction import Provenance
from tests.command_line import lumbar
from tests.pipeline.batch.test_engines import STUDIES, contents, records, run
from tests.pipeline.stand_in import (
    StraightSpine,
    stand_in_pipeline,
    write_studies,
)

_STORE_BYTES = 80 * 1024**2
_HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_failure_threshold": 5,
}


class WaitingSpine(StraightSpine):
    """On one node the first study waits for the node's end; 505 takes its worker along, wherever it is."""

    def __init__(self, notes: Path) -> None:
        super().__init__()
        self.notes = notes

    def predict(self, study: Study) -> SpineLevels:
        import ray

        in_hand = self.notes / "in-hand"
        here = ray.get_runtime_context().get_node_id()
        if here == (self.notes / "node").read_text():
            in_hand.write_text(study.study_id)
            time.sleep(120)
        deadline = time.monotonic() + 60
        while not in_hand.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        if study.study_id == "505":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(study)


def waiting_pipeline(notes: Path) -> Pipeline:
    plain = stand_in_pipeline()
    return Pipeline(WaitingSpine(notes), plain.grader, plain.provenance)


def needs_ray() -> None:
    if not is_installed():
        pytest.skip("needs ray: requirements-dev.txt")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_studies(tmp_path_factory.mktemp("ray") / "test_images", STUDIES)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head with one processor, to which a test may add nodes; tests/conftest.py says where it listens."""
    needs_ray()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-") as folder:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("RAY_TMPDIR", folder)
        from ray.cluster_utils import Cluster

        made = Cluster()
        try:
            made.add_node(
                num_cpus=1,
                object_store_memory=_STORE_BYTES,
                include_dashboard=False,
                _system_config=_HEALTH,
            )
            yield made
        finally:
            made.shutdown()


def test_a_node_dies_and_the_bytes_are_those_of_a_local_run(
    cluster: Any, images: Path, tmp_path: Path
) -> None:
    local = run_batch(stand_in_pipeline(), find_studies(images), tmp_path / "local")
    second = cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
    (tmp_path / "node").write_text(second.node_id)
    ended: list[str] = []

    def end_second_node() -> None:
        deadline = time.monotonic() + 90
        while not (tmp_path / "in-hand").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)
        ended.append((tmp_path / "in-hand").read_text())

    killer = threading.Thread(target=end_second_node)
    killer.start()
    said: list[str] = []
    plain = stand_in_pipeline()
    load = partial(waiting_pipeline, tmp_path)
    engine = RayEngine(load, plain.provenance, cluster.address, 2, say=said.append)
    report = run_batch(plain, find_studies(images), tmp_path / "ray", engine=engine)
    killer.join()
    assert len(ended) == 1 and any(f"study {ended[0]} is lost" in line for line in said)
    # What killed its worker wherever it was is rejected; all others are as they are without a cluster.
    assert [r.study_id for r in report.rejections if r.reason is Reason.WORKER_DIED] == ["505"]
    assert records(tmp_path / "ray")["505"]["rejected"]
    mine, theirs = contents(tmp_path / "ray"), contents(tmp_path / "local")
    finished = [f"studies/{study_id}.json" for study_id in STUDIES if study_id != "505"]
    assert [mine[name] for name in finished] == [theirs[name] for name in finished]
    # Again for what is left: not one byte differs in the end.
    again = RayEngine(stand_in_pipeline, plain.provenance, cluster.address, 1)
    report = run_batch(plain, find_studies(images), tmp_path / "ray", engine=again)
    assert report.n_resumed == len(STUDIES) - 1
    assert contents(tmp_path / "ray") == theirs and report.n_studies == local.n_studies


_INTERRUPTED = """
import sys, time
from pathlib import Path
from pipeline.batch.ray_engine import RayEngine
from pipeline.commands.console import ended_by_signals
from tests.pipeline.stand_in import stand_in_pipeline
from tests.pipeline.batch.test_engines import run

def waiting():
    Path(sys.argv[3]).touch()
    time.sleep(120)

if __name__ == "__main__":
    with ended_by_signals():
        engine = RayEngine(stand_in_pipeline, stand_in_pipeline().provenance, sys.argv[4], 1)
        run(Path(sys.argv[1]), Path(sys.argv[2]), engine, on_stage=lambda *_: waiting())
"""


def test_a_run_on_ray_that_is_told_to_end_ends(cluster: Any, images: Path, tmp_path: Path) -> None:
    """Ray's own handler would take the signal for a crash, and print stacks for ever."""
    script, waits = tmp_path / "interrupted.py", tmp_path / "waits"
    script.write_text(_INTERRUPTED)
    root = str(Path(__file__).parents[3])
    running = subprocess.Popen(
        [sys.executable, script, images, tmp_path / "out", waits, cluster.address],
        env=os.environ | {"PYTHONPATH": root},
        cwd=root,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not waits.exists() and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        running.terminate()
        _, messages = running.communicate(timeout=60)
    finally:
        running.kill()
    assert waits.exists() and running.returncode == 128 + signal.SIGTERM, messages[-2000:]
    assert "received at time" not in messages


def test_a_node_that_would_give_other_results_is_not_used(images: Path, tmp_path: Path) -> None:
    entry, provenance = find_studies(images)[0], Provenance({"detector": "1"}, {}, {"torch": "2"})
    expected = Expected.of(provenance, entry)
    assert expected.differences(provenance) == ""
    for other, name in (
        (Provenance({"detector": "2"}, {}, {"torch": "2"}), "detector"),
        (Provenance({"detector": "1"}, {}, {"torch": "3"}), "torch"),
    ):
        assert f"it has another {name}" in expected.differences(other)
    elsewhere = Expected(expected.provenance, tmp_path / "not-mounted.dcm", 10)
    assert "does not see the images" in elsewhere.differences(provenance)


def test_a_node_that_sees_a_part_of_a_study_does_not_grade_that(
    cluster: Any, images: Path, tmp_path: Path
) -> None:
    """A copy under way, a stale mount: the part would be graded, and pass for the study."""
    there, here = tmp_path / "there", tmp_path / "here"
    shutil.copytree(images, here)
    entry = find_studies(here)[0]
    actor = StudyActor(stand_in_pipeline, StudyWork())
    assert actor.start(Expected.of(stand_in_pipeline().provenance, entry)) == ""
    seen = files_seen(entry)
    assert actor.finish(entry, seen).record["study_id"] == entry.study_id
    next((here / entry.study_id / "13").iterdir()).unlink()
    with pytest.raises(OtherFiles, match="sees other files of this study"):
        actor.finish(entry, seen)
    # In a cluster: the study is named and given up, and the others are done.
    shutil.copytree(images, there)
    said: list[str] = []
    provenance = stand_in_pipeline().provenance
    engine = RayEngine(stand_in_pipeline, provenance, cluster.address, 1, say=said.append)
    with pytest.MonkeyPatch.context() as patch:
        as_seen = pipeline.batch.ray_engine.files_seen
        patch.setattr(
            pipeline.batch.ray_engine,
            "files_seen",
            lambda entry: "other" if entry.study_id == "502" else as_seen(entry),
        )
        report = run(there, tmp_path / "out", engine)
    assert any("study 502 is lost: it failed (OtherFiles): it sees other files" in line for line in said)
    assert [item.study_id for item in report.rejections if item.reason is Reason.WORKER_DIED] == ["502"]


def test_an_address_where_nobody_answers_is_said_at_once(images: Path, tmp_path: Path) -> None:
    needs_ray()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(EngineFailed, match="nobody answers"):
        run(images, tmp_path, RayEngine(stand_in_pipeline, Provenance(), address))


def test_what_is_missing_is_said(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("predict", images, "-o", tmp_path / "out")
    needless = lumbar(*arguments, "--address", "127.0.0.1:6379")
    assert needless.exit_code == 2 and "add --engine ray" in needless.stderr
    nowhere = lumbar(*arguments, "--engine", "ray")
    assert nowhere.exit_code == 2 and "wants the --address" in nowhere.stderr
    monkeypatch.setattr(pipeline.batch.ray_engine, "find_spec", lambda _: None)
    missing = lumbar(*arguments, "--engine", "ray", "--address", "127.0.0.1:6379")
    assert missing.exit_code == 2 and "'lumbar[ray]'" in missing.stderr
    assert not (tmp_path / "out").exists()
    with pytest.raises(EngineFailed, match="pip install"), connected("127.0.0.1:6379"):
        pass
