"""Nobody is told what runs here: libraries that report to their makers leave an identifier at home."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).parents[2]
SAMPLE = Path(pipeline.__file__).with_name("self_test.zip")

needs_onnx_runtime = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs onnxruntime")
# Stands for a machine that is online, and notes whose address was looked up.
TRAINING = """
import socket
asked = []
socket.getaddrinfo = lambda host, *_, **__: asked.append(host) or []
import detector.learn.train
from ultralytics.utils import ONLINE
print(asked, ONLINE)
"""


# Two commands of one process, which ends with neither.
BOTH = """
import sys
from pipeline.cli import main
for words in (sys.argv[1:], ["doctor"]):
    sys.argv = ["lumbar", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""


@needs_onnx_runtime
def test_neither_grading_nor_a_look_at_the_installation_leaves_anything_at_home(tmp_path: Path) -> None:
    """Where nothing says that tests are run."""
    home, graded = tmp_path / "home", tmp_path / "graded"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    outputs = ["--sr", "--sc", "--gsps", "--kos"]
    command = [sys.executable, "-c", BOTH, "predict", str(SAMPLE), "-o", str(graded), *outputs]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=home, env=environment)
    assert (graded / "submission.csv").is_file() and "packages" in done.stdout
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_training_asks_no_name_server_whether_it_is_online() -> None:
    pytest.importorskip("ultralytics")
    without = {name: value for name, value in os.environ.items() if not name.startswith("YOLO_")}
    done = subprocess.run(
        [sys.executable, "-c", TRAINING], check=True, capture_output=True, text=True, cwd=ROOT, env=without
    )
    assert done.stdout.splitlines()[-1] == "[] False"
