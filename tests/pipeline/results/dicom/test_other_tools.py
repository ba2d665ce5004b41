"""All objects of a synthetic patient, measurements included, judged by other people's tools."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pydicom
import pytest

from data_prep.phantom import write_dataset
from data_prep.read.find import find_studies
from pipeline.grade import Pipeline
from pipeline.results.dicom import ResultObject
from pipeline.results.dicom.write import DicomResults
from tests.dicom_tools import dciodvfy_errors, needs

SEED = 200_127


@pytest.fixture(scope="module")
def objects(bundled_pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("objects")
    write_dataset(folder / "data", studies=1, seed=SEED, headers="pacs")
    (entry,) = find_studies(next((folder / "data" / "train_images").iterdir()))
    prediction, study = bundled_pipeline.predict_entry(entry)
    results = DicomResults(tuple(ResultObject))
    assert results.write(study, prediction, folder) is None
    return results.paths(prediction, folder)


def test_dciodvfy_finds_no_error_in_any_object(objects: tuple[Path, ...]) -> None:
    assert len(objects) == 7  # two reports, picture, key images, an overlay for each of three series
    assert [error for path in objects for error in dciodvfy_errors(path)] == []
    reports = [path for path in objects if path.parent.name.startswith("sr")]
    assert len(reports) == 2
    for path in reports:
        found = {str(item.value) for item in pydicom.dcmread(path).iterall() if item.keyword == "CodeValue"}
        assert {"mm", "mm2", "M_CANAL_DEPTH", "M_SAC_AREA", "M_DISC_HEIGHT"} <= found


def test_dcmtk_takes_the_overlays_for_presentation_states(objects: tuple[Path, ...]) -> None:
    states = [path for path in objects if "gsps" in path.parts]
    assert len(states) == 3
    for path in states:
        done = subprocess.run(
            [needs("dcmpschk", "dcmtk"), str(path)], capture_output=True, text=True, errors="replace"
        )
        assert "Test passed" in done.stdout + done.stderr, done.stdout + done.stderr


def test_dcmtk_reads_the_key_images_with_level_and_grade(objects: tuple[Path, ...]) -> None:
    (path,) = (path for path in objects if path.parent.name == "kos")
    done = subprocess.run([needs("dsr2html", "dcmtk"), str(path)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("MR image") >= 1
    assert "Key Object Selection Document" in done.stdout
    assert "canal: " in done.stdout and ("Moderate" in done.stdout or "Severe" in done.stdout)
