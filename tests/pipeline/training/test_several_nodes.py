"""``lumbar train`` on several machines: the processes share the jobs, none waits for one that is gone."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.training import ranks
from pipeline.training.ranks import RankFailed, Ranks
from pipeline.training.stages import Job, Stages

ROOT = Path(__file__).resolve().parents[3]
# What ``lumbar train`` does, with jobs that take no time; in the second round the second machine fails.
WORKER = """
    import sys
    import time
    from pathlib import Path

    import pipeline.training.ranks
    from pipeline.training.ranks import Ranks
    from pipeline.training.stages import Job, Stages

    pipeline.training.ranks.GRACE_S = 2.0
    ranks = Ranks.taken_from_environment()
    stages = Stages(Path(sys.argv[1]), ranks, lambda text: None)

    def work(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "by").write_text(f"{ranks.rank} of {ranks.world}, local {ranks.local_rank}")

    def fail(folder):
        if ranks.rank == 1:
            raise RuntimeError("this machine fails")
        work(folder)

    stages.do([Job(f"first/{number}", "1", work) for number in range(4)])
    stages.do([Job(f"second/{number}", "1", fail) for number in range(4)])
"""


def test_two_nodes_share_the_jobs_and_one_that_fails_ends_both(tmp_path: Path) -> None:
    """Two torchrun agents that meet by rendezvous, as on two machines with one run folder."""
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    torchrun += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=nodes"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(
            [*torchrun, str(script), str(tmp_path / "run")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        said = [node.communicate(timeout=300)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [1, 1], said
    by = [path.read_text() for path in sorted((tmp_path / "run" / "first").glob("*/by"))]
    assert by == [f"{rank} of 2, local 0" for rank in (0, 1, 0, 1)]
    assert any("this machine fails" in text for text in said)


def test_a_process_that_is_done_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "GRACE_S", 0.0)
    with Stages(tmp_path, Ranks(0, 2), lambda _: None) as first:
        first.ranks.check()  # the other one has not come yet
        with Stages(tmp_path, Ranks(1, 2), lambda _: None):
            first.ranks.check()  # it is at work
        first.ranks.check()
        with suppress(KeyboardInterrupt), Stages(tmp_path, Ranks(1, 2), lambda _: None):
            raise KeyboardInterrupt
        with pytest.raises(RankFailed, match="process 1 of this training ended"):
            first.do([Job("never", "1", lambda _: None), Job("done", "1", lambda _: None)])
    assert (tmp_path / "never" / "done.marker").exists()
