"""A written phantom data set is RSNA-shaped, and its bytes depend on the seed alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest

import data_prep.phantom.files
from data_prep.geometry import SlicePlane
from data_prep.phantom import make_study, write_dataset
from data_prep.phantom.files import NotSynthetic
from data_prep.vocabulary import CONDITIONS, LEVELS, SUBMISSION_COLUMNS, TARGETS, SeriesKind, split_row_id
from tests.dicom_tools import dciodvfy_errors, is_valid_uid

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
# Of the two studies, one has full headers and one is RLE compressed (see ``_write_study``).
SEED = 300_010


@pytest.fixture(scope="module", autouse=True)
def really_rendered(phantoms_written_once: Callable[..., Any]) -> Iterator[None]:
    """Files are written when they are asked for; slices are rendered once, and by other processes anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_prep.phantom.files, "_write_study", phantoms_written_once)
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom")
    done: list[int] = []
    write_dataset(out, studies=2, seed=SEED, jobs=1, progress=done.append)
    assert done == [1, 2]
    return out


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def test_bytes_do_not_depend_on_jobs(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, studies=2, seed=SEED, jobs=2)
    assert _hashes(tmp_path) == _hashes(dataset)


def test_a_study_does_not_depend_on_the_data_set_it_is_part_of(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, studies=1, seed=SEED + 1)
    alone, together = _hashes(tmp_path), _hashes(dataset)
    images = {name for name in alone if name.endswith(".dcm")}
    assert images and all(alone[name] == together[name] for name in images)


def test_tables_have_the_rows_and_spellings_of_the_real_ones(dataset: Path) -> None:
    labels = pd.read_csv(dataset / "train.csv")
    points = pd.read_csv(dataset / "train_label_coordinates.csv")
    series = pd.read_csv(dataset / "train_series_descriptions.csv")
    assert list(labels.columns) == ["study_id", *(target.column for target in TARGETS)]
    assert set(np.unique(labels.iloc[:, 1:])) <= {"Normal/Mild", "Moderate", "Severe"}
    assert len(points) == 50
    assert set(points.condition) == {condition.label for condition in CONDITIONS}
    assert set(points.level) == {level.label for level in LEVELS}
    assert set(series.series_description) == {kind.value for kind in SeriesKind}
    for row in points.itertuples():
        assert (
            dataset / "train_images" / str(row.study_id) / str(row.series_id) / f"{row.instance_number}.dcm"
        ).is_file()


def test_table_headers_are_those_of_the_real_files(dataset: Path, real_rsna: Path) -> None:
    for name in (
        "train.csv",
        "train_label_coordinates.csv",
        "train_series_descriptions.csv",
        "sample_submission.csv",
    ):
        header = (dataset / name).read_text().splitlines()[0].split(",")
        assert header == (real_rsna / name).read_text().splitlines()[0].split(",")


def test_oracle_has_a_probability_for_every_row(dataset: Path) -> None:
    oracle = pd.read_csv(dataset / "oracle.csv")
    assert tuple(oracle.columns) == SUBMISSION_COLUMNS
    assert len(oracle) == 50 and oracle.row_id.is_unique
    assert oracle.iloc[:, 1:].sum(axis=1).to_numpy() == pytest.approx(1.0, abs=1e-6)
    phantom = make_study(SEED)
    for row in oracle.itertuples(index=False):
        study_id, target = split_row_id(row.row_id)
        if study_id == phantom.study.study_id:
            assert row[1:] == pytest.approx(phantom.oracle[target], abs=1e-6)


def test_dicom_files_carry_the_geometry_and_the_pixels(dataset: Path) -> None:
    phantom = make_study(SEED)
    for series in phantom.study.series:
        folder = dataset / "train_images" / phantom.study.study_id / series.series_id
        assert len(list(folder.iterdir())) == len(series.slices)
        for item in series.slices[::5]:
            header = pydicom.dcmread(folder / f"{item.instance_number}.dcm")
            plane = SlicePlane.from_dicom(
                header.ImagePositionPatient,
                header.ImageOrientationPatient,
                header.PixelSpacing,
                (header.Rows, header.Columns),
            )
            corners = [(0, 0), (plane.shape[1] - 1, plane.shape[0] - 1)]
            assert plane.to_mm(corners) == pytest.approx(item.plane.to_mm(corners), abs=1e-3)
            assert header.InstanceNumber == item.instance_number
            assert (header.BitsAllocated, header.BitsStored) == (16, 12)
            assert np.array_equal(header.pixel_array, item.pixels())


