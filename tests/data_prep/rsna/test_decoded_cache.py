"""The decoded cache gives back what the DICOM files held, and notices when they change."""

from __future__ import annotations

import os
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from data_prep.phantom import write_dataset
from data_prep.problems import DicomRejected, Reason
from data_prep.read.entry import StudyEntry
from data_prep.read.find import find_studies
from data_prep.rsna import decoded_cache
from data_prep.rsna.decoded_cache import CacheChanged, DecodedCache
from data_prep.study import Study
from data_prep.traits import PLAIN
from data_prep.vocabulary import SeriesKind


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "data", studies=1, seed=5, size="small")
    return tmp_path / "data"


def test_a_study_comes_back_pixel_by_pixel(data: Path, tmp_path: Path) -> None:
    (entry,) = find_studies(data)
    cache = DecodedCache(tmp_path / "cache")
    assert not cache.holds(entry) and cache.digest(entry.study_id) is None
    cache.add(entry)
    assert cache.holds(entry)
    read, kept = entry.load(), cache.load(entry.study_id)
    assert [series.series_id for series in kept.series] == [series.series_id for series in read.series]
    for one, other in zip(read.series, kept.series, strict=True):
        assert (one.kind, one.kind_source) == (other.kind, other.kind_source)
        assert [len(stack) for stack in one.stacks] == [len(stack) for stack in other.stacks]
        for a, b in zip(one.slices, other.slices, strict=True):
            assert a.instance_number == b.instance_number
            assert np.array_equal(a.plane.origin_mm, b.plane.origin_mm) and a.plane.shape == b.plane.shape
            pixels = b.pixels()
            assert pixels.dtype == np.float32 and np.array_equal(a.pixels(), pixels)


def test_a_training_ranks_series_as_prediction_does(data: Path, tmp_path: Path) -> None:
    """Beside the plain T1 a fat-suppressed one, compressed with loss."""
    table = pd.read_csv(data / "train_series_descriptions.csv")
    plain = table[table["series_description"] == "Sagittal T1"].iloc[0]
    images = data / "train_images" / str(plain["study_id"])
    repeated = images / "7"
    repeated.mkdir()
    for path in sorted((images / str(plain["series_id"])).glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        dataset.SeriesDescription, dataset.EchoTime = "T1 FS", 11
        dataset.SeriesInstanceUID += ".7"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.7"
        dataset.LossyImageCompression = "01"
        dataset.save_as(repeated / path.name)
    (entry,) = find_studies(data)
    cache = DecodedCache(tmp_path / "cache")
    cache.add(entry)
    read, kept = entry.load(), cache.load(entry.study_id)
    assert any(series.traits != PLAIN for series in read.series)
    assert [series.traits for series in kept.series] == [series.traits for series in read.series]
    assert [series.unused for series in kept.series] == [series.unused for series in read.series]
    assert kept.flags == read.flags
    for kind in SeriesKind:
        first, second = ([item.series_id for item in study.of_kind(kind)] for study in (read, kept))
        assert first == second


def test_a_cache_of_an_earlier_version_is_made_anew(data: Path, tmp_path: Path) -> None:
    (entry,) = find_studies(data)
    cache = DecodedCache(tmp_path / "cache")
    cache.add(entry)
    path = cache.path(entry.study_id)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["study.json"] = content["study.json"].replace(b"lumbar-decoded/3", b"lumbar-decoded/2")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data_of in content.items():
            archive.writestr(name, data_of)
    assert not cache.holds(entry)
    with pytest.raises(DicomRejected, match="run the training again"):
        cache.load(entry.study_id)


def test_what_a_run_made_of_an_earlier_cache_is_made_anew(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest of a run's steps holds that of its studies: a step of studies kept otherwise is not done."""
    (entry,) = find_studies(data)
    cache = DecodedCache(tmp_path / "cache")
    cache.add(entry)
    now = cache.digest(entry.study_id)
    monkeypatch.setattr(decoded_cache, "_FORMAT", "lumbar-decoded/2")
    cache.add(entry)
    earlier = cache.digest(entry.study_id)
    assert now is not None and earlier is not None and now != earlier


def test_changed_files_are_read_again_and_bad_ones_stay_rejected(data: Path, tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path / "cache")
    files = sorted((data / "train_images").rglob("*.dcm"))
    bad = files[3]
    content = bytearray(bad.read_bytes())
    content[-600:] = b"\xff" * 600
    bad.write_bytes(content)
    (entry,) = find_studies(data)
    cache.add(entry)

    def readable(load: object) -> list[bool]:
        out = []
        for series in load.series:  # type: ignore[attr-defined]
            for item in series.slices:
                try:
                    item.pixels()
                    out.append(True)
                except DicomRejected:
                    out.append(False)
        return out

    assert readable(cache.load(entry.study_id)) == readable(entry.load())
    os.utime(files[0], ns=(1, 1))
    assert not cache.holds(entry)


def test_a_rejected_study_is_remembered_and_a_damaged_file_is_no_study(data: Path, tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path / "cache")
    for path in (data / "train_images").rglob("*.dcm"):
        path.write_text("no image")
    (entry,) = find_studies(data)
    cache.add(entry)
    assert cache.holds(entry)
    with pytest.raises(DicomRejected) as rejected:
        cache.load(entry.study_id)
    assert rejected.value.rejection.reason is Reason.NO_SERIES and rejected.value.rejections

    path = cache.path(entry.study_id)
    path.write_bytes(path.read_bytes()[:40])
    assert not cache.holds(entry)
    with pytest.raises(DicomRejected, match="not in the decoded cache"):
        cache.load(entry.study_id)


def test_two_runs_that_share_a_cache_read_a_study_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,) = find_studies(data)
    reads = []

    def slowly(self: StudyEntry) -> Study:
        reads.append(self.study_id)
        time.sleep(0.3)
        return load(self)

    load = StudyEntry.load
    monkeypatch.setattr(StudyEntry, "load", slowly)
    runs = [DecodedCache(tmp_path / "cache") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda cache: cache.add(entry), runs))
    assert len(reads) == 1 and all(cache.holds(entry) for cache in runs)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{entry.study_id}.zip"]


def test_images_that_another_run_has_put_there_are_not_taken_for_ours(data: Path, tmp_path: Path) -> None:
    """Data sets may hold different series of the same studies."""
    ours, theirs = DecodedCache(tmp_path / "cache"), DecodedCache(tmp_path / "cache")
    (entry,) = find_studies(data)
    ours.add(entry)
    assert ours.holds(entry) and ours.load(entry.study_id).series
    next((data / "train_images").rglob("*.dcm")).unlink()
    (other,) = find_studies(data)
    assert not theirs.holds(other)
    theirs.add(other)
    assert theirs.load(entry.study_id).series
    with pytest.raises(CacheChanged, match="a cache of its own"):
        ours.load(entry.study_id)
