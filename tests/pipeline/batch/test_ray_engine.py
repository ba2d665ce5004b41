"""Studies in actors of a real Ray cluster: the same bytes, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
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
from typer.testing import CliRunner

import pipeline.batch.ray_connection
from data_prep.problems import Reason
from data_prep.read.find import find_studies
from data_prep.study import SpineLevels, Study
from pipeline.batch.failures import EngineFailed
from pipeline.batch.ray_connection import connecting, is_installed, own_environment
from pipeline.batch.ray_engine import Expected, RayEngine
from pipeline.batch.run import run_batch
from pipeline.cli import app
from pipeline.grade import Pipeline
from pipeline.prediction import Provenance
from tests.pipeline.batch.test_engines import STUDIES, contents, records, run
from tests.pipeline.stand_in import StraightSpine, stand_in_pipeline, write_study, write_table

_STORE_BYTES = 80 * 1024**2
_HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
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
    """Skips without Ray, and imports nothing: what Ray is told must be said before it is imported."""
    if not is_installed():
        pytest.skip("needs ray: requirements-dev.txt")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray") / "test_images"
    for study_id in STUDIES:
        write_study(folder, study_id)
    write_table(folder, STUDIES)
    return folder


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head with one processor, to which a test adds nodes."""
    needs_ray()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-") as folder:
        for name, value in (
            own_environment() | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder}
        ).items():
            patch.setenv(name, value)
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
    with connecting(cluster.address) as ray:
        load = partial(waiting_pipeline, tmp_path)
        engine = RayEngine(load, plain.provenance, ray, 2, say=said.append)
        report = run_batch(plain, find_studies(images), tmp_path / "ray", engine=engine)
    killer.join()
    assert len(ended) == 1 and any(f"study {ended[0]} is lost" in line for line in said)
    # What killed its worker wherever it was is rejected; all others are as they are without a cluster.
    assert [(r.reason, r.study_id) for r in report.rejections] == [(Reason.WORKER_DIED, "505")]
    assert records(tmp_path / "ray")["505"]["rejected"]
    mine, theirs = contents(tmp_path / "ray"), contents(tmp_path / "local")
    finished = [f"studies/{study_id}.json" for study_id in STUDIES if study_id != "505"]
    assert [mine[name] for name in finished] == [theirs[name] for name in finished]
    # Again for what is left: not one byte differs in the end.
    with connecting(cluster.address) as ray:
        again = RayEngine(stand_in_pipeline, plain.provenance, ray, 1)
        report = run_batch(plain, find_studies(images), tmp_path / "ray", engine=again)
    assert report.n_resumed == len(STUDIES) - 1
    assert contents(tmp_path / "ray") == theirs and report.n_studies == local.n_studies


# A process of its own, as the command line is: what Ray is told must be said before anything imports it, and
# training with ultralytics imports it.
_RAY_OF_OUR_OWN = """
import json, os, subprocess, sys
from pathlib import Path
from pipeline.batch.ray_connection import connecting
from pipeline.batch.ray_engine import RayEngine
from tests.pipeline.stand_in import stand_in_pipeline
from tests.pipeline.batch.test_engines import run

images, out = map(Path, sys.argv[1:])
places, started = set(), set()

def progress(_):
    import ray
    places.update(node["NodeManagerAddress"] for node in ray.nodes())
    ps = ["ps", "-ww", "-eo", "ppid=,args="]
    rows = subprocess.run(ps, capture_output=True, text=True, check=True).stdout.splitlines()
    children = [row.split()[1:] for row in rows if row.split()[0] == str(os.getpid())]
    started.update(Path(word).name for words in children for word in words[:3] if "/ray/" in word)

if __name__ == "__main__":
    with connecting(jobs=1) as connected:
        engine = RayEngine(stand_in_pipeline, stand_in_pipeline().provenance, connected, 1)
        run(images, out, engine, progress=progress)
    import ray
    print(json.dumps({
        "places": sorted(places),
        "started": sorted(started),
        "still_there": ray.is_initialized(),
        "usage_stats": os.environ["RAY_USAGE_STATS_ENABLED"],
        "token_left": "RAY_AUTH_TOKEN" in os.environ,
    }))
"""


