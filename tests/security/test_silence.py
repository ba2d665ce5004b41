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


def left_at_home(home: Path, *arguments: object) -> list[str]:
    """Files that ``lumbar`` leaves in its user's home folder, where nothing says that tests are run."""
    home.mkdir()
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, cwd=home, env=environment)
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


@needs_onnx_runtime
def test_grading_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    graded = tmp_path / "graded"
    outputs = ("--sr", "--sc", "--gsps", "--kos")
    assert left_at_home(tmp_path / "home", "predict", SAMPLE, "-o", graded, *outputs) == []
    assert (graded / "submission.csv").is_file()


@needs_onnx_runtime
def test_nor_does_a_look_at_the_installation(tmp_path: Path) -> None:
    assert left_at_home(tmp_path / "home", "doctor") == []


def test_training_asks_no_name_server_whether_it_is_online() -> None:
    pytest.importorskip("ultralytics")
    without = {name: value for name, value in os.environ.items() if not name.startswith("YOLO_")}
    done = subprocess.run(
        [sys.executable, "-c", TRAINING], check=True, capture_output=True, text=True, cwd=ROOT, env=without
    )
    assert done.stdout.splitlines()[-1] == "[] False"
