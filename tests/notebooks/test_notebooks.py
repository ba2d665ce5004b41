"""The notebooks run from top to bottom on a synthetic data set, and carry no outputs of anyone's data."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from classifier.metric import score
from data_prep.phantom import write_dataset
from pipeline.results.submission import validate_submission

nbformat = pytest.importorskip("nbformat", reason="needs the requirements for development")
nbclient = pytest.importorskip("nbclient", reason="needs the requirements for development")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = ["01_data", "02_detector", "03_graders", "04_end_to_end", "kaggle_submission"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebook-data")
    write_dataset(folder, studies=2, seed=5, size="small")
    return folder


class Shell(InteractiveShell):
    """Pictures are drawn in the notebook, so that no window has to be served."""

    def enable_gui(self, gui: str | None = None) -> None:
        assert gui is None


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    """What runs the cells in a kernel, but in this process: imports take longer than most notebooks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        # Notebooks leave what they made, for who reads on.
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("left")))
        options = Config({"HistoryManager": {"enabled": False}, "InteractiveShell": {"colors": "nocolor"}})
        made = Shell.instance(config=options, user_module=ModuleType("notebook"))
        yield made
        plt.close("all")
        made.restore_sys_module_state()
        Shell.clear_instance()


def parametrised(name: str, values: dict[str, Any]) -> Any:
    """A notebook with other parameters."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    lines = parameters.source.splitlines()
    for key, value in values.items():
        (place,) = [number for number, line in enumerate(lines) if line.startswith(f"{key} = ")]
        lines[place] = f"{key} = {value!r}" if not isinstance(value, Path) else f"{key} = {str(value)!r}"
    parameters.source = "\n".join(lines)
    return notebook


def execute(name: str, values: dict[str, Any], shell: InteractiveShell) -> str:
    """Run a notebook with other parameters; its text outputs. Raises when a cell does."""
    # What another notebook named is not there.
    shell.reset(new_session=False)
    said = []
    for cell in parametrised(name, values).cells:
        if cell.cell_type == "code":
            wide = pd.option_context("display.width", 1000, "display.max_columns", None)
            with capture_output() as captured, wide:
                shell.run_cell(cell.source).raise_error()
            said += [captured.stdout, *(out.data.get("text/plain", "") for out in captured.outputs)]
    return "\n".join(said)


def test_all_notebooks_are_tested_and_committed_without_outputs() -> None:
    assert [path.stem for path in NOTEBOOKS] == NAMES
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        prose = sum(cell.cell_type == "markdown" for cell in notebook.cells)
        assert prose >= 4, f"{path.name} explains too little"
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_the_data_as_jupyter_runs_it(data: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    notebook = parametrised("01_data", {"DATA": data})
    client = nbclient.NotebookClient(notebook, kernel_name="python3", timeout=300)
    client.execute(cwd=str(ROOT), env=environment)
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert all(out.output_type != "error" for out in outputs)
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 3
    text = "\n".join(out.get("text", "") or str(out.get("data", {}).get("text/plain", "")) for out in outputs)
    assert "2 studies, 50 labels, 50 points" in text and "placeholders" in text


def test_the_detector(data: Path, shell: InteractiveShell) -> None:
    text = execute("02_detector", {"DATA": data, "TRAINING_VIEWS": 8}, shell)
    assert "numbering confidence" in text and "median_in_plane_mm" in text and "train/pose_loss" in text


def test_the_graders(data: Path, shell: InteractiveShell) -> None:
    text = execute("03_graders", {"DATA": data, "EPOCHS": 1}, shell)
    assert "'spinal': 10" in text and "choosing_loss" in text and "level prior" in text


def test_end_to_end(data: Path, shell: InteractiveShell) -> None:
    text = execute("04_end_to_end", {"DATA": data}, shell)
    assert "any_severe_spinal" in text and "wrong level: 0 of 50" in text
    # The score is the one of the submission, as ``lumbar score`` gives it.
    submission, truth = shell.user_ns["submission"], shell.user_ns["truth"]
    report = score(submission, truth)
    scores = shell.user_ns["scores"]
    assert scores["score"]["value"] == pytest.approx(report.score, abs=1e-9)
    assert scores["any_severe_spinal"]["value"] == pytest.approx(report.any_severe_spinal, abs=1e-9)
    pull = shell.user_ns["pipeline"].facts.any_severe_pull
    assert pull > 0, "else nothing is tested"


def test_the_kaggle_notebook_writes_a_valid_submission(
    data: Path, tmp_path: Path, shell: InteractiveShell
) -> None:
    # As it is there: test_images alone, weights from a data set, and a sample with one more study.
    shown = tmp_path / "input"
    shown.mkdir()
    (shown / "test_images").symlink_to(data / "train_images")
    (shown / "test_series_descriptions.csv").symlink_to(data / "train_series_descriptions.csv")
    sample = pd.read_csv(data / "sample_submission.csv")
    extra = sample.assign(row_id=sample["row_id"].str.replace(r"^\d+", "111", regex=True)).drop_duplicates(
        "row_id"
    )
    pd.concat([sample, extra]).to_csv(shown / "sample_submission.csv", index=False)
    text = execute("kaggle_submission", {"INPUT": shown, "BUNDLE": tmp_path / "none", "OUT": tmp_path}, shell)
    submission = pd.read_csv(tmp_path / "submission.csv", dtype={"row_id": str})
    studies = sorted(path.name for path in (data / "train_images").iterdir())
    validate_submission(submission, [*studies, "111"])
    assert f"{len(submission)} rows written" in text and len(submission) == 75
    assert "none in BUNDLE, so the bundled ones grade" in text
    assert "25 rows of the sample have no images and get the level prior: studies 111" in text