def test_headers_hold_neither_name_nor_date(dataset: Path) -> None:
    for path in list(dataset.rglob("*.dcm"))[::7]:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert "PatientName" not in header
        assert not [element.tag for element in header if element.VR in ("DA", "TM", "DT")]


def test_description_of_the_data_set(dataset: Path) -> None:
    described = json.loads((dataset / "phantom.json").read_text())
    assert (described["seed"], described["studies"], described["size"]) == (SEED, 2, "small")


@pytest.mark.parametrize(("studies", "jobs", "seed"), [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_senseless_requests_are_refused(tmp_path: Path, studies: int, jobs: int, seed: int) -> None:
    with pytest.raises(ValueError, match="need studies ≥ 1, jobs ≥ 1, seed ≥ 0"):
        write_dataset(tmp_path, studies=studies, seed=seed, jobs=jobs)


def test_quirks_are_written_and_the_tables_tell_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is seen does not matter, and must not be kept.
    rendering = import_module("data_prep.phantom.render")
    monkeypatch.setattr(rendering, "FINEST_MM", 4.0)
    monkeypatch.setattr(import_module("data_prep.phantom.study"), "render_tissue", rendering.render_tissue)
    write_dataset(tmp_path, studies=3, seed=300_110, quirks="all", view="mixed", appearance="mixed")
    labels = pd.read_csv(tmp_path / "train.csv")
    points = pd.read_csv(tmp_path / "train_label_coordinates.csv")
    series = pd.read_csv(tmp_path / "train_series_descriptions.csv")
    assert labels.isna().to_numpy().any()
    assert ((points.x < 7) & (points.y < 7)).any()
    counts = series.groupby(["study_id", "series_description"]).size().unstack(fill_value=0)
    assert (counts == 0).to_numpy().any() and (counts[["Axial T2", "Sagittal T1"]] > 1).to_numpy().any()
    for row in points.itertuples():
        folder = tmp_path / "train_images" / str(row.study_id) / str(row.series_id)
        assert (folder / f"{row.instance_number}.dcm").is_file()
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in tmp_path.rglob("*.dcm")]
    assert {header.PhotometricInterpretation for header in headers} == {"MONOCHROME1", "MONOCHROME2"}
    shapes = {(header.SeriesInstanceUID, header.Rows) for header in headers}
    assert len(shapes) > len({header.SeriesInstanceUID for header in headers})
    assert max(header.InstanceNumber for header in headers) > 100


def test_headers_for_an_archive_are_complete_and_the_pixels_the_same(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, studies=1, seed=SEED, headers="pacs")
    paths = sorted(tmp_path.rglob("*.dcm"))
    headers = [pydicom.dcmread(path) for path in paths]
    assert all(is_valid_uid(header[name].value) for header in headers for name in UIDS)
    assert len({header.SOPInstanceUID for header in headers}) == len(paths)
    assert len({header.StudyInstanceUID for header in headers}) == 1
    assert len({header.SeriesInstanceUID for header in headers}) == 3
    assert {header.PatientID for header in headers} == {f"PHANTOM-{paths[0].parts[-3]}"}
    bare = pydicom.dcmread(dataset / paths[0].relative_to(tmp_path))
    assert np.array_equal(headers[0].pixel_array, bare.pixel_array)
    for path in paths[:: len(paths) // 4]:
        assert dciodvfy_errors(path) == []


def test_labels_of_another_data_set_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("study_id\n1\n")
    with pytest.raises(NotSynthetic, match="not synthetic"):
        write_dataset(tmp_path, studies=1, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]
