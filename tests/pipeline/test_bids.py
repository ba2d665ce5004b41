"""Results as BIDS derivatives, read back as others read them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("nibabel", reason="needs the extra: pip install 'lumbar[nifti]'")

import nibabel
import numpy as np
import pandas as pd
from typer.testing import CliRunner

from data_prep.read.find import find_studies
from pipeline.cli import app
from pipeline.results.bids import TwoOfOneName, check_derivatives, write_derivatives
from tests.nifti_files import write_bids


@pytest.fixture(scope="module")
def graded(phantom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A BIDS data set, and the output folder of its grading."""
    folder = tmp_path_factory.mktemp("bids")
    study = sorted((phantom_data / "train_images").iterdir())[0]
    write_bids(find_studies(study)[0].load(), folder / "raw")
    arguments = ["predict", str(folder / "raw"), "-o", str(folder / "out"), "--bids"]
    done = CliRunner().invoke(app, [*arguments, "--no-report", "--no-pictures", "--threads", "1"])
    assert done.exit_code == 0, done.output
    return folder / "raw", folder / "out"


def test_grades_are_those_of_the_record(graded: tuple[Path, Path]) -> None:
    _, out = graded
    table = pd.read_csv(out / "bids/sub-01/anat/sub-01_desc-lumbar_grades.tsv", sep="\t", na_values="n/a")
    (study,) = json.loads((out / "predictions.json").read_text())["studies"]

    assert len(table) == 25
    assert np.allclose(table[["normal_mild", "moderate", "severe"]].sum(axis=1), 1, atol=1e-6)
    for row, target in zip(table.to_dict("records"), study["targets"], strict=True):
        assert (row["condition"], row["level"]) == (target["condition"], target["level"])
        assert row["severe"] == pytest.approx(target["probabilities"]["severe"])


def test_points_lie_in_the_volumes_that_they_were_seen_in(graded: tuple[Path, Path]) -> None:
    raw, out = graded
    table = pd.read_csv(out / "bids/sub-01/anat/sub-01_desc-lumbar_points.tsv", sep="\t", na_values="n/a")

    assert set(table["structure"]) >= {"disc", "canal", "spinal_canal_stenosis"}
    placed = table.dropna(subset=["series"])
    assert len(placed) == 25
    for row in placed.to_dict("records"):
        volume = nibabel.load(raw / f"sub-01/anat/sub-01_{row['series']}.nii.gz")
        voxel = np.linalg.inv(volume.affine) @ [row["x"], row["y"], row["z"], 1]
        inside = [0 <= place <= side - 1 for place, side in zip(voxel[:3], volume.shape, strict=True)]
        assert all(inside)
        assert abs(voxel[2] + 1 - row["slice"]) <= 1


def test_the_data_set_describes_itself(graded: tuple[Path, Path]) -> None:
    _, out = graded
    described = json.loads((out / "bids/dataset_description.json").read_text())
    sidecar = json.loads((out / "bids/sub-01/anat/sub-01_desc-lumbar_points.json").read_text())
    header = (out / "bids/sub-01/anat/sub-01_desc-lumbar_points.tsv").read_text().partition("\n")[0]

    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "lumbar"
    assert all("Description" in sidecar[column] for column in header.split("\t"))
    assert sidecar["x"]["Units"] == "mm"


def test_a_data_set_of_somebody_else_is_not_described_anew(graded: tuple[Path, Path], tmp_path: Path) -> None:
    """As where INPUT is ``OUT/bids``."""
    shutil.copytree(graded[0], tmp_path / "bids")
    before = (tmp_path / "bids/dataset_description.json").read_bytes()
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "bids"), "-o", str(tmp_path), "--bids"])
    assert done.exit_code == 1 and "that this program did not write" in done.output
    assert (tmp_path / "bids/dataset_description.json").read_bytes() == before
    assert not (tmp_path / "predictions.json").exists()
    check_derivatives(graded[1] / "bids")
    check_derivatives(tmp_path / "none")


def test_two_studies_never_become_one_subject(graded: tuple[Path, Path], tmp_path: Path) -> None:
    predictions = json.loads((graded[1] / "predictions.json").read_text())
    (study,) = predictions["studies"]
    predictions["studies"] = [study, {**study, "study_id": "01"}]
    with pytest.raises(TwoOfOneName, match="sub-01 and 01 would both be sub-01"):
        write_derivatives(predictions, tmp_path)
    assert not list(tmp_path.iterdir())
