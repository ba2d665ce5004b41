"""Crop caches: the same whatever the number of processes, resumable, and honest about what they hold."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from classifier.config import GROUP_GRADERS, CropConfig, GraderName, default_config
from classifier.learn.batches import central_crop
from classifier.learn.crop_cache import CropCache, CropsUnusable, build_cache, cut_study, load_cache
from classifier.learn.sources import phantom_sources, rsna_sources
from classifier.prior import level_prior
from classifier.target_crops import target_crop
from data_prep.phantom import write_dataset
from data_prep.vocabulary import TARGETS, ConditionGroup, Severity, Target

FIRST_SEED = 5
SMALL_CROPS = {
    group: replace(default_config(group).crop, size_px=24, margin_px=4, margin_slices=1)
    for group in GROUP_GRADERS
}


def build(folder: Path, *, jobs: int = 1, enriched: bool = False) -> Path:
    sources = phantom_sources(2, FIRST_SEED, enriched=enriched, size="small")
    list(build_cache(sources, folder, SMALL_CROPS, natural_grades=not enriched, jobs=jobs))
    return folder


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("cache"))


def test_cache_holds_every_target_with_its_truth(cache_folder: Path) -> None:
    counts = {group: len(load_cache(cache_folder, group, SMALL_CROPS[group])) for group in GROUP_GRADERS}
    assert counts == {"spinal": 10, "foraminal": 20, "subarticular": 20}
    cache = load_cache(cache_folder, GraderName.FORAMINAL, SMALL_CROPS[GraderName.FORAMINAL])
    assert len(set(cache.row_ids.tolist())) == 20
    assert np.allclose(cache.truth.sum(axis=1), 1, atol=1e-6)
    assert cache.valid[:, SMALL_CROPS[GraderName.FORAMINAL].cached_slices // 2].all()
    assert cache.crops.std(axis=(1, 2, 3)).min() > 10
    for row, row_id in enumerate(cache.row_ids):
        target = next(t for t in TARGETS if row_id.endswith(f"_{t.column}"))
        assert np.allclose(np.exp(cache.log_prior[row]), level_prior(target), atol=1e-5)


def test_processes_do_not_change_the_cache_and_a_second_build_does_nothing(
    cache_folder: Path, tmp_path: Path
) -> None:
    build(tmp_path, jobs=2)
    names = sorted(path.name for path in cache_folder.glob("*.npz"))
    assert names == ["000005.npz", "000006.npz"]
    for name in names:
        with np.load(cache_folder / name) as one, np.load(tmp_path / name) as other:
            assert all(np.array_equal(one[key], other[key]) for key in one.files)
    sources = phantom_sources(2, FIRST_SEED, size="small")
    assert list(build_cache(sources, tmp_path, SMALL_CROPS, natural_grades=True)) == []


def test_what_is_made_of_something_else_is_cut_again(tmp_path: Path) -> None:
    build(tmp_path)
    other = phantom_sources(1, FIRST_SEED + 1, size="small", scanners="unseen")
    cut = build_cache(other, tmp_path, SMALL_CROPS, natural_grades=True)
    assert [(item.name, item.is_anew) for item in cut] == [("000006", True)]
    assert list(build_cache(other, tmp_path, SMALL_CROPS, natural_grades=True)) == []


@pytest.mark.parametrize("change", ["labels", "points", "image"])
def test_a_study_whose_labels_points_or_images_changed_is_cut_again(tmp_path: Path, change: str) -> None:
    write_dataset(tmp_path, studies=1, seed=4, size="small")
    (before,) = rsna_sources(tmp_path)
    assert rsna_sources(tmp_path)[0].made_of == before.made_of
    if change == "image":
        next(tmp_path.rglob("*.dcm")).unlink()
    else:
        path = tmp_path / {"labels": "train.csv", "points": "train_label_coordinates.csv"}[change]
        table = pd.read_csv(path, dtype=str)
        table.iloc[0, -1] = "Severe" if change == "labels" else "77.7"
        table.to_csv(path, index=False)
    (after,) = rsna_sources(tmp_path)
    assert after.made_of != before.made_of


def test_studies_that_lack_something_are_named(tmp_path: Path) -> None:
    write_dataset(tmp_path, studies=3, seed=4, size="small")
    studies = sorted(path.name for path in (tmp_path / "train_images").iterdir())
    for name, lacking in (("train.csv", 0), ("train_label_coordinates.csv", 1)):
        table = pd.read_csv(tmp_path / name, dtype=str)
        table[table["study_id"] != studies[lacking]].to_csv(tmp_path / name, index=False)
    said: list[str] = []
    assert [source.name for source in rsna_sources(tmp_path, said.append)] == [studies[2]]
    assert said == [
        f"[left_out] 1 x study without labels ({studies[0]})",
        f"[left_out] 1 x study without points ({studies[1]})",
    ]


def test_a_cache_of_another_cut_is_refused(cache_folder: Path) -> None:
    other = {group: replace(crop, size_mm=30.0) for group, crop in SMALL_CROPS.items()}
    with pytest.raises(ValueError, match="cut with another configuration"):
        list(build_cache([], cache_folder, other, natural_grades=True))
    with pytest.raises(ValueError, match="not cut for this spinal configuration"):
        load_cache(cache_folder, GraderName.SPINAL, CropConfig())
    with pytest.raises(ValueError, match="no crop cache"):
        load_cache(cache_folder / "nothing", GraderName.SPINAL, CropConfig())


def test_a_broken_file_of_a_cache_is_named(cache_folder: Path, tmp_path: Path) -> None:
    folder, crop = Path(shutil.copytree(cache_folder, tmp_path / "crops")), SMALL_CROPS[GraderName.SPINAL]
    file = folder / "000006.npz"
    for content in (b"", b"no archive", file.read_bytes()[:5000]):
        file.write_bytes(content)
        with pytest.raises(CropsUnusable, match=r"'crops/000006.npz' is broken.* delete it and cut again"):
            load_cache(folder, GraderName.SPINAL, crop)
    build(folder)
    assert len(load_cache(folder, GraderName.SPINAL, crop)) == 10
    (folder / "cache.json").write_text("{")
    with pytest.raises(CropsUnusable, match=r"'crops/cache.json' does not say"):
        load_cache(folder, GraderName.SPINAL, crop)


def test_points_that_are_left_out_are_told(tmp_path: Path) -> None:
    write_dataset(tmp_path, studies=1, seed=4, size="small")
    path = tmp_path / "train_label_coordinates.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[0, "x"] = "-5"
    table.to_csv(path, index=False)
    (cut,) = build_cache(rsna_sources(tmp_path), tmp_path / "crops", SMALL_CROPS, natural_grades=True)
    assert [text.split(":")[0] for text in cut.problems] == ["outside_image"] and not cut.is_anew


def test_enriched_phantoms_have_many_severe_targets_and_their_own_prior(tmp_path: Path) -> None:
    folder = build(tmp_path, enriched=True)
    cache = load_cache(folder, GraderName.SUBARTICULAR, SMALL_CROPS[GraderName.SUBARTICULAR])
    assert cache.truth.mean(axis=0)[Severity.SEVERE.index] > 0.12
    shares = np.exp(cache.log_prior)
    assert np.allclose(shares.sum(axis=1), 1, atol=1e-5)
    joined = CropCache.join([cache, cache])
    assert len(joined) == 2 * len(cache)


def test_the_middle_of_a_cached_crop_is_the_crop_that_is_graded() -> None:
    load = phantom_sources(1, 5, size="small")[0].load
    item = load()
    assert item is not None
    point = next(p for p in item.points if p.condition.group is ConditionGroup.SUBARTICULAR)
    config = default_config(GraderName.SUBARTICULAR).crop
    direct = target_crop(item.study, point, config)
    larger = target_crop(item.study, point, config, cached=True)
    assert not isinstance(direct, str) and not isinstance(larger, str)
    pixels, valid = central_crop(np.rint(larger.pixels * 255).astype(np.uint8), larger.valid, config)
    assert np.array_equal(valid, direct.valid)
    assert np.abs(pixels - direct.pixels)[direct.pixels < 0.9].mean() < 0.02


def test_real_annotated_points_give_real_crops(real_rsna: Path) -> None:
    found = {source.name: source.load for source in rsna_sources(real_rsna)}
    assert {"4003253", "100206310"} <= set(found)
    item = found["4003253"]()
    assert item is not None
    arrays = cut_study(item, SMALL_CROPS)
    assert len(arrays["spinal.crops"]) == 5
    assert len(arrays["foraminal.crops"]) == 10 and len(arrays["subarticular.crops"]) >= 8
    assert all(set(p.round(6)) == {0.0, 1.0} for p in item.truth.values())
    assert all(isinstance(target, Target) for target in item.labels)