def test_a_ray_of_our_own_is_on_the_loopback_address_and_gone_afterwards(
    images: Path, tmp_path: Path
) -> None:
    needs_ray()
    out, local, script = tmp_path / "ray", tmp_path / "local", tmp_path / "own_ray.py"
    script.write_text(_RAY_OF_OUR_OWN)
    root = str(Path(__file__).parents[3])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Short: Ray's sockets lie below it, and their paths may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        done = subprocess.run(
            [sys.executable, script, images, out],
            env=environment | {"PYTHONPATH": root, "TMPDIR": folder},
            cwd=root,
            capture_output=True,
            text=True,
            timeout=200,
        )
        left_over = list(Path(folder).glob("lumbar-ray-*"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.strip().splitlines()[-1]) == {
        "places": ["127.0.0.1"],
        # No dashboard server, autoscaler or log monitor.
        "started": ["gcs_server", "raylet"],
        "still_there": False,
        "usage_stats": "0",
        "token_left": False,
    }
    assert not left_over
    run(images, local, None)
    assert contents(out) == contents(local)


_INTERRUPTED = """
import sys, time
from pathlib import Path
from pipeline.batch.ray_connection import connecting
from pipeline.batch.ray_engine import RayEngine
from pipeline.batch.failures import ended_by_signals
from tests.pipeline.stand_in import stand_in_pipeline
from tests.pipeline.batch.test_engines import run

def waiting():
    Path(sys.argv[3]).touch()
    time.sleep(120)

if __name__ == "__main__":
    with ended_by_signals(), connecting(jobs=1) as connected:
        engine = RayEngine(stand_in_pipeline, stand_in_pipeline().provenance, connected, 1)
        run(Path(sys.argv[1]), Path(sys.argv[2]), engine, progress=lambda _: waiting())
"""


def test_a_run_on_ray_that_is_told_to_end_ends(images: Path, tmp_path: Path) -> None:
    """Ray's own handler would take the signal for a crash, print stacks for ever and leave files behind."""
    needs_ray()
    script, waits = tmp_path / "interrupted.py", tmp_path / "waits"
    script.write_text(_INTERRUPTED)
    root = str(Path(__file__).parents[3])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        running = subprocess.Popen(
            [sys.executable, script, images, tmp_path / "out", waits],
            env=environment | {"PYTHONPATH": root, "TMPDIR": folder},
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
        left_over = list(Path(folder).glob("lumbar-*"))
    assert waits.exists() and running.returncode == 128 + signal.SIGTERM, messages[-2000:]
    assert "received at time" not in messages
    assert not left_over


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


def test_an_address_where_nobody_answers_is_said_at_once(images: Path, tmp_path: Path) -> None:
    needs_ray()
    own_environment()  # before Ray is imported
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    with connecting(address) as ray, pytest.raises(EngineFailed, match="nobody answers"):
        run(images, tmp_path, RayEngine(stand_in_pipeline, Provenance(), ray))


def lumbar(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_what_is_missing_is_said(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("predict", images, "-o", tmp_path / "out")
    needless = lumbar(*arguments, "--address", "127.0.0.1:6379")
    assert needless.exit_code == 2 and "add --engine ray" in needless.stderr
    monkeypatch.setattr(pipeline.batch.ray_connection, "find_spec", lambda _: None)
    missing = lumbar(*arguments, "--engine", "ray")
    assert missing.exit_code == 2 and "pip install '.[ray]'" in missing.stderr
    assert not (tmp_path / "out").exists()
    with pytest.raises(EngineFailed, match="pip install"), connecting():
        pass


def test_a_ray_that_somebody_else_has_imported_is_not_started_without_a_token() -> None:
    needs_ray()
    script = "import ray; from pipeline.batch.ray_connection import connecting; connecting().__enter__()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[3], capture_output=True, text=True
    )
    assert done.returncode == 1 and "would want no token" in done.stderr
