"""Slices that were read once come back the same."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data_prep.phantom import write_dataset
from detector.learn.slice_cache import cached_slices, load_slices, save_slices
from detector.learn.slices import LabelledSlice
from detector.learn.study_slices import rsna_key
from detector.spec import DetectorKind


def some_slices() -> list[LabelledSlice]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (30, 20)).astype(np.uint8)
    points = rng.random((2, 2, 2))
    points[0, 0] = np.nan
    return [
        LabelledSlice(image, ("L1/L2", "L2/L3"), points, "7", "7/1/2", (image > 99).astype(np.uint8)),
        LabelledSlice(image[:11].copy(), ("L5/S1",), rng.random((1, 2, 2)), "8", "8/1/1"),
    ]


def test_slices_come_back_as_they_were(tmp_path: Path) -> None:
    slices = some_slices()
    save_slices(slices, tmp_path / "s.npz")
    for old, new in zip(slices, load_slices(tmp_path / "s.npz"), strict=True):
        np.testing.assert_array_equal(old.image, new.image)
        np.testing.assert_array_equal(old.keypoints_px, new.keypoints_px)
        assert (old.names, old.patient, old.name) == (new.names, new.patient, new.name)
        assert (old.labels is None) == (new.labels is None)
    np.testing.assert_array_equal(slices[0].labels, load_slices(tmp_path / "s.npz")[0].labels)


def test_a_second_training_makes_nothing(tmp_path: Path) -> None:
    assert len(cached_slices(tmp_path, "key", some_slices)) == 2

    def never() -> list[LabelledSlice]:
        pytest.fail("the slices were cached")

    assert len(cached_slices(tmp_path, "key", never)) == 2


def test_trainings_that_share_a_cache_make_slices_once(tmp_path: Path) -> None:
    made = []

    def slowly() -> list[LabelledSlice]:
        made.append(1)
        time.sleep(0.3)
        return some_slices()

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: cached_slices(tmp_path, "key", slowly), range(2)))
    assert len(made) == 1 and [len(slices) for slices in found] == [2, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["key.npz"]


def test_another_version_is_refused(tmp_path: Path) -> None:
    save_slices(some_slices(), tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as stored:
        arrays = dict(stored) | {"format": np.array(0)}
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(ValueError, match="another version"):
        load_slices(tmp_path / "s.npz")


def test_other_images_under_the_same_points_are_read_anew(tmp_path: Path) -> None:
    write_dataset(tmp_path, studies=1, seed=4, size="small")
    before = rsna_key(tmp_path, DetectorKind.AXIAL)
    assert rsna_key(tmp_path, DetectorKind.AXIAL) == before
    next(tmp_path.rglob("*.dcm")).unlink()
    assert rsna_key(tmp_path, DetectorKind.AXIAL) != before
